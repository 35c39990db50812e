"use strict";
/* The table of all runs: fills Dash's grid and keeps it up to date. */
(() => {
  const {element, say} = darkit;
  const h = (...parts) => React.createElement(...parts);
  const fixed = ["state", "name", "progress", "eta", "project", "model", "rate", "duration", "started", "device", "group", "tags", "note", "problem"];
  const hiddenAtFirst = new Set(["note", "problem"]);
  const MOST_KEYS = 100; // columns of config values in one request
  const MOST_REMEMBERED = 200; // selected runs in the address, as many as can be compared
  const onPhone = ["name", "state", "progress"];

  window.dashAgGridFunctions = window.dashAgGridFunctions || {};
  window.dashAgGridFunctions.darkitTheme = (quartz) => {
    const look = {
      fontFamily: "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'Noto Sans CJK SC', sans-serif",
      fontSize: 13, headerFontSize: 12.5, borderRadius: 8, wrapperBorderRadius: 10, spacing: 6,
      accentColor: "#4c6ef5", headerColumnResizeHandleHeight: "35%", checkboxBorderRadius: 4, wrapperBorder: false, columnBorder: false, headerFontWeight: 600, cellHorizontalPadding: 10,
    };
    return quartz
      .withParams({...look, backgroundColor: "#ffffff", foregroundColor: "#212529", headerBackgroundColor: "#f8f9fa"}, "light")
      .withParams(
        {...look, backgroundColor: "#25262b", foregroundColor: "#d5d7da", headerBackgroundColor: "#2c2e33",
          borderColor: "#373a40", browserColorScheme: "dark"},
        "dark",
      );
  };

  const cells = {
    state: ({data}) => {
      const known = ["running", "stalled", "finished", "stopped", "crashed", "broken", "unknown"].includes(data.state);
      const word = known ? say(`state_${data.state}`) : data.state;
      return h("span", {className: `state state-${known ? data.state : "unknown"}`, title: data.problem || data.reason || word},
        h("span", {className: "state-dot"}), word, data.problem && data.state !== "broken" ? " ⚠" : "");
    },
    name: ({data}) => {
      if (!data.opens) return h("span", {className: "muted", title: data.problem}, data.name);
      return h("a", {className: "inner-link run-link", href: darkit.runAddress(data.name), title: data.name}, data.name);
    },
    progress: ({data}) => {
      if (data.step === null || data.state === "broken") return null;
      const words = data.max_step ? `${darkit.count(data.step)} / ${darkit.count(data.max_step)}` : darkit.count(data.step);
      const bar = data.progress === null ? null
        : h("div", {className: "progress"}, h("div", {className: "progress-fill", style: {width: `${100 * data.progress}%`}}));
      return h("div", {className: "cell-progress", title: words}, h("span", null, words), bar);
    },
    tags: ({data}) => h("span", {className: "cell-tags"}, ...data.tags.map((tag) => h("span", {className: "tag", key: tag}, tag))),
  };

  const column = {
    state: {width: 118, valueGetter: ({data}) => say(`state_${data.state}`), cellRenderer: cells.state, pinned: "left"},
    name: {minWidth: 150, width: 210, cellRenderer: cells.name, pinned: "left", field: "name"},
    project: {width: 120},
    model: {width: 110},
    progress: {width: 160, filter: "agNumberColumnFilter", valueGetter: ({data}) => data.step, cellRenderer: cells.progress},
    eta: {width: 110, type: "rightAligned", filter: "agNumberColumnFilter", valueFormatter: ({value}) => darkit.duration(value)},
    rate: {width: 96, type: "rightAligned", filter: "agNumberColumnFilter", valueFormatter: ({value}) => (value ? darkit.rate(value) : "")},
    duration: {width: 116, type: "rightAligned", filter: "agNumberColumnFilter", valueFormatter: ({value}) => darkit.duration(value)},
    started: {width: 148, filter: "agNumberColumnFilter", valueFormatter: ({value}) => darkit.moment(value)},
    device: {width: 90},
    group: {width: 130},
    tags: {width: 150, valueGetter: ({data}) => data.tags.join(", "), cellRenderer: cells.tags},
    note: {width: 220, tooltipField: "note"},
    problem: {width: 260, tooltipField: "problem"},
  };

  const isEmpty = (value) => value === null || value === undefined || value === "";

  /* Sorts numbers by value and texts alphabetically, with the numbers in them by value; empty values come last either way. */
  function order(a, b, nodeA, nodeB, descending) {
    if (isEmpty(a) || isEmpty(b)) return isEmpty(a) === isEmpty(b) ? 0 : isEmpty(a) === descending ? -1 : 1;
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b), darkit.language(), {numeric: true});
  }

  class Table {
    constructor(box) {
      this.box = box;
      this.rows = new Map();
      this.series = [];
      this.keys = [];
      this.projects = [];
      this.numeric = new Set();
      this.version = 0;
      this.first = true;
      this.start();
    }

    async start() {
      const answer = this.fetch(); // while the grid starts
      this.grid = await dash_ag_grid.getApiAsync("grid");
      if (!this.box.isConnected) return;
      const saved = darkit.parameters();
      this.chosen = saved.has("col") ? saved.getAll("col") : null;
      this.picked = saved.getAll("run");
      this.grid.updateGridOptions({
        defaultColDef: {sortable: true, filter: true, resizable: true, comparator: undefined, suppressHeaderMenuButton: false},
        isExternalFilterPresent: () => true,
        doesExternalFilterPass: ({data}) => this.passes(data),
        loading: false,
        onCellKeyDown: ({event, data}) => {
          if (event.key === "Enter" && data.opens) darkit.go(darkit.runAddress(data.name));
        },
      });
      this.grid.addEventListener("selectionChanged", () => this.selected());
      this.grid.addEventListener("sortChanged", () => this.rememberGrid());
      this.grid.addEventListener("columnMoved", (event) => this.rememberOrder(event));
      this.grid.addEventListener("filterChanged", () => {
        this.rememberGrid();
        this.countRows();
      });
      this.update(await answer);
      this.loop = darkit.repeat(() => this.turn());
    }

    passes(row) {
      const query = darkit.parameters();
      if (row.archived && query.get("archived") !== "1") return false;
      if (query.get("project") && row.project !== query.get("project")) return false;
      const words = (query.get("q") || "").toLowerCase().split(/\s+/).filter(Boolean);
      if (!words.length) return true;
      const text = [row.name, row.project, row.model, row.state, say(`state_${row.state}`), row.device, row.group, row.note, ...row.tags].join(" ").toLowerCase();
      return words.every((word) => text.includes(word));
    }

    wantedKeys() {
      const query = darkit.parameters();
      return query.getAll("col").filter((name) => name.startsWith("config:")).map((name) => name.slice(7)).slice(0, MOST_KEYS);
    }

    async fetch() {
      const columns = this.wantedKeys();
      const key = columns.join("\n");
      const since = key === this.columnKey ? this.version : 0;
      this.columnKey = key;
      return (await darkit.ask("/api/runs", {since, columns})).json();
    }

    async turn() {
      if (!this.box.isConnected) {
        this.loop.end();
        return 1e9;
      }
      const answer = await this.fetch();
      this.update(answer);
      if (answer.waiting) return 50; // the server has not read all runs yet
      return [...this.rows.values()].some((row) => row.state === "running") ? 1000 : 2000;
    }

    update(answer) {
      this.version = answer.version;
      this.leftOut = answer.left_out;
      const changed = [];
      const added = [];
      for (const row of answer.rows) {
        (this.rows.has(row.name) ? changed : added).push(row);
        this.rows.set(row.name, row);
      }
      const removed = [];
      if (answer.names) {
        const there = new Set(answer.names);
        for (const [name, row] of this.rows) {
          if (there.has(name)) continue;
          removed.push(row);
          this.rows.delete(name);
        }
      }
      if (answer.keys) {
        this.keys = Object.keys(answer.keys);
        this.numeric = new Set(this.keys.filter((key) => answer.keys[key]));
      }
      const columnsChanged = this.findSeries(answer.rows) | (answer.rows.length && this.findProjects());
      if (this.first || columnsChanged) this.setColumns();
      if (this.first) {
        this.grid.setGridOption("rowData", answer.rows);
        this.restoreGrid();
        this.first = false;
        this.restoreChoice();
      } else if (changed.length || added.length || removed.length) {
        this.grid.applyTransaction({update: changed, add: added, addIndex: 0, remove: removed});
      }
      this.showCount();
    }

    showCount() {
      const empty = this.rows.size === 0;
      document.getElementById("empty-home").hidden = !empty;
      this.box.hidden = empty;
      this.countRows();
      this.box.dataset.filled = String(this.rows.size);
    }

    /* Removes a deleted run at once, before the next update. */
    forget(name) {
      const row = this.rows.get(name);
      if (!row) return;
      this.rows.delete(name);
      this.grid.applyTransaction({remove: [row]});
      this.showCount();
    }

    findSeries(rows) {
      const known = new Set(this.series);
      for (const row of rows) for (const name of Object.keys(row.series)) known.add(name);
      const grew = known.size !== this.series.length;
      this.series = [...known];
      const keyText = this.keys.join("\n");
      const keysGrew = keyText !== this.keyText;
      this.keyText = keyText;
      const grouped = !this.grouped && rows.some((row) => row.group);
      this.grouped = this.grouped || grouped;
      return grew || keysGrew || grouped;
    }

    /* Offers the projects of all runs as a filter; without any, neither the filter nor the column is shown. */
    findProjects() {
      const projects = [...new Set([...this.rows.values()].map((row) => row.project).filter(Boolean))].sort();
      const changed = projects.join("\n") !== this.projects.join("\n");
      const appeared = Boolean(projects.length) !== Boolean(this.projects.length);
      this.projects = projects;
      const chosen = darkit.parameters().get("project");
      const offered = chosen && !projects.includes(chosen) ? [chosen, ...projects] : projects;
      if (changed) dash_clientside.set_props("project", {data: offered, style: offered.length ? {} : {display: "none"}});
      return appeared;
    }

    allColumns() {
      const seriesColumns = this.series.flatMap((name) => [`last:${name}`, `best:${name}`]);
      const own = this.projects.length ? fixed : fixed.filter((id) => id !== "project");
      return [...own.slice(0, 4), ...seriesColumns, ...own.slice(4), ...this.keys.map((key) => `config:${key}`)];
    }

    title(id) {
      if (id.startsWith("config:")) return id.slice(7);
      if (id.startsWith("last:")) return `${id.slice(5)} · ${say("last")}`;
      if (id.startsWith("best:")) return `${id.slice(5)} · ${say("best")}`;
      return say(`col_${id}`);
    }

    shownColumns() {
      if (this.chosen) return this.chosen;
      const narrow = window.innerWidth < 700;
      if (narrow) return [...onPhone, ...this.series.slice(0, 1).map((name) => `last:${name}`)];
      const some = new Set(this.series.slice(0, 4).flatMap((name) => [`last:${name}`, `best:${name}`]));
      return this.allColumns().filter((id) => {
        if (id.startsWith("config:")) return false;
        if (id.includes(":")) return some.has(id);
        if (id === "group") return this.grouped; // of sweeps and repetitions over seeds
        return !hiddenAtFirst.has(id);
      });
    }

    definition(id) {
      const shared = {colId: id, headerName: this.title(id), headerTooltip: this.title(id), comparator: order};
      if (id.includes(":")) {
        const name = id.slice(id.indexOf(":") + 1);
        if (id.startsWith("config:")) {
          const width = Math.max(130, Math.min(290, 50 + 7.2 * name.length));
          const filter = this.numeric.has(name) ? "agNumberColumnFilter" : true;
          return {...shared, width, filter, valueGetter: ({data}) => data.config[name], valueFormatter: ({value}) => (value === undefined ? "" : String(value))};
        }
        const place = id.startsWith("last:") ? 0 : 1;
        return {
          ...shared, headerName: say(place ? "best" : "last"), width: 98, type: "rightAligned", filter: "agNumberColumnFilter",
          valueGetter: ({data}) => data.series[name]?.[place] ?? null, valueFormatter: ({value}) => darkit.number(value),
        };
      }
      const pinned = (id === "name" || id === "state") && window.innerWidth >= 700 ? "left" : null;
      if (id === "note" || id === "problem") shared.tooltipField = id;
      const narrow = {state: 96, name: 196, progress: 118};
      const width = window.innerWidth < 700 ? narrow[id] || column[id].width : column[id].width;
      return {...shared, field: column[id].valueGetter ? undefined : id, ...column[id], pinned, width, minWidth: 60};
    }

    /* Puts last and best of a series under one heading. */
    definitions(ids) {
      const made = [];
      for (const id of ids) {
        const one = this.definition(id);
        const name = /^(last|best):/.test(id) ? id.slice(5) : null;
        const before = made.at(-1);
        if (name !== null && before?.groupId === `series:${name}`) before.children.push(one);
        else if (name !== null) made.push({groupId: `series:${name}`, headerName: name, headerTooltip: name, marryChildren: false, children: [one]});
        else made.push(one);
      }
      return made.map((one) => (one.children?.length === 1 ? {...one.children[0], headerName: one.children[0].headerTooltip} : one));
    }

    setColumns() {
      const shown = this.shownColumns();
      this.grid.setGridOption("columnDefs", this.definitions(shown));
      const data = this.allColumns().map((id) => ({value: id, label: this.title(id)}));
      dash_clientside.set_props("columns", {data, value: shown});
    }

    choose(ids) {
      const standard = this.chosen === null && JSON.stringify(ids) === JSON.stringify(this.shownColumns());
      if (standard) return;
      const before = this.shownColumns();
      const places = this.allColumns();
      const sorted = (columns) => [...columns].sort((a, b) => places.indexOf(a) - places.indexOf(b));
      const moved = JSON.stringify(sorted(before)) !== JSON.stringify(before); // by hand: new ones are appended then
      const kept = before.filter((id) => ids.includes(id));
      this.chosen = moved ? [...kept, ...ids.filter((id) => !kept.includes(id))] : sorted(ids);
      if (JSON.stringify(this.chosen) === JSON.stringify(before)) return;
      darkit.remember({col: this.chosen});
      this.grid.setGridOption("columnDefs", this.definitions(this.chosen));
      if (this.wantedKeys().join("\n") !== this.columnKey) this.loop?.now();
    }

    restoreGrid() {
      const query = darkit.parameters();
      const state = query.getAll("sort").map((text, sortIndex) => {
        const cut = text.lastIndexOf(".");
        return {colId: text.slice(0, cut), sort: text.slice(cut + 1) === "desc" ? "desc" : "asc", sortIndex};
      });
      if (state.length) this.grid.applyColumnState({state});
      try {
        if (query.has("filter")) this.grid.setFilterModel(JSON.parse(query.get("filter")));
      } catch { /* an address edited by hand */ }
    }

    restoreChoice() {
      const ids = this.picked.filter((name) => this.rows.has(name));
      if (ids.length) dash_clientside.set_props("grid", {selectedRows: {ids}});
    }

    rememberGrid() {
      if (this.first) return;
      const sorted = this.grid.getColumnState().filter((one) => one.sort).sort((a, b) => a.sortIndex - b.sortIndex);
      const filter = this.grid.getFilterModel();
      darkit.remember({
        sort: sorted.map((one) => `${one.colId}.${one.sort}`),
        filter: Object.keys(filter).length ? JSON.stringify(filter) : null,
      });
    }

    rememberOrder({finished, source}) {
      if (this.first || !finished || !["uiColumnMoved", "api"].includes(source)) return;
      const known = new Set(this.allColumns());
      this.chosen = this.grid.getAllDisplayedColumns().map((one) => one.getColId()).filter((id) => known.has(id));
      darkit.remember({col: this.chosen});
    }

    filter() {
      this.grid?.onFilterChanged();
      this.countRows();
    }

    countRows() {
      const shown = this.grid.getDisplayedRowCount();
      const all = this.rows.size + (this.leftOut || 0);
      document.getElementById("run-count").textContent =
        shown === all ? darkit.count(all) : say("count_of", {shown: darkit.count(shown), all: darkit.count(all)});
    }

    selected() {
      if (this.first || location.pathname !== "/") return; // the selection is not restored yet, or the page is changing
      const names = this.grid.getSelectedRows().filter((row) => row.opens).map((row) => row.name);
      this.names = names;
      darkit.remember({run: names.length <= MOST_REMEMBERED ? names : []});
      dash_clientside.set_props("selection", {data: names});
      const set = dash_clientside.set_props;
      const away = names.length > 0 && names.every((name) => this.rows.get(name)?.archived);
      const others = names.some((name) => name.includes("/")); // runs of other homes are only read
      set("edit-notes", {disabled: !names.length || others});
      set("archive", {disabled: !names.length || others, children: say(away ? "unarchive" : "archive")});
      set("delete", {disabled: names.length !== 1 || others});
      const word = names.length ? say("compare_count", {count: names.length}) : say("compare");
      set("compare", {disabled: !names.length, children: word});
    }

    compare() {
      const query = new URLSearchParams();
      this.names.forEach((name) => query.append("run", name));
      darkit.go(`/compare?${query}`);
    }
  }

  let table = null;
  darkit.pages.push(() => {
    const box = document.getElementById("grid-box");
    if (box && table?.box !== box) {
      dash_clientside.set_props("selection", {data: []});
      table = new Table(box);
    }
    if (!box && table) {
      table.loop?.end();
      table = null;
    }
  });

  document.addEventListener("click", (event) => {
    if (event.target.id === "compare" && table) table.compare();
    if (["archive", "notes-save", "tag-rename", "delete-now"].includes(event.target.id) && table) setTimeout(() => table?.loop?.now(), 500);
  });

  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input, textarea, select, [contenteditable]");
    if (event.key === "/" && !typing && document.getElementById("search")) {
      event.preventDefault();
      document.getElementById("search").focus();
    }
  });

  Object.assign(dash_clientside.darkit, {
    follow_runs(search, archived, columns, project) {
      darkit.remember({q: search || null, archived: archived ? "1" : null, project: project || null});
      if (table && !table.first) {
        table.choose(columns || []);
        table.filter();
      }
      return search || "";
    },
    leaveDeleted(data) {
      if (data && location.pathname.startsWith("/run/")) darkit.go("/");
      if (data) table?.forget(data.deleted);
      return dash_clientside.no_update;
    },
  });
})();

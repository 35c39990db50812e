"use strict";
/* The table of all runs: fills Dash's grid and keeps it up to date. */
(() => {
  const {say} = darkit;
  const MOST_ASKED = 100; // columns of config values, and of metrics, in one request
  const MOST_MEASURED = 5000; // names, for the width of their column
  const TYPING = 120; // milliseconds after the last key until a query is asked for
  const queryNow = () => (darkit.parameters().get("q") || "").trim();
  const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);

  /* What the rows must have besides what every row has: config values, and metrics of runs with very many. */
  function wanted(wide) {
    const query = darkit.parameters();
    const ids = query.getAll("col");
    const values = (kind) => ids.filter((id) => kind.test(id)).map((id) => id.slice(id.indexOf(":") + 1));
    const keys = [...new Set([...query.getAll("by").filter(darkit.groups.isConfig), ...values(/^config:/)])];
    const metrics = wide === false ? [] : [...new Set(values(darkit.groups.METRIC))];
    return {columns: keys.slice(0, MOST_ASKED), metrics: metrics.slice(0, MOST_ASKED)};
  }

  const request = (since, columns, ask) => ({since, ...columns, query: queryNow(), offset: -new Date().getTimezoneOffset(), zone: darkit.zone(), ask});
  if (darkit.path() === "/") darkit.askEarly("/api/runs", request(0, wanted(), true));

  class Table {
    constructor(box) {
      this.box = box;
      this.rows = new Map();
      this.columns = new darkit.Columns();
      this.version = 0;
      this.first = true;
      this.matching = null; // the runs that the query asks for; null for all
      this.tails = new Map();
      this.openGroups = new Set();
      this.groupOf = new Map();
      darkit.table = this;
      this.start();
    }

    async start() {
      const answer = this.fetch().catch(() => null); // while the grid's script is loaded; what failed is asked for again
      const first = await darkit.grid().then(() => answer, () => null);
      if (!this.box.isConnected) return; // the page was left meanwhile
      if (first) this.begin(first);
      this.loop = darkit.repeat(() => this.turn());
    }

    begin(first) {
      const saved = darkit.parameters();
      this.chosen = saved.has("col") ? saved.getAll("col") : null;
      this.side = new darkit.Side(this);
      this.update(first);
      darkit.later();
    }

    /* Makes the grid of the rows and columns that are known now. */
    makeGrid() {
      this.grid = darkit.makeTable(this);
      this.selection = new darkit.Selection(this);
      this.box.addEventListener("mouseleave", () => this.side.point(null));
      this.statesCame = () => this.eyesChanged();
      document.addEventListener("darkit-states", this.statesCame);
      const mend = () => darkit.mendHeader(this.box);
      new MutationObserver(mend).observe(this.box.querySelector(".ag-header"), {childList: true, subtree: true});
      mend();
      this.restoreGrid();
    }

    end() {
      this.loop?.end();
      this.side?.end();
      this.grid?.destroy();
      document.removeEventListener("darkit-states", this.statesCame);
    }

    passes(row) {
      const query = darkit.parameters();
      if (row.archived && query.get("archived") !== "1") return false;
      if (query.get("project") && row.project !== query.get("project")) return false;
      return this.matching === null || this.matching.has(row.name);
    }

    /* The keys by which runs are grouped; none for a table of single runs. */
    get by() {
      return darkit.groups.keysOf(darkit.parameters().getAll("by"), this.columns.everyDiffering);
    }

    get baseline() {
      const name = darkit.parameters().get("baseline");
      return this.rows.has(name) ? name : null;
    }

    /* What the rows that are here were asked for with. */
    get wantedKey() {
      return JSON.stringify([wanted(this.wide), this.columns.differing, this.columns.everyDiffering]);
    }

    async fetch() {
      const key = this.wantedKey;
      const since = key === this.askedKey ? this.version : 0;
      const body = request(since, wanted(this.wide), queryNow() !== this.asked);
      const answer = (await darkit.askedEarly("/api/runs", body)) || (await (await darkit.ask("/api/runs", body)).json());
      this.askedKey = key; // only now: what failed is asked for again
      return answer;
    }

    async turn() {
      if (this.first) await darkit.grid();
      const answer = this.box.isConnected && (await this.fetch());
      if (!this.box.isConnected) return this.loop.end(); // the page was left, perhaps meanwhile
      if (this.first) this.begin(answer);
      else this.update(answer);
      if (answer.waiting) return 50; // the server has not read all runs yet
      return [...this.rows.values()].some((row) => row.state === "running") ? 1000 : 2000;
    }

    update(answer) {
      this.version = answer.version;
      this.leftOut = answer.left_out;
      const changed = answer.rows.filter((row) => this.rows.has(row.name));
      const added = answer.rows.filter((row) => !this.rows.has(row.name));
      for (const row of changed) this.rows.set(row.name, row);
      if (added.length) this.rows = new Map([...added.map((row) => [row.name, row]), ...this.rows]);
      const there = answer.names && new Set(answer.names);
      const removed = there ? [...this.rows.values()].filter(({name}) => !there.has(name)) : [];
      for (const {name} of removed) this.rows.delete(name);
      const columnsChanged = this.findColumns(answer);
      if (added.length || removed.length) {
        this.tails = darkit.findTails([...this.rows.values()]);
        this.columns.longestTail = Math.max(0, ...[...this.tails].slice(0, MOST_MEASURED).map(([name, tail]) => (tail ? name.length - tail : 0)));
      }
      const grown = this.columns.measure(this.shownColumns(), answer.rows);
      if (columnsChanged && !this.first) this.setColumns();
      const asked = this.applyQuery(answer);
      if (this.first) {
        this.makeGrid();
      } else if (this.by.length) {
        if (changed.length || added.length || removed.length || asked) this.showRows(added, changed);
      } else if (changed.length || added.length || removed.length) {
        this.grid.applyTransaction({update: changed, add: added, addIndex: 0, remove: removed});
      }
      if (this.first) this.offerColumns();
      else if (grown.length) this.grid.refreshCells({columns: grown, force: true});
      if (asked && !this.first) this.grid.onFilterChanged();
      this.first = false;
      if (changed.length || added.length) this.selection.showBaseline();
      this.showCount();
      if (this.selection.names.length && changed.length + added.length + removed.length) this.selection.offer();
      this.selection.restore(answer.waiting);
    }

    /* Takes over which runs the query asks for, and returns whether that changed. Of a query that cannot be read the
       runs of the one before stay. */
    applyQuery(answer) {
      if (answer.query !== queryNow()) return false; // it was changed meanwhile
      const changed = answer.query !== this.asked || "matching" in answer;
      this.asked = answer.query;
      if (!answer.query) this.matching = null;
      else if (answer.matching) this.matching = new Set(answer.matching);
      if (changed) darkit.showQueryProblem(answer.problem ?? null);
      this.box.dataset.query = answer.query;
      return changed;
    }

    /* Shows the rows again; changed runs may have come into another group, as one whose config was written late. */
    showRows(added = [], changed = []) {
      const before = this.groupOf;
      const rows = this.gridRows();
      const moved = changed.filter(({name}) => before.has(name) && this.groupOf.get(name) !== before.get(name));
      this.selection.replaceRows(rows, [...added, ...moved].map(({name}) => name));
    }

    /* The rows of the grid: the runs, or their groups, each with its runs below where it is open. */
    gridRows() {
      const rows = [...this.rows.values()];
      if (!this.by.length) return rows;
      const metrics = [...new Set(this.shownColumns().filter((id) => darkit.groups.METRIC.test(id)).map((id) => id.slice(5)))];
      const groups = darkit.groups.groupRows(rows.filter((row) => this.passes(row)), this.by, metrics, darkit.parameters().getAll("by"));
      this.groupOf = new Map(groups.flatMap(({name, members}) => members.map((member) => [member, name])));
      const below = (group) => (this.openGroups.has(group.name) ? group.members.map((name) => this.rows.get(name)) : []);
      return groups.flatMap((group) => [{...group, isOpen: this.openGroups.has(group.name)}, ...below(group)]);
    }

    toggleGroup(name) {
      if (!this.openGroups.delete(name)) this.openGroups.add(name);
      this.showRows();
    }

    /* The runs that are shown, as they are sorted, also those in groups. */
    shownNames() {
      const names = [];
      this.grid.forEachNodeAfterFilterAndSort(({data}) => names.push(...(data.members ?? [data.name])));
      return [...new Set(names)];
    }

    showCount() {
      const empty = this.rows.size === 0;
      document.getElementById("empty-home").hidden = !empty;
      this.box.hidden = empty;
      this.countRows();
      this.box.dataset.filled = String(this.rows.size);
    }

    /* Removes deleted runs at once, before the next update. */
    forget(names) {
      const removed = names.map((name) => this.rows.get(name)).filter(Boolean);
      for (const {name} of removed) this.rows.delete(name);
      if (this.by.length) this.showRows();
      else this.grid.applyTransaction({remove: removed});
      this.showCount();
      this.selection.offer();
    }

    /* Takes over what there are columns for, and returns whether that changed. */
    findColumns(answer) {
      const {columns} = this;
      if (!answer.rows.length) return false;
      const all = this.askedKey === this.wantedKey; // the rows have everything that was wanted
      this.wide = answer.wide;
      columns.metrics = answer.metrics;
      columns.keys = Object.keys(answer.keys);
      columns.numeric = new Set(columns.keys.filter((key) => answer.keys[key]));
      const before = new Set([...columns.differing, ...columns.everyDiffering]);
      const whole = answer.names?.length === answer.rows.length; // of every run
      columns.differing = answer.differing;
      columns.everyDiffering = answer.every_differing;
      const known = [...columns.differing, ...columns.everyDiffering].every((key) => before.has(key));
      if (all && (whole || known)) this.askedKey = this.wantedKey; // still so
      columns.grouped ||= answer.rows.some((row) => row.group);
      columns.lost ||= answer.rows.some(darkit.isLost);
      this.findProjects();
      const key = JSON.stringify([columns.metrics, columns.keys, columns.differing, this.by, columns.grouped, columns.lost, columns.projects.length > 0]);
      const changed = key !== this.columnsKey;
      this.columnsKey = key;
      return changed;
    }

    /* Offers the projects of all runs as a filter; without any, neither the filter nor the column is shown. */
    findProjects() {
      const projects = [...new Set([...this.rows.values()].map((row) => row.project).filter(Boolean))].sort();
      const changed = !same(projects, this.columns.projects);
      this.columns.projects = projects;
      const chosen = darkit.parameters().get("project");
      const offered = chosen && !projects.includes(chosen) ? [chosen, ...projects] : projects;
      if (changed) dash_clientside.set_props("project", {data: offered, style: offered.length ? {} : {display: "none"}});
    }

    shownColumns() {
      return this.chosen || this.columns.standard;
    }

    setColumns() {
      this.grid.setGridOption("columnDefs", this.definitions());
      darkit.mendHeader(this.box);
      this.offerColumns();
    }

    definitions() {
      Object.assign(this.columns, {withStatistics: this.by.length > 0, withBaseline: this.baseline !== null});
      return this.columns.definitions(this.shownColumns());
    }

    /* Offers the columns above the table, and what runs can be grouped by. */
    offerColumns() {
      const data = this.columns.all.map((id) => ({value: id, label: this.columns.title(id)}));
      dash_clientside.set_props("columns", {data, value: this.shownColumns()});
      dash_clientside.set_props("by", {data: darkit.groups.choices(this.columns)});
      darkit.groups.offerSpread(this.by);
    }

    choose(ids) {
      const standard = this.chosen === null && same(ids, this.shownColumns());
      if (standard) return;
      const before = this.shownColumns();
      const places = this.columns.all;
      const sorted = (columns) => [...columns].sort((a, b) => places.indexOf(a) - places.indexOf(b));
      const moved = !same(sorted(before), before); // by hand: new ones are appended then
      const kept = before.filter((id) => ids.includes(id));
      this.chosen = moved ? [...kept, ...ids.filter((id) => !kept.includes(id))] : sorted(ids);
      if (same(this.chosen, before)) return;
      darkit.remember({col: this.chosen});
      this.columns.measure(this.chosen, [...this.rows.values()]);
      this.grid.setGridOption("columnDefs", this.columns.definitions(this.chosen));
      if (this.by.length) this.showRows();
      if (this.wantedKey !== this.askedKey) this.loop?.now();
    }

    /* Groups the runs by other keys, and their curves too. */
    group(keys) {
      if (same(keys, darkit.parameters().getAll("by"))) return;
      darkit.remember({by: keys, unfold: null});
      this.openGroups.clear();
      this.selection.openGroups();
      this.setColumns();
      this.showRows();
      this.countRows();
      this.side.update(); // grouped, there are curves of more runs
      darkit.logBoard()?.refresh();
      if (this.wantedKey !== this.askedKey) this.loop?.now();
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
      const known = new Set(this.columns.all);
      this.chosen = this.grid.getAllDisplayedColumns().map((one) => one.getColId()).filter((id) => known.has(id));
      darkit.remember({col: this.chosen});
    }

    filter() {
      if (this.by.length) this.showRows();
      this.grid.onFilterChanged();
      this.countRows();
      if (queryNow() === this.asked) return;
      clearTimeout(this.typing);
      this.typing = setTimeout(() => this.loop?.now(), TYPING);
    }

    countRows() {
      if (this.asked === undefined) return; // the answer to the query is on its way
      const shown = this.shownNames().length;
      const all = this.rows.size + (this.leftOut || 0);
      document.getElementById("run-count").textContent =
        shown === all ? darkit.count(all) : say("count_of", {shown: darkit.count(shown), all: darkit.count(all)});
    }

    selected() {
      if (!this.first && darkit.path() === "/") this.selection.changed(); // else it is not restored, or the page changes
    }

    /* Draws the eyes again, as curves came, went or were hidden. */
    eyesChanged() {
      if (!this.grid || this.first || !this.box.isConnected) return;
      const eyes = this.side.drawn.map((name) => [name, this.side.eye(name)]);
      const shown = JSON.stringify(eyes.map(([name, eye]) => [name, eye?.on, eye?.curve?.index]));
      if (shown === this.eyes) return;
      this.eyes = shown;
      if (this.grid.getColumn("eye")) this.grid.refreshCells({columns: ["eye"], force: true});
    }
  }

  let table = null;
  darkit.pages.push(() => {
    const box = document.getElementById("grid-box");
    if (table && table.box !== box) {
      table.end();
      table = darkit.table = null;
    }
    if (box && !table) {
      dash_clientside.set_props("selection", {data: []});
      table = new Table(box);
    }
  });

  const ACTING = ["archive", "notes-save", "tag-rename", "delete-now", "rename-now", "move-now"];
  document.addEventListener("click", ({target}) => {
    if (!table) return;
    if (target.id === "compare") table.selection.compare();
    if (target.id === "clear-selection") table.selection.clear();
    if (target.id === "baseline") table.selection.setBaseline(table.selection.names[0]);
    if (ACTING.includes(target.id) || target.matches?.(".undo, .restore")) setTimeout(() => table?.loop?.now(), 500);
  });

  Object.assign(dash_clientside.darkit, {
    follow_runs(search, archived, columns, project, by) {
      darkit.remember({q: search || null, archived: archived ? "1" : null, project: project || null});
      if (table && !table.first) {
        table.choose(columns || []);
        table.group(by || []);
        table.filter();
      }
      return search || "";
    },
    leaveDeleted(data) {
      if (data && darkit.path().startsWith("/run/")) darkit.go("/");
      if (data) table?.forget(data.deleted);
      return dash_clientside.no_update;
    },
  });
})();

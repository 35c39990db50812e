"use strict";
/* The ticked runs of the table: how many they are, what can be done to them, and their address. */
(() => {
  const {say} = darkit;
  const MOST_COMPARED = 200; // as many runs are remembered in the address, too

  /* What the row of a group shows as its name; null for a run. */
  const groupWords = ({label, isOpen, members}) => (members ? JSON.stringify([label, isOpen, members.length]) : null);

  class Selection {
    constructor(table) {
      this.table = table;
      this.grid = table.grid;
      this.names = []; // of the ticked runs, also of those that the grid has no row for: in a closed group, or not found by the query
      this.rows = new Map(); // that are ticked in the grid
      this.wanted = darkit.parameters().getAll("run"); // to be ticked again; null once they are
    }

    /* Takes over what was ticked and unticked in the grid. */
    changed() {
      if (!this.table.box.isConnected || this.drawing || !this.read()) return;
      if (this.table.by.length) this.draw();
      this.tell();
    }

    /* Reads which rows were ticked and unticked since the last time, and returns whether any were; a group stands for its runs. */
    read() {
      const now = new Map(this.grid.getSelectedRows().map((row) => [row.name, row]));
      const runs = (rows, others) =>
        [...rows.values()].filter(({name}) => !others.has(name)).flatMap((row) => row.members ?? (row.opens ? [row.name] : []));
      const [came, gone] = [runs(now, this.rows), new Set(runs(this.rows, now))];
      this.rows = now;
      this.names = [...new Set([...this.names.filter((name) => !gone.has(name)), ...came])];
      return came.length + gone.size > 0;
    }

    /* Ticks in the grid the runs that are ticked, and the groups of which all runs are. */
    draw() {
      const ticked = new Set(this.names);
      const [on, off] = [[], []];
      this.grid.forEachNode((node) => {
        const {members, opens, name} = node.data;
        if (!members && !opens) return;
        const wanted = members ? members.every((one) => ticked.has(one)) : ticked.has(name);
        if (wanted !== Boolean(node.isSelected())) (wanted ? on : off).push(node);
      });
      this.drawing = true;
      if (on.length) this.grid.setNodesSelected({nodes: on, newValue: true});
      if (off.length) this.grid.setNodesSelected({nodes: off, newValue: false});
      this.drawing = false;
      this.rows = new Map(this.grid.getSelectedRows().map((row) => [row.name, row]));
    }

    /* Gives the grid other rows, of which the grid unticks all that it did not have; runs that came into a ticked group are ticked. */
    replaceRows(rows, came) {
      const ticked = this.read();
      const before = this.names;
      const drawn = new Map();
      this.grid.forEachNode(({data}) => drawn.set(data.name, groupWords(data)));
      this.drawing = true;
      this.grid.setGridOption("rowData", rows);
      this.drawing = false;
      const rowNodes = []; // whose words changed, which the grid does not see
      this.grid.forEachNode((node) => drawn.has(node.data.name) && drawn.get(node.data.name) !== groupWords(node.data) && rowNodes.push(node));
      if (rowNodes.length) this.grid.refreshCells({columns: ["name"], rowNodes, force: true});
      const joined = came.filter((name) => this.rows.has(this.table.groupOf.get(name)));
      this.names = [...new Set([...before.filter((name) => this.table.rows.has(name)), ...joined])];
      this.draw();
      if (ticked || this.names.join("\n") !== before.join("\n")) this.tell();
    }

    /* Opens the groups of which only some runs are ticked: else nobody sees which. */
    openGroups() {
      const ticked = new Set(this.names);
      for (const {name, members = []} of this.table.gridRows()) {
        if (members.some((one) => ticked.has(one)) && !members.every((one) => ticked.has(one))) this.table.openGroups.add(name);
      }
    }

    clear() {
      this.names = [];
      this.draw();
      this.tell();
    }

    /* Shows what is ticked, and what can be done to it. */
    tell() {
      const {table, names} = this;
      this.wanted = null; // the reader chose others
      darkit.remember({run: names.length <= MOST_COMPARED ? names : []});
      dash_clientside.set_props("selection", {data: names});
      table.side.tick(names);
      this.offer();
    }

    /* Offers what can be done to the ticked runs, and says how many they are. */
    offer() {
      const {table, names} = this;
      const set = dash_clientside.set_props;
      const away = names.length > 0 && names.every((name) => table.rows.get(name)?.archived);
      const others = names.some((name) => name.includes("/")); // runs of other homes are only read
      const one = names.length === 1;
      document.getElementById("selection-bar").hidden = !names.length;
      set("edit-notes", {disabled: !names.length || others});
      set("archive", {disabled: !names.length || others, children: say(away ? "unarchive" : "archive")});
      set("delete", {disabled: !names.length || others});
      set("rename", {disabled: !one || others});
      set("move", {disabled: !names.length || others});
      set("baseline", {disabled: !one, children: say(one && names[0] === table.baseline ? "baseline_off" : "baseline")});
      const many = names.length > MOST_COMPARED;
      set("export-runs", {disabled: !names.length || many, title: many ? say("export_most", {count: MOST_COMPARED}) : ""});
      const word = names.length ? say(many ? "compare_first" : "compare_count", {count: Math.min(names.length, MOST_COMPARED)}) : say("compare");
      set("compare", {disabled: !names.length, children: word});
      this.count();
    }

    /* Says how many runs are selected, and whether these are all that match the filter, or more than are shown. */
    count() {
      const {names} = this;
      const place = document.getElementById("selected-count");
      if (!place) return;
      const chosen = new Set(names);
      let [shown, matching] = [0, 0];
      for (const name of this.table.shownNames()) {
        if (!this.table.rows.get(name)?.opens) continue;
        matching += 1;
        shown += chosen.has(name) ? 1 : 0;
      }
      const count = darkit.count(names.length);
      const hidden = darkit.count(names.length - shown);
      let words = "";
      if (names.length && shown < names.length) words = say("selected_hidden", {count, hidden});
      else if (names.length) words = say(matching === shown ? "selected_all" : "selected_count", {count});
      if (place.textContent !== words) place.textContent = words; // a screen reader reads out what is written
    }

    /* Opens the selected runs as they are sorted, grouped as in the table; of too many the first ones. */
    compare() {
      let every = this.names;
      if (!every.length) return;
      if (every.length > MOST_COMPARED) {
        const chosen = new Set(every);
        every = [...new Set([...this.table.shownNames().filter((name) => chosen.has(name)), ...every])];
      }
      const query = new URLSearchParams();
      every.slice(0, MOST_COMPARED).forEach((name) => query.append("run", name));
      if (every.length > MOST_COMPARED) query.set("more", every.length - MOST_COMPARED);
      const shown = darkit.parameters();
      shown.getAll("by").forEach((key) => query.append("group", key));
      if (shown.has("spread")) query.set("spread", shown.get("spread"));
      darkit.go(`/compare?${query}`);
    }

    /* Keeps the run to which the others are compared in sight, above all. */
    showBaseline() {
      const {table} = this;
      const row = table.rows.get(table.baseline);
      this.grid.setGridOption("pinnedTopRowData", row ? [{...row, isBaseline: true}] : []);
      const key = JSON.stringify([row?.name, row?.series]);
      if (key === this.baselineKey) return;
      this.baselineKey = key;
      this.grid.refreshCells({columns: table.shownColumns().filter((id) => /^(last|best):/.test(id)), force: true});
    }

    /* Compares all runs to one; the same again ends that. */
    setBaseline(name) {
      darkit.remember({baseline: name === this.table.baseline ? null : name});
      this.table.setColumns(); // they are wider with differences
      this.showBaseline();
      this.tell();
    }

    /* Ticks the runs of the address again, unless others were ticked meanwhile; while the server still reads runs only
       if all of them are there. */
    restore(waiting) {
      const {wanted} = this;
      if (!wanted || (waiting && !wanted.every((name) => this.table.rows.has(name)))) return;
      this.wanted = null;
      this.names = [...new Set(wanted)].filter((name) => this.table.rows.has(name));
      if (!this.names.length) return;
      this.openGroups();
      if (this.table.by.length) this.table.showRows();
      else this.draw();
      this.tell();
    }
  }

  darkit.Selection = Selection;
})();

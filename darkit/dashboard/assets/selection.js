"use strict";
/* The ticked runs of the table: how many they are, what can be done to them, and their address. */
(() => {
  const {say} = darkit;
  const MOST_COMPARED = 200; // as many runs are remembered in the address, too

  class Selection {
    constructor(table) {
      this.table = table;
      this.grid = table.grid;
      this.names = [];
    }

    /* Takes over what is ticked in the grid; a group stands for its runs. */
    changed() {
      const {table} = this;
      if (!table.box.isConnected) return;
      const names = [...new Set(this.grid.getSelectedRows().flatMap((row) => row.members ?? (row.opens ? [row.name] : [])))];
      this.names = names;
      darkit.remember({run: names.length <= MOST_COMPARED ? names : []});
      const set = dash_clientside.set_props;
      set("selection", {data: names});
      table.side.tick(names);
      const away = names.length > 0 && names.every((name) => table.rows.get(name)?.archived);
      const others = names.some((name) => name.includes("/")); // runs of other homes are only read
      const one = names.length === 1;
      document.getElementById("selection-bar").hidden = !names.length;
      set("edit-notes", {disabled: !names.length || others});
      set("archive", {disabled: !names.length || others, children: say(away ? "unarchive" : "archive")});
      set("delete", {disabled: !names.length || others});
      set("rename", {disabled: !one || others});
      set("move", {disabled: !names.length || others});
      set("export-runs", {disabled: !names.length || names.length > MOST_COMPARED});
      set("baseline", {disabled: !one, children: say(one && names[0] === table.baseline ? "baseline_off" : "baseline")});
      const many = names.length > MOST_COMPARED;
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
      if (!names.length) place.textContent = "";
      else if (shown < names.length) place.textContent = say("selected_hidden", {count, hidden});
      else place.textContent = say(matching === shown ? "selected_all" : "selected_count", {count});
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
      this.changed();
    }

    /* Ticks the runs of the address again. */
    restore(names) {
      const wanted = new Set(names.filter((name) => this.table.rows.has(name)));
      if (!wanted.size) return;
      const nodes = [];
      this.grid.forEachNode((node) => {
        const {data} = node;
        if (data.members ? data.members.every((name) => wanted.has(name)) : wanted.has(data.name)) nodes.push(node);
      });
      if (nodes.length) this.grid.setNodesSelected({nodes, newValue: true});
    }
  }

  darkit.Selection = Selection;
})();

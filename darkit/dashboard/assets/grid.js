"use strict";
/* AG Grid as the pages use it: its look, the table of runs, and that of configs. */
(() => {
  const ROW = 30; // pixels
  const look = {
    fontFamily: "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'Noto Sans CJK SC', sans-serif",
    fontSize: 13, headerFontSize: 12.5, borderRadius: 8, wrapperBorderRadius: 10, spacing: 6,
    accentColor: "#4c6ef5", headerColumnResizeHandleHeight: "35%", checkboxBorderRadius: 4, wrapperBorder: false, columnBorder: false, headerFontWeight: 600, cellHorizontalPadding: 9,
  };
  const light = {...look, backgroundColor: "#ffffff", foregroundColor: "#212529", headerBackgroundColor: "#f8f9fa"};
  const dark = {
    ...look, backgroundColor: "#25262b", foregroundColor: "#d5d7da", headerBackgroundColor: "#2c2e33", borderColor: "#373a40",
    browserColorScheme: "dark",
  };
  let theme = null;

  /* Makes a grid in an element; its script must be there (`darkit.grid`). */
  function makeGrid(place, options) {
    theme ??= agGrid.themeQuartz.withParams(light, "light").withParams(dark, "dark");
    return agGrid.createGrid(place, {theme, localeText: darkit.gridWords(), ...options});
  }

  /* The table of runs: `table` says what is in it. */
  function makeTable(table) {
    const place = document.getElementById("grid");
    return makeGrid(place, {
      columnDefs: table.definitions(),
      rowData: table.gridRows(),
      getRowId: ({data}) => data.name,
      defaultColDef: {filter: true},
      rowSelection: {mode: "multiRow", enableClickSelection: false, headerCheckbox: true, selectAll: "filtered"},
      selectionColumnDef: {pinned: "left", width: 36, resizable: false},
      rowHeight: ROW,
      headerHeight: ROW + 2,
      groupHeaderHeight: ROW - 4,
      animateRows: false,
      rowBuffer: 4, // rows beside those on the screen
      suppressAnimationFrame: true, // a row has its cells as soon as it is there
      tooltipShowDelay: 400,
      isExternalFilterPresent: () => true,
      doesExternalFilterPass: ({data}) => Boolean(data.members) || table.passes(data),
      postSortRows: ({nodes}) => table.columns.withStatistics && darkit.groups.orderNodes(nodes, table.groupOf),
      onCellKeyDown: ({event, data}) => {
        if (event.key !== "Enter") return;
        if (data.members) table.toggleGroup(data.name);
        else if (data.opens) darkit.go(darkit.runPath(data.name));
      },
      onCellMouseOver: ({data}) => table.side.point(data?.opens ? data.name : null),
      onRowClicked: ({data, event}) => {
        if (data.opens && !event.target.closest("a, button, input")) table.side.stick(data.name);
      },
      onSelectionChanged: () => table.selected(),
      onSortChanged: () => table.rememberGrid(),
      onColumnResized: ({source}) => source.startsWith("ui") && place.classList.add("resized"), // a text may be too long now
      onColumnMoved: (event) => table.rememberOrder(event),
      onFilterChanged: () => {
        if (table.first) return;
        table.rememberGrid();
        table.countRows();
        table.selection.count();
      },
    });
  }

  /* A row of the header without cells, which the grid makes beside groups of columns, is none for a screen reader. */
  let mending = 0;
  function mendHeader(box) {
    cancelAnimationFrame(mending);
    mending = requestAnimationFrame(() => {
      box.querySelector(".ag-header-viewport .ag-header-cell")?.setAttribute("tabindex", "0"); // what scrolls is reached
      for (const row of box.querySelectorAll(".ag-header-row")) {
        const empty = !row.childElementCount;
        row.setAttribute("role", empty ? "none" : "row");
        if (empty) ["tabindex", "aria-rowindex"].forEach((name) => row.removeAttribute(name));
      }
    });
  }

  /* The configs of a comparison, side by side; its rows change with the switch above it. */
  let configs = null;
  async function showConfigs() {
    const place = document.getElementById("config-grid");
    if (configs?.place === place) return;
    configs?.end();
    configs = null;
    if (!place) return;
    const made = (configs = {place, end() {}});
    await darkit.logBoard()?.ready; // charts first
    await new Promise((done) => (window.requestIdleCallback || setTimeout)(done));
    await darkit.grid();
    if (configs !== made || !place.isConnected) return;
    const read = (name) => JSON.parse(place.dataset[name]);
    const grid = makeGrid(place, {
      columnDefs: read("columns"),
      rowData: read("rows"),
      defaultColDef: {suppressHeaderMenuButton: true, wrapHeaderText: true},
      rowClassRules: {differs: ({data}) => data.differs === "yes"},
      rowHeight: 32,
      headerHeight: Number(place.dataset.header),
      enableCellTextSelection: true,
    });
    const watcher = new MutationObserver(() => grid.setGridOption("rowData", read("rows")));
    watcher.observe(place, {attributeFilter: ["data-rows"]});
    made.end = () => {
      watcher.disconnect();
      grid.destroy();
    };
  }
  darkit.pages.push(showConfigs);

  Object.assign(darkit, {makeGrid, makeTable, mendHeader});
})();

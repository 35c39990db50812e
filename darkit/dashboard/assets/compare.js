"use strict";
/* The values and statistics below the charts, which are updated, and the export of a comparison as one file. */
(() => {
  document.addEventListener("click", (event) => {
    if (event.target.id === "export-page") darkit.attempt(savePage);
  });

  async function savePage() {
    const board = darkit.logBoard();
    const answer = await darkit.ask("/api/page", {runs: board.runs, view: board.view()});
    darkit.download(await answer.blob(), "darkit-comparison.html");
  }

  /* Updates the last and best values, at most every three seconds. */
  let grown = {page: "", rows: 0, next: 0};
  document.addEventListener("darkit-states", ({detail}) => {
    const rows = Object.values(detail).reduce((sum, run) => sum + run.rows, 0);
    const page = location.pathname + darkit.parameters().getAll("run").join("/");
    if (page !== grown.page) { // also where the values are made later; a running one may have grown since it was made
      const alive = Object.values(detail).some(({state}) => state === "running" || state === "stalled");
      grown = {page, rows: alive ? -1 : rows, next: Date.now() + 3000};
    }
    if (!document.getElementById("values-box") && !document.getElementById("strip-values")) return;
    if (rows === grown.rows || Date.now() < grown.next) return;
    grown = {page, rows, next: Date.now() + 3000};
    dash_clientside.set_props("grown", {data: rows});
    darkit.redrawKeys();
  });

  dash_clientside.darkit.follow_statistics = (metric, at, baseline) => {
    darkit.remember({measured: metric, at: at === "last" ? at : null, baseline});
    return at;
  };
})();

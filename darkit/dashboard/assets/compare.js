"use strict";
/* The comparison below its charts: config keys against a metric, values that are updated, export as one file. */
(() => {
  document.addEventListener("click", (event) => {
    if (event.target.id === "export-page") darkit.attempt(savePage);
  });

  async function savePage() {
    const board = darkit.logBoard();
    const answer = await darkit.ask("/api/page", {runs: board.runs, view: board.view()});
    darkit.download(await answer.blob(), "darkit-comparison.html");
  }

  let parallelTurn = 0;
  async function drawParallel() {
    const plot = document.getElementById("parallel");
    const board = darkit.logBoard();
    if (!plot || !board) return;
    const turn = ++parallelTurn;
    await board.ready; // it is drawn after the charts above it
    const keys = plot.dataset.keys ? JSON.parse(plot.dataset.keys) : JSON.parse(plot.dataset.first);
    const metric = plot.dataset.metric;
    const body = {runs: board.runs, keys, metric, dark: darkit.dark()};
    const figure = await (await darkit.ask("/api/parallel", body)).json();
    await darkit.plotly();
    if (turn === parallelTurn && plot.isConnected) {
      if (plot.clientWidth < 620) {
        figure.layout.margin.t = 110;
        for (const note of figure.layout.annotations || []) {
          if (note.yanchor === "bottom") Object.assign(note, {textangle: -35, xanchor: "left"});
        }
      }
      Plotly.react(plot, figure.data, figure.layout, {displaylogo: false, responsive: true, displayModeBar: false});
      plot.dataset.drawn = "1";
    }
  }

  darkit.pages.push(drawParallel);
  new MutationObserver(drawParallel).observe(document.documentElement, {attributes: true, attributeFilter: ["data-mantine-color-scheme"]});

  /* Updates the last and best values, at most every three seconds. */
  let grown = {page: "", rows: 0, next: 0};
  document.addEventListener("darkit-states", ({detail}) => {
    if (!document.getElementById("values-box")) return;
    const rows = Object.values(detail).reduce((sum, run) => sum + run.rows, 0);
    const page = location.pathname + darkit.parameters().getAll("run").join("/");
    if (page !== grown.page) grown = {page, rows, next: 0};
    if (rows === grown.rows || Date.now() < grown.next) return;
    grown = {page, rows, next: Date.now() + 3000};
    dash_clientside.set_props("grown", {data: rows});
  });

  Object.assign(dash_clientside.darkit, {
    follow_parallel(keys, metric) {
      darkit.remember({key: keys, metric});
      const plot = document.getElementById("parallel");
      if (plot) {
        plot.dataset.keys = JSON.stringify(keys);
        plot.dataset.metric = metric || "";
        drawParallel();
      }
      return metric || "";
    },
  });
})();

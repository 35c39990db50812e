"use strict";
/* Config keys against a metric: points of one key, and parallel coordinates whose axes are brushed. */
(() => {
  const {element, say} = darkit;
  const options = {locale: "darkit", displaylogo: false, responsive: true, displayModeBar: false};
  const REACH = 16; // pixels beside an axis
  let brushes = new Map(); // axis -> the lowest and the highest place that is picked, from 0 to 1
  const turns = {parallel: 0, scatter: 0};

  async function drawParallel() {
    const plot = document.getElementById("parallel");
    const board = darkit.logBoard();
    if (!plot || !board) return;
    const mine = ++turns.parallel;
    await board.ready; // it is drawn after the charts above it
    const keys = JSON.parse(plot.dataset.keys || plot.dataset.first);
    const flipped = darkit.parameters().getAll("flip");
    const body = {runs: board.runs, keys, metric: plot.dataset.metric, dark: darkit.dark(), flipped};
    const figure = await (await darkit.ask("/api/parallel", body)).json();
    await darkit.plotly();
    if (mine !== turns.parallel || !plot.isConnected) return;
    if (plot.clientWidth < 620) {
      figure.layout.margin.t = 110;
      for (const note of figure.layout.annotations || []) {
        if (note.yanchor === "bottom") Object.assign(note, {textangle: -35, xanchor: "left"});
      }
    }
    brushes = new Map();
    const first = !plot.data;
    await Plotly.react(plot, figure.data, figure.layout, options);
    if (first) watch(plot);
    darkit.purgeLater(plot);
    showBrushes(plot);
    plot.dataset.drawn = "1";
  }

  function watch(plot) {
    plot.on("plotly_clickannotation", ({index}) => {
      const name = plot.layout.meta?.axes[index];
      if (name === undefined) return;
      const others = darkit.parameters().getAll("flip").filter((one) => one !== name);
      darkit.remember({flip: darkit.parameters().getAll("flip").includes(name) ? others : [...others, name]});
      drawParallel();
    });
    plot.addEventListener("pointerdown", (event) => {
      const {xaxis, yaxis, _size: size} = plot._fullLayout;
      const frame = plot.getBoundingClientRect();
      const placeOf = (move) => yaxis.p2l(move.clientY - frame.top - size.t);
      const start = placeOf(event);
      const axis = Math.round(xaxis.p2l(event.clientX - frame.left - size.l));
      const away = Math.abs(xaxis.l2p(axis) - (event.clientX - frame.left - size.l));
      if (away > REACH || start < -0.05 || start > 1.05 || !(axis in (plot.layout.meta?.axes || []))) return;
      event.preventDefault();
      const move = (next) => {
        const range = [start, placeOf(next)].sort((one, two) => one - two);
        if (range[1] - range[0] > 0.015) brushes.set(axis, range);
        else brushes.delete(axis); // a click
        showBrushes(plot);
      };
      const end = (next) => {
        move(next);
        window.removeEventListener("pointermove", move);
      };
      window.addEventListener("pointermove", move);
      window.addEventListener("pointerup", end, {once: true});
      window.addEventListener("pointercancel", () => window.removeEventListener("pointermove", move), {once: true}); // the page is scrolled
    });
  }

  /* Fades the runs that a brush leaves out, and names the others. */
  function showBrushes(plot) {
    const {xaxis, yaxis, _size: size} = plot._fullLayout;
    const within = ({y}) => [...brushes].every(([axis, [low, high]]) => y[axis] !== null && y[axis] >= low && y[axis] <= high);
    const picked = plot.data.filter(within);
    for (const group of plot.querySelectorAll(".scatterlayer > .trace")) {
      const trace = plot.data[group.__data__?.[0]?.trace.index];
      group.style.opacity = !trace || within(trace) ? "" : "0.1";
    }
    for (const old of plot.querySelectorAll(".brush")) old.remove();
    for (const [axis, [low, high]] of brushes) {
      const mark = element("div", "brush");
      const top = size.t + yaxis.l2p(high);
      mark.style.cssText = `left:${size.l + xaxis.l2p(axis) - 7}px;top:${top}px;height:${size.t + yaxis.l2p(low) - top}px`;
      plot.append(mark);
    }
    const said = document.getElementById("brushed");
    const names = picked.map((trace) => trace.meta.run).join(", ");
    if (said) said.textContent = brushes.size ? say("brushed", {count: picked.length, all: plot.data.length, names}) : say("parallel_hint");
  }

  async function drawScatter() {
    const plot = document.getElementById("scatter");
    const board = darkit.logBoard();
    if (!plot || !board) return;
    const mine = ++turns.scatter;
    await board.ready;
    const chosen = JSON.parse(plot.dataset.chosen || plot.dataset.first);
    const figure = await (await darkit.ask("/api/scatter", {runs: board.runs, ...chosen, dark: darkit.dark()})).json();
    await darkit.plotly();
    if (mine !== turns.scatter || !plot.isConnected) return;
    await Plotly.react(plot, figure.data, figure.layout, options);
    darkit.purgeLater(plot);
    plot.dataset.drawn = "1";
  }

  const waiting = new WeakSet(); // plots that are drawn once they are near the screen
  /* Draws each once it is near the screen. */
  function draw() {
    for (const [id, act] of [["parallel", drawParallel], ["scatter", drawScatter]]) {
      const plot = document.getElementById(id);
      if (!plot || waiting.has(plot)) continue;
      waiting.add(plot);
      new IntersectionObserver(([entry], watcher) => {
        if (!entry.isIntersecting && plot.isConnected) return;
        watcher.disconnect();
        waiting.delete(plot);
        if (plot.isConnected) darkit.attempt(act);
      }, {rootMargin: "1500px"}).observe(plot);
    }
  }
  /* Draws anew with the values that runs have by now, unless somebody picks runs by their places. */
  darkit.redrawKeys = () => brushes.size || draw();
  darkit.drawKeys = draw;
  darkit.pages.push(draw);
  new MutationObserver(draw).observe(document.documentElement, {attributes: true, attributeFilter: ["data-mantine-color-scheme"]});

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
    follow_scatter(key, metric, logX, logY) {
      darkit.remember({against: key, value: metric, logx: logX ? "1" : null, logy: logY ? "1" : null});
      const plot = document.getElementById("scatter");
      if (plot) {
        plot.dataset.chosen = JSON.stringify({key, metric, log_x: logX, log_y: logY});
        drawScatter();
      }
      return key || "";
    },
  });
})();

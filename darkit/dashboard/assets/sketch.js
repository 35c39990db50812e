"use strict";
/* What charts show while their page is scrolled: their curves alone, as drawing them whole would let it stutter. */
(() => {
  const REST = 150; // milliseconds without a movement after which a page stands still
  let moved = -REST;
  let rest = null;

  const isScrolling = () => performance.now() - moved < REST;

  /* Waits until the page stands still. */
  function scrolled() {
    rest ??= new Promise((resolve) => {
      const look = () => {
        if (isScrolling()) return setTimeout(look, REST);
        rest = null;
        return resolve();
      };
      look();
    });
    return rest;
  }

  const isCurve = (trace) => trace.visible !== false && trace.yaxis !== "y2" && trace.mode !== "markers" && trace.x.length > 1;

  /* Draws the curves of a figure whose chart is not drawn yet. */
  function sketch(plot, {data, layout}) {
    if (plot.data || plot.querySelector(".sketch")) return;
    const curves = data.filter(isCurve);
    const log = layout.yaxis.type === "log";
    const height = (value) => (log ? Math.log10(value) : value);
    const edges = [Infinity, -Infinity, Infinity, -Infinity];
    for (const {x, y} of curves) {
      for (let place = 0; place < y.length; place++) {
        const at = height(y[place]);
        if (!Number.isFinite(at)) continue;
        edges[0] = Math.min(edges[0], x[place]);
        edges[1] = Math.max(edges[1], x[place]);
        edges[2] = Math.min(edges[2], at);
        edges[3] = Math.max(edges[3], at);
      }
    }
    const [left, right, low, high] = [...(layout.xaxis.range || edges.slice(0, 2)), ...(layout.yaxis.range || edges.slice(2))];
    const canvas = darkit.element("canvas", "sketch", "", {"aria-hidden": "true"});
    const {l, r, t, b} = layout.margin;
    const [width, tall] = [plot.clientWidth - l - r, plot.clientHeight - t - b];
    if (width <= 0 || tall <= 0 || !(right > left)) return;
    canvas.width = width;
    canvas.height = tall;
    canvas.style.cssText = `left:${l}px;top:${t}px`;
    const pen = canvas.getContext("2d");
    for (const {x, y, line, opacity} of curves) {
      pen.strokeStyle = line.color || "transparent";
      pen.globalAlpha = opacity ?? 1;
      pen.beginPath();
      for (let place = 0; place < y.length; place++) {
        pen.lineTo(((x[place] - left) / (right - left)) * width, tall * (0.95 - 0.9 * ((height(y[place]) - low) / (high - low || 1))));
      }
      pen.stroke();
    }
    plot.append(canvas);
  }

  const removeSketch = (plot) => plot.querySelector(".sketch")?.remove();

  window.addEventListener("scroll", () => (moved = performance.now()), {passive: true, capture: true});
  Object.assign(darkit, {isScrolling, scrolled, sketch, removeSketch});
})();

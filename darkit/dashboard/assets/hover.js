"use strict";
/* The values under the pointer: a list of all curves of a chart, sorted, and a line at the same x in the other charts. */
(() => {
  const {element, say} = darkit;
  const MOST = 20; // rows of the list
  const NEAR = 60; // pixels from a curve at which it is the one that is meant
  const ON_MARK = 7; // pixels around a mark
  const values = new Set(["raw", "smooth", "mean"]);
  const box = element("div", "hover-box", "", {"aria-hidden": "true"});
  const lines = new Map(); // plot -> its line
  let pending = 0;

  /* Places of an axis: x are numbers, milliseconds on a clock; a logarithmic axis has its values as they are. */
  const toPixel = (axis, value) => axis.l2p(axis.type === "log" ? Math.log10(value) : value);
  const fromPixel = (axis, pixel) => (axis.type === "log" ? 10 ** axis.p2l(pixel) : axis.p2l(pixel));

  function nearest(x, wanted, sorted) {
    if (!sorted) {
      let best = 0;
      for (let place = 1; place < x.length; place++) if (Math.abs(x[place] - wanted) < Math.abs(x[best] - wanted)) best = place;
      return best;
    }
    let [low, high] = [0, x.length - 1];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (x[middle] < wanted) low = middle;
      else high = middle;
    }
    return Math.abs(x[low] - wanted) <= Math.abs(x[high] - wanted) ? low : high;
  }

  /* Returns the value of each curve at a position; of curves that end far before it only if there is no other one. */
  function rowsAt(card, wanted, pointerY) {
    const {xaxis, yaxis} = card.plot._fullLayout;
    const at = toPixel(xaxis, wanted);
    const found = [];
    card.plot.data.forEach((trace, index) => {
      if (trace.visible === false || !values.has(trace.meta.kind) || trace.hoverinfo === "skip" || !trace.x.length) return;
      const place = nearest(trace.x, wanted, !card.board.view().x);
      const [first, last] = [trace.x[0], trace.x[trace.x.length - 1]].map((edge) => toPixel(xaxis, edge));
      const outside = card.board.view().x ? 0 : Math.max(first - at, at - last, 0);
      const y = toPixel(yaxis, trace.y[place]);
      const spread = trace.customdata?.[place];
      found.push({trace, index, x: trace.x[place], value: trace.y[place], spread, outside, away: Math.abs(y - pointerY)});
    });
    const reached = found.filter((row) => row.outside <= 12);
    return (reached.length ? reached : found).sort((first, second) => second.value - first.value);
  }

  /* Returns the words of marks under the pointer: NaN anywhere above its mark, checkpoints and resumptions on them. */
  function marksAt(card, pointerX, pointerY) {
    const {xaxis, yaxis, _size: size} = card.plot._fullLayout;
    const words = [];
    for (const trace of card.plot.data) {
      if (trace.visible === false || !trace.text || (trace.meta.kind !== "odd" && size.h - pointerY > 24)) continue;
      for (let place = 0; place < trace.x.length; place++) {
        if (Math.abs(toPixel(xaxis, trace.x[place]) - pointerX) > ON_MARK) continue;
        words.push(trace.meta.kind === "checkpoint" ? trace.text[place] : `${trace.name}: ${trace.text[place]}`);
      }
    }
    return [...new Set(words)].slice(0, 6);
  }

  function heading(card, x) {
    const {xaxis} = card.plot._fullLayout;
    if (xaxis.type === "date") return new Date(x).toISOString().replace("T", " ").slice(0, 19);
    return `${card.plot.layout.xaxis.title?.text || ""} ${darkit.number(x, 9)}`;
  }

  function show(card, event) {
    const full = card.plot._fullLayout;
    const frame = card.plot.getBoundingClientRect();
    const [x, y] = [event.clientX - frame.left - full._size.l, event.clientY - frame.top - full._size.t];
    if (x < 0 || y < 0 || x > full._size.w || y > full._size.h) return hide();
    const wanted = fromPixel(full.xaxis, x);
    const rows = rowsAt(card, wanted, y);
    const marks = marksAt(card, x, y);
    if (!rows.length && !marks.length) return hide();
    const close = rows.reduce((best, row) => (best === null || row.away < best.away ? row : best), null);
    const meant = close && close.away < NEAR ? close : null;
    fade(card, rows.length > 1 ? meant : null);
    fill(card, rows, meant || close, marks, wanted);
    document.body.append(box);
    const left = event.clientX + 18 + box.offsetWidth > window.innerWidth ? event.clientX - 18 - box.offsetWidth : event.clientX + 18;
    const top = Math.min(event.clientY + 12, window.innerHeight - box.offsetHeight - 8);
    box.style.transform = `translate(${Math.max(4, left)}px, ${Math.max(4, top)}px)`;
    for (const other of card.board.cards.values()) if (other.visible && other.plot.data) drawLine(other, wanted, other === card);
    return undefined;
  }

  function fill(card, rows, meant, marks, wanted) {
    const start = Math.max(0, Math.min(rows.length - MOST, rows.indexOf(meant) - MOST / 2));
    const list = rows.slice(start, start + MOST).map((row) => {
      const line = element("div", row === meant ? "hover-row nearest" : "hover-row");
      const dot = element("span", `run-dot dash-${row.trace.line.dash || "solid"}`);
      dot.style.setProperty("--curve", row.trace.line.color);
      const spread = row.spread === undefined ? "" : ` ± ${darkit.number(row.spread, 3)}`;
      line.append(dot, element("span", "hover-name", plain(row.trace.name)), element("span", "hover-value", darkit.number(row.value) + spread));
      return line;
    });
    if (rows.length > list.length) list.push(element("div", "muted", say("hover_more", {count: rows.length - list.length})));
    const place = meant ? meant.x : wanted;
    box.replaceChildren(element("div", "hover-head", plain(heading(card, place))), ...list, ...marks.map((word) => element("div", "hover-mark", plain(word))));
  }

  /* Texts in a figure are escaped for plotly, which reads markup; here they are text. */
  const plain = (darkit.plain = (text) => text.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&"));

  /* Fades the other curves. Their elements are changed, as drawing a chart anew at every move would be slow. */
  function fade(card, meant) {
    for (const group of card.plot.querySelectorAll(".scatterlayer > .trace")) {
      const own = group.__data__?.[0]?.trace;
      const other = meant && own && card.plot.data[own.index]?.meta.run + card.plot.data[own.index]?.meta.series !== meant.trace.meta.run + meant.trace.meta.series;
      group.style.opacity = other ? 0.22 : "";
    }
    card.faded = meant !== null;
  }

  function drawLine(card, wanted, own) {
    const full = card.plot._fullLayout;
    let line = lines.get(card.plot);
    if (!line) {
      line = element("div", "cursor-line");
      lines.set(card.plot, line);
      card.plot.append(line);
    }
    const x = toPixel(full.xaxis, wanted);
    line.hidden = !(x >= 0 && x <= full._size.w);
    line.classList.toggle("own", own);
    line.style.cssText = `left:${full._size.l + x}px;top:${full._size.t}px;height:${full._size.h}px`;
  }

  let shown = null;
  function hide() {
    cancelAnimationFrame(pending);
    box.remove();
    for (const [plot, line] of lines) {
      line.remove();
      lines.delete(plot);
    }
    if (shown?.faded) fade(shown, null);
    shown = null;
  }

  /* Shows the values of a chart wherever the pointer is on it. */
  darkit.watchPointer = (board, card) => {
    card.board = board;
    const look = (event) => {
      if (event.buttons && event.pointerType !== "touch") return hide(); // a stretch is being chosen
      cancelAnimationFrame(pending);
      pending = requestAnimationFrame(() => {
        if (shown && shown !== card) hide();
        shown = card;
        if (card.plot.data && card.plot.isConnected) show(card, event);
      });
      return undefined;
    };
    card.plot.addEventListener("pointermove", look);
    card.plot.addEventListener("pointerdown", look);
    card.plot.addEventListener("pointerleave", (event) => {
      if (event.pointerType !== "touch") hide(); // a finger leaves as soon as it is lifted: the values stay to be read
    });
  };
  document.addEventListener("pointerdown", ({target}) => {
    if (shown && !shown.plot.contains(target)) hide();
  }, {capture: true}); // before the chart below the finger shows its own
  window.addEventListener("scroll", hide, {passive: true, capture: true});
  darkit.pages.push(hide);
})();

"use strict";
/* Charts of runs: requests the figures in view, finer points of a zoom, and updates. */
(() => {
  const {element, say} = darkit;
  const MOST_GROWN = 5000; // points of a trace after which the whole chart is requested again
  const options = {locale: "darkit", displaylogo: false, responsive: true, displayModeBar: false, doubleClick: false};
  const boards = new Map();

  function decode(value) {
    if (!value || value.bdata === undefined) return value;
    if (Uint8Array.fromBase64) return new Float64Array(Uint8Array.fromBase64(value.bdata).buffer);
    const letters = atob(value.bdata);
    const bytes = new Uint8Array(letters.length);
    for (let place = 0; place < letters.length; place++) bytes[place] = letters.charCodeAt(place);
    return new Float64Array(bytes.buffer);
  }

  function joined(first, second) {
    const all = new Float64Array(first.length + second.length);
    all.set(first);
    all.set(second, first.length);
    return all;
  }

  function position(value) {
    if (typeof value !== "string") return value;
    const text = value.replace(" ", "T");
    return Date.parse(text.length <= 10 ? `${text}T00:00Z` : `${text}Z`);
  }

  /* The range of y that a chart is zoomed to, from the address: "low,high,series". */
  const seriesOf = (text) => text.split(",").slice(2).join(",");
  function zoomOfY(title) {
    const range = darkit.parameters().getAll("y").find((text) => seriesOf(text) === title)?.split(",").slice(0, 2).map(Number);
    return range?.every(Number.isFinite) ? range : null;
  }

  function rememberY(title, range) {
    const others = darkit.parameters().getAll("y").filter((text) => seriesOf(text) !== title);
    darkit.remember({y: range ? [...others, [...range.map((edge) => Number(edge.toPrecision(10))), title].join(",")] : others});
  }

  const purge = ({plot, drawn}) => drawn?.finally(() => Plotly.purge(plot)); // Plotly fails on one purged while it is drawn

  class Board {
    constructor(root) {
      this.root = root;
      this.source = root.dataset.source;
      this.runs = JSON.parse(root.dataset.runs);
      this.grid = root.querySelector(".chart-sections");
      this.chips = root.querySelector(".chips");
      this.message = root.querySelector(".board-message");
      this.cards = new Map();
      this.sections = new Map();
      this.states = {};
      this.groups = [];
      this.abort = new AbortController();
      this.watcher = new IntersectionObserver((entries) => this.seen(entries), {rootMargin: "300px"});
      this.ready = this.start(); // fulfilled when the first charts are drawn
    }

    async start() {
      darkit.plotly().catch(() => {}); // `load` says so
      try {
        await this.load(null);
      } catch (error) {
        if (error.name === "AbortError") return;
        this.message.textContent = error.message;
      }
      darkit.later();
      this.loop = darkit.repeat(() => this.news());
    }

    view() {
      return darkit.viewOf(this.source, darkit.dark(), darkit.language());
    }

    get zoomed() {
      const view = this.view();
      return view.low !== null && view.high !== null;
    }

    /* Requests the figures of the named charts; null requests the list of all and the first figures. */
    async load(titles) {
      const started = (this.asked = (this.asked || 0) + 1);
      const {runs} = this;
      const body = {runs, view: this.view(), charts: titles};
      const early = titles === null ? await darkit.askedEarly("/api/charts", body) : null;
      const answer = early || await (await darkit.ask("/api/charts", body, this.abort.signal)).json();
      await darkit.plotly();
      if (this.abort.signal.aborted || this.runs !== runs) return;
      // runs that were all moved or deleted: their curves stay until the page is reloaded
      if (this.cards.size && runs.length && !Object.keys(answer.runs).length) return;
      this.list(answer.charts, answer.left_out);
      this.states = answer.runs;
      this.groups = answer.groups;
      if (this.source === "log") darkit.offerColumns(answer.columns);
      if (titles === null) this.saved = this.savedKeys();
      darkit.showChips(this);
      const due = Object.keys(answer.figures).map((title) => this.cards.get(title)).filter(Boolean);
      for (const card of due) card.stale = false; // so that none is requested again while it waits for its turn
      for (const card of due) this.decode(answer.figures[card.id]);
      for (const card of due) {
        if (card !== due[0]) await new Promise((done) => setTimeout(done)); // the browser shows the one before
        const scrolled = darkit.isScrolling();
        if (scrolled) {
          for (const one of due) darkit.sketch(one.plot, answer.figures[one.id]);
          await darkit.scrolled();
        }
        if (this.abort.signal.aborted) return;
        if ((card.asked || 0) > started) continue;
        if (scrolled && !card.visible) { // it was only passed
          card.stale = true;
          continue;
        }
        card.asked = started;
        card.cursors = answer.cursors;
        this.draw(card, answer.figures[card.id]);
      }
    }

    list(charts, leftOut) {
      const key = JSON.stringify([charts, leftOut]);
      if (key === this.listed) return;
      this.listed = key;
      this.message.hidden = charts.length > 0 && !leftOut;
      if (leftOut) this.message.textContent = say("charts_left_out", {count: darkit.count(leftOut), most: darkit.count(charts.length)});
      if (!charts.length) this.message.textContent = say(this.source === "log" ? "no_series" : "no_machine");
      for (const chart of charts) Object.assign(this.cards.get(chart.id) || this.addCard(chart), chart);
      const ids = new Set(charts.map((chart) => chart.id));
      for (const [id, card] of this.cards) {
        if (ids.has(id)) continue;
        this.watcher.unobserve(card.box);
        card.box.remove();
        this.cards.delete(id);
        purge(card);
      }
      const order = new Map(charts.map((chart, place) => [chart.id, place]));
      this.cards = new Map([...this.cards].sort(([first], [second]) => order.get(first) - order.get(second)));
      darkit.arrange(this);
    }

    addCard(chart) {
      const {id, title} = chart;
      const box = element("section", "card chart-card");
      const head = element("div", "chart-head");
      const heading = element("h2", "chart-title", title, {title});
      const enlarge = element("button", "icon-button", "⤢", {"aria-label": say("enlarge"), title: say("enlarge")});
      const plot = element("div", "plot", "", {role: "img", "aria-label": title});
      const legend = element("div", "chart-legend");
      const card = {...chart, box, plot, legend, stale: true, visible: false, cursors: {}};
      box.classList.toggle("large", darkit.parameters().getAll("large").includes(id));
      enlarge.onclick = () => {
        const others = darkit.parameters().getAll("large").filter((one) => one !== id);
        darkit.remember({large: box.classList.toggle("large") ? [...others, id] : others});
        if (plot.data) card.drawn = Plotly.Plots.resize(plot);
      };
      head.append(heading, darkit.chartMenu(this, card), enlarge);
      box.append(head, legend, plot);
      box.dataset.chart = id;
      if (this.source === "log") darkit.makeMovable(this, card, heading);
      this.cards.set(id, card);
      this.watcher.observe(box);
      return card;
    }

    decode(figure) {
      const hidden = new Set(darkit.parameters().getAll("hide"));
      for (const trace of figure.data) {
        for (const key of ["x", "y", "customdata"]) if (trace[key]) trace[key] = decode(trace[key]);
        if (hidden.has(trace.meta.run)) trace.visible = false;
      }
    }

    draw(card, figure) {
      darkit.removeSketch(card.plot);
      const range = this.source === "log" ? zoomOfY(card.id) : null;
      if (range) Object.assign(figure.layout.yaxis, {range, autorange: false, dtick: undefined});
      Object.assign(figure.layout, {hovermode: false}); // hover.js shows the values
      const first = !card.plot.data;
      this.paint(card, figure);
      if (this.standsOut) card.drawn.then(() => darkit.fade(this, card));
      card.plot.dataset.drawn = String(Number(card.plot.dataset.drawn || 0) + 1);
      darkit.showLegend(card);
      if (!first) return;
      darkit.watchPointer(this, card);
      card.plot.on("plotly_relayout", (change) => this.zoom(card, change));
      card.plot.on("plotly_doubleclick", () => this.showAll());
    }

    paint(card, {data, layout}) {
      card.drawn = Plotly.react(card.plot, data, layout, options);
    }

    zoom(card, change) {
      for (const axis of ["xaxis", "yaxis"]) {
        const range = change[`${axis}.range`];
        if (range) change = {...change, [`${axis}.range[0]`]: range[0], [`${axis}.range[1]`]: range[1]};
      }
      if (this.source !== "log") return;
      if ("yaxis.range[0]" in change) rememberY(card.id, [change["yaxis.range[0]"], change["yaxis.range[1]"]]);
      if ("xaxis.range[0]" in change) {
        const [low, high] = [change["xaxis.range[0]"], change["xaxis.range[1]"]].map(position);
        darkit.remember({low, high});
      }
      if ("xaxis.range[0]" in change || "yaxis.range[0]" in change) this.refresh();
    }

    /* Resets the zoom of all charts. */
    showAll() {
      if (this.source === "log") darkit.remember({low: null, high: null, y: null});
      return this.refresh();
    }

    showReset() {
      const button = document.getElementById("reset-zoom");
      if (button) button.hidden = !this.zoomed && !darkit.parameters().has("y");
    }

    /* Called when the view changes: requests the charts on the screen now, the others when they are scrolled to. */
    refresh() {
      const titles = [];
      for (const card of this.cards.values()) {
        card.stale = true;
        if (card.visible) titles.push(card.id);
      }
      this.showReset();
      return this.load(titles).catch(() => (this.missed = true));
    }

    seen(entries) {
      const titles = [];
      for (const entry of entries) {
        const card = this.cards.get(entry.target.dataset.chart);
        if (!card) continue;
        card.visible = entry.isIntersecting;
        if (card.visible && card.stale && card.plot.isConnected) titles.push(card.id);
      }
      if (titles.length) this.load(titles).catch(() => (this.missed = true));
    }

    async news() {
      if (!this.root.isConnected) {
        this.end();
        return 1e9;
      }
      if (!this.root.offsetParent) return 1000;
      if (this.missed) { // what is on the screen is not what was asked for
        this.missed = false;
        await this.refresh();
        return this.missed ? 3000 : 100;
      }
      const view = this.view();
      const cursors = {};
      if (!this.zoomed) {
        for (const card of this.cards.values()) if (card.visible && !card.stale) cursors[card.id] = card.cursors;
      }
      const asked = this.asked;
      const answer = await (
        await darkit.ask("/api/news", {runs: this.runs, view, cursors}, this.abort.signal)
      ).json();
      if (asked !== this.asked) return 100; // the view has changed since
      this.states = answer.runs;
      darkit.showChips(this);
      const redraw = new Set(answer.redraw);
      for (const [title, seen] of Object.entries(answer.cursors)) {
        const card = this.cards.get(title);
        if (card && !redraw.has(title)) card.cursors = {...card.cursors, ...seen};
      }
      for (const [title, pieces] of Object.entries(answer.append)) {
        const card = this.cards.get(title);
        if (card && !this.append(card, pieces)) redraw.add(title);
      }
      if (answer.count > this.cards.size || redraw.size) await this.load([...redraw]);
      if (!view.group.length && this.savedOthers()) await this.refresh();
      const alive = Object.values(answer.runs).some((run) => run.state === "running" || run.state === "stalled");
      const changed = Object.keys(answer.cursors).length > 0;
      if (view.group.length && changed) return 2000;
      return changed ? 400 : alive ? 500 : 3000;
    }

    /* Returns, at most every ten seconds while it trains, whether checkpoints came or went since their marks were drawn. */
    savedOthers() {
      if (this.source !== "log" || this.zoomed) return false;
      const saved = this.savedKeys();
      const alive = Object.values(this.states).some((run) => run.state === "running" || run.state === "stalled");
      // of runs that were moved or deleted nothing is known any more: their curves stay as they are
      const others = Object.keys(saved).some((run) => saved[run] !== this.saved?.[run]);
      if (!others || (alive && Date.now() < (this.nextMarks || 0))) return false;
      this.saved = {...this.saved, ...saved};
      this.nextMarks = Date.now() + 10000;
      return true;
    }

    savedKeys() {
      return Object.fromEntries(Object.entries(this.states).map(([run, state]) => [run, state.saved]));
    }

    /* Shows other runs in the same charts. */
    show(runs) {
      if (runs.join("\n") === this.runs.join("\n")) return;
      this.runs = runs;
      this.root.dataset.runs = JSON.stringify(runs);
      (this.cards.size ? this.refresh() : this.load(null)).catch(() => {});
    }

    /* Adds new points to their traces; false if the whole chart must be requested again. */
    append(card, pieces) {
      const {constant} = card.plot.layout?.meta ?? {};
      for (const [run, kind, x, y, series] of pieces) {
        const trace = card.plot.data?.find(({meta}) => meta.run === run && meta.kind === kind && meta.series === series);
        if (!trace || kind === "odd" || trace.x.length < 2 || trace.x.length > MOST_GROWN) return false;
        trace.x = joined(trace.x, decode(x));
        const more = decode(y);
        if (constant !== undefined && more.some((value) => value !== constant)) return false;
        trace.y = joined(trace.y, more);
        if (trace.mode === "lines+markers" && trace.x.length > 30) trace.mode = "lines";
      }
      card.plot.layout.datarevision = (card.plot.layout.datarevision || 0) + 1;
      this.paint(card, card.plot);
      card.plot.dataset.appended = String(Number(card.plot.dataset.appended || 0) + 1);
      return true;
    }

    end() {
      this.abort.abort();
      this.watcher.disconnect();
      this.loop?.end();
      this.cards.forEach(purge);
      boards.delete(this.root);
    }
  }

  /* Starts the boards that are new on the page, and ends those that are gone. */
  function mendBoards() {
    for (const [root, board] of boards) if (!root.isConnected) board.end();
    for (const root of document.querySelectorAll(".chart-board")) {
      if (!boards.has(root)) boards.set(root, new Board(root));
    }
    for (const board of boards.values()) board.showReset();
  }
  darkit.pages.push(mendBoards);
  darkit.mendBoards = mendBoards;
  darkit.boardOf = (root) => boards.get(root);
  darkit.decode = decode;
  darkit.logBoard = () => [...boards.values()].find((one) => one.source === "log" && one.root.isConnected);

  const eachBoard = (act) => {
    for (const board of boards.values()) if (board.source === "log") act(board);
  };
  darkit.eachBoard = eachBoard;

  /* Redraws the charts when the page turns dark or light. */
  new MutationObserver(() => {
    document.body.dataset.agThemeMode = darkit.dark() ? "dark" : "light";
    for (const board of boards.values()) board.refresh();
  }).observe(document.documentElement, {attributes: true, attributeFilter: ["data-mantine-color-scheme"]});

  document.addEventListener("click", (event) => {
    if (event.target.id !== "reset-zoom") return;
    eachBoard((board) => board.showAll());
  });
})();

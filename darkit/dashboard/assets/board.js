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

  class Board {
    constructor(root) {
      this.root = root;
      this.source = root.dataset.source;
      this.runs = JSON.parse(root.dataset.runs);
      this.grid = root.querySelector(".chart-grid");
      this.chips = root.querySelector(".chips");
      this.message = root.querySelector(".board-message");
      this.cards = new Map();
      this.states = {};
      this.groups = [];
      this.abort = new AbortController();
      this.watcher = new IntersectionObserver((entries) => this.seen(entries), {rootMargin: "300px"});
      this.ready = this.start(); // fulfilled when the first charts are drawn
    }

    async start() {
      darkit.plotly();
      try {
        await this.load(null);
      } catch (error) {
        if (error.name === "AbortError") return;
        this.message.textContent = error.message;
      }
      (window.requestIdleCallback || setTimeout)(() => darkit.grid());
      this.loop = darkit.repeat(() => this.news());
    }

    view() {
      const query = darkit.parameters();
      const edge = (key) => (query.has(key) && Number.isFinite(Number(query.get(key))) ? Number(query.get(key)) : null);
      const own = this.source === "log";
      return {
        axis: own ? query.get("axis") || "step" : "wall",
        log: own && query.get("log") === "1",
        smooth: own ? Number(query.get("smooth")) || 0 : 0,
        robust: own && query.get("robust") === "1",
        low: own ? edge("low") : null,
        high: own ? edge("high") : null,
        group: own ? query.get("group") || "" : "",
        unfold: own ? query.getAll("unfold") : [],
        dark: darkit.dark(),
        language: darkit.language(),
        offset: -new Date().getTimezoneOffset(),
        source: this.source,
      };
    }

    get zoomed() {
      const view = this.view();
      return view.low !== null && view.high !== null;
    }

    /* Requests the figures of the named charts; null requests the list of all and the first figures. */
    async load(titles) {
      const started = (this.asked = (this.asked || 0) + 1);
      const body = {runs: this.runs, view: this.view(), charts: titles};
      const answer = await (await darkit.ask("/api/charts", body, this.abort.signal)).json();
      await darkit.plotly();
      if (this.abort.signal.aborted) return;
      this.list(answer.charts);
      this.states = answer.runs;
      this.groups = answer.groups;
      darkit.showChips(this);
      const due = Object.keys(answer.figures).map((title) => this.cards.get(title)).filter(Boolean);
      for (const card of due) card.stale = false; // so that none is requested again while it waits for its turn
      for (const card of due) {
        if (card !== due[0]) await new Promise((done) => setTimeout(done)); // the browser shows the one before
        if (this.abort.signal.aborted) return;
        if ((card.asked || 0) > started) continue;
        card.asked = started;
        card.cursors = answer.cursors;
        this.draw(card, answer.figures[card.id]);
      }
    }

    list(charts) {
      this.message.hidden = charts.length > 0;
      if (!charts.length) this.message.textContent = say(this.source === "log" ? "no_series" : "no_machine");
      for (const {id, title} of charts) if (!this.cards.has(id)) this.addCard(id, title);
      const ids = new Set(charts.map((chart) => chart.id));
      for (const [id, card] of this.cards) {
        if (ids.has(id)) continue;
        card.box.remove();
        this.cards.delete(id);
      }
    }

    addCard(id, title) {
      const box = element("section", "card chart-card");
      const head = element("div", "chart-head");
      const heading = element("h2", "chart-title", title, {title});
      const enlarge = element("button", "icon-button", "⤢", {"aria-label": say("enlarge"), title: say("enlarge")});
      const plot = element("div", "plot", "", {role: "img", "aria-label": title});
      const card = {id, title, box, plot, stale: true, visible: false, cursors: {}};
      box.classList.toggle("large", darkit.parameters().getAll("large").includes(id));
      enlarge.onclick = () => {
        const others = darkit.parameters().getAll("large").filter((one) => one !== id);
        darkit.remember({large: box.classList.toggle("large") ? [...others, id] : others});
        if (plot.data) card.drawn = Plotly.Plots.resize(plot);
      };
      head.append(heading, darkit.chartMenu(this, card), enlarge);
      box.append(head, plot);
      box.dataset.chart = id;
      this.grid.append(box);
      this.cards.set(id, card);
      this.watcher.observe(box);
    }

    draw(card, figure) {
      const hidden = new Set(darkit.parameters().getAll("hide"));
      for (const trace of figure.data) {
        for (const key of ["x", "y", "customdata"]) if (trace[key]) trace[key] = decode(trace[key]);
        if (hidden.has(trace.meta.run)) trace.visible = false;
      }
      const range = this.source === "log" ? zoomOfY(card.id) : null;
      if (range) Object.assign(figure.layout.yaxis, {range, autorange: false, dtick: undefined});
      const first = !card.plot.data;
      this.paint(card, figure);
      card.plot.dataset.drawn = String(Number(card.plot.dataset.drawn || 0) + 1);
      if (!first) return;
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
      return this.load(titles).catch(() => {});
    }

    seen(entries) {
      const titles = [];
      for (const entry of entries) {
        const card = this.cards.get(entry.target.dataset.chart);
        if (!card) continue;
        card.visible = entry.isIntersecting;
        if (card.visible && card.stale && card.plot.isConnected) titles.push(card.id);
      }
      if (titles.length) this.load(titles).catch(() => {});
    }

    async news() {
      if (!this.root.isConnected) {
        this.end();
        return 1e9;
      }
      if (!this.root.offsetParent) return 1000;
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
      if (answer.count > this.cards.size) await this.load([...redraw, ...this.cards.keys()]);
      else if (redraw.size) await this.load([...redraw]);
      if (this.savedMore() && !view.group) await this.load([...this.cards.values()].filter((card) => card.visible).map((card) => card.id));
      const alive = Object.values(answer.runs).some((run) => run.state === "running" || run.state === "stalled");
      const changed = Object.keys(answer.cursors).length > 0;
      if (view.group && changed) return 2000;
      return changed ? 400 : alive ? 500 : 3000;
    }

    /* Returns, at most every ten seconds, whether there are checkpoints without a mark. */
    savedMore() {
      const saved = Object.values(this.states).reduce((sum, run) => sum + (run.saved || 0), 0);
      const before = this.saved ?? saved;
      if (this.source !== "log" || this.zoomed || Date.now() < (this.nextMarks || 0)) return false;
      this.saved = saved;
      if (saved > before) this.nextMarks = Date.now() + 10000;
      return saved > before;
    }

    /* Adds new points to their traces; false if the whole chart must be requested again. */
    append(card, pieces) {
      for (const [run, kind, x, y] of pieces) {
        const trace = card.plot.data?.find((one) => one.meta.run === run && one.meta.kind === kind);
        if (!trace || kind === "odd" || trace.x.length < 2 || trace.x.length > MOST_GROWN) return false;
        trace.x = joined(trace.x, decode(x));
        trace.y = joined(trace.y, decode(y));
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
      for (const {plot, drawn} of this.cards.values()) {
        drawn?.finally(() => Plotly.purge(plot)); // Plotly fails on a chart that is purged while it is drawn
      }
      boards.delete(this.root);
    }
  }

  darkit.pages.push(() => {
    for (const [root, board] of boards) if (!root.isConnected) board.end();
    for (const root of document.querySelectorAll(".chart-board")) {
      if (!boards.has(root)) boards.set(root, new Board(root));
    }
    for (const board of boards.values()) board.showReset();
    showWeight();
  });

  darkit.logBoard = () => [...boards.values()].find((one) => one.source === "log" && one.root.isConnected);

  function eachBoard(act) {
    for (const board of boards.values()) if (board.source === "log") act(board);
  }

  /* Redraws the charts when the page turns dark or light. */
  new MutationObserver(() => {
    document.body.dataset.agThemeMode = darkit.dark() ? "dark" : "light";
    for (const board of boards.values()) board.refresh();
  }).observe(document.documentElement, {attributes: true, attributeFilter: ["data-mantine-color-scheme"]});

  document.addEventListener("click", (event) => {
    if (event.target.id !== "reset-zoom") return;
    eachBoard((board) => board.showAll());
  });

  function showWeight(weight = Number(darkit.parameters().get("smooth")) || 0) {
    const place = document.getElementById("smooth-value");
    if (place) place.textContent = weight.toFixed(2);
  }

  let viewTimer = 0;
  Object.assign(dash_clientside.darkit, {
    follow_view(axis, smooth, log, robust, group) {
      const before = darkit.parameters();
      const changes = {
        axis: axis === "step" ? null : axis,
        smooth: smooth ? smooth : null,
        log: log ? "1" : null,
        robust: robust ? "1" : null,
        group: group || null,
      };
      if ((before.get("axis") || "step") !== axis) Object.assign(changes, {low: null, high: null});
      if ((before.get("log") === "1") !== log || (before.get("robust") === "1") !== robust) changes.y = null;
      if ((before.get("group") || "") !== (group || "")) changes.unfold = null;
      const address = location.search;
      showWeight(smooth || 0);
      darkit.remember(changes);
      if (location.search !== address) {
        clearTimeout(viewTimer);
        viewTimer = setTimeout(() => eachBoard((board) => board.refresh()), 60);
      }
      return axis;
    },
  });
})();

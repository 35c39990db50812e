"use strict";
/* The charts beside the table of runs: those of the ticked runs, and of the one that is pointed at. */
(() => {
  const {element} = darkit;
  const MOST_SHOWN = 50; // runs, each with curves of its own; of more the first ones
  const MOST_GROUPED = 200; // as many as the server draws
  const REST = 300; // milliseconds of pointing at a run until its curves are shown
  const WIDTH = "darkit-table-width";
  const width = window.matchMedia("(min-width: 1000px)"); // as in style.css
  const wide = () => width.matches;

  /* Lets the curves of one run stand out from the others of a board; null ends that. */
  function highlight(board, run) {
    if (!board || run === (board.standsOut ?? null)) return;
    board.standsOut = run;
    for (const card of board.cards.values()) if (card.plot.data) fade(board, card);
  }

  function fade(board, {plot}) {
    const [run, {data}] = [board.standsOut ?? null, plot];
    const known = data.some((trace) => trace.meta.run === run);
    const wanted = data.map((trace) => {
      trace.meta.opacity ??= trace.opacity ?? 1;
      return trace.meta.opacity * (known && trace.meta.run !== run ? 0.15 : 1);
    });
    if (wanted.some((opacity, place) => opacity !== (data[place].opacity ?? 1))) Plotly.restyle(plot, {opacity: wanted});
  }

  class Side {
    constructor(table) {
      this.table = table;
      this.ticked = [];
      this.pointed = null;
      this.place = document.getElementById("runs-charts");
      this.split = document.getElementById("runs-split");
      this.button = document.getElementById("show-charts");
      this.button.onclick = () => {
        darkit.remember({side: this.open ? "0" : null});
        this.update();
      };
      try {
        const saved = Number(localStorage.getItem(WIDTH));
        if (saved > 0.15 && saved < 0.9) this.resize(saved);
      } catch { /* without a memory the table is as wide as at first */ }
      this.drag(document.getElementById("divider"));
      this.resized = () => this.update();
      window.addEventListener("resize", this.resized);
      this.update();
    }

    get open() {
      return darkit.parameters().get("side") !== "0";
    }

    end() {
      window.removeEventListener("resize", this.resized);
      clearTimeout(this.timer);
    }

    resize(share) {
      this.share = share;
      this.split.style.setProperty("--table", `${(100 * share).toFixed(2)}%`);
      document.getElementById("divider").setAttribute("aria-valuenow", String(Math.round(100 * share)));
    }

    drag(divider) {
      const keep = () => {
        try {
          localStorage.setItem(WIDTH, String(this.share));
        } catch { /* as above */ }
        window.dispatchEvent(new Event("resize"));
      };
      const to = (share) => this.resize(Math.min(0.85, Math.max(0.2, share)));
      divider.onpointerdown = (event) => {
        divider.setPointerCapture(event.pointerId);
        divider.onpointermove = ({clientX}) => {
          const box = this.split.getBoundingClientRect();
          to((clientX - box.left) / box.width);
        };
      };
      divider.onpointerup = () => {
        divider.onpointermove = null;
        keep();
      };
      divider.onkeydown = ({key}) => {
        const step = {ArrowLeft: -0.04, ArrowRight: 0.04}[key];
        if (!step) return;
        to((this.share ?? 0.6) + step);
        keep();
      };
    }

    /* Shows the curves of the ticked runs, in the order in which they were ticked. */
    tick(names) {
      const there = new Set(names);
      const kept = this.ticked.filter((name) => there.has(name));
      const known = new Set(kept);
      this.ticked = [...kept, ...names.filter((name) => !known.has(name))];
      this.update();
    }

    /* The ticked runs whose curves are shown. */
    get drawn() {
      return this.ticked.slice(0, this.table.by.length ? MOST_GROUPED : MOST_SHOWN);
    }

    /* Shows the curves of a run while the pointer rests on it, and lets those of a ticked one stand out. */
    point(name) {
      if (name === this.pointed) return;
      clearTimeout(this.timer);
      this.pointed = name;
      this.timer = setTimeout(() => this.update(), name === null ? 80 : REST);
    }

    update() {
      if (!this.split.isConnected) return;
      const open = this.open && wide();
      this.split.classList.toggle("closed", !open);
      this.button.setAttribute("aria-pressed", String(this.open));
      const {drawn} = this;
      const preview = this.pointed !== null && !drawn.includes(this.pointed) && drawn.length < MOST_GROUPED ? [this.pointed] : [];
      const shown = open ? [...drawn, ...preview] : [];
      this.sayShown(shown.length, drawn.length);
      if (!shown.length) {
        this.board = null;
        this.place.replaceChildren();
        darkit.mendBoards();
      } else if (!this.board) {
        this.board = this.makeBoard(shown);
        darkit.mendBoards();
      } else {
        darkit.boardOf(this.board)?.show(shown);
      }
      if (this.board) highlight(darkit.boardOf(this.board), this.pointed ?? this.stuck ?? null);
      this.table.eyesChanged();
    }

    /* Says above the charts that there are none, or that they do not show all ticked runs. */
    sayShown(shown, drawn) {
      const hint = document.getElementById("charts-hint");
      const some = drawn < this.ticked.length;
      hint.hidden = shown > 0 && !some;
      hint.textContent = some ? darkit.say("charts_first", {shown: darkit.count(drawn), count: darkit.count(this.ticked.length)}) : darkit.say("charts_hint");
    }

    /* Lets the curves of a run stand out until another run, or the same again, is clicked. */
    stick(name) {
      this.stuck = this.stuck === name ? null : name;
      if (this.board) highlight(darkit.boardOf(this.board), this.stuck);
    }

    makeBoard(names) {
      const board = element("div", "chart-board", "", {id: "charts", "data-source": "log", "data-language": darkit.language()});
      board.dataset.runs = JSON.stringify(names);
      board.append(
        element("div", "chips", "", {role: "list"}),
        element("div", "board-message muted", darkit.say("loading"), {role: "status"}),
        element("div", "chart-sections"),
      );
      this.place.replaceChildren(board);
      return board;
    }

    /* What the eye of a run in the table shows: its curve, and whether it is hidden; null for a run without one. */
    eye(name) {
      if (!this.drawn.includes(name) || !this.open || !wide()) return null;
      const state = this.board && darkit.boardOf(this.board)?.states[name];
      return {curve: state ?? null, on: !darkit.parameters().getAll("hide").includes(name)};
    }

    toggle(name) {
      const now = darkit.parameters().getAll("hide");
      const hidden = now.includes(name);
      darkit.remember({hide: hidden ? now.filter((one) => one !== name) : [...now, name]});
      if (this.board) darkit.showCurves(darkit.boardOf(this.board), name, hidden);
      this.table.eyesChanged();
    }
  }

  Object.assign(darkit, {Side, fade, highlight});
})();

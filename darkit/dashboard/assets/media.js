"use strict";
/* The media of runs: images, sounds, texts, histograms, tables and figures by step, those of several runs side by side. */
(() => {
  const {element, say} = darkit;
  const MOST_ROWS = 200; // of a table
  const MOST_KEPT = 300; // contents in memory
  const MOST_BYTES = 200_000_000; // of these
  const MOST_COMPARED = 2_000_000; // pairs of words of two texts
  const OWN = new Set(["scatter", "bar", "pie"]); // what the pages' plotly draws
  const DRAWN = new Set([ // and what the whole one draws without WebGL, maps and pictures
    ...OWN, "barpolar", "box", "candlestick", "contour", "funnel", "funnelarea", "heatmap", "histogram", "histogram2d", "histogram2dcontour",
    "icicle", "ohlc", "sankey", "scatterpolar", "scatterternary", "sunburst", "table", "treemap", "violin", "waterfall",
  ]);
  const LEFT_OUT = new Set(["images", "updatemenus", "sliders"]); // what loads something, or brings it by a click
  const options = {locale: "darkit", displaylogo: false, responsive: true, displayModeBar: false};
  const boards = new Map();
  const contents = new Map();

  /* Returns the content of a medium. It is named by its digest, so what was loaded once stays right. */
  function content(run, file) {
    const key = `${run}\n${file}`;
    const known = contents.get(key) ?? {size: 0, loading: darkit.ask("/api/medium", {run, file}).then((answer) => answer.blob())};
    if (!contents.has(key)) {
      contents.set(key, known);
      known.loading.then((blob) => keep(known, blob), () => contents.delete(key));
    }
    return known.loading;
  }

  /* Forgets the contents that were loaded first, when there are too many or they are too large. */
  function keep(known, blob) {
    known.size = blob.size;
    let bytes = [...contents.values()].reduce((sum, {size}) => sum + size, 0);
    for (const [key, {size}] of contents) {
      if (contents.size <= MOST_KEPT && bytes <= MOST_BYTES) return;
      contents.delete(key);
      bytes -= size;
    }
  }

  async function address(run, file) {
    const url = URL.createObjectURL(await content(run, file));
    setTimeout(() => URL.revokeObjectURL(url), 60000); // by then it is shown
    return url;
  }

  const show = {
    async image(place, {run, file, caption, key, late}) {
      const image = element("img", "medium-image", "", {alt: caption || key});
      image.src = await address(run, file);
      image.onclick = () => image.classList.toggle("whole");
      if (!late()) place.replaceChildren(image);
    },
    async audio(place, {run, file}) {
      const player = element("audio", "", "", {controls: ""});
      player.src = await address(run, file);
      place.replaceChildren(player);
    },
    async text(place, {run, file, before, diff}) {
      const text = await (await content(run, file)).text();
      const block = element("pre", "code tall", "", {tabindex: "0"});
      if (diff && before) block.append(...difference(await (await content(run, before)).text(), text));
      else block.textContent = text;
      place.replaceChildren(block);
    },
    async table(place, {run, file}) {
      const {columns = [], rows = []} = JSON.parse(await (await content(run, file)).text());
      const table = element("table", "values");
      const head = element("tr");
      const isNumber = (place) => rows.length > 0 && rows.every((row) => typeof row[place] === "number");
      head.append(...columns.map((name, place) => element("th", isNumber(place) ? "number" : "", String(name), {scope: "col"})));
      const body = rows.slice(0, MOST_ROWS).map((row) => {
        const line = element("tr");
        line.append(...row.map((value) => element("td", typeof value === "number" ? "number" : "", typeof value === "number" ? darkit.number(value) : String(value ?? ""))));
        return line;
      });
      const [top, bottom] = [element("thead"), element("tbody")];
      top.append(head);
      bottom.append(...body);
      table.append(top, bottom);
      const box = element("div", "scroll-x medium-table", "", {tabindex: "0"});
      box.append(table);
      place.replaceChildren(box);
      if (rows.length > MOST_ROWS) place.append(element("p", "muted", say("table_rows", {shown: MOST_ROWS, all: darkit.count(rows.length)})));
    },
    async figure(place, {run, file, late}) {
      if (file.endsWith(".png")) {
        await show.image(place, {run, file, key: "", late});
        return;
      }
      const figure = JSON.parse(await (await content(run, file)).text(), harmless);
      if (late()) return;
      const kinds = new Set((figure.data || []).map((trace) => trace.type || "scatter"));
      const foreign = [...kinds].filter((kind) => !DRAWN.has(kind));
      if (foreign.length) {
        place.replaceChildren(element("p", "muted", say("figure_foreign", {kinds: foreign.join(", "), file: `media/${file}`})));
        return;
      }
      const library = await ([...kinds].every((kind) => OWN.has(kind)) ? darkit.plotly() : darkit.wholePlotly());
      const margin = {l: 50, r: 16, t: figure.layout?.title ? 50 : 16, b: 40, ...figure.layout?.margin}; // the place is low
      await draw(place, figure.data, {...figure.layout, margin, autosize: true, width: undefined, height: undefined}, late, library);
    },
    async histogram(place, {run, file, late}) {
      const {edges, counts} = JSON.parse(await (await content(run, file)).text());
      const wide = edges.slice(1).map((edge, bin) => edge - edges[bin]);
      const bar = {type: "bar", x: edges.slice(1).map((edge, bin) => edge - wide[bin] / 2), y: counts, width: wide, marker: {color: "#4c6ef5", line: {width: 0}}};
      const ink = getComputedStyle(document.body).color;
      const axis = {gridcolor: "rgba(128,128,128,0.2)", zeroline: false, automargin: true};
      await draw(place, [bar], {
        bargap: 0, margin: {l: 44, r: 8, t: 8, b: 30}, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
        font: {color: ink, size: 12}, xaxis: axis, yaxis: {...axis, title: {text: say("histogram_count")}},
      }, late);
    },
  };

  const NOT_PLAIN = /<(?!\/?(?:b|i|em|strong|s|u|sub|sup|extra)>|br\s*\/?>)/gi; // every < but that of a plain tag

  /* Returns a value of a figure without what could lead or load from elsewhere. Links and styles are text, wherever
     their parts stand: plotly joins texts (prefixes, templates) before it reads them. */
  function harmless(key, value) {
    if (LEFT_OUT.has(key)) return [];
    if (key === "type" && value === "scattergl") return "scatter"; // the same, drawn otherwise
    return typeof value === "string" ? value.replace(NOT_PLAIN, "&lt;") : value;
  }

  /* Draws in the place itself, where the plot of another step may be: only what is still wanted once everything is there. */
  async function draw(place, data, layout, late, library = null) {
    const plotly = library ?? (await darkit.plotly());
    if (!place.isConnected || late()) return;
    let plot = place.querySelector(".medium-plot");
    if (plot?.library !== plotly) {
      plot?.library.purge(plot);
      plot = Object.assign(element("div", "medium-plot"), {library: plotly});
      place.replaceChildren(plot);
    }
    await plotly.react(plot, data, layout, options);
    darkit.purgeLater(plot, plotly);
    plot.dataset.drawn = "1";
  }

  /* Returns the words of a text, those that the one before lacks and those that only it has marked as such. */
  function difference(before, after) {
    const words = (text) => text.match(/\s+|[^\s]+/g) || [];
    let [first, second] = [words(before), words(after)];
    if (first.length * second.length > MOST_COMPARED) [first, second] = [before, after].map((text) => text.match(/.*\n|.+$/g) || []);
    if (first.length * second.length > MOST_COMPARED) return [element("ins", "", after)];
    const width = second.length + 1;
    const common = new Uint32Array((first.length + 1) * width); // the longest common subsequence of what follows
    for (let one = first.length - 1; one >= 0; one--) {
      for (let two = second.length - 1; two >= 0; two--) {
        common[one * width + two] = first[one] === second[two]
          ? common[(one + 1) * width + two + 1] + 1
          : Math.max(common[(one + 1) * width + two], common[one * width + two + 1]);
      }
    }
    const parts = [];
    const add = (tag, text) => {
      if (parts.at(-1)?.tag === tag) parts.at(-1).text += text;
      else parts.push({tag, text});
    };
    let [one, two] = [0, 0];
    while (one < first.length || two < second.length) {
      if (one < first.length && two < second.length && first[one] === second[two]) {
        add("span", second[two++]);
        one++;
      } else if (two < second.length && (one === first.length || common[one * width + two + 1] > common[(one + 1) * width + two])) add("ins", second[two++]);
      else add("del", first[one++]);
    }
    return parts.map(({tag, text}) => element(tag, "", text));
  }

  class MediaBoard {
    constructor(root) {
      this.root = root;
      this.runs = JSON.parse(root.dataset.runs);
      this.cards = new Map();
      this.linked = false;
      this.watcher = new IntersectionObserver((entries) => {
        for (const {target, isIntersecting} of entries) {
          const card = this.cards.get(target.dataset.media);
          card.visible = isIntersecting;
          if (isIntersecting) card.show();
        }
      }, {rootMargin: "200px"});
      this.loop = darkit.repeat(() => this.look());
    }

    async look() {
      if (!this.root.isConnected) {
        this.end();
        return 1e9;
      }
      const {keys, left_out: leftOut} = await (await darkit.ask("/api/media", {runs: this.runs})).json();
      for (const entry of keys) {
        const id = `${entry.kind}:${entry.key}`;
        if (!this.cards.has(id)) this.cards.set(id, new Card(this, id, entry));
        this.cards.get(id).renew(entry);
      }
      this.root.querySelector(".media-message").textContent = keys.length ? (leftOut ? say("media_left_out", {count: leftOut}) : "") : say("no_media");
      const box = this.root.closest(".media-section");
      if (box) box.hidden = !keys.length;
      this.root.dataset.filled = String(keys.length);
      return 5000;
    }

    /* Moves the sliders of the other charts to the same step. */
    moved(card) {
      if (this.linked) for (const other of this.cards.values()) if (other !== card) other.goTo(card.step);
    }

    end() {
      this.loop.end();
      this.watcher.disconnect();
      boards.delete(this.root);
    }
  }

  class Card {
    constructor(board, id, {key, kind}) {
      Object.assign(this, {board, key, kind, steps: [], step: null, following: true, visible: false, diff: false, shown: ""});
      this.box = element("section", "card media-card");
      this.box.dataset.media = id;
      this.slider = element("input", "step-slider", "", {type: "range", min: "0", "aria-label": say("step_of", {key})});
      this.said = element("span", "step-said");
      this.slider.oninput = () => {
        this.step = this.steps[this.slider.value];
        this.following = Number(this.slider.value) === this.steps.length - 1;
        this.show();
        board.moved(this);
      };
      const head = element("div", "chart-head");
      head.append(element("h2", "chart-title", key, {title: key}), element("span", "tag", say(`media_${kind}`)));
      if (kind === "text") head.append(this.toggle("text_diff", (on) => (this.diff = on)));
      this.rail = element("div", "step-rail");
      this.rail.append(this.slider, this.said);
      this.columns = element("div", "media-columns");
      this.box.append(head, this.rail, this.columns);
      board.root.querySelector(".media-grid").append(this.box);
      board.watcher.observe(this.box);
    }

    toggle(word, act) {
      const button = element("button", "small-button", say(word), {"aria-pressed": "false"});
      button.onclick = () => {
        const on = button.getAttribute("aria-pressed") !== "true";
        button.setAttribute("aria-pressed", String(on));
        act(on);
        this.show();
      };
      return button;
    }

    renew({runs}) {
      this.runs = runs;
      this.steps = [...new Set(Object.values(runs).flatMap((entries) => entries.map(([step]) => step)))].sort((one, two) => one - two);
      this.rail.hidden = this.steps.length < 2;
      this.slider.max = String(this.steps.length - 1);
      if (this.following || this.step === null) this.step = this.steps.at(-1);
      this.slider.value = String(this.steps.indexOf(this.step));
      if (this.visible) this.show();
    }

    goTo(step) {
      const place = this.steps.findLastIndex((one) => one <= step);
      this.step = this.steps[Math.max(0, place)];
      this.following = false;
      this.slider.value = String(Math.max(0, place));
      if (this.visible) this.show();
    }

    /* Shows of each run what it logged at the step, or last before it. */
    show() {
      this.said.textContent = say("at_step", {step: darkit.count(this.step)});
      const names = this.board.runs.filter((run) => this.runs[run]);
      for (const run of names) {
        const entries = this.runs[run];
        const place = entries.findLastIndex(([step]) => step <= this.step);
        this.showRun(run, names.length > 1, place < 0 ? null : entries[place], place > 0 ? entries[place - 1] : null);
      }
    }

    showRun(run, several, entry, before) {
      let column = [...this.columns.children].find((one) => one.dataset.run === run);
      if (!column) {
        column = element("figure", "media-column");
        column.dataset.run = run;
        const caption = element("figcaption");
        if (several) caption.append(element("b", "", run));
        caption.append(element("span", "medium-step muted"), element("span", "medium-caption"));
        column.append(caption, element("div", "medium"));
        if (this.kind === "histogram") column.append(element("div", "distribution"));
        this.columns.append(column);
      }
      const place = column.querySelector(".medium");
      const now = JSON.stringify([entry, this.diff && before, darkit.dark()]);
      if (column.dataset.now === now) return;
      column.dataset.now = now;
      column.querySelector(".medium-step").textContent = entry && entry[0] !== this.step ? say("at_step", {step: darkit.count(entry[0])}) : "";
      column.querySelector(".medium-caption").textContent = entry?.[2] || "";
      if (!entry) {
        place.replaceChildren(element("p", "muted", say("no_medium_yet")));
        return;
      }
      const late = () => column.dataset.now !== now;
      const wanted = {run, key: this.key, file: entry[1], caption: entry[2], before: before?.[1], diff: this.diff, late};
      const slot = element("div", "medium-slot");
      const ready = this.kind === "histogram" || this.kind === "figure" ? place : slot; // a plot is changed in its place
      show[this.kind](ready, wanted)
        .then(() => !late() && ready === slot && place.replaceChildren(...slot.childNodes))
        .catch((error) => {
          if (late()) return;
          place.replaceChildren(element("p", "warning", error.message));
          if (error instanceof darkit.Unreachable) column.dataset.now = ""; // no server: the next look tries again
        });
      if (this.kind === "histogram") this.showDistribution(column, run);
    }

    async showDistribution(column, run) {
      const key = JSON.stringify([this.runs[run].length, darkit.dark()]);
      if (column.dataset.distribution === key || this.runs[run].length < 2) return;
      column.dataset.distribution = key;
      await darkit.attempt(async () => {
        const figure = await (await darkit.ask("/api/distribution", {run, key: this.key, dark: darkit.dark(), language: darkit.language()})).json();
        await darkit.plotly();
        for (const trace of figure.data) for (const axis of ["x", "y"]) trace[axis] = darkit.decode(trace[axis]);
        const plot = column.querySelector(".distribution");
        if (!plot.isConnected) return;
        await Plotly.react(plot, figure.data, figure.layout, options);
        darkit.purgeLater(plot);
        plot.dataset.drawn = "1";
      });
    }
  }

  darkit.pages.push(() => {
    for (const [root, board] of boards) if (!root.isConnected) board.end();
    for (const root of document.querySelectorAll(".media-board")) if (!boards.has(root)) boards.set(root, new MediaBoard(root));
  });
  document.addEventListener("change", (event) => {
    if (event.target.id !== "link-steps") return;
    for (const board of boards.values()) board.linked = event.target.checked;
  });
  new MutationObserver(() => {
    for (const board of boards.values()) for (const card of board.cards.values()) if (card.visible) card.show();
  }).observe(document.documentElement, {attributes: true, attributeFilter: ["data-mantine-color-scheme"]});
})();

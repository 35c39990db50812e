"use strict";
/* The columns of the table of runs: what each shows, how it is sorted and filtered, and which are shown at first. */
(() => {
  const {say} = darkit;
  const first = ["state", "name"];
  const middle = ["progress", "eta", "duration", "rate", "started", "group", "tags", "project", "model", "device", "note", "problem"];
  const shownAtFirst = new Set(["state", "name", "progress", "duration", "started", "group", "tags", "project"]);
  const SHOWN_KEYS = 4; // config keys that differ, at first
  const MAIN = /^(val|valid|validation|eval|test)(?![a-z])/i; // what the first metric to look at begins with
  const narrow = () => window.innerWidth < 700;

  /* Compares the start of a run, in seconds, with a chosen day: on that day counts as equal. */
  function onDay(midnight, seconds) {
    if (seconds === null || seconds === undefined) return -1;
    const next = new Date(midnight.getFullYear(), midnight.getMonth(), midnight.getDate() + 1); // 23 to 25 hours later
    if (seconds * 1000 < midnight.getTime()) return -1;
    return Number(seconds * 1000 >= next.getTime());
  }

  const LETTER = 7.7; // pixels, of a digit
  const PADDING = 20; // pixels beside the text of a cell
  const [DOT, GAP, BADGE] = [14, 6, 14]; // of a state: its dot, what is before the badge, and what is around its text

  /* Whether a cell is a plain text that is surely shorter than its column is wide: it needs no clip. */
  function fits(cell) {
    const {column, colDef, value} = cell;
    if (colDef.cellRendererSelector?.(cell)) return false;
    const text = String(colDef.valueFormatter ? colDef.valueFormatter(cell) : value ?? "");
    return text.length * LETTER + PADDING <= column.getActualWidth() && !/[\u2e80-\uffff]/.test(text);
  }

  /* The width of the states with the badge of a run that diverged, which depends on the language and its font. */
  function lostWidth() {
    const pen = document.createElement("canvas").getContext("2d");
    const measured = (size, text) => {
      pen.font = `600 ${size}px ${getComputedStyle(document.body).fontFamily}`;
      return pen.measureText(text).width;
    };
    const words = [...darkit.knownStates].filter((state) => state !== "broken").map((state) => measured(12.5, say(`state_${state}`)));
    return Math.ceil(PADDING + DOT + Math.max(...words) + GAP + BADGE + measured(11, say("diverged_short")));
  }
  const number = {type: "rightAligned", filter: "agNumberColumnFilter", cellClassRules: {fits}};
  const whole = {equals: () => false}; // shows more of its run than its value: drawn anew whenever the run changes
  const column = {
    state: {...whole, width: 104, valueGetter: ({data}) => (data.state === null ? "" : say(`state_${data.state}`)), cellRenderer: darkit.cells.state, pinned: "left"},
    name: {minWidth: 120, width: 190, cellRenderer: darkit.cells.name, pinned: "left", field: "name"},
    project: {width: 110},
    model: {width: 110},
    progress: {...number, ...whole, width: 116, valueGetter: ({data}) => data.step, ...darkit.cellColumns.progress},
    eta: {...number, width: 104, valueFormatter: ({value}) => darkit.duration(value)},
    rate: {...number, width: 90, valueFormatter: ({value}) => (value ? darkit.rate(value) : "")},
    duration: {...number, width: 106, valueFormatter: ({value}) => darkit.duration(value)},
    started: {
      width: 140, cellClassRules: {fits}, filter: "agDateColumnFilter", filterParams: {comparator: onDay, inRangeInclusive: true},
      valueFormatter: ({value}) => darkit.moment(value),
    },
    device: {width: 90},
    group: {width: 130},
    tags: {width: 150, valueGetter: ({data}) => data.tags.join(", "), ...darkit.cellColumns.tags},
    note: {width: 220, tooltipField: "note"},
    problem: {width: 260, tooltipField: "problem"},
  };

  const isEmpty = (value) => value === null || value === undefined || value === "";

  /* Where a value stands whichever way is sorted: numbers and texts, NaN and infinities among numbers, nothing. */
  const rank = (value, numeric, lost) => (isEmpty(value) ? 2 : (numeric && typeof value === "string") || lost ? 1 : 0);

  /* Sorts numbers by value and texts alphabetically, with the numbers in them by value. */
  function compared(a, b, nodeA, nodeB, descending, numeric, ofBest) {
    const lost = (node) => Boolean(ofBest && node?.data && darkit.isLost(node.data));
    const [one, other] = [rank(a, numeric, lost(nodeA)), rank(b, numeric, lost(nodeB))];
    if (one !== other) return one < other !== descending ? -1 : 1;
    if (isEmpty(a)) return 0;
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b), darkit.language(), {numeric: true});
  }
  const order = (...parts) => compared(...parts.slice(0, 5), false, false);

  const writer = (id) => (id.startsWith("config:") ? darkit.configNumber : (value) => darkit.number(value));

  /* What a table has columns for. */
  class Columns {
    metrics = []; // [name, whether high or low values are better, whether a run declares it]
    keys = []; // of configs
    differing = []; // those of them that tell the runs apart best
    everyDiffering = []; // all in which runs differ; known where runs are grouped by all but the seed
    numeric = new Set(); // keys of which all values are numbers
    projects = [];
    grouped = false;
    longestTail = 0; // letters of the part of a name that is left out last
    lost = false; // whether a run diverged
    withStatistics = false; // whether there are groups, of which the spread is shown
    withBaseline = false; // whether differences are shown
    places = new Map(); // column -> digits after the point of its longest number, by which all are aligned
    lengths = new Map(); // column -> letters of its longest number

    get all() {
      const values = (metrics) =>
        metrics.flatMap(([name, ranked]) => (ranked ? [`best:${name}`, `last:${name}`, `step:${name}`] : [`last:${name}`]));
      const main = this.metrics.filter(([name]) => name === this.main); // beside the name, where no other column moves it away
      const rest = this.metrics.filter(([name]) => name !== this.main);
      const own = this.projects.length ? middle : middle.filter((id) => id !== "project");
      const others = this.keys.filter((key) => !this.differing.includes(key));
      const config = (keys) => keys.map((key) => `config:${key}`);
      return [...first, ...values(main), ...config(this.differing), ...values(rest), ...own, ...config(others)];
    }

    /* The metric that is looked at first: one of an evaluation, one that high or low values of are better, or any. */
    get main() {
      const tests = [([name, ranked]) => ranked && MAIN.test(name), ([, ranked]) => ranked, () => true];
      return tests.map((test) => this.metrics.find(test)).find(Boolean)?.[0] ?? null;
    }

    /* The columns of a table for which nobody chose any. */
    get standard() {
      if (narrow()) return ["name", ...(this.main ? [`last:${this.main}`] : []), "state", "progress"];
      const some = new Set([...this.differing.slice(0, SHOWN_KEYS).map((key) => `config:${key}`), `best:${this.main}`, `last:${this.main}`]);
      return this.all.filter((id) => some.has(id) || (shownAtFirst.has(id) && (id !== "group" || this.grouped)));
    }

    title(id) {
      if (id.startsWith("config:")) return id.slice(7);
      if (id.startsWith("last:")) return `${id.slice(5)} · ${say("last")}`;
      if (id.startsWith("best:")) return `${id.slice(5)} · ${say("best")}`;
      if (id.startsWith("step:")) return `${id.slice(5)} · ${say("best_at_step")}`;
      return say(`col_${id}`);
    }

    /* The title of a column, of metrics of groups with what stands behind ±. */
    heading(id) {
      return darkit.groups.METRIC.test(id) ? this.title(id) + this.spread : this.title(id);
    }

    get spread() {
      return this.withStatistics ? ` ± ${say(darkit.groups.withInterval() ? "spread_ci" : "spread_std")}` : "";
    }

    /* The step at which a run reached its best value; null where none is known, and for a group. */
    bestAt(id, data) {
      const values = data.stats ? null : data.series[id.slice(5)] ?? data.more?.[id.slice(5)];
      return values?.[2] ?? null;
    }

    value(id, data) {
      if (id.startsWith("config:")) return data.config[id.slice(7)];
      if (data.stats) return data.stats[id]?.mean ?? null;
      const values = data.series[id.slice(5)] ?? data.more?.[id.slice(5)];
      return values?.[id.startsWith("last:") ? 0 : 1] ?? null;
    }

    /* Finds how many digits after the point the columns of numbers need; returns the columns that need more than before. */
    measure(ids, rows) {
      const grown = [];
      for (const id of ids) {
        if (!id.includes(":")) continue;
        const before = this.places.get(id) ?? 0;
        const numbers = rows.map((data) => this.value(id, data)).filter((value) => typeof value === "number").map(writer(id));
        this.places.set(id, numbers.reduce((most, text) => Math.max(most, darkit.digitsAfterPoint(text)), before));
        this.lengths.set(id, numbers.reduce((most, text) => Math.max(most, text.length), this.lengths.get(id) ?? 0));
        if (this.places.get(id) > before) grown.push(id);
      }
      return grown;
    }

    definition(id) {
      const shared = {colId: id, headerName: this.heading(id), headerTooltip: this.heading(id), comparator: order};
      if (id.startsWith("config:")) return {...shared, ...this.ofConfig(id)};
      if (id.includes(":")) return {...shared, ...this.ofMetric(id)};
      const pinned = (id === "name" || (id === "state" && !narrow())) ? "left" : null;
      if (id === "note" || id === "problem") shared.tooltipField = id;
      const lost = id === "state" && this.lost ? lostWidth() : 0;
      const width = lost || (narrow() && {state: 96, name: 164, progress: 110}[id]) || this.widths(id) || column[id].width;
      return {...shared, field: column[id].valueGetter ? undefined : id, ...column[id], pinned, width, minWidth: 60};
    }

    /* The width of names, which are told apart by their ends. */
    widths(id) {
      if (id !== "name") return 0;
      return Math.max(190, Math.min(310, 48 + 7.8 * this.longestTail)) + (this.withStatistics ? 60 : 0) + (this.withBaseline ? 60 : 0);
    }

    ofConfig(id) {
      const name = id.slice(7);
      const short = name.slice(name.indexOf(".") + 1);
      const numeric = this.numeric.has(name);
      const shown = ({value}) => (typeof value === "number" ? this.aligned(id, value) : value === undefined ? "" : String(value));
      return {
        headerName: short, width: Math.max(84, Math.min(240, 44 + 7.2 * short.length), numeric ? 62 + 7.5 * (this.places.get(id) ?? 0) : 0, numeric ? PADDING + LETTER * (this.lengths.get(id) ?? 0) : 0),
        ...(numeric ? number : {filter: true}),
        valueGetter: ({data}) => data.config[name], valueFormatter: shown,
      };
    }

    ofMetric(id) {
      const kind = id.slice(0, 4);
      return {
        ...number, ...(kind === "last" ? {} : whole), width: 104 + (this.withStatistics ? 76 : 0) + (this.withBaseline ? 60 : 0) + (kind === "step" ? 66 : 0),
        headerName: say(kind === "step" ? "best_at_step" : kind) + this.spread,
        comparator: (...parts) => compared(...parts.slice(0, 5), true, kind !== "last"),
        valueGetter: ({data}) => this.value(id, data),
        ...darkit.cellColumns.metric(kind, id, (value) => this.aligned(id, value)),
      };
    }

    aligned(id, value) {
      return darkit.aligned(value, this.places.get(id) ?? 0, writer(id));
    }

    /* Puts the columns of a metric under one heading where there are those of several. */
    definitions(ids) {
      const alone = (one) => ({...one, headerName: one.headerTooltip, width: Math.max(one.width, 40 + 6.6 * one.headerTooltip.length)});
      const made = narrow() ? [] : [{...darkit.cellColumns.eye, headerName: say("eye")}];
      const several = new Set(ids.filter((id) => darkit.groups.METRIC.test(id)).map((id) => id.slice(5))).size > 1;
      for (const id of ids) {
        const one = this.definition(id);
        const name = several && darkit.groups.METRIC.test(id) ? id.slice(5) : null;
        const before = made.at(-1);
        if (name !== null && before?.groupId === `series:${name}`) before.children.push(one);
        else if (name !== null) made.push({groupId: `series:${name}`, headerName: name, headerTooltip: name, marryChildren: false, children: [one]});
        else made.push(darkit.groups.METRIC.test(id) ? alone(one) : one);
      }
      return made.map((one) => (one.children?.length === 1 ? alone(one.children[0]) : one));
    }
  }

  darkit.Columns = Columns;
})();

"use strict";
/* The cells of the table of runs. Loaded before the columns, which use them. */
(() => {
  const {say} = darkit;

  /* A column whose cells are plain texts, which cost least, except where `isRich`: there its renderer makes them. */
  const richIf = (isRich, cellRenderer, params) => ({
    cellRendererSelector: (cell) => (isRich(cell) ? {component: cellRenderer, params} : undefined),
  });

  /* Makes an element with attributes, or a click, and with what is inside: elements and texts; null is left out. */
  function h(tag, attributes, ...inside) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes ?? {})) {
      if (name === "className") made.className = value;
      else if (name === "onClick") made.onclick = value;
      else if (name === "style") for (const [key, to] of Object.entries(value)) made.style.setProperty(key, to);
      else made.setAttribute(name, value);
    }
    made.append(...inside.filter((part) => part !== null && part !== ""));
    return made;
  }

  const MOST_DIGITS = 8; // after the point, to which numbers are aligned
  const TAIL = 10; // letters at the end of a name that are left out last
  const LONG_TAIL = 16; // letters in which a tail begins after a hyphen, where there is one
  const narrow = window.innerWidth < 700;
  const SHORT = narrow ? 15 : 18; // letters of a name of which nothing needs to be left out

  const isLost = (data) => data.diverged !== null;
  const lostWords = (data) => say("diverged", {metric: data.lost, step: darkit.count(data.diverged)});

  const afterPoint = (text) => (text.includes(".") ? text.length - text.indexOf(".") - 1 : 0);
  /* Writes a config value as the comparison does: two seeds are told apart by their last digit. */
  const configNumber = (value) => (Number.isSafeInteger(value) ? String(value) : darkit.number(value, 10));
  const digitsAfterPoint = (text) => Math.min(MOST_DIGITS, afterPoint(text));

  /* Writes a number so that its point stands below those of the others, of which the longest has `most` digits after it. */
  function aligned(value, most, write = darkit.number) {
    const text = write(value);
    if (typeof value !== "number" || !most) return text;
    const missing = most - afterPoint(text);
    const point = text.includes(".") ? "" : "\u2008"; // as wide as a point
    return missing > 0 || point ? text + point + "\u2007".repeat(Math.max(0, missing)) : text; // as wide as a digit
  }

  /* Where the end of a long name begins: after a hyphen or an underscore, where there is one. */
  function tailOf(name) {
    const place = name.slice(-LONG_TAIL, -3).search(/[-_]/);
    return name.length - (place < 0 ? TAIL : LONG_TAIL - place - 1);
  }

  /* On a phone, where long ends do not fit, they begin later. */
  const withinScreen = (name, tail) => (narrow ? Math.max(tail, name.length - TAIL) : tail);

  /* Where the part of each name begins that tells it from the others of its sweep or project: that is never left out. */
  function findTails(rows) {
    const families = new Map();
    for (const {name, group} of rows) {
      if (!families.has(group)) families.set(group, []);
      families.get(group).push(name);
    }
    const tails = new Map();
    for (const [group, names] of families) {
      const sorted = [...names].sort();
      const [low, high] = [sorted[0], sorted.at(-1)];
      let same = 0;
      while (group && same < low.length && low[same] === high[same]) same += 1;
      const cut = names.length > 1 ? Math.max(low.lastIndexOf("-", same - 1), low.lastIndexOf("_", same - 1)) + 1 : 0;
      for (const name of names) tails.set(name, name.length <= SHORT ? 0 : withinScreen(name, cut || tailOf(name)));
    }
    return tails;
  }

  function nameParts(name, tail) {
    if (!tail) return [h("span", {className: "name-tail"}, name)];
    return [h("span", {className: "name-head"}, name.slice(0, tail)), h("span", {className: "name-tail"}, name.slice(tail))];
  }

  /* How much a value differs from that of the baseline, in per cent; nothing without one. */
  function difference(id, data, value) {
    const {rows, columns} = darkit.table;
    const baseline = columns.withBaseline ? darkit.table.baseline : null;
    if (baseline === null || data.isBaseline || typeof value !== "number") return null;
    const base = columns.value(id, rows.get(baseline));
    if (typeof base !== "number" || base === 0) return null;
    const share = (100 * (value - base)) / Math.abs(base);
    const sign = share < 0 ? "−" : "+";
    return h("span", {className: "difference"}, `${sign}${darkit.number(Math.abs(share), 3)}%`);
  }

  /* The mean of a group, its standard deviation or interval, and of how many runs. */
  function spread(id, {stats, logged, lostRuns, members}) {
    const found = stats[id];
    if (!found && lostRuns && logged.has(id.slice(5))) {
      return h("span", {className: "lost"}, `${say("diverged_short")} (${lostRuns}/${members.length})`);
    }
    if (!found) return null;
    const count = found.count === found.all ? String(found.count) : `${found.count}/${found.all}`;
    const margin = found.std === null ? "" : ` ± ${darkit.number(darkit.groups.margin(found), 2)}`;
    const hint = say(darkit.groups.withInterval() ? "spread_hint_ci" : "spread_hint", {count: found.count, all: found.all});
    return h("span", {className: "spread", title: hint}, `${margin} (${count})`);
  }

  const metric = (id, data, value, content) => h("span", null, content, data.stats ? spread(id, data) : null, difference(id, data, value));

  function progressWords({data}) {
    if (data.step === null || data.state === "broken") return "";
    return data.max_step && data.step !== data.max_step ? `${darkit.count(data.step)} / ${darkit.count(data.max_step)}` : darkit.count(data.step);
  }

  const cells = {
    state: ({data}) => {
      if (data.state === null) return h("span"); // of a group
      const known = darkit.knownStates.has(data.state);
      const word = known ? say(`state_${data.state}`) : data.state;
      const kind = isLost(data) ? "diverged" : known ? data.state : "unknown";
      const hint = [isLost(data) ? lostWords(data) : "", data.problem || data.reason || word].filter(Boolean).join("\n");
      return h("span", {className: `state state-${kind}`, title: hint},
        h("span", {className: "state-dot"}), word, isLost(data) ? h("span", {className: "lost"}, say("diverged_short")) : null,
        data.problem && data.state !== "broken" ? " ⚠" : "");
    },
    name: ({data}) => {
      if (data.members) {
        const words = [data.isOpen ? "▾" : "▸", " ", data.label, h("span", {className: "muted"}, ` (${data.members.length})`)];
        return h("button", {className: "group-name", title: data.label, "aria-expanded": String(data.isOpen), onClick: () => darkit.table.toggleGroup(data.name)}, ...words);
      }
      if (!data.opens) return h("span", {className: "muted", title: data.problem}, data.name);
      const tail = darkit.table.tails.get(data.name) ?? 0;
      const inside = darkit.table.columns.withStatistics && !data.isBaseline ? " in-group" : "";
      return h("a", {className: `inner-link run-link${inside}`, href: darkit.runAddress(data.name), title: data.name, "aria-label": data.name},
        data.isBaseline ? h("span", {className: "tag"}, say("is_baseline")) : null, ...nameParts(data.name, tail));
    },
    progress: ({data}) => {
      const bar = h("div", {className: "progress"}, h("div", {className: "progress-fill", style: {width: `${100 * data.progress}%`}}));
      const words = progressWords({data});
      return h("div", {className: "cell-progress", title: words}, h("span", null, words), bar);
    },
    tags: ({data}) => h("span", {className: "cell-tags"}, ...data.tags.map((tag) => h("span", {className: "tag"}, tag))),
    last: ({data, value, id, shown}) =>
      typeof value === "string" ? h("span", {className: "bad", title: isLost(data) ? lostWords(data) : value}, value)
        : metric(id, data, value, shown(value)),
    best: ({data, value, id, shown}) =>
      isLost(data) && value !== null ? h("span", {className: "muted", title: lostWords(data)}, darkit.number(value), " ⚠")
        : metric(id, data, value, shown(value)),
    step: (parts) => {
      const at = darkit.table.columns.bestAt(parts.id, parts.data);
      return h("span", null, cells.best(parts), at === null ? null : h("span", {className: "at-step"}, ` @${darkit.count(at)}`));
    },
    /* A ticked run's curve, and a click that hides or shows it. */
    eye: ({data}) => {
      const eye = eyeOf({data});
      const curve = eye.curve ? darkit.swatch(eye.curve.index) : null;
      const line = curve ? h("span", {className: curve.className, style: {"--curve": curve.style.getPropertyValue("--curve")}}) : null;
      return h("button", {
        className: "eye", "aria-pressed": String(eye.on), title: say("hide_hint"), "aria-label": say("eye_of", {name: data.name}),
        onClick: () => darkit.table.side.toggle(data.name),
      }, line);
    },
  };
  const eyeOf = ({data}) => darkit.table.side?.eye(data.name) ?? null;

  const columns = {
    eye: {
      colId: "eye", headerName: "", width: 40, minWidth: 40, pinned: "left", resizable: false, sortable: false, filter: false, suppressMovable: true,
      ...richIf((cell) => eyeOf(cell) !== null, cells.eye), headerClass: "quiet-header", cellClass: "eye-cell",
    },
    progress: {valueFormatter: progressWords, ...richIf(({data}) => data.state === "running" && data.progress !== null && progressWords({data}), cells.progress)},
    tags: richIf(({data}) => data.tags.length > 0, cells.tags),
    /* The values of a metric: its numbers are plain unless something is said beside them. */
    metric: (kind, id, shown) => ({
      valueFormatter: ({value}) => shown(value),
      ...richIf(
        ({data, value}) => kind === "step" || Boolean(data.stats) || darkit.table.columns.withBaseline || typeof value === "string" || (kind === "best" && isLost(data)),
        cells[kind], {id, shown},
      ),
    }),
  };

  Object.assign(darkit, {cells, cellColumns: columns, isLost, aligned, configNumber, digitsAfterPoint, findTails});
})();

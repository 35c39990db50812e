"use strict";
/* Groups of the table's runs, by several keys: rows with the mean and the standard deviation of what their runs reached. */
(() => {
  const {say} = darkit;
  const SEED = /(^|[._])seed$/;
  const OWN = ["group", "project", "model", "state", "tags"]; // what runs can be grouped by besides config keys
  const ALL_BUT_SEED = "*";

  const CI = "ci"; // what stands behind ±: half of the confidence interval, instead of the standard deviation
  const METRIC = /^(last|best|step):/; // columns of metrics, each kind as long as the others
  const T = [ // Student's t of 95 % intervals for 1 to 40, 60, 120 and infinitely many degrees of freedom
    12.7062, 4.30265, 3.18245, 2.77645, 2.57058, 2.44691, 2.36462, 2.306, 2.26216, 2.22814, 2.20099, 2.17881, 2.16037, 2.14479, 2.13145,
    2.11991, 2.10982, 2.10092, 2.09302, 2.08596, 2.07961, 2.07387, 2.06866, 2.0639, 2.05954, 2.05553, 2.05183, 2.04841, 2.04523, 2.04227,
    2.03951, 2.03693, 2.03452, 2.03224, 2.03011, 2.02809, 2.02619, 2.02439, 2.02269, 2.02108, 2.0003, 1.97993, 1.95996,
  ];
  const FREEDOMS = [...Array(40).keys()].map((place) => place + 1).concat(60, 120, Infinity);

  /* Student's t of a 95 % interval; between the numbers of the table it is nearly linear in 1 / freedom. */
  function quantile(freedom) {
    const above = FREEDOMS.findIndex((one) => one >= freedom);
    if (FREEDOMS[above] === freedom) return T[above];
    const [low, high] = [1 / FREEDOMS[above - 1], 1 / FREEDOMS[above]];
    return T[above] + ((T[above - 1] - T[above]) * (1 / freedom - high)) / (low - high);
  }

  const withInterval = () => darkit.parameters().get("spread") === CI;
  /* What stands behind ± in a group's row: its standard deviation, or half of its interval. */
  const margin = ({std, count}) => (std === null || !withInterval() ? std : (quantile(count - 1) * std) / Math.sqrt(count));

  const NOTHING = [null, null]; // the last and the best value of a metric that a run does not have

  const isConfig = (key) => !OWN.includes(key);

  /* The keys that are meant: "all but seed" stands for every config key that differs, without seeds. */
  function keysOf(chosen, differing) {
    return [...new Set(chosen.flatMap((key) => (key === ALL_BUT_SEED ? differing.filter((one) => !SEED.test(one)) : [key])))];
  }

  function choices(columns) {
    const config = [...columns.differing, ...columns.keys.filter((key) => !columns.differing.includes(key))].filter(isConfig);
    const own = OWN.filter((key) => key !== "project" || columns.projects.length);
    return [
      {value: ALL_BUT_SEED, label: say("group_all_but_seed")},
      ...own.map((key) => ({value: key, label: say(`col_${key}`)})),
      ...config.map((key) => ({value: key, label: key})),
    ];
  }

  const valueOf = (row, key) => (key === "tags" ? [...row.tags].sort().join(", ") : isConfig(key) ? row.config[key] : row[key]) ?? null;
  const written = (value) => (typeof value === "number" ? darkit.configNumber(value) : value === null || value === "" ? "–" : String(value));
  const short = (key) => (isConfig(key) ? key.slice(key.lastIndexOf(".") + 1) : say(`col_${key}`));

  /* Mean and standard deviation (n - 1) of the finite numbers; null without any. */
  function statistics(values) {
    const numbers = values.filter((value) => typeof value === "number");
    if (!numbers.length) return null;
    const [low, high] = [Math.min, Math.max].map((most) => numbers.reduce((one, other) => most(one, other)));
    const rounded = numbers.reduce((sum, value) => sum + value, 0) / numbers.length;
    const mean = Math.min(Math.max(rounded, low), high); // of equal values it may be rounded to another one
    const squares = numbers.reduce((sum, value) => sum + (value - mean) ** 2, 0);
    return {mean, std: numbers.length > 1 ? Math.sqrt(squares / (numbers.length - 1)) : null, count: numbers.length, all: values.length};
  }

  /* Returns a row for each combination of values of the keys, in the order of its first run. Its label has those keys
     that were chosen one by one, or in which the groups differ. */
  function groupRows(rows, keys, metrics, chosen) {
    const groups = new Map();
    for (const row of rows) {
      const values = keys.map((key) => valueOf(row, key));
      const id = `//${JSON.stringify(values)}`; // no run has such an address
      if (!groups.has(id)) groups.set(id, {values, members: []});
      groups.get(id).members.push(row);
    }
    const differ = (place) => new Set([...groups.values()].map(({values}) => JSON.stringify(values[place]))).size > 1;
    const named = keys.map((key, place) => [key, place]).filter(([key, place]) => chosen.includes(key) || differ(place));
    return [...groups].map(([id, {values, members}]) => {
      const label = named.map(([key, place]) => `${short(key)}=${written(values[place])}`).join("  ") || say("group_all");
      const same = (read) => (members.every((row) => read(row) === read(members[0])) ? read(members[0]) : null);
      const config = {};
      for (const key of Object.keys(members[0].config)) {
        const value = same((row) => row.config[key]);
        if (value !== null && value !== undefined) config[key] = value;
      }
      const stats = {};
      const logged = new Set(); // which of the metrics any of them has
      for (const name of metrics) {
        const pairs = members.map((row) => row.series[name] ?? row.more?.[name]).map((pair) => pair ?? NOTHING);
        const best = pairs.map(([, value], place) => (members[place].diverged === null ? value : null));
        stats[`last:${name}`] = statistics(pairs.map(([value]) => value));
        stats[`best:${name}`] = stats[`step:${name}`] = statistics(best);
        if (pairs.some((values) => values !== NOTHING)) logged.add(name);
      }
      return {
        name: id, label, members: members.map((row) => row.name), opens: false, config, stats, logged, series: {},
        lostRuns: members.filter((row) => row.diverged !== null).length, tags: [], diverged: null, archived: false,
        state: same((row) => row.state), model: same((row) => row.model), project: same((row) => row.project), group: same((row) => row.group),
        device: same((row) => row.device), step: same((row) => row.step), max_step: null, progress: null, eta: null, rate: null,
        duration: statistics(members.map((row) => row.duration))?.mean ?? null, started: Math.max(...members.map((row) => row.started ?? 0)) || null,
        note: "", problem: "", reason: "",
      };
    });
  }

  /* Puts the runs of each group below it, as the grid has sorted groups and runs. */
  function orderNodes(nodes, groupOf) {
    const below = new Map();
    for (const node of nodes) {
      if (node.data.members) continue;
      const group = groupOf.get(node.data.name);
      if (!below.has(group)) below.set(group, []);
      below.get(group).push(node);
    }
    const sorted = nodes.filter((node) => node.data.members).flatMap((node) => [node, ...(below.get(node.data.name) ?? [])]);
    nodes.splice(0, nodes.length, ...sorted);
  }

  /* Offers, beside the keys of groups, what is shown of their spread. */
  function offerSpread(keys) {
    const box = document.getElementById("spread-box");
    if (box) box.hidden = !keys.length;
  }
  dash_clientside.darkit.follow_spread = (spread) => {
    darkit.remember({spread: spread === CI ? CI : null});
    if (darkit.table?.by.length) {
      darkit.table.setColumns();
      darkit.table.showRows();
    }
    darkit.logBoard()?.refresh(); // its bands
    return spread;
  };

  darkit.groups = {keysOf, choices, groupRows, orderNodes, isConfig, statistics, withInterval, margin, offerSpread, METRIC};
})();

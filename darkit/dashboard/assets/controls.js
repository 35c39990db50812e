"use strict";
/* The controls above the charts: they change the address, and the charts follow it. */
(() => {
  function showWeight(weight = Number(darkit.parameters().get("smooth")) || 0) {
    const place = document.getElementById("smooth-value");
    if (place) place.textContent = weight.toFixed(2);
  }

  let viewTimer = 0;
  Object.assign(dash_clientside.darkit, {
    follow_view(axis, smooth, log, robust, chosen, x) {
      const before = darkit.parameters();
      const group = darkit.path() === "/" ? [] : chosen || []; // the table has its own
      const changes = {
        axis: axis === "step" ? null : axis,
        smooth: smooth ? smooth : null,
        log: log ? "1" : null,
        robust: robust ? "1" : null,
        group,
        x: x || null,
      };
      if ((before.get("axis") || "step") !== axis || (before.get("x") || "") !== (x || "")) Object.assign(changes, {low: null, high: null});
      if ((before.get("log") === "1") !== log || (before.get("robust") === "1") !== robust) changes.y = null;
      if (before.getAll("group").join("\n") !== group.join("\n")) changes.unfold = null;
      const address = location.search;
      showWeight(smooth || 0);
      if (!darkit.table) darkit.groups.offerSpread(group);
      darkit.remember(changes);
      if (location.search !== address) {
        clearTimeout(viewTimer);
        viewTimer = setTimeout(() => darkit.eachBoard((board) => board.refresh()), 60);
      }
      return axis;
    },
  });

  let known = {path: null, columns: []}; // of the logs whose charts are, or were, on the page of this path
  /* Offers the columns of the logs as x, those too that a log got after its page was made. */
  function offerColumns(found) {
    if (found) known = {path: darkit.path(), columns: found};
    const box = document.getElementById("x-column-box");
    if (!box || known.path !== darkit.path()) return;
    const x = darkit.parameters().get("x");
    const columns = x && !known.columns.includes(x) ? [x, ...known.columns] : known.columns;
    const key = JSON.stringify(columns);
    if (box.dataset.columns === key) return;
    dash_clientside.set_props("x-column", {data: columns});
    dash_clientside.set_props("x-column-box", {hidden: !columns.length, "data-columns": key});
  }

  darkit.offerColumns = offerColumns;
  darkit.pages.push(() => {
    showWeight();
    offerColumns(); // to controls that are made after the charts
  });
})();

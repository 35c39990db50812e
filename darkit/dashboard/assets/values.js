"use strict";
/* The table of a comparison's values: a click on a heading sorts it, one on a run lets its curves stand out. */
(() => {
  const DESCENDING = ".desc";

  /* What a cell is sorted by: its number, else its text; null for an empty one, which comes last. */
  function valueOf(cell) {
    const {value} = cell.dataset;
    if (value !== undefined) return value === "" ? null : Number(value);
    return cell.textContent === "–" ? null : cell.textContent;
  }

  function compared(one, other, sign) {
    if (one === null || other === null) return (one === null) - (other === null);
    if (typeof one === "number" && typeof other === "number") return sign * (one - other);
    return sign * String(one).localeCompare(String(other), darkit.language(), {numeric: true});
  }

  /* The row with the best value of the metric that is sorted by, else of the first metric that has one; null without any. */
  function bestRow(rows, column) {
    const isBest = (row, place) => row.cells[place]?.classList.contains("best");
    const places = [column, column + 1, ...[...rows[0].cells].keys()]; // beside the last value of a metric stands the best one
    for (const place of places) {
      const found = rows.find((row) => isBest(row, place));
      if (found) return found;
    }
    return null;
  }

  /* Puts the rows in the order that the address asks for, the best one on top if it asks for that, and marks the heading. */
  function sort() {
    const table = document.querySelector("#values-box table");
    const order = darkit.parameters().get("order");
    if (!table) return;
    for (const button of table.querySelectorAll("button.sort")) {
      const own = order !== null && button.dataset.column === order.replace(DESCENDING, "");
      if (own) button.parentElement.setAttribute("aria-sort", order.endsWith(DESCENDING) ? "descending" : "ascending");
      else button.parentElement.removeAttribute("aria-sort");
    }
    const rows = [...table.tBodies[0].rows];
    rows.forEach((row, place) => (row.dataset.place ??= place));
    const chosen = Number.parseInt(order, 10);
    const column = chosen >= 0 && rows.every((row) => chosen < row.cells.length) ? chosen : null;
    const sign = order?.endsWith(DESCENDING) ? -1 : 1;
    rows.sort((one, other) => {
      const sorted = column === null ? 0 : compared(valueOf(one.cells[column]), valueOf(other.cells[column]), sign);
      return sorted || one.dataset.place - other.dataset.place;
    });
    const best = rows.length && darkit.parameters().get("top") === "1" ? bestRow(rows, column ?? NaN) : null;
    for (const row of rows) row.classList.toggle("on-top", row === best);
    table.tBodies[0].append(...(best ? [best] : []), ...rows.filter((row) => row !== best));
    mark();
  }

  /* Marks the run whose curves stand out. */
  function mark() {
    const shown = darkit.logBoard()?.standsOut ?? null;
    for (const button of document.querySelectorAll("#values-box button.run-name")) button.setAttribute("aria-pressed", String(button.dataset.run === shown));
  }

  dash_clientside.darkit.follow_best = (first) => {
    darkit.remember({top: first ? "1" : null});
    sort();
    return String(first);
  };

  document.addEventListener("darkit-filled", ({target}) => {
    if (target.closest("#values-box")) sort();
  });
  document.addEventListener("click", ({target}) => {
    const row = target.closest?.("#values-box tr");
    const column = target.closest?.("#values-box button.sort")?.dataset.column;
    if (column !== undefined) {
      darkit.remember({order: darkit.parameters().get("order") === column ? column + DESCENDING : column});
      sort();
      return;
    }
    const run = row?.querySelector("button.run-name")?.dataset.run;
    const board = darkit.logBoard();
    if (run === undefined || !board || !window.getSelection().isCollapsed) return;
    darkit.highlight(board, board.standsOut === run ? null : run);
    mark();
  });
})();

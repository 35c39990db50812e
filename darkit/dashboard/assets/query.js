"use strict";
/* The query above the table of runs: what of it cannot be read is underlined, and said below. */
(() => {
  const {element, say} = darkit;
  const field = () => document.getElementById("search");

  /* Underlines what is wrong with the query, and says why; null for a query without a mistake. */
  darkit.showQueryProblem = (problem) => {
    const [input, marks, place] = [field(), document.getElementById("query-marks"), document.getElementById("query-problem")];
    if (!input || !marks) return;
    input.setAttribute("aria-invalid", String(Boolean(problem)));
    place.hidden = !problem;
    place.textContent = (darkit.language() === "zh" ? problem?.zh : problem?.message) ?? "";
    const letters = [...input.value];
    const before = letters.length - [...input.value.trimStart()].length; // the server reads the query without these
    const part = (from, to) => letters.slice(from && from + before, to && to + before).join("");
    const wrong = element("span", "query-wrong", problem ? part(problem.start, problem.end) || " " : "");
    marks.replaceChildren(problem ? part(0, problem.start) : "", wrong);
    const style = getComputedStyle(input);
    for (const name of ["font", "letterSpacing", "paddingLeft", "paddingRight", "lineHeight"]) marks.style[name] = style[name];
    marks.scrollLeft = input.scrollLeft;
  };

  const VIEW = ["q", "archived", "project", "col", "by", "sort", "filter", "baseline", "spread"]; // what of the address is a view

  /* Fills the menu of saved views, which the server keeps. */
  function showViews(menu, views) {
    const items = menu.querySelector(".menu-items");
    const rows = Object.entries(views).map(([name, address]) => {
      const row = element("div", "view-row");
      const open = element("button", "menu-item", name);
      open.onclick = () => darkit.go(`/?${address}`);
      const remove = element("button", "icon-button", "✕", {"aria-label": say("view_remove", {name})});
      remove.onclick = () => change(menu, {name, address: null});
      row.append(open, remove);
      return row;
    });
    const form = element("form", "view-form");
    const name = element("input", "view-name", "", {placeholder: say("view_name"), "aria-label": say("view_name"), maxlength: 60});
    form.append(name, element("button", "small-button", say("save")));
    form.onsubmit = (event) => {
      event.preventDefault();
      const query = new URLSearchParams([...darkit.parameters()].filter(([key]) => VIEW.includes(key)));
      if (name.value.trim()) change(menu, {name: name.value, address: query.toString()});
    };
    items.replaceChildren(...rows, form);
  }

  const change = (menu, body) =>
    darkit.attempt(async () => showViews(menu, await (await darkit.ask("/api/views", body)).json()));

  document.addEventListener("toggle", ({target}) => {
    if (target.id === "views" && target.open) change(target, {});
  }, true);

  darkit.pages.push(() => {
    const input = field();
    if (!input || input.dataset.marked) return;
    input.dataset.marked = "";
    input.addEventListener("scroll", () => (document.getElementById("query-marks").scrollLeft = input.scrollLeft));
    input.addEventListener("input", () => darkit.showQueryProblem(null)); // until the server has read it
  });
})();

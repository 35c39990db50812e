"use strict";
/* The order of the charts of a page: sections that fold, a filter, pinned and moved charts, and their size.
   What a reader folds, pins, moves and sizes is kept in this browser; the filter is in the address. */
(() => {
  const {element, say} = darkit;
  const KEY = "darkit-charts";
  const SIZES = ["small", "medium", "wide"];
  const PINNED = "\u0000pinned";
  const empty = {folded: [], pinned: [], order: {}, size: "medium"};

  function kept() {
    try {
      return {...empty, ...JSON.parse(localStorage.getItem(KEY) || "{}")};
    } catch { // none, or the browser keeps nothing
      return empty;
    }
  }

  function keep(changes) {
    try {
      localStorage.setItem(KEY, JSON.stringify({...kept(), ...changes}));
    } catch { /* the browser keeps nothing: it holds until the page is left */ }
  }

  /* Returns what a filter matches: a regular expression, or, where it is none, the text itself. */
  function matcher(text) {
    if (!text) return {matches: () => true, valid: true};
    try {
      const expression = new RegExp(text, "i");
      return {matches: (name) => expression.test(name), valid: true};
    } catch {
      return {matches: (name) => name.toLowerCase().includes(text.toLowerCase()), valid: false};
    }
  }

  function inSections(board) {
    const {pinned, order} = kept();
    const sections = new Map([[PINNED, []], ["", []]]);
    for (const card of board.cards.values()) {
      const name = board.source === "log" && pinned.includes(card.id) ? PINNED : card.section || "";
      if (!sections.has(name)) sections.set(name, []);
      sections.get(name).push(card);
    }
    for (const [name, cards] of sections) {
      const moved = order[name] || [];
      const place = (card) => (moved.includes(card.id) ? moved.indexOf(card.id) : moved.length);
      cards.sort((first, second) => place(first) - place(second)); // stable: the others keep their order
      if (!cards.length) sections.delete(name);
    }
    return sections;
  }

  /* Puts every chart into its section; what is in its place already is not touched. */
  function arrange(board) {
    tools(board);
    const sections = inSections(board);
    const filter = matcher(board.source === "log" ? darkit.parameters().get("show") || "" : "");
    const {folded, size} = kept();
    board.root.dataset.size = size;
    let matching = 0;
    const roots = [];
    for (const [name, cards] of sections) {
      const root = board.sections.get(name) || addSection(board, name);
      const grid = root.querySelector(".chart-grid");
      const boxes = cards.map((card) => card.box);
      if (boxes.some((box, place) => grid.children[place] !== box) || grid.children.length !== boxes.length) grid.replaceChildren(...boxes);
      for (const card of cards) {
        card.box.hidden = ![card.id, card.title, ...card.members].some(filter.matches);
        matching += card.box.hidden ? 0 : 1;
      }
      root.hidden = boxes.every((box) => box.hidden);
      if (name) {
        root.querySelector(".section-count").textContent = darkit.count(boxes.filter((box) => !box.hidden).length);
        root.open = Boolean(darkit.parameters().get("show")) || !folded.includes(name);
      }
      roots.push(root);
    }
    for (const [name, root] of board.sections) {
      if (sections.has(name)) continue;
      root.remove();
      board.sections.delete(name);
    }
    if (roots.some((root, place) => board.grid.children[place] !== root)) board.grid.replaceChildren(...roots);
    if (!board.tools) return;
    board.tools.field.setAttribute("aria-invalid", String(!filter.valid));
    board.tools.field.title = filter.valid ? "" : say("filter_invalid");
    const filtered = darkit.parameters().get("show");
    board.tools.count.textContent = filtered ? say("count_of", {shown: darkit.count(matching), all: darkit.count(board.cards.size)}) : "";
  }

  function addSection(board, name) {
    const grid = element("div", "chart-grid");
    const root = element(name ? "details" : "div", "chart-section");
    if (name) {
      const summary = element("summary", "section-head");
      summary.append(element("span", "section-name", name === PINNED ? say("pinned") : name), element("span", "section-count muted"));
      summary.onclick = () => setTimeout(() => {
        const others = kept().folded.filter((one) => one !== name);
        keep({folded: root.open ? others : [...others, name]});
        if (root.open) resize(board);
      });
      root.append(summary);
    }
    root.append(grid);
    root.dataset.section = name === PINNED ? "pinned" : name;
    board.sections.set(name, root);
    return root;
  }

  function resize(board) {
    for (const {plot} of board.cards.values()) if (plot.data && plot.offsetParent) Plotly.Plots.resize(plot);
  }

  function tools(board) {
    if (board.tools || board.source !== "log" || board.cards.size < 2) return;
    const bar = element("div", "board-tools", "", {role: "toolbar", "aria-label": say("charts")});
    const field = element("input", "chart-filter", "", {type: "search", placeholder: say("filter_charts"), "aria-label": say("filter_charts")});
    const count = element("span", "muted chart-count", "", {role: "status"});
    field.value = darkit.parameters().get("show") || "";
    let timer = 0;
    field.oninput = () => {
      clearTimeout(timer);
      timer = setTimeout(() => {
        darkit.remember({show: field.value || null});
        arrange(board);
      }, 120);
    };
    const sizes = element("span", "sizes", "", {role: "group", "aria-label": say("chart_size")});
    for (const size of SIZES) {
      const button = element("button", `icon-button size-${size}`, "", {"aria-label": say(`size_${size}`), title: say(`size_${size}`)});
      button.append(element("span", "size-mark"));
      button.setAttribute("aria-pressed", String(kept().size === size));
      button.onclick = () => {
        keep({size});
        for (const one of sizes.children) one.setAttribute("aria-pressed", String(one === button));
        arrange(board);
        resize(board);
      };
      sizes.append(button);
    }
    bar.append(field, count, element("span", "spacer"), darkit.joinMenu(board), sizes);
    board.grid.before(bar);
    board.tools = {field, count};
  }

  const isPinned = (card) => kept().pinned.includes(card.id);

  function pin(board, card) {
    const others = kept().pinned.filter((id) => id !== card.id);
    keep({pinned: isPinned(card) ? others : [...others, card.id]});
    arrange(board);
    resize(board);
  }

  /* Moves a chart before another one of its section, or by one place. */
  function move(board, card, by, before = null) {
    for (const [name, cards] of inSections(board)) {
      if (!cards.includes(card)) continue;
      const ids = cards.map((one) => one.id);
      const from = ids.indexOf(card.id);
      const to = before === null ? Math.max(0, Math.min(ids.length - 1, from + by)) : ids.indexOf(before);
      if (to < 0) return;
      ids.splice(to, 0, ...ids.splice(from, 1));
      keep({order: {...kept().order, [name]: ids}});
      arrange(board);
    }
  }

  /* Lets a chart be dragged by its title to the place of another one. */
  let dragged = null;
  function makeMovable(board, card, heading) {
    heading.draggable = true;
    heading.addEventListener("dragstart", (event) => {
      dragged = card;
      event.dataTransfer.effectAllowed = "move";
      event.dataTransfer.setData("text/plain", card.title);
    });
    heading.addEventListener("dragend", () => (dragged = null));
    card.box.addEventListener("dragover", (event) => {
      if (dragged && dragged !== card && board.cards.get(dragged.id) === dragged) event.preventDefault();
    });
    card.box.addEventListener("drop", (event) => {
      if (!dragged) return;
      event.preventDefault();
      move(board, dragged, 0, card.id);
    });
  }

  Object.assign(darkit, {arrange, isPinned, pin, move, makeMovable});
})();

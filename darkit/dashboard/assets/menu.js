"use strict";
/* The menu of a chart: its place, the series in it, and exports as a picture or with all of its points. */
(() => {
  const {element, say} = darkit;
  const MOST_OFFERED = 200; // metrics that can be ticked at a time

  function menuOf(className, glyph, label) {
    const menu = element("details", "menu");
    const items = element("div", "menu-items");
    const button = element("summary", className, glyph, {"aria-label": label, title: label});
    menu.append(button, items);
    return {menu, items};
  }
  const opened = () => document.querySelectorAll("details.menu[open]");
  document.addEventListener("pointerdown", (event) => {
    for (const menu of opened()) if (!menu.contains(event.target)) menu.open = false;
  });
  document.addEventListener("click", ({target}) => {
    if (target.closest?.(".menu-item")) opened().forEach((menu) => (menu.open = false));
  });
  document.addEventListener("focusout", ({target, relatedTarget}) => {
    const menu = target.closest?.("details.menu");
    if (menu && relatedTarget && !menu.contains(relatedTarget)) menu.open = false;
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !opened().length || document.querySelector("dialog[open], [role=dialog]")) return;
    event.preventDefault(); // it closes the menu, and clears no selection
    for (const menu of opened()) {
      menu.open = false;
      menu.querySelector("summary").focus();
    }
  }, {capture: true});

  /* The charts of several series that a reader made, from the address. */
  function joined() {
    const lists = darkit.parameters().getAll("join").map((text) => {
      try {
        return JSON.parse(text);
      } catch {
        return null;
      }
    });
    return lists.filter((list) => Array.isArray(list) && list.every((name) => typeof name === "string"));
  }
  const rememberJoined = (lists) => darkit.remember({join: lists.map((list) => JSON.stringify(list))});
  const isJoined = (card) => joined().some((list) => list.every((name) => card.members.includes(name)));

  darkit.chartMenu = (board, card) => {
    const {menu, items} = menuOf("icon-button", "⋯", say("chart_menu"));
    const add = (key, act) => {
      const item = element("button", "menu-item", say(key));
      item.onclick = () => {
        menu.open = false;
        darkit.attempt(act);
      };
      items.append(item);
    };
    const fill = () => {
      items.replaceChildren();
      if (board.source === "log") {
        add(darkit.isPinned(card) ? "unpin" : "pin", async () => darkit.pin(board, card));
        add("move_earlier", async () => darkit.move(board, card, -1));
        add("move_later", async () => darkit.move(board, card, 1));
        if (card.family || isJoined(card)) add("take_apart", async () => takeApart(board, card));
      }
      add("export_png", () => picture(board, card, "png"));
      add("export_svg", () => picture(board, card, "svg"));
      add("export_csv", async () => {
        const answer = await darkit.ask("/api/csv", {runs: board.runs, view: board.view(), chart: card.id});
        darkit.download(await answer.blob(), `${darkit.fileName(card.title)}.csv`);
      });
    };
    fill();
    menu.addEventListener("toggle", () => menu.open && fill());
    return menu;
  };

  function takeApart(board, card) {
    if (card.family) darkit.remember({apart: [...darkit.parameters().getAll("apart"), card.id]});
    else rememberJoined(joined().filter((list) => !list.every((name) => card.members.includes(name))));
    return board.refresh();
  }

  /* The menu by which several series are put into one chart. */
  darkit.joinMenu = (board) => {
    const {menu, items} = menuOf("small-button", `＋ ${say("join")}`, say("join_hint"));
    const field = element("input", "chart-filter", "", {type: "search", placeholder: say("join_search"), "aria-label": say("join_search")});
    const list = element("div", "join-list");
    const apply = element("button", "small-button primary", say("join_apply"));
    const chosen = new Set();
    const showList = () => {
      const names = [...new Set([...board.cards.values()].flatMap((card) => card.members))];
      const wanted = names.filter((name) => chosen.has(name) || name.toLowerCase().includes(field.value.toLowerCase()));
      list.replaceChildren(...wanted.slice(0, MOST_OFFERED).map((name) => {
        const label = element("label", "join-item");
        const tick = element("input", "", "", {type: "checkbox"});
        tick.checked = chosen.has(name);
        tick.onchange = () => {
          if (tick.checked) chosen.add(name);
          else chosen.delete(name);
          apply.disabled = chosen.size < 2;
        };
        label.append(tick, name);
        return label;
      }));
      const more = wanted.length - MOST_OFFERED;
      if (more > 0) list.append(element("p", "muted", say("join_more", {count: darkit.count(more)})));
      for (const id of darkit.parameters().getAll("apart")) {
        const again = element("button", "menu-item", say("join_again", {name: id}));
        again.onclick = () => {
          menu.open = false;
          darkit.remember({apart: darkit.parameters().getAll("apart").filter((one) => one !== id)});
          board.refresh();
        };
        list.append(again);
      }
      apply.disabled = chosen.size < 2;
    };
    field.oninput = showList;
    menu.addEventListener("toggle", () => menu.open && showList());
    apply.onclick = () => {
      rememberJoined([...joined(), [...chosen]]);
      chosen.clear();
      menu.open = false;
      board.refresh();
    };
    items.classList.add("join-menu");
    items.append(field, list, apply);
    return menu;
  };

  darkit.joined = joined;

  async function picture(board, card, format) {
    const layout = {
      ...card.plot.layout, width: 1200, height: 600, paper_bgcolor: darkit.dark() ? "#1a1b1e" : "#ffffff",
      title: {text: card.plot.layout.meta.title, font: {size: 16}}, margin: {l: 70, r: 20, t: 50, b: 50},
      showlegend: board.runs.length > 1 || card.members.length > 1,
    };
    const once = new Set();
    const data = card.plot.data.map((trace) => {
      const legend = !once.has(trace.name) && !["odd", "checkpoint"].includes(trace.meta.kind);
      once.add(trace.name);
      return {...trace, showlegend: legend};
    });
    const url = await Plotly.toImage({data, layout}, {format, width: 1200, height: 600, scale: format === "png" ? 2 : 1});
    darkit.download(await toBlob(url, format), `${darkit.fileName(card.title)}.${format}`);
  }

  async function toBlob(url, format) {
    const [head, body] = [url.slice(0, url.indexOf(",")), url.slice(url.indexOf(",") + 1)];
    const bytes = head.includes("base64") ? Uint8Array.from(atob(body), (letter) => letter.charCodeAt(0)) : decodeURIComponent(body);
    return new Blob([bytes], {type: format === "svg" ? "image/svg+xml" : "image/png"});
  }
})();

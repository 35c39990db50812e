"use strict";
/* The keyboard: single keys on the page of runs, a help to them, and a palette that finds runs and commands. */
(() => {
  const {element, say} = darkit;
  const MOST_FOUND = 12;
  const NEXT_KEY = 1200; // milliseconds between g and the key after it
  const HELP = [
    ["/", "key_search"], ["j k", "key_move"], ["x", "key_tick"], ["Enter", "key_open"], ["c", "key_compare"], ["Esc", "key_escape"],
    ["g r", "key_runs"], ["Ctrl+K", "key_palette"], ["?", "key_this"],
  ];
  const QUERIES = [
    ["gpt small", "query_words"], ["lr=3e-4", "query_config"], ["val_loss<0.3", "query_metric"], ["best:val_loss<0.3", "query_best"],
    ["state:crashed", "query_state"], ["tag:paper", "query_tag"], ["started>=yesterday", "query_started"], ["started=yesterday", "query_day"],
    ["duration>1h30min", "query_duration"], ["-tag:draft", "query_not"], ["lr=1e-3 or lr=3e-4", "query_or"], ["/seed-[0-9]+$/", "query_pattern"],
  ];

  /* Makes a dialog and opens it; it is removed when it closes. */
  function openDialog(id, label) {
    document.getElementById(id)?.close();
    const dialog = element("dialog", "key-dialog", "", {id, "aria-label": label});
    dialog.addEventListener("close", () => dialog.remove());
    dialog.addEventListener("click", ({target}) => target === dialog && dialog.close());
    document.body.append(dialog);
    dialog.showModal();
    return dialog;
  }

  /* A list of what there is to write or press, each with its meaning. */
  function listOf(entries, show) {
    const list = element("dl", "key-list");
    for (const [what, word] of entries) {
      const term = element("dt");
      term.append(...show(what));
      list.append(term, element("dd", "", say(word)));
    }
    return list;
  }

  function showHelp() {
    const field = document.getElementById("search");
    const dialog = openDialog("key-help", say("help"));
    const example = (query) => {
      const button = element("button", "query-example", query);
      button.onclick = () => {
        dialog.close();
        dash_clientside.set_props("search", {value: query});
      };
      return [button];
    };
    const close = element("button", "icon-button", "✕", {"aria-label": say("close")});
    close.onclick = () => dialog.close();
    dialog.append(close);
    if (field) {
      const queries = element("section");
      queries.append(element("h2", "", say("help_queries")), element("p", "muted", say("help_try")), listOf(QUERIES, example));
      dialog.append(queries);
    }
    const keyboard = element("section", "keyboard");
    keyboard.append(element("h2", "", say("key_help")), listOf(HELP, (key) => key.split(" ").map((one) => element("kbd", "", one))));
    dialog.append(keyboard);
    close.focus();
  }

  /* What the palette offers besides runs: pages, and the buttons that are on this page. */
  function commands() {
    const buttons = ["compare", "edit-notes", "archive", "baseline", "rename", "move", "export-runs", "delete", "open-trash", "show-charts", "stop", "switch-language"];
    const shown = (button) => !button.closest("[hidden]") && getComputedStyle(button).display !== "none";
    const pressed = buttons.map((id) => document.getElementById(id)).filter((button) => button && !button.disabled && shown(button));
    return [
      {word: say("to_runs"), act: () => darkit.go("/")},
      ...pressed.map((button) => ({word: button.title || button.textContent, act: () => button.click()})),
      {word: say("help"), act: showHelp},
    ];
  }

  let known = {version: 0, names: []}; // the names that were asked for, which come again only after there are others
  async function runNames() {
    if (darkit.table) return [...darkit.table.rows.keys()];
    const {version, names} = await (await darkit.ask("/api/runs", {since: known.version, bare: true})).json();
    known = {version, names: names ?? known.names};
    return known.names;
  }

  /* Finds what has all words, those that begin with the first one before others. */
  function search(entries, text) {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    const found = entries.filter(({word}) => words.every((part) => word.toLowerCase().includes(part)));
    const begins = ({word}) => (words.length && word.toLowerCase().startsWith(words[0]) ? 0 : 1);
    return found.sort((one, other) => begins(one) - begins(other)).slice(0, MOST_FOUND);
  }

  function showPalette() {
    let entries = commands();
    const dialog = openDialog("palette", say("key_palette"));
    const field = element("input", "palette-field", "", {
      placeholder: say("palette_hint"), "aria-label": say("palette_hint"), role: "combobox", "aria-expanded": "true", "aria-controls": "palette-list",
    });
    const list = element("div", "palette-list", "", {id: "palette-list", role: "listbox", "aria-label": say("key_palette")});
    let [shown, place] = [[], 0];
    const choose = (entry) => {
      dialog.close();
      if (entry) darkit.attempt(entry.act);
    };
    const mark = (next) => {
      place = Math.max(0, Math.min(shown.length - 1, next));
      [...list.children].forEach((item, index) => item.setAttribute("aria-selected", String(index === place)));
      field.setAttribute("aria-activedescendant", `palette-${place}`);
    };
    const draw = () => {
      shown = search(entries, field.value);
      list.replaceChildren(...shown.map((entry, index) => {
        const item = element("div", "palette-item", entry.word, {role: "option", id: `palette-${index}`});
        item.onclick = () => choose(entry);
        item.onmousemove = () => mark(index);
        return item;
      }));
      mark(0);
    };
    field.oninput = draw;
    field.onkeydown = (event) => {
      const step = {ArrowDown: 1, ArrowUp: -1}[event.key];
      if (step) mark(place + step);
      if (event.key === "Enter") choose(shown[place]);
      if (step || event.key === "Enter") event.preventDefault();
    };
    dialog.append(field, list);
    field.focus();
    draw();
    darkit.attempt(async () => {
      const names = await runNames();
      entries = [...entries, ...names.map((name) => ({word: name, act: () => darkit.go(darkit.runPath(name))}))];
      if (dialog.isConnected) draw();
    });
  }

  /* Moves to another row of the table, whose curves are shown. */
  function move(step) {
    const {grid, side} = darkit.table;
    const last = grid.getDisplayedRowCount() - 1;
    const now = grid.getFocusedCell()?.rowIndex;
    const next = Math.max(0, Math.min(last, now === undefined ? 0 : now + step));
    if (last < 0) return;
    grid.ensureIndexVisible(next);
    grid.setFocusedCell(next, "name");
    const {data} = grid.getDisplayedRowAtIndex(next);
    side.point(data.opens ? data.name : null);
  }

  function tick() {
    const place = darkit.table.grid.getFocusedCell();
    const node = place && darkit.table.grid.getDisplayedRowAtIndex(place.rowIndex);
    node?.setSelected(!node.isSelected());
  }

  function escape() {
    const typing = document.activeElement?.closest?.("input:not([type=checkbox]), textarea");
    if (typing) typing.blur();
    else if (darkit.table) darkit.table.selection.clear();
  }

  let wentAt = 0; // when g was pressed
  const keys = {
    "/": () => document.getElementById("search")?.focus(),
    "?": showHelp,
    g: () => (wentAt = performance.now()),
    r: () => performance.now() - wentAt < NEXT_KEY && darkit.go("/"),
    j: () => darkit.table && move(1),
    k: () => darkit.table && move(-1),
    x: () => darkit.table && tick(),
    c: () => darkit.table?.selection.compare(),
  };

  document.addEventListener("click", ({target}) => target.id === "open-help" && showHelp());
  document.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") {
      event.preventDefault();
      showPalette();
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || document.querySelector("dialog[open], [role=dialog]")) return;
    if (event.key === "Escape") return escape();
    const typing = event.target.closest?.("input:not([type=checkbox]), textarea, select, [contenteditable]");
    const act = typing ? null : keys[event.key];
    if (!act) return;
    if (event.key === "/") event.preventDefault();
    act();
  });
})();

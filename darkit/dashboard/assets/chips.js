"use strict";
/* The runs or groups of a board by name: colour, state, and a click that hides, shows or unfolds them. */
(() => {
  const {element, say} = darkit;
  const colours = [
    "#4c6ef5", "#f76707", "#2f9e44", "#e03131", "#be4bdb", "#1098ad", "#e64980", "#a17a00", "#845ef7", "#5c940d",
    "#d9480f", "#868e96",
  ];
  const palette = (index) => colours[index % colours.length];

  function showChips(board) {
    showGone(board);
    const grouped = board.groups.length > 0;
    const wanted = grouped ? board.groups.map((group) => group.label) : board.runs.filter((run) => board.states[run]);
    const key = JSON.stringify([grouped, wanted, darkit.language()]);
    if (key !== board.chipKey) {
      board.chipKey = key;
      board.chips.replaceChildren(...wanted.map((name, index) => chip(board, name, index, grouped)));
      board.chips.hidden = board.source !== "log" || (board.runs.length < 2 && !grouped);
    }
    const hidden = new Set(darkit.parameters().getAll("hide"));
    const open = new Set(darkit.parameters().getAll("unfold"));
    for (const chip of board.chips.children) {
      const name = chip.dataset.name;
      const on = grouped ? open.has(name) : !hidden.has(name);
      chip.querySelector(".chip-toggle").setAttribute("aria-pressed", String(on));
      const state = board.states[name];
      if (grouped || !state) continue;
      const said = chip.querySelector(".chip-step");
      const steps = state.max_step ? `${darkit.count(state.step)} / ${darkit.count(state.max_step)}` : darkit.count(state.step);
      if (said.textContent !== steps) said.textContent = steps;
      if (chip.dataset.state !== state.state) {
        chip.dataset.state = state.state;
        chip.querySelector(".chip-state").replaceChildren(darkit.stateBadge(state.state));
      }
    }
    document.dispatchEvent(new CustomEvent("darkit-states", {detail: board.states}));
  }

  /* Reports runs that were moved or deleted while the page is open; their curves stay until the page is reloaded. */
  function showGone(board) {
    const gone = document.getElementById("gone");
    if (!gone) return;
    const names = board.runs.filter((run) => !board.states[run]);
    gone.hidden = !names.length;
    if (names.length) gone.textContent = say("compare_gone", {names: names.join(", ")});
  }

  function chip(board, name, index, grouped) {
    const made = element("span", "chip", "", {role: "listitem"});
    made.dataset.name = name;
    const hint = grouped ? "unfold_hint" : "hide_hint";
    const button = element("button", "chip-toggle", "", {title: `${name}\n${say(hint)}`});
    const place = grouped ? board.groups[index].index : board.states[name].index;
    const dot = element("span", "run-dot");
    dot.style.background = palette(place);
    button.append(dot, element("span", "chip-name", grouped ? `${name} (${board.groups[index].runs.length})` : name));
    button.onclick = () => toggle(board, name, grouped);
    made.append(button);
    if (!grouped) {
      const link = element("a", "chip-link inner-link", "↗", {href: darkit.runAddress(name), "aria-label": name});
      made.append(element("span", "chip-state"), element("span", "chip-step"), link);
    }
    return made;
  }

  function toggle(board, name, grouped) {
    const key = grouped ? "unfold" : "hide";
    const now = darkit.parameters().getAll(key);
    const next = now.includes(name) ? now.filter((one) => one !== name) : [...now, name];
    darkit.remember({[key]: next});
    showChips(board);
    if (grouped) {
      board.refresh();
      return;
    }
    for (const card of board.cards.values()) {
      if (!card.plot.data) continue;
      for (const trace of card.plot.data) if (trace.meta.run === name) trace.visible = !next.includes(name);
      card.plot.layout.datarevision = (card.plot.layout.datarevision || 0) + 1;
      board.paint(card, card.plot);
    }
  }

  darkit.showChips = showChips;
})();

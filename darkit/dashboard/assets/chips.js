"use strict";
/* The runs or groups of a board by name: colour, state, and a click that hides, shows or unfolds them. */
(() => {
  const {element, say} = darkit;
  const colours = [
    "#828cfa", "#e67800", "#14aa5a", "#dc0a28", "#8c3cfa", "#786e64", "#d20ab4", "#d278aa",
  ];
  const dashes = ["solid", "dash", "dot", "dashdot"];

  /* A short line in the colour and with the dash of a curve. */
  function swatch(index) {
    const made = element("span", `run-dot dash-${dashes[Math.floor(index / colours.length) % dashes.length]}`);
    made.style.setProperty("--curve", colours[index % colours.length]);
    return made;
  }

  /* Names the curves of a chart of several series, in a list that scrolls where they are many. */
  const [FEW, MOST_NAMED] = [6, 64];
  function showLegend(card) {
    const named = new Map();
    for (const trace of card.members.length > 1 ? card.plot.data : []) {
      if (["raw", "smooth", "mean"].includes(trace.meta.kind)) named.set(trace.name, trace.line);
    }
    const items = [...named].slice(0, MOST_NAMED).map(([name, line]) => {
      const item = element("span", "legend-item");
      const dot = element("span", `run-dot dash-${line.dash || "solid"}`);
      dot.style.setProperty("--curve", line.color);
      item.append(dot, darkit.plain(name));
      return item;
    });
    const left = named.size - items.length;
    if (left > 0) items.push(element("span", "legend-more", say("curves_more", {count: left})));
    card.legend.replaceChildren(...items);
    if (items.length > FEW) card.legend.tabIndex = 0; // to be scrolled by keys
    else card.legend.removeAttribute("tabindex");
  }

  /* Opens the colours among which a run's one is chosen; what is chosen is kept with the run, for every reader. */
  function openPalette(button, name, act) {
    const palette = element("div", "palette menu-items", "", {role: "menu", "aria-label": say("colour_of", {name})});
    let open = true;
    const close = () => {
      if (open) {
        open = false; // first: removing what has the focus calls this again
        palette.remove();
      }
    };
    const choose = (colour) => darkit.attempt(async () => {
      close();
      await darkit.ask("/api/colour", {run: name, colour});
      await act();
    });
    colours.forEach((colour, place) => {
      const one = element("button", "palette-colour", "", {role: "menuitem", "aria-label": say("colour_number", {number: place + 1})});
      one.style.background = colour;
      one.onclick = () => choose(place);
      palette.append(one);
    });
    const automatic = element("button", "menu-item", say("colour_automatic"), {role: "menuitem"});
    automatic.onclick = () => choose(null);
    palette.append(automatic);
    palette.addEventListener("focusout", (event) => {
      if (!palette.contains(event.relatedTarget)) close();
    });
    palette.addEventListener("keydown", (event) => {
      if (event.key === "Escape") button.focus(); // which closes it
    });
    const {left, bottom} = button.getBoundingClientRect();
    palette.style.cssText = `left:${Math.max(8, Math.min(left, window.innerWidth - 190))}px;top:${bottom + 4}px`;
    document.body.append(palette);
    palette.firstChild.focus();
  }

  async function recolour(board) {
    await board?.refresh();
    darkit.drawKeys();
    if (document.getElementById("values-box")) dash_clientside.set_props("grown", {data: Date.now()});
  }

  function showChips(board) {
    showGone(board);
    const grouped = board.groups.length > 0;
    const wanted = grouped ? board.groups.map((group) => group.label) : board.runs.filter((run) => board.states[run]);
    const places = wanted.map((name) => board.states[name]?.index);
    const key = JSON.stringify([grouped, wanted, places, darkit.language()]);
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
      const shown = `${state.state} ${state.diverged}`;
      if (chip.dataset.state !== shown) {
        chip.dataset.state = shown;
        chip.querySelector(".chip-state").replaceChildren(darkit.stateBadge(state.state, state.diverged));
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
    button.append(element("span", "chip-name", grouped ? `${name} (${board.groups[index].runs.length})` : name));
    button.onclick = () => toggle(board, name, grouped);
    made.append(grouped ? swatch(place) : colourButton(name, place, () => recolour(board)), button);
    if (!grouped) {
      const link = element("a", "chip-link inner-link", "↗", {href: darkit.runAddress(name), "aria-label": say("open_run", {name})});
      made.append(element("span", "chip-state"), element("span", "chip-step"), link);
    }
    return made;
  }

  function colourButton(name, place, act) {
    const label = say("colour_of", {name});
    const button = element("button", "chip-colour", "", {"aria-label": label, title: label, "aria-haspopup": "menu"});
    button.append(swatch(place));
    button.onclick = () => openPalette(button, name, act);
    return button;
  }

  /* The page of one run has no chips: its colour stands before its name. */
  document.addEventListener("darkit-states", ({detail}) => {
    const box = document.getElementById("run-colour");
    const [name, state] = Object.entries(detail)[0] || [];
    if (!box || !state || box.dataset.place === String(state.index)) return;
    box.dataset.place = state.index;
    box.replaceChildren(colourButton(name, state.index, () => recolour(darkit.logBoard())));
  });

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
    showCurves(board, name, !next.includes(name));
  }

  /* Shows or hides the curves of a run in all charts of a board. */
  function showCurves(board, name, visible) {
    for (const card of board.cards.values()) {
      if (!card.plot.data) continue;
      for (const trace of card.plot.data) if (trace.meta.run === name) trace.visible = visible;
      card.plot.layout.datarevision = (card.plot.layout.datarevision || 0) + 1;
      board.paint(card, card.plot);
    }
  }

  Object.assign(darkit, {showChips, showCurves, showLegend, swatch});
})();

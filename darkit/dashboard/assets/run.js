"use strict";
/* The page of one run: the run that its buttons act on, updates of its state, and the prompt. */
(() => {
  const {say} = darkit;

  let watch = null;
  darkit.pages.push(() => {
    const name = darkit.runOfAddress();
    if (watch?.name !== name) {
      watch?.loop.end();
      watch = name === null ? null : {name, loop: darkit.repeat(() => look(name))};
    }
    if (name === null) return;
    dash_clientside.set_props("selection", {data: [name]});
    const tab = document.querySelector(".tabs-list [aria-selected=true]"); // on a phone it may be off the screen
    const list = tab?.parentElement; // which alone is scrolled, not the page
    if (list) list.scrollLeft += tab.getBoundingClientRect().left - list.getBoundingClientRect().left - (list.clientWidth - tab.offsetWidth) / 2;
  });

  /* Requests the state of the run while no chart on the screen does. */
  async function look(name) {
    const board = document.querySelector(".chart-board");
    if (board?.offsetParent) return 2000;
    const body = {runs: [name], view: {language: darkit.language()}, cursors: {}};
    const {runs} = await (await darkit.ask("/api/news", body)).json();
    document.dispatchEvent(new CustomEvent("darkit-states", {detail: runs}));
    const gone = document.getElementById("gone");
    if (gone) {
      gone.hidden = name in runs;
      gone.textContent = say("compare_gone", {names: name});
    }
    return runs[name] && alive(runs[name].state) ? 1500 : 5000;
  }

  const alive = (state) => state === "running" || state === "stalled";

  const isKnown = (value) => value !== null && value !== undefined;

  let last = "";
  document.addEventListener("darkit-states", ({detail}) => {
    const name = darkit.runOfAddress();
    const box = document.getElementById("run-state");
    const run = detail[name];
    if (!box || !run) return;
    const shown = `${run.state} ${run.diverged}`;
    if (box.dataset.shown !== shown) {
      box.dataset.shown = shown;
      box.replaceChildren(darkit.stateBadge(run.state, run.diverged));
    }
    if (document.getElementById("stop").hidden === alive(run.state)) {
      dash_clientside.set_props("stop", {hidden: !alive(run.state)});
      dash_clientside.set_props("delete", {hidden: alive(run.state)});
    }
    const progress = document.getElementById("run-progress");
    const done = run.max_step ? Math.min(1, run.step / run.max_step) : 0;
    progress.querySelector(".progress").hidden = !run.max_step;
    progress.querySelector(".progress-fill").style.width = `${100 * done}%`;
    progress.querySelector(".progress-text").textContent = run.max_step
      ? `${darkit.count(run.step)} / ${darkit.count(run.max_step)}`
      : darkit.count(run.step);
    progress.querySelector(".pace").textContent = run.rate ? say("rate_of", {rate: darkit.rate(run.rate)}) : "";
    progress.querySelector(".time-left").textContent = isKnown(run.eta) ? say("left_of", {time: darkit.duration(run.eta)}) : "";
    const key = JSON.stringify([name, run.state, run.saved, run.diverged, run.step > 0]); // a first step records the modules
    if (last && JSON.parse(last)[0] === name && last !== key) {
      dash_clientside.set_props("changed", {data: {name, state: run.state, saved: run.saved}});
    }
    last = key;
  });

  /* How a text is generated; a model that takes numbers has no such settings. */
  function sampling() {
    const [tokens, temperature] = ["prompt-tokens", "prompt-temperature"].map((id) => document.getElementById(id));
    return tokens ? {tokens: Number(tokens.value) || 100, temperature: Number(temperature.value)} : {};
  }

  let asking = null;
  async function send() {
    const answer = document.getElementById("prompt-answer");
    const prompt = document.getElementById("prompt").value;
    if (!prompt) return;
    const checkpoint = document.getElementById("prompt-checkpoint").value;
    asking = new AbortController();
    buttons(true);
    answer.textContent = say("prompt_wait");
    try {
      const body = {
        name: darkit.runOfAddress(),
        prompt,
        ...sampling(),
        checkpoint: checkpoint.startsWith("iter-") ? checkpoint : null,
      };
      const reader = (await darkit.ask("/api/predict", body, asking.signal)).body.getReader();
      const decoder = new TextDecoder();
      let first = true;
      for (;;) {
        const {done, value} = await reader.read();
        if (done) break;
        if (first) answer.textContent = "";
        first = false;
        answer.textContent += decoder.decode(value, {stream: true});
        answer.scrollTop = answer.scrollHeight;
      }
      answer.dataset.done = "yes";
    } catch (error) {
      if (error.name !== "AbortError") answer.textContent = error.message;
    }
    asking = null;
    buttons(false);
  }

  function buttons(busy) {
    const [sender, stopper] = ["prompt-send", "prompt-stop"].map((id) => document.getElementById(id));
    if (sender) [sender.disabled, stopper.hidden] = [busy, !busy];
  }

  document.addEventListener("click", (event) => {
    if (event.target.id === "prompt-send" && !asking) send();
    if (event.target.id === "prompt-stop") asking?.abort();
  });
  document.addEventListener("keydown", (event) => {
    if (event.target.id === "prompt" && event.key === "Enter" && (event.ctrlKey || event.metaKey) && !asking) send();
  });
})();

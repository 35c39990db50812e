"use strict";
/* The page of one run: which run the buttons mean, its state as it changes, and the prompt. */
(() => {
  const {say} = darkit;
  const here = () => (location.pathname.startsWith("/run/") ? decodeURIComponent(location.pathname.slice(5)) : null);

  darkit.pages.push(() => {
    const name = here();
    if (name !== null) dash_clientside.set_props("selection", {data: [name]});
  });

  let last = "";
  document.addEventListener("darkit-states", ({detail}) => {
    const box = document.getElementById("run-state");
    const run = detail[here()];
    if (!box || !run) return;
    if (box.textContent !== say(`state_${run.state}`)) box.replaceChildren(darkit.stateBadge(run.state));
    const alive = run.state === "running" || run.state === "stalled";
    if (document.getElementById("stop").hidden === alive) {
      dash_clientside.set_props("stop", {hidden: !alive});
      dash_clientside.set_props("delete", {hidden: alive});
    }
    const progress = document.getElementById("run-progress");
    const done = run.max_step ? Math.min(1, run.step / run.max_step) : 0;
    progress.querySelector(".progress-fill").style.width = `${100 * done}%`;
    progress.querySelector(".progress-text").textContent = run.max_step
      ? `${darkit.count(run.step)} / ${darkit.count(run.max_step)}`
      : darkit.count(run.step);
    const key = `${here()} ${run.state}`;
    if (last.startsWith(`${here()} `) && last !== key && !alive) {
      const ending = document.getElementById("run-ending");
      const sentence = darkit.element("p", run.state === "crashed" ? "error" : "remark");
      if (run.reason && !ending.childElementCount) {
        sentence.textContent = `${say("reason")}: ${run.reason}`;
        ending.append(sentence);
      }
    }
    last = key;
  });

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
        name: here(),
        prompt,
        tokens: Number(document.getElementById("prompt-tokens").value) || 100,
        temperature: Number(document.getElementById("prompt-temperature").value),
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

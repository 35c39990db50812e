"use strict";
/* The notes of a run, saved while they are written: only what was changed, and never over what others wrote. */
(() => {
  const {say} = darkit;
  const PAUSE = 600; // milliseconds without a key after which is saved
  const AGAIN = 3000;
  const draftKey = (name) => `darkit-draft:${name}`;
  const same = (a, b) => a.note === b.note && a.tags.length === b.tags.length && a.tags.every((tag, place) => tag === b.tags[place]);

  let own = null; // of the run on the page: its name, what the server has (shown), what is written (now)

  function status(text, bad = false) {
    const place = document.getElementById("own-status");
    if (!place) return;
    place.textContent = text;
    place.classList.toggle("bad", bad);
  }

  function fill(words) {
    dash_clientside.set_props("own-tags", {value: words.tags});
    dash_clientside.set_props("own-note", {value: words.note});
  }

  const keepDraft = ({name, shown, now}) => darkit.memory((kept) => kept.setItem(draftKey(name), JSON.stringify({shown, now})));

  /* Called at every change of a field, and when the tab is opened. */
  function follow(tags, note) {
    const foot = document.getElementById("own-foot");
    if (!foot) return;
    const first = JSON.parse(foot.dataset.shown);
    if (own?.name !== first.name) {
      own = {name: first.name, shown: {tags: first.tags, note: first.note}, now: {tags: first.tags, note: first.note}};
      const draft = JSON.parse(darkit.memory((kept) => kept.getItem(draftKey(own.name))) || "null");
      if (draft) { // what could not be saved before
        Object.assign(own, draft);
        fill(own.now);
        plan(PAUSE);
        return;
      }
    }
    own.now = {tags: tags || [], note: note || ""};
    if (same(own.now, own.shown)) return;
    keepDraft(own);
    status(say("saving"));
    plan(PAUSE);
  }

  let timer = 0;
  function plan(wait) {
    clearTimeout(timer);
    timer = setTimeout(() => save().catch(() => {}), wait);
  }

  let saving = null;
  /* Saves what is not saved yet; what is written meanwhile is saved after it. */
  function save(keepalive = false) {
    clearTimeout(timer);
    saving = (saving || Promise.resolve()).catch(() => {}).then(() => saveNow(keepalive));
    return saving;
  }

  async function saveNow(keepalive) {
    const run = own;
    if (!run || same(run.now, run.shown)) return;
    const sent = run.now;
    let there;
    try {
      there = await (await darkit.ask("/api/notes", {name: run.name, before: run.shown, after: sent}, undefined, keepalive)).json();
      if (there.problem) throw new Error(there.problem);
    } catch (error) {
      const unreachable = error instanceof darkit.Unreachable;
      status(unreachable ? say("not_saved", {problem: say("offline")}) : error.message, true);
      if (unreachable) plan(AGAIN);
      throw error;
    }
    const untouched = run.now === sent;
    run.shown = there;
    if (untouched) run.now = there;
    if (!untouched) {
      keepDraft(run);
      plan(PAUSE);
      return;
    }
    darkit.memory((kept) => kept.removeItem(draftKey(run.name)));
    if (run !== own) return;
    status(say("saved"));
    if (!same(sent, there)) fill(there); // others wrote, too
  }

  darkit.pages.push(() => {
    const foot = document.getElementById("own-foot");
    if (!foot && own && same(own.now, own.shown)) own = null; // another page, or another tab of this one
    if (!foot || !own || JSON.parse(foot.dataset.shown).name !== own.name) return;
    fill(own.now); // the tab is opened again
  });
  /* The page with the fields stays while they cannot be saved; elsewhere the draft waits for its run. */
  darkit.leaving.push(() => (document.getElementById("own-foot") ? save() : save().catch(() => {})));
  window.addEventListener("pagehide", () => save(true).catch(() => {}));
  document.addEventListener("visibilitychange", () => document.hidden && save(true).catch(() => {}));
  document.addEventListener("click", (event) => {
    if (event.target.id === "own-save") save().catch(() => {});
    if (event.target.closest?.("[role=tab]")) save().catch(() => {});
  });

  Object.assign(dash_clientside.darkit, {
    follow_notes(tags, note) {
      follow(tags, note);
      return "";
    },
  });
})();

"use strict";
/* The notes of a run, saved while they are written: only what was changed, and never over what others wrote. */
(() => {
  const {say} = darkit;
  const PAUSE = 600; // milliseconds without a key after which is saved
  const AGAIN = 3000;
  const draftKey = (name) => `darkit-draft:${name}`;
  const same = (a, b) => a.note === b.note && a.tags.length === b.tags.length && a.tags.every((tag, place) => tag === b.tags[place]);

  let own = null; // of the run on the page: its name, when its page was made, what the server has (shown), what is written (now)

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
  const dropDraft = ({name}) => darkit.memory((kept) => kept.removeItem(draftKey(name)));

  /* Called at every change of a field. */
  function follow(tags, note) {
    const foot = document.getElementById("own-foot");
    if (!foot) return;
    const first = JSON.parse(foot.dataset.shown);
    if (own?.made !== first.made && begin(first)) return;
    own.now = {tags: tags || [], note: note || ""};
    if (same(own.now, own.shown)) {
      settle(own);
      return;
    }
    keepDraft(own);
    status(say("saving"));
    plan(PAUSE);
  }

  /* Begins with what a new page shows. Returns whether something is restored that could not be saved before. */
  function begin({name, made, tags, note}) {
    own = {name, made, shown: {tags, note}, now: {tags, note}};
    const draft = JSON.parse(darkit.memory((kept) => kept.getItem(draftKey(name))) || "null");
    if (!draft) return false;
    own.shown.tags = draft.shown.tags; // the server keeps those of others
    own.now = {tags: draft.now.tags, note: withTheirs(draft, note)};
    if (same(own.now, own.shown)) return false;
    keepDraft(own);
    fill(own.now);
    plan(PAUSE);
    return true;
  }

  /* The note of a draft; below the one in the file where that was changed elsewhere. */
  function withTheirs({shown, now}, theirs) {
    if (now.note === shown.note) return theirs;
    if ([shown.note, now.note].includes(theirs)) return now.note; // an emptied one too
    if (!theirs || !now.note) return now.note || theirs;
    darkit.notify(say("note_both"), "orange");
    return `${theirs}\n\n${now.note}`;
  }

  /* Nothing differs from what the server has: nothing waits to be saved. */
  function settle(run) {
    clearTimeout(timer);
    dropDraft(run);
    if (run === own) status(run.saved ? say("saved") : "");
  }

  let timer = 0;
  function plan(wait, run = own) {
    clearTimeout(timer);
    timer = setTimeout(() => save(false, run).catch(() => {}), wait);
  }

  let saving = null;
  /* Saves what is not saved yet; what is written meanwhile is saved after it. */
  function save(keepalive = false, run = own) {
    clearTimeout(timer);
    saving = (saving || Promise.resolve()).catch(() => {}).then(() => saveNow(keepalive, run));
    return saving;
  }

  async function saveNow(keepalive, run) {
    if (!run) return;
    if (same(run.now, run.shown)) {
      settle(run);
      return;
    }
    const sent = run.now;
    let there;
    try {
      there = await (await darkit.ask("/api/notes", {name: run.name, before: run.shown, after: sent}, undefined, keepalive)).json();
      if (there.problem) throw new Error(there.problem);
    } catch (error) {
      const unreachable = error instanceof darkit.Unreachable;
      if (run === own) status(unreachable ? say("not_saved", {problem: say("offline")}) : error.message, true);
      if (unreachable) plan(AGAIN, run);
      throw error;
    }
    run.shown = there;
    run.saved = true;
    if (!same(run.now, sent)) {
      keepDraft(run);
      plan(PAUSE, run);
      return;
    }
    run.now = there;
    settle(run);
    if (run === own && !same(sent, there)) fill(there); // others wrote, too
  }

  darkit.pages.push(() => {
    const foot = document.getElementById("own-foot");
    if (!foot) return;
    const first = JSON.parse(foot.dataset.shown);
    if (own?.made === first.made) fill(own.now); // the tab is opened again
    else begin(first);
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

"use strict";
/* Shared by all pages: the address as the only state, requests to the server, texts, and small parts of a page. */
window.darkit = (() => {
  /* The path at which this server is reached, with "/" at its end: behind a proxy there may be more before our pages. */
  const base = new URL(document.querySelector("meta[name=root]").content, location.href).pathname;
  const icon = document.querySelector("link[rel=icon]");
  icon.href = icon.href; // a relative one would follow the address to other pages
  const config = document.getElementById("_dash-config");
  config.textContent = JSON.stringify({...JSON.parse(config.textContent), requests_pathname_prefix: base});

  const url = (path) => base + path.slice(1); // of a path of ours
  const path = (pathname = location.pathname) => `/${pathname.startsWith(base) ? pathname.slice(base.length) : pathname.slice(1)}`;

  const parameters = () => new URLSearchParams(location.search);

  /* Changes the address without a new page: null removes a parameter, a list repeats it. */
  function remember(changes) {
    const query = parameters();
    for (const [key, value] of Object.entries(changes)) {
      query.delete(key);
      if (Array.isArray(value)) value.forEach((one) => query.append(key, one));
      else if (value !== null && value !== "" && value !== undefined) query.set(key, value);
    }
    const text = query.toString();
    const address = location.pathname + (text ? `?${text}` : "") + location.hash;
    if (address !== location.pathname + location.search + location.hash) history.replaceState(history.state, "", address);
    remembered.forEach((act) => act());
  }
  const remembered = []; // called after the address has changed
  const leaving = []; // called before another page is shown; one that fails keeps this page

  /* Shows a page of ours, once the server responds: otherwise this one stays, with everything that is on it. */
  async function go(wanted) {
    try {
      await Promise.all(leaving.map((act) => act()));
      await ask("/api/homes", {});
      if (wanted.split("?")[0] === "/") await darkit.grid();
    } catch (error) {
      notify(error.message, "red");
      return;
    }
    history.pushState({}, "", url(darkit.asLeft(wanted)));
    window.dispatchEvent(new CustomEvent("_dashprivate_pushstate"));
    window.scrollTo(0, 0);
  }

  const runPath = (name) => `/run/${name.split("/").map(encodeURIComponent).join("/")}`; // label/name of another home
  const runAddress = (name) => url(runPath(name));

  const notify = (message, color) => dash_clientside.set_props("notify", {sendNotifications: [{action: "show", message, color}]});

  /* The server did not respond, which a page survives: it says so, and asks again. */
  class Unreachable extends Error {
    constructor() {
      super(say("server_gone"));
    }
  }

  function lose(error) {
    if (!(error instanceof TypeError)) throw error;
    reachable(false);
    throw new Unreachable();
  }

  async function ask(path, body, signal, keepalive = false) {
    let answer;
    try {
      answer = await fetch(url(path), {
        method: "POST",
        headers: {"content-type": "application/json"},
        body: JSON.stringify(body),
        signal,
        keepalive,
        cache: "no-store",
      });
    } catch (error) {
      lose(error);
    }
    reachable(true);
    for (const read of ["json", "text", "blob", "arrayBuffer"]) { // it may go away in the middle of its answer
      answer[read] = () => Response.prototype[read].call(answer).catch(lose);
    }
    if (!answer.ok) {
      let sentence = answer.statusText;
      try {
        sentence = (await answer.json()).error || sentence;
      } catch { /* the status is enough */ }
      throw new Error(sentence);
    }
    return answer;
  }

  function reachable(yes) {
    const warning = document.getElementById("offline");
    if (warning) warning.hidden = yes;
    darkit.reached(yes);
  }

  let turn = 0;
  /* The address of the page for the server; never the same twice, so that Dash asks again. */
  const ownAddress = () => `${path()}${location.search}#${++turn}`;

  let words = {element: null, texts: {}};
  function say(key, values = {}) {
    const element = document.getElementById("words");
    if (element && element !== words.element) words = {element, texts: JSON.parse(element.dataset.words)};
    return (words.texts[key] ?? key).replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
  }

  const language = () => document.getElementById("words")?.dataset.language || "en";
  const dark = () => document.documentElement.getAttribute("data-mantine-color-scheme") === "dark";

  /* Makes an element; its content is always text. */
  function element(tag, className = "", text = "", attributes = {}) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text) made.textContent = text;
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  }

  function download(blob, name) {
    const link = element("a", "", "", {download: name});
    link.href = URL.createObjectURL(blob);
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  /* Does what a click asks for; an error is shown as a notification. */
  async function attempt(act) {
    try {
      await act();
    } catch (error) {
      notify(error.message, "red");
    }
  }

  const fileName = (text) => text.replace(/[^\p{L}\p{N}._-]+/gu, "-").slice(0, 80) || "chart";

  /* Whether an error is a mistake of these scripts, which nobody would see where errors are survived. */
  const isOurs = (error) => [TypeError, ReferenceError, RangeError].some((kind) => error instanceof kind);

  /* Calls `step` repeatedly, never while the tab is hidden; `step` returns how many milliseconds to wait. */
  function repeat(step) {
    let timer = 0;
    let ended = false;
    let busy = false;
    let again = false; // whether a turn was asked for during the one before
    async function turn() {
      clearTimeout(timer);
      again = busy;
      if (ended || busy || document.hidden) return;
      busy = true;
      let wait = 3000;
      try {
        wait = await step();
      } catch (error) {
        if (error.name === "AbortError") ended = true;
        else if (isOurs(error)) reportError(error);
      }
      busy = false;
      if (!ended && !document.hidden) timer = setTimeout(turn, again ? 0 : wait);
    }
    document.addEventListener("visibilitychange", turn);
    turn();
    return {
      now: turn,
      end() {
        ended = true;
        clearTimeout(timer);
        document.removeEventListener("visibilitychange", turn);
      },
    };
  }

  const knownStates = new Set(["running", "stalled", "finished", "stopped", "crashed", "broken", "unknown"]);
  /* The state of a run, and the step from which on its loss is not finite, if there is one. */
  function stateBadge(state, lost = null) {
    const known = knownStates.has(state);
    const badge = element("span", `state state-${lost !== null ? "diverged" : known ? state : "unknown"}`);
    badge.append(element("span", "state-dot"), known ? say(`state_${state}`) : state);
    if (lost !== null) badge.append(element("span", "lost", say("diverged_at", {step: count(lost)})));
    return badge;
  }

  /* Writes a number as `number_text` of the server does. */
  function number(value, digits = 5) {
    if (typeof value !== "number") return value ?? "";
    const size = Math.abs(value);
    if (size < 1e9 && Number.isInteger(value)) return String(value);
    if (size < 1e-3 || size >= 1e6) {
      const [mantissa, exponent] = value.toExponential(digits - 1).split("e");
      return `${short(mantissa)}e${Number(exponent)}`;
    }
    return short(value.toFixed(Math.max(0, digits - 1 - Math.floor(Math.log10(size)))));
  }
  const short = (text) => (text.includes(".") ? text.replace(/\.?0+$/, "") : text);
  let separated = null; // once: toLocaleString makes one for every number, and the first one takes its time
  const count = (value) => (separated ??= new Intl.NumberFormat("en-US")).format(value);
  const rate = (value) => (value >= 1000 ? count(Number(value.toPrecision(3))) : number(value, 3));

  function duration(seconds) {
    if (seconds === null || seconds === undefined) return "";
    if (seconds < 10) return say("time_seconds", {seconds: seconds.toFixed(1)});
    if (seconds < 59.5) return say("time_seconds", {seconds: Math.round(seconds)});
    const minutes = Math.floor(Math.round(seconds) / 60);
    if (minutes < 60) return say("time_minutes", {minutes, seconds: Math.round(seconds) % 60});
    const hours = Math.floor(minutes / 60);
    if (hours < 48) return say("time_hours", {hours, minutes: minutes % 60});
    return say("time_days", {days: Math.floor(hours / 24), hours: hours % 24});
  }

  let zoneName = null;
  /* The name of the reader's time zone, whose rules the server knows. */
  const zone = () => (zoneName ??= Intl.DateTimeFormat().resolvedOptions().timeZone || "");

  function moment(seconds) {
    if (!seconds) return "";
    const date = new Date(seconds * 1000);
    if (Number.isNaN(date.getTime())) return "";
    const two = (value) => String(value).padStart(2, "0");
    const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
    return `${day} ${two(date.getHours())}:${two(date.getMinutes())}`;
  }

  /* Lets the links of a page's layout lead to where this server is reached. */
  function mendLinks() {
    for (const link of document.querySelectorAll("a.inner-link:not([data-mended])")) {
      const href = link.getAttribute("href");
      link.dataset.mended = "";
      if (base !== "/" && !href.startsWith(base)) link.setAttribute("href", url(href));
    }
  }

  /* The texts of the grid itself, by its keys. */
  function gridWords() {
    say("");
    return Object.fromEntries(Object.entries(words.texts).filter(([key]) => key.startsWith("grid_")).map(([key, said]) => [key.slice(5), said]));
  }

  /* Links between our own pages need no new document. */
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a.inner-link");
    if (link && event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey) {
      event.preventDefault();
      const href = link.getAttribute("href");
      go(href.startsWith(base) ? path(href) : href);
      return;
    }
    const undo = event.target.closest?.("button.undo");
    if (undo) {
      dash_clientside.set_props("undo", {data: undo.dataset.undo});
      undo.disabled = true;
    }
    const deleted = event.target.closest?.("button.restore");
    if (deleted) {
      dash_clientside.set_props("restore", {data: deleted.dataset.restore});
      deleted.disabled = true;
    }
    const button = event.target.closest?.("button.copy");
    if (button) copy(button);
    const switcher = event.target.closest?.("#switch-language");
    if (switcher) chooseLanguage(switcher.dataset.language);
  });

  async function copyText(text) {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const field = element("textarea");
      field.value = text;
      document.body.append(field);
      field.select();
      document.execCommand("copy");
      field.remove();
    }
  }

  async function copy(button) {
    await copyText(button.closest(".code-block").querySelector("pre").textContent);
    const before = button.textContent;
    button.textContent = button.dataset.copied;
    setTimeout(() => (button.textContent = before), 1500);
  }

  /* Does something with what this tab keeps; null where the browser keeps nothing. */
  function memory(act) {
    try {
      return act(window.sessionStorage);
    } catch {
      return null;
    }
  }

  function chooseLanguage(chosen) {
    document.cookie = `darkit_language=${chosen}; path=/; max-age=31536000; samesite=strict`;
    remember({lang: null});
    dash_clientside.set_props("url", {href: location.href});
    dash_clientside.set_props("language", {data: chosen});
  }

  return {
    parameters, remember, remembered, leaving, go, url, path, ownAddress, runPath, runAddress, ask, reachable, say, language, dark, element,
    download, copyText, memory, notify, attempt, Unreachable, fileName, repeat, knownStates, stateBadge, number, count, rate, duration, moment, zone, gridWords,
    pages: [mendLinks],
  };
})();

/* Called by Dash. Each page's script adds a function to `darkit.pages` that starts or ends its work on the page. */
window.dash_clientside = window.dash_clientside || {};
window.dash_clientside.darkit = {
  mounted() {
    requestAnimationFrame(() => {
      document.documentElement.lang = darkit.language();
      const heading = document.querySelector("main h1")?.textContent;
      document.title = heading ? `${heading} · darkit` : "darkit";
      document.dispatchEvent(new Event("darkit-mounted"));
      darkit.pages.forEach((page) => page());
    });
    return window.dash_clientside.no_update;
  },
  openDialog: (clicks) => (clicks ? true : window.dash_clientside.no_update),
  sameName: (typed, names) => !names?.length || typed !== (names.length === 1 ? names[0] : String(names.length)),
  follow_tab(tab) {
    darkit.remember({tab: tab === "charts" ? null : tab});
    requestAnimationFrame(() => darkit.pages.forEach((page) => page()));
    return tab;
  },
  follow_all(all) {
    darkit.remember({all: all ? "1" : null});
    return String(all);
  },
};

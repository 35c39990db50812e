"use strict";
/* How the charts of a page are asked for, and the first request of a page, which leaves while it is still made. */
(() => {
  const MOST_RUNS = 200; // of a comparison; the server refuses more

  /* How charts are drawn, from the address. */
  function viewOf(source, dark, language) {
    const query = darkit.parameters();
    const edge = (key) => (query.has(key) && Number.isFinite(Number(query.get(key))) ? Number(query.get(key)) : null);
    const own = source === "log";
    return {
      axis: own ? query.get("axis") || "step" : "wall",
      log: own && query.get("log") === "1",
      smooth: own ? Number(query.get("smooth")) || 0 : 0,
      robust: own && query.get("robust") === "1",
      low: own ? edge("low") : null,
      high: own ? edge("high") : null,
      group: own ? query.getAll(darkit.path() === "/" ? "by" : "group") : [], // beside the table as the table is
      unfold: own ? query.getAll("unfold") : [],
      dark,
      language,
      offset: -new Date().getTimezoneOffset(),
      zone: darkit.zone(),
      source,
      x: own ? query.get("x") || "" : "",
      joined: own && query.has("join") ? darkit.joined() : [],
      apart: own ? query.getAll("apart") : [],
      spread: own && query.get("spread") === "ci" ? "ci" : "std",
    };
  }

  /* The name of the run in the address; null for another page, and for an address that was edited by hand. */
  function runOfAddress() {
    if (!darkit.path().startsWith("/run/")) return null;
    try {
      return decodeURIComponent(darkit.path().slice(5));
    } catch {
      return null;
    }
  }

  function runsOfAddress() {
    if (darkit.path() === "/compare") return [...new Set(darkit.parameters().getAll("run"))].slice(0, MOST_RUNS);
    const name = runOfAddress();
    return name === null ? [] : [name];
  }

  /* What the page will say once it is there; if it says something else, its charts are asked for again. */
  function expected() {
    let scheme = null;
    try {
      scheme = localStorage.getItem("mantine-color-scheme-value");
    } catch { /* the browser keeps nothing */ }
    const dark = scheme === "dark" || (scheme !== "light" && window.matchMedia("(prefers-color-scheme: dark)").matches);
    const cookie = /(?:^|; )darkit_language=(\w+)/.exec(document.cookie)?.[1];
    const spoken = (navigator.languages || []).map((name) => name.slice(0, 2)).find((name) => name === "en" || name === "zh");
    return viewOf("log", dark, darkit.parameters().get("lang") || cookie || spoken || "en");
  }

  let first = null;
  /* Asks for what the page will show, while it is still made. */
  function askEarly(path, body) {
    const answer = darkit.ask(path, body).then((one) => one.json()).catch(() => null); // it is asked again then
    first = {key: path + JSON.stringify(body), answer};
  }

  /* Returns what was asked for before the page was there, once; null if it is not what the body asks for. */
  function askedEarly(path, body) {
    const known = first?.key === path + JSON.stringify(body) ? first.answer : null;
    first = null;
    return known;
  }

  Object.assign(darkit, {viewOf, askEarly, askedEarly, runOfAddress});
  const runs = runsOfAddress();
  if (runs.length && !darkit.parameters().has("join")) askEarly("/api/charts", {runs, view: expected(), charts: null});
})();

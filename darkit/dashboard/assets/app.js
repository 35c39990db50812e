"use strict";
/* Shared by all pages: the address as the only state, requests to the server, texts, and small parts of a page. */
window.darkit = (() => {
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
  }

  function go(address) {
    if (address.startsWith("/run/")) show(address);
    else grid().then(() => show(address)); // the other pages have tables
  }

  function show(address) {
    history.pushState({}, "", address);
    window.dispatchEvent(new CustomEvent("_dashprivate_pushstate"));
    window.scrollTo(0, 0);
  }

  const runAddress = (name) => `/run/${name.split("/").map(encodeURIComponent).join("/")}`; // label/name of another home

  async function ask(path, body, signal) {
    let answer;
    try {
      answer = await fetch(path, {
        method: "POST",
        headers: {"content-type": "application/json"},
        body: JSON.stringify(body),
        signal,
        cache: "no-store",
      });
    } catch (error) {
      if (error.name !== "AbortError") reachable(false);
      throw error;
    }
    reachable(true);
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
  }

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
      dash_clientside.set_props("notify", {sendNotifications: [{action: "show", message: error.message, color: "red"}]});
    }
  }

  const fileName = (text) => text.replace(/[^\p{L}\p{N}._-]+/gu, "-").slice(0, 80) || "chart";

  /* Calls `step` repeatedly, never while the tab is hidden; `step` returns how many milliseconds to wait. */
  function repeat(step) {
    let timer = 0;
    let ended = false;
    let busy = false;
    async function turn() {
      clearTimeout(timer);
      if (ended || busy || document.hidden) return;
      busy = true;
      let wait = 3000;
      try {
        wait = await step();
      } catch (error) {
        if (error.name === "AbortError") ended = true;
      }
      busy = false;
      if (!ended && !document.hidden) timer = setTimeout(turn, wait);
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
  function stateBadge(state) {
    const known = knownStates.has(state);
    const badge = element("span", `state state-${known ? state : "unknown"}`);
    badge.append(element("span", "state-dot"), known ? say(`state_${state}`) : state);
    return badge;
  }

  const number = (value, digits = 5) =>
    value === null || value === undefined ? "" : Number(value.toPrecision(digits)).toString().replace("e+", "e");
  const count = (value) => value.toLocaleString("en-US");
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

  function moment(seconds) {
    if (!seconds) return "";
    const date = new Date(seconds * 1000);
    if (Number.isNaN(date.getTime())) return "";
    const two = (value) => String(value).padStart(2, "0");
    const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
    return `${day} ${two(date.getHours())}:${two(date.getMinutes())}`;
  }

  /* Shows the times and durations of a page's layout in the reader's time zone and language. */
  function showTimes() {
    for (const place of document.querySelectorAll("[data-moment]")) place.textContent = moment(Number(place.dataset.moment));
    for (const place of document.querySelectorAll("[data-duration]")) place.textContent = duration(Number(place.dataset.duration));
  }

  let gridLoading = null;
  /* Loads the grid's long script, which the page of a run, without a table, leaves until after its charts. */
  function grid() {
    const address = document.querySelector("meta[name=grid]")?.content;
    gridLoading ??= address
      ? new Promise((resolve, reject) => {
          const script = element("script", "", "", {src: address});
          script.onload = resolve;
          script.onerror = reject;
          document.head.append(script);
        })
      : Promise.resolve();
    return gridLoading;
  }

  const dates = {date: "%Y-%m-%d", year: "%Y", month: "%Y-%m", dayMonth: "%m-%d", dayMonthYear: "%Y-%m-%d"}; // in no language
  let plotlyLoading = null;
  function plotly() {
    plotlyLoading ??= new Promise((resolve, reject) => {
      const ready = () => {
        Plotly.register({moduleType: "locale", name: "darkit", dictionary: {}, format: dates});
        resolve(Plotly);
      };
      if (window.Plotly) {
        ready();
        return;
      }
      const present = document.getElementById("plotly-script");
      const script = present || element("script", "", "", {src: document.querySelector("meta[name=plotly]").content});
      script.onload = ready;
      script.onerror = reject;
      if (!present) document.head.append(script);
    });
    return plotlyLoading;
  }

  /* Links between our own pages need no new document. */
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a.inner-link");
    if (link && event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey) {
      event.preventDefault();
      go(link.getAttribute("href"));
      return;
    }
    const button = event.target.closest?.("button.copy");
    if (button) copy(button);
    const switcher = event.target.closest?.("#switch-language");
    if (switcher) chooseLanguage(switcher.dataset.language);
  });

  async function copy(button) {
    const text = button.closest(".code-block").querySelector("pre").textContent;
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
    const before = button.textContent;
    button.textContent = button.dataset.copied;
    setTimeout(() => (button.textContent = before), 1500);
  }

  function chooseLanguage(chosen) {
    document.cookie = `darkit_language=${chosen}; path=/; max-age=31536000; samesite=strict`;
    remember({lang: null});
    dash_clientside.set_props("url", {href: location.href});
    dash_clientside.set_props("language", {data: chosen});
  }

  return {
    parameters, remember, go, runAddress, ask, say, language, dark, element, download, attempt, fileName, repeat, stateBadge,
    number, count, rate, duration, moment, plotly, grid, pages: [showTimes],
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
      darkit.pages.forEach((page) => page());
    });
    return window.dash_clientside.no_update;
  },
  openDialog: (clicks) => (clicks ? true : window.dash_clientside.no_update),
  sameName: (typed, names) => !(names && names.length === 1 && names[0] === typed),
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

"use strict";
/* Notifications of the browser when a run ends, crashes, stalls or diverges. Permission is asked for only by a click. */
(() => {
  const {say} = darkit;
  const KEY = "darkit-notices";
  const PERIOD = 10000; // milliseconds, also in a hidden tab: that is when nobody sees the page
  const supported = "Notification" in window; // only on this machine or by https
  const wanted = () => supported && Notification.permission === "granted" && localStorage.getItem(KEY) === "1";

  let last = null; // the number of the last event that was seen
  let timer = 0;

  function show(event) {
    const step = event.max_step && event.kind !== "diverged" ? `${darkit.count(event.step)} / ${darkit.count(event.max_step)}` : darkit.count(event.step);
    const values = Object.entries(event.metrics).map(([name, value]) => `${name} ${darkit.number(value)}`).join(", ");
    const body = [event.reason, values].filter(Boolean).join("\n");
    // the same in every tab, so that the browser shows it once
    const notice = new Notification(say(`event_${event.kind}`, {name: event.run, step}), {body, tag: `darkit ${event.run} ${event.kind} ${event.time}`});
    notice.onclick = () => {
      window.focus();
      darkit.go(darkit.runPath(event.run));
      notice.close();
    };
  }

  async function look() {
    clearTimeout(timer);
    if (!wanted()) return;
    try {
      const {last: now, events} = await (await darkit.ask("/api/events", {since: last})).json();
      last = now;
      events.forEach(show);
    } catch { /* the page says that the server does not respond */ }
    clearTimeout(timer);
    timer = setTimeout(look, PERIOD);
  }

  function mark() {
    const button = document.getElementById("notices");
    if (!button) return;
    button.hidden = !supported;
    button.setAttribute("aria-pressed", String(wanted()));
    button.title = say(wanted() ? "notices_on" : "notices_off");
  }

  async function toggle() {
    if (wanted()) {
      localStorage.removeItem(KEY);
    } else {
      const answer = Notification.permission === "granted" ? "granted" : await Notification.requestPermission();
      if (answer !== "granted") darkit.notify(say("notices_refused"), "orange");
      else localStorage.setItem(KEY, "1");
      last = null; // what happened before is over
    }
    mark();
    look();
  }

  document.addEventListener("click", (event) => {
    if (event.target.closest?.("#notices")) darkit.attempt(toggle);
  });
  darkit.pages.push(mark);
  look();
})();

"use strict";
/* The line about homes besides the reader's own: those that cannot be reached, since when, and what is left out. */
(() => {
  const {say} = darkit;
  const PERIOD = 5000;

  function sentence(home, now) {
    const {label} = home;
    const problem = home.problem.replace(/\.$/, "");
    if (home.failing !== null) {
      const since = {label, problem, moment: darkit.moment(home.failing), age: darkit.duration(Math.max(0, now - home.failing))};
      if (home.seen === null) return say("home_never", since);
      return say("home_lost", {...since, seen: say("home_seen", {age: darkit.duration(Math.max(0, now - home.seen))})});
    }
    if (home.seen === null) return say("home_first", {label});
    return problem ? say("home_partly", {label, problem}) : "";
  }

  let loop = null;
  async function look() {
    const {now, homes} = await (await darkit.ask("/api/homes", {})).json();
    const place = document.getElementById("homes");
    if (place) {
      const lines = [];
      for (const home of homes) {
        const text = sentence(home, now);
        if (text) lines.push(darkit.element("div", home.failing === null ? "" : "home-lost", text, {title: home.address}));
      }
      place.replaceChildren(...lines);
      place.hidden = !lines.length;
    }
    if (!homes.length) loop.end(); // this server shows no other home
    return PERIOD;
  }

  darkit.pages.push(() => {
    if (loop) loop.now();
    else loop = darkit.repeat(look);
  });
})();

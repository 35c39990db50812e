"use strict";
/* Where a reader was: the scroll of a page when going back to it, and the runs page with its search and filters. */
(() => {
  const PATIENCE = 20000; // milliseconds in which a page may grow to the height that it had
  const SETTLED = 1000; // milliseconds after which it stays at its place: what comes late may make it shorter for a moment
  const KEY = "darkit-runs";
  const viewport = () => document.querySelector("#grid-box .ag-body-viewport");
  let restoring = null;
  let arriving = false; // the page that is gone back from is still shown

  if ("scrollRestoration" in history) history.scrollRestoration = "manual";

  function restore(place) {
    const until = performance.now() + PATIENCE;
    let since = performance.now(); // it has been at its place
    const mine = (restoring = {});
    const step = () => {
      if (restoring !== mine) return;
      const rows = viewport();
      const table = document.getElementById("grid-box"); // on its page the rows come after the table
      if (place.rows && rows && table?.dataset.filled) rows.scrollTop = place.rows;
      if (place.y !== undefined) window.scrollTo(0, place.y);
      const there = (!place.rows || Math.abs((rows?.scrollTop ?? 0) - place.rows) < 2) && Math.abs(window.scrollY - (place.y ?? window.scrollY)) < 2;
      if (!there || arriving) since = performance.now();
      if (performance.now() > Math.min(until, since + SETTLED)) restoring = null;
      else requestAnimationFrame(step);
    };
    if (place.rows || place.y !== undefined) step();
    else restoring = null;
  }

  let timer = 0;
  document.addEventListener("scroll", ({target}) => {
    if (restoring || (target !== document && target !== viewport())) return;
    clearTimeout(timer);
    const address = location.href;
    timer = setTimeout(() => {
      if (location.href !== address || restoring) return; // another page by now
      history.replaceState({...history.state, y: window.scrollY, rows: viewport()?.scrollTop || 0}, "");
    }, 100);
  }, {capture: true, passive: true});

  window.addEventListener("popstate", ({state}) => {
    arriving = true;
    restore({y: 0, ...state});
  });
  document.addEventListener("darkit-mounted", () => (arriving = false));
  for (const kind of ["wheel", "touchmove", "pointerdown", "keydown"]) {
    window.addEventListener(kind, () => (restoring = null), {passive: true, capture: true});
  }
  restore(history.state || {});

  /* Returns the address of a page as it was left: the runs page keeps its search, filters and columns. */
  darkit.asLeft = (path) => (path === "/" ? `/${darkit.memory((kept) => kept.getItem(KEY)) || ""}` : path);
  darkit.remembered.push(() => {
    if (darkit.path() === "/") darkit.memory((kept) => kept.setItem(KEY, location.search));
  });
})();

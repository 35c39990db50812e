"use strict";
/* Times and durations of a page's layout, in the reader's time zone and language. */
(() => {
  const PLACES = "[data-moment], [data-duration]";

  function show(place) {
    const {moment, duration} = place.dataset;
    place.textContent = moment === undefined ? darkit.duration(Number(duration)) : darkit.moment(Number(moment));
  }
  const showAll = (root) => root.querySelectorAll(PLACES).forEach(show);

  darkit.pages.push(() => showAll(document));

  /* Those that a callback brings or changes later. */
  new MutationObserver((changes) => {
    for (const {type, target, addedNodes} of changes) {
      if (type === "attributes") show(target);
      for (const node of addedNodes) {
        if (node.matches?.(PLACES)) show(node);
        else if (node.firstElementChild) showAll(node);
      }
    }
  }).observe(document.documentElement, {subtree: true, childList: true, attributeFilter: ["data-moment", "data-duration"]});
})();

"use strict";
/* Large parts of a page that no callback changes, made of plain elements while the browser is idle. */
(() => {
  const {element} = darkit;
  const ALLOWED = /^(class|title|scope|role|hidden|open|tabindex|colspan|rowspan|data-[a-z-]+|aria-[a-z]+)$/;
  const soon = window.requestIdleCallback || setTimeout;

  function build(part) {
    if (typeof part === "string") return document.createTextNode(part);
    const [tag, attributes, inside] = part;
    const made = element(tag);
    for (const [key, value] of Object.entries(attributes)) {
      const name = key === "className" ? "class" : key.toLowerCase();
      if (key === "style") for (const [property, to] of Object.entries(value)) made.style.setProperty(property, to);
      else if (ALLOWED.test(name)) made.setAttribute(name, value);
    }
    made.append(...inside.map(build));
    return made;
  }

  function fill() {
    for (const place of document.querySelectorAll(".still")) {
      if (place.madeOf === place.dataset.tree) continue;
      place.madeOf = place.dataset.tree;
      watcher.observe(place.closest(".renewed") || place.parentElement, {childList: true, subtree: true, attributeFilter: ["data-tree"]});
      const left = place.querySelector(".scroll-x")?.scrollLeft;
      place.replaceChildren(build(JSON.parse(place.madeOf)));
      place.dispatchEvent(new CustomEvent("darkit-filled", {bubbles: true}));
      if (left) place.querySelector(".scroll-x").scrollLeft = left;
    }
  }

  const later = () => soon(fill, {timeout: 1000});
  const watcher = new MutationObserver(later); // of a part that is replaced
  darkit.pages.push(later);
})();

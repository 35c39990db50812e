"use strict";
/* The long scripts, which a page loads when it needs them. */
(() => {
  const loading = new Map();

  /* A script with which the page began and that failed: it is loaded anew by whoever needs it. */
  window.addEventListener("error", ({target}) => target.id?.endsWith("-script") && target.remove(), true);

  /* Loads a script once: the one that the page began with, or the one that a meta element names. */
  function load(name, isThere = () => false) {
    if (!loading.has(name)) {
      loading.set(name, new Promise((resolve, reject) => {
        if (isThere()) return resolve();
        const present = document.getElementById(`${name}-script`);
        const script = present || darkit.element("script", "", "", {src: darkit.url(document.querySelector(`meta[name=${name}]`).content)});
        script.addEventListener("load", resolve);
        script.addEventListener("error", () => {
          loading.delete(name);
          script.remove();
          darkit.reachable(false);
          reject(new darkit.Unreachable());
        });
        if (!present) document.head.append(script);
        return undefined;
      }));
    }
    return loading.get(name);
  }

  const grid = () => load("grid", () => window.agGrid);

  const dates = {date: "%Y-%m-%d", year: "%Y", month: "%Y-%m", dayMonth: "%m-%d", dayMonthYear: "%Y-%m-%d"}; // in no language
  const plain = (plotly) => plotly.register({moduleType: "locale", name: "darkit", dictionary: {}, format: dates});

  let own = null;
  async function plotly() {
    await load("plotly", () => window.Plotly);
    if (own === null) {
      own = window.Plotly;
      plain(own);
    }
    return own;
  }

  let whole = null;
  /* Loads the whole plotly, which draws what the pages' own does not. The pages keep their own. */
  async function wholePlotly() {
    await plotly();
    await load("plotly-whole");
    if (whole === null) {
      whole = window.Plotly;
      window.Plotly = own;
      plain(whole);
    }
    return whole;
  }

  const drawn = new Map(); // plots that the page shows or showed -> what drew them
  /* Lets plotly forget a plot once it has left the page: what listens to the window keeps it in memory otherwise. */
  const purgeLater = (plot, library = own) => drawn.set(plot, library);
  darkit.pages.push(() => {
    for (const [plot, library] of drawn) {
      if (plot.isConnected) continue;
      library.purge(plot);
      drawn.delete(plot);
    }
  });

  Object.assign(darkit, {grid, plotly, wholePlotly, purgeLater});
})();

"use strict";
/* The requests of Dash's renderer: the first ones leave before it is there, and those that fail are reported. */
(() => {
  const CALLBACK = "_dash-update-component";
  const fetched = window.fetch;
  const early = new Map(); // what Dash will ask for -> the answer

  function askEarly(path, body) {
    const how = body ? {method: "POST", headers: {"content-type": "application/json"}, body} : {};
    early.set(path + (body ?? ""), fetched(darkit.url(path), how).catch(() => null));
  }

  /* Returns an answer that is on its way already, once; null if it failed or was not asked for. */
  function takeEarly(address, body) {
    const {pathname} = new URL(address, location.href);
    const key = darkit.path(pathname) + (body ?? "");
    const answer = early.get(key) ?? null;
    early.delete(key);
    return answer;
  }

  /* A button that nobody has clicked, of a page that has just come: its callback does nothing. */
  function isIdle(body) {
    const {inputs} = JSON.parse(body);
    return inputs.every(({property, value}) => property === "n_clicks" && (value ?? null) === null);
  }

  let missed = false; // whether the page of this address could not be loaded
  darkit.reached = (yes) => {
    if (!yes || !missed) return;
    missed = false;
    dash_clientside.set_props("address", {data: darkit.ownAddress()});
  };

  /* Dash tells nobody that a call failed: what a person did would be lost in silence, and a page would stay away. */
  window.fetch = async (...call) => {
    const address = String(call[0]?.url ?? call[0]);
    const body = call[1]?.body;
    const calls = address.includes(CALLBACK);
    if (calls && body?.includes('"n_clicks"') && isIdle(body)) return new Response(null, {status: 204});
    if (early.size && address.includes("/_dash-")) {
      const answer = await takeEarly(address, body);
      if (answer !== null) return answer;
    }
    try {
      return await fetched(...call);
    } catch (error) {
      if (error.name !== "AbortError" && calls) {
        darkit.reachable(false);
        if (String(body).includes('"output":"page.children"')) missed = true;
        else if (dash_clientside.callback_context !== null) darkit.notify(darkit.say("not_done"), "red");
      }
      throw error;
    }
  };

  /* Dash's own components of which a page has some: the address, and values that callbacks read and write. The script
     of Dash that has these, and twenty others, takes a browser longer than all of ours. */
  function Location({setProps}) {
    React.useLayoutEffect(() => {
      const tell = () => setProps({href: window.location.href});
      const events = ["popstate", "_dashprivate_pushstate"];
      events.forEach((event) => window.addEventListener(event, tell));
      tell();
      return () => events.forEach((event) => window.removeEventListener(event, tell));
    }, []);
    return null;
  }
  window.dash_core_components = {Location, Store: () => null};

  /* Lets Dash make the parts of a page that come after its table or its charts. */
  const soon = window.requestIdleCallback || setTimeout;
  darkit.later = () => soon(() => {
    for (const place of document.querySelectorAll(".later:not([data-made])")) {
      place.dataset.made = "";
      dash_clientside.set_props(`${place.dataset.name}-due`, {data: 1});
    }
  }, {timeout: 500});
  dash_clientside.darkit.make = (due, parts) => {
    requestAnimationFrame(() => darkit.pages.forEach((page) => page()));
    return parts;
  };

  /* The first page, as the renderer will ask for it. */
  let first = darkit.ownAddress();
  askEarly("/_dash-layout");
  askEarly("/_dash-dependencies");
  askEarly(`/${CALLBACK}`, JSON.stringify({
    output: "page.children",
    outputs: {id: "page", property: "children"},
    inputs: [{id: "address", property: "data", value: first}, {id: "language", property: "data"}],
    changedPropIds: ["address.data"],
    parsedChangedPropsIds: ["address.data"],
  }));
  dash_clientside.darkit.address = () => {
    const known = first?.startsWith(`${darkit.path()}${location.search}#`) ? first : darkit.ownAddress();
    first = null;
    return known;
  };
})();

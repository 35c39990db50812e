"use strict";
/* Pages with charts need plotly: its long script comes while the rest of the page is still being made. */
if (/^\/(run\/|compare)/.test(location.pathname)) {
  const script = document.createElement("script");
  script.async = true;
  script.id = "plotly-script";
  script.src = document.querySelector("meta[name=plotly]").content;
  document.head.append(script);
}

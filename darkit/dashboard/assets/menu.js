"use strict";
/* Exports of a chart: a picture, or all of its points. */
(() => {
  const {element, say} = darkit;

  darkit.chartMenu = (board, card) => {
    const menu = element("details", "menu");
    const items = element("div", "menu-items");
    const add = (key, act) => {
      const item = element("button", "menu-item", say(key));
      item.onclick = () => {
        menu.open = false;
        darkit.attempt(act);
      };
      items.append(item);
    };
    const picture = async (format) => {
      const layout = {
        ...card.plot.layout, width: 1200, height: 600, paper_bgcolor: darkit.dark() ? "#1a1b1e" : "#ffffff",
        title: {text: card.plot.layout.meta.title, font: {size: 16}}, margin: {l: 70, r: 20, t: 50, b: 50},
        showlegend: board.runs.length > 1,
      };
      const once = new Set();
      const data = card.plot.data.map((trace) => {
        const legend = !once.has(trace.name) && !["odd", "checkpoint"].includes(trace.meta.kind);
        once.add(trace.name);
        return {...trace, showlegend: legend};
      });
      const url = await Plotly.toImage({data, layout}, {format, width: 1200, height: 600, scale: format === "png" ? 2 : 1});
      darkit.download(await toBlob(url, format), `${darkit.fileName(card.title)}.${format}`);
    };
    add("export_png", () => picture("png"));
    add("export_svg", () => picture("svg"));
    add("export_csv", async () => {
      const answer = await darkit.ask("/api/csv", {runs: board.runs, view: board.view(), chart: card.id});
      darkit.download(await answer.blob(), `${darkit.fileName(card.title)}.csv`);
    });
    const button = element("summary", "icon-button", "⤓", {"aria-label": say("export"), title: say("export")});
    menu.append(button, items);
    menu.addEventListener("focusout", (event) => {
      if (!menu.contains(event.relatedTarget)) menu.open = false;
    });
    menu.addEventListener("keydown", (event) => {
      if (event.key === "Escape") menu.open = false;
    });
    return menu;
  };

  async function toBlob(url, format) {
    const [head, body] = [url.slice(0, url.indexOf(",")), url.slice(url.indexOf(",") + 1)];
    const bytes = head.includes("base64") ? Uint8Array.from(atob(body), (letter) => letter.charCodeAt(0)) : decodeURIComponent(body);
    return new Blob([bytes], {type: format === "svg" ? "image/svg+xml" : "image/png"});
  }
})();

"use strict";
/* What a run's process prints: followed while it runs, searched, and shown as text. */
(() => {
  const {element, say} = darkit;
  const MOST = 50_000; // lines in memory
  const views = new Map();

  class ConsoleView {
    constructor(root) {
      this.root = root;
      this.run = root.dataset.run;
      this.lines = [];
      this.end = 0;
      this.field = element("input", "chart-filter", "", {type: "search", placeholder: say("console_search"), "aria-label": say("console_search")});
      this.count = element("span", "muted chart-count", "", {role: "status"});
      this.follow = element("button", "small-button", say("console_follow"), {"aria-pressed": "true"});
      this.block = element("pre", "code tall console-text", "", {tabindex: "0", role: "log", "aria-label": say("tab_console")});
      const bar = element("div", "board-tools");
      bar.append(this.field, this.count, element("span", "spacer"), this.follow);
      root.append(bar, this.block);
      this.field.oninput = () => this.fill();
      this.follow.onclick = () => this.setFollowing(!this.following);
      this.block.addEventListener("scroll", () => {
        const atEnd = this.block.scrollHeight - this.block.scrollTop - this.block.clientHeight < 8;
        if (!atEnd && !this.moving) this.setFollowing(false);
        this.moving = false;
      });
      this.loop = darkit.repeat(() => this.look());
    }

    get following() {
      return this.follow.getAttribute("aria-pressed") === "true";
    }

    setFollowing(on) {
      this.follow.setAttribute("aria-pressed", String(on));
      if (on) this.toEnd();
    }

    toEnd() {
      const end = this.block.scrollHeight - this.block.clientHeight;
      this.moving = Math.abs(this.block.scrollTop - end) > 1; // the event of this is none of a reader's
      this.block.scrollTop = end;
    }

    async look() {
      if (!this.root.isConnected) {
        this.loop.end();
        views.delete(this.root);
        return 1e9;
      }
      const {text, end, continues, alive} = await (await darkit.ask("/api/console", {run: this.run, after: this.end})).json();
      if (end !== this.end || !continues || !this.filled) {
        const came = text.split("\n").slice(0, -1);
        this.lines = (continues ? [...this.lines, ...came] : came).slice(-MOST);
        this.end = end;
        this.filled = true;
        this.fill();
      }
      return alive ? 1000 : 5000;
    }

    fill() {
      const wanted = this.field.value.toLowerCase();
      const shown = wanted ? this.lines.filter((line) => line.toLowerCase().includes(wanted)) : this.lines;
      this.count.textContent = wanted ? say("console_found", {shown: darkit.count(shown.length), all: darkit.count(this.lines.length)}) : "";
      this.block.textContent = this.lines.length ? shown.map((line) => `${line}\n`).join("") : say("no_console");
      if (this.following) this.toEnd();
    }
  }

  darkit.pages.push(() => {
    for (const root of document.querySelectorAll(".console-view")) if (!views.has(root)) views.set(root, new ConsoleView(root));
  });
})();

"use strict";
/* The table of runs, and that of a comparison's values, as text: Markdown, LaTeX or CSV, with the rows and columns that
   are shown; if any of these is ticked, the ticked ones alone. */
(() => {
  const {say} = darkit;
  const FORMULA = /^[=+\-@\t\r]/; // what a spreadsheet would take for a formula

  const written = {duration: darkit.duration, eta: darkit.duration, rate: (value) => (value ? darkit.rate(value) : ""), started: darkit.moment};

  /* Returns what a cell says; `plain` is for programs, with numbers that they read. */
  function text(column, rowNode, plain) {
    const {data} = rowNode;
    const id = column.getColId();
    if (data.stats?.[id]) {
      const {mean, std, count} = data.stats[id];
      return std === null ? darkit.number(mean) : `${darkit.number(mean)} ± ${darkit.number(darkit.groups.margin(data.stats[id]), 2)} (${count})`;
    }
    if (id === "name") return data.label ?? data.name;
    const value = darkit.table.grid.getCellValue({rowNode, colKey: column});
    const lost = darkit.isLost(data) && (id === "state" || (/^(best|step):/.test(id) && value !== null));
    if (lost && plain && id !== "state") return ""; // of a run that diverged no value is the best
    const mark = lost ? ` (${say("diverged_short")})` : "";
    const at = id.startsWith("step:") ? darkit.table.columns.bestAt(id, data) : null;
    if (at !== null) return `${darkit.number(value)} @${at}${mark}`;
    if (id in written && !(plain && typeof value === "number" && id !== "started")) return written[id](value);
    return String(darkit.number(value ?? "", id.startsWith("config:") ? 10 : 5)) + mark;
  }

  function shownTable(plain) {
    const {grid, selection, columns} = darkit.table;
    const shown = grid.getAllDisplayedColumns().filter((column) => columns.all.includes(column.getColId()));
    const ticked = new Set(selection.names);
    const all = [];
    grid.forEachNodeAfterFilterAndSort((node) => all.push(node));
    const chosen = all.filter(({data}) => (data.members ?? [data.name]).some((name) => ticked.has(name)));
    const rows = chosen.length ? chosen : all;
    const head = shown.map((column) => columns.heading(column.getColId()));
    return [head, ...rows.map((node) => shown.map((column) => text(column, node, plain)))];
  }

  /* The table of a comparison's values with one row of headings; for programs a best value and its step are two cells. */
  function valuesTable(plain) {
    const table = document.querySelector("#values-box table");
    const heads = [...table.querySelectorAll("button.sort")].sort((one, other) => one.dataset.column - other.dataset.column);
    const split = (button) => plain && button.dataset.step !== undefined;
    const cells = (cell, place) => {
      const name = cell.querySelector(".run-name")?.textContent;
      const lost = cell.querySelector(".lost")?.textContent;
      if (name !== undefined) return [lost && !plain ? `${name} (${lost})` : name];
      if (split(heads[place])) return cell.dataset.value ? [cell.firstChild.textContent, cell.querySelector(".at-step")?.textContent.replace(/[ @,]/g, "") ?? ""] : ["", ""];
      return [cell.textContent.replace("⚠", `(${say("diverged_short")})`)];
    };
    const head = heads.flatMap((button) => (split(button) ? [button.dataset.best, button.dataset.step] : [button.dataset.heading]));
    return [head, ...[...table.tBodies[0].rows].map((row) => [...row.cells].flatMap(cells))];
  }

  const forms = {
    markdown(rows) {
      const line = (cells) => `| ${cells.map((cell) => cell.replace(/[\\|<>`*~[\]]/g, "\\$&").replace(/\s+/g, " ")).join(" | ")} |`;
      return [line(rows[0]), line(rows[0].map(() => "---")), ...rows.slice(1).map(line)].join("\n") + "\n";
    },
    latex(rows) {
      const special = {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "±": "$\\pm$", "−": "$-$", "∞": "$\\infty$", "<": "\\textless{}", ">": "\\textgreater{}", "[": "{[}"};
      const line = (cells) => `${cells.map((cell) => cell.replace(/[\\~^±−∞<>[]|[&%$#_{}]/g, (sign) => special[sign] ?? `\\${sign}`)).join(" & ")} \\\\`;
      return ["\\begin{tabular}{" + "l".repeat(rows[0].length) + "}", "\\toprule", line(rows[0]), "\\midrule", ...rows.slice(1).map(line), "\\bottomrule", "\\end{tabular}"].join("\n") + "\n";
    },
    csv(rows) {
      const cell = (content) => {
        const safe = FORMULA.test(content) && Number.isNaN(Number(content)) ? `'${content}` : content;
        return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
      };
      return rows.map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
    },
  };

  /* Saves the logs and the small files of the ticked runs as one file. */
  async function saveBundle() {
    const answer = await darkit.ask("/api/bundle", {runs: darkit.table.selection.names});
    darkit.download(await answer.blob(), "runs.zip");
  }

  document.addEventListener("click", (event) => {
    if (event.target.id === "export-runs" && darkit.table) darkit.attempt(saveBundle);
    const ready = event.target.closest?.("[data-copy-text]");
    if (ready) darkit.attempt(async () => {
      await darkit.copyText(ready.dataset.copyText);
      darkit.notify(say("copied"), "teal");
    });
    const button = event.target.closest?.("[data-copy-table], [data-copy-values]");
    if (!button) return;
    darkit.attempt(async () => {
      const kind = button.dataset.copyTable ?? button.dataset.copyValues;
      const rows = (button.dataset.copyTable ? shownTable : valuesTable)(kind === "csv");
      await darkit.copyText(forms[kind](rows));
      darkit.notify(say("table_copied", {count: darkit.count(rows.length - 1)}), "teal");
    });
  });
})();

"use strict";
/* The table of runs as text: Markdown, LaTeX or CSV, with the rows and columns that are shown; of ticked runs these alone. */
(() => {
  const {say} = darkit;
  const FORMULA = /^[=+\-@\t\r]/; // what a spreadsheet would take for a formula

  function text(column, rowNode) {
    const {data} = rowNode;
    const id = column.getColId();
    if (data.stats?.[id]) {
      const {mean, std, count} = data.stats[id];
      return std === null ? darkit.number(mean) : `${darkit.number(mean)} ± ${darkit.number(darkit.groups.margin(data.stats[id]), 2)} (${count})`;
    }
    if (id === "name") return data.label ?? data.name;
    const value = darkit.table.grid.getCellValue({rowNode, colKey: column});
    const at = id.startsWith("step:") ? darkit.table.columns.bestAt(id, data) : null;
    if (at !== null) return `${darkit.number(value)} @${at}`;
    if (id === "started") return darkit.moment(value);
    return id.includes(":") ? String(darkit.number(value ?? "", id.startsWith("config:") ? 10 : 5)) : String(value ?? "");
  }

  function shownTable() {
    const {grid, selection, columns} = darkit.table;
    const shown = grid.getAllDisplayedColumns().filter((column) => columns.all.includes(column.getColId()));
    const ticked = new Set(selection.names);
    const rows = [];
    grid.forEachNodeAfterFilterAndSort((node) => {
      if (!ticked.size || (node.data.members ?? [node.data.name]).some((name) => ticked.has(name))) rows.push(node);
    });
    const head = shown.map((column) => columns.heading(column.getColId()));
    return [head, ...rows.map((node) => shown.map((column) => text(column, node)))];
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
    const button = event.target.closest?.("[data-copy-table]");
    if (!button || !darkit.table) return;
    darkit.attempt(async () => {
      const rows = shownTable();
      await darkit.copyText(forms[button.dataset.copyTable](rows));
      darkit.notify(say("table_copied", {count: darkit.count(rows.length - 1)}), "teal");
    });
  });
})();

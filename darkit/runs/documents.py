"""Tables of text for documents: Markdown and LaTeX."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from darkit.runs.inert import inert

_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|~])")
_LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "[": "{[}",  # after \\ a bracket would be its argument
}
Rows = Sequence[Sequence[str]]


def markdown(rows: Rows) -> str:
    """Return a table in Markdown, the first row as its header; numbers are aligned to the right."""
    lines = ["| " + " | ".join(_MARKDOWN.sub(r"\\\1", inert(cell)) for cell in row) + " |" for row in rows]
    rule = "| " + " | ".join(["---", *["---:"] * (len(rows[0]) - 1)]) + " |"
    return "\n".join([lines[0], rule, *lines[1:], ""])


def latex(rows: Rows) -> str:
    """Return a table in LaTeX, for the package booktabs."""
    lines = [" & ".join("".join(_LATEX.get(sign, sign) for sign in inert(cell)) for cell in row) for row in rows]
    head = rf"\begin{{tabular}}{{l{'r' * (len(rows[0]) - 1)}}}"
    body = [rf"{line} \\" for line in lines]
    return "\n".join([head, r"\toprule", body[0], r"\midrule", *body[1:], r"\bottomrule", r"\end{tabular}", ""])


FORMATS: dict[str, Callable[[Rows], str]] = {"markdown": markdown, "latex": latex}

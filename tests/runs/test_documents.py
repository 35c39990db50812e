"""Tables for documents: what a document would take for markup is text."""

from __future__ import annotations

from darkit.runs.documents import latex, markdown

ROWS = [("a|b", "x"), ("*s_1* <b>", "[1, 2]"), ("c\\d\x1b", "5% & $3")]


def test_markup_in_cells_is_escaped() -> None:
    assert markdown(ROWS).splitlines() == [
        r"| a\|b | x |",
        "| --- | ---: |",
        r"| \*s\_1\* \<b\> | \[1, 2\] |",
        r"| c\\d\\x1b | 5% & $3 |",
    ]
    assert latex(ROWS).splitlines() == [
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"a|b & x \\",
        r"\midrule",
        r"*s\_1* \textless{}b\textgreater{} & {[}1, 2] \\",
        r"c\textbackslash{}d\textbackslash{}x1b & 5\% \& \$3 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]

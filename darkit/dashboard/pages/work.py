"""What a step of a run computes, among the facts of its page."""

from __future__ import annotations

from functools import partial

from darkit.dashboard.reading.facts import Facts, readable
from darkit.dashboard.reading.sessions import pace
from darkit.dashboard.reading.tail import Table
from darkit.dashboard.texts import text
from darkit.runs.numbers import number_text
from darkit.runs.work import read_work


def work_rows(facts: Facts, table: Table, language: str) -> list[tuple[str, str]]:
    """Return parameters, speed, operations and utilization as rows of a list of facts; none of a run without them."""
    say = partial(text, language)
    work = read_work(facts.info)
    if work is None:
        return []
    rate, _ = pace(facts, table)
    counts = ((work.samples, "samples_unit"), (work.tokens, "tokens_unit"))
    speeds = [f"{number_text(count * rate, 4)} {say(unit)}" for count, unit in counts if rate and count is not None]
    if work.flops is None:
        operations = say("not_counted", reason=readable(work.uncounted))
    else:
        operations = say("per_step", count=number_text(work.flops, 4))
        operations += f", {number_text(work.flops * rate, 4)}/s" if rate else ""
    share = work.utilization(rate)
    peak = f"{number_text(work.peak, 4)}/s" if work.peak else ""
    return [
        (say("parameters"), say("parameters_of", all=f"{work.parameters:,}", trained=f"{work.trained:,}")),
        (say("pace"), ", ".join(speeds)),
        (say("flops"), operations),
        ("MFU", say("mfu_of", share=f"{share:.1%}", peak=peak, source=readable(work.peak_source)) if share else ""),
    ]

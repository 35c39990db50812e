"""What a step of a run computes, and the energy of the run, among the facts of its page."""

from __future__ import annotations

from functools import partial

from darkit.dashboard.reading.facts import Facts, readable
from darkit.dashboard.reading.sessions import pace
from darkit.dashboard.reading.tail import Table
from darkit.dashboard.texts import text
from darkit.runs.energy import energy_of
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


def energy_rows(facts: Facts, language: str) -> list[tuple[str, str]]:
    """Return the energy of the machine's GPUs as a row of a list of facts; none where no power was sampled."""
    energy = energy_of(facts.folder)
    if energy is None:
        return []
    each = ", ".join(f"{name} {number_text(spent, 4)} Wh" for name, spent in energy.watt_hours.items())
    total = number_text(sum(energy.watt_hours.values()), 4)
    said = text(language, "energy_spent", total=total, time=f"{energy.seconds:,.0f} s", each=each)
    return [(text(language, "energy_sampled"), said)]

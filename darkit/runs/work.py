"""What a step of a run computes, as its first step was counted, and what follows from the pace of its log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from darkit.runs.safe import as_dict, finite_number

WORK = "work"  # in run.json
_MOST_TEXT = 200  # characters


@dataclass(frozen=True)
class Work:
    """The work of a step, of all processes together.

    Attributes:
        parameters: The number of parameters.
        trained: Those of them that are trained.
        samples: The samples of a step, or None if they are not known.
        tokens: Its tokens, or None if its samples are not rows of whole numbers.
        flops: Its floating-point operations, forward and backward, or None if they could not be counted.
        uncounted: Why they could not.
        peak: The operations per second that the devices can do at most, or None if that is not known.
        peak_source: Where that number comes from.
    """

    parameters: int
    trained: int
    samples: int | None = None
    tokens: int | None = None
    flops: int | None = None
    uncounted: str = ""
    peak: float | None = None
    peak_source: str = ""

    def utilization(self, rate: float | None) -> float | None:
        """Return the share of the peak that is used at so many steps per second: model FLOPs utilization, MFU."""
        return self.flops * rate / self.peak if self.flops is not None and rate and self.peak else None


def read_work(info: Mapping[str, Any]) -> Work | None:
    """Return the work that ``run.json`` records, or None. The file is untrusted: what is no number is left out."""
    found = as_dict(info.get(WORK))
    parameters, trained = _count(found.get("parameters")), _count(found.get("trained"))
    if parameters is None or trained is None:
        return None
    peak = finite_number(found.get("peak"))
    return Work(
        parameters,
        trained,
        samples=_count(found.get("samples")),
        tokens=_count(found.get("tokens")),
        flops=_count(found.get("flops")),
        uncounted=_text(found.get("uncounted")),
        peak=peak if peak and peak > 0 else None,
        peak_source=_text(found.get("peak_source")),
    )


def work_facts(work: Work, rate: float | None) -> list[tuple[str, str]]:
    """Return what a step computes, at so many steps per second, in words for a terminal: name and text."""
    found = [("parameters", f"{work.parameters:,}, of which {work.trained:,} are trained")]
    counts = ((work.samples, "samples/s"), (work.tokens, "tokens/s"))
    speeds = [f"{count * rate:.4g} {unit}" for count, unit in counts if rate and count is not None]
    if speeds:
        found.append(("speed", ", ".join(speeds)))
    if work.flops is None:
        return [*found, ("FLOPs", f"not counted: {work.uncounted or 'unknown'}")]
    found.append(("FLOPs", f"{work.flops:.4g} per step" + (f", {work.flops * rate:.4g} per second" if rate else "")))
    utilization = work.utilization(rate)
    if utilization is not None:
        found.append(("MFU", f"{utilization:.1%} of {work.peak:.3g} per second ({work.peak_source})"))
    return found


def steps_per_second(log: Any) -> float | None:
    """Return the pace of a run: the median over the rows of its log, a polars DataFrame, or None if it has no clock.

    The median leaves out rows in which the run was stopped, evaluated or saved, as long as they are the fewer ones.
    """
    if not {"step", "time"} <= {*log.columns} or not (
        log["step"].dtype.is_numeric() and log["time"].dtype.is_numeric()
    ):
        return None
    changes = log.select("step", "time").drop_nulls().select(_change("step"), _change("time"))
    paces = changes.filter((changes["step"] > 0) & (changes["time"] > 0))
    return finite_number((paces["step"] / paces["time"]).median()) if len(paces) else None


def _change(column: str) -> Any:
    """Return the change of a column from row to row."""
    import polars

    return polars.col(column).cast(polars.Float64).diff()


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < 2**100 else None


def _text(value: Any) -> str:
    return value[:_MOST_TEXT] if isinstance(value, str) else ""

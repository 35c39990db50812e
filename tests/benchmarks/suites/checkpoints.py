"""The cost of a checkpoint of 600 MB, in `darkit.fit` as users call it."""

from typing import Any

from frame import Goal, Suite, Table

_COLUMNS = (("stall", "ms"), ("first", "ms"), ("durable", "s"), ("memory", "MB"))


def _goal(what: str, contender: str, base: str | None, must: float | None, aim: float | None, **further: Any) -> Goal:
    """Return a row that is measured with a tenth of the state in `make bench ARGS=quick`."""
    return Goal(
        what=what,
        script="checkpoints.py",
        contender=contender,
        base=base,
        must=must,
        aim=aim,
        quick=("quick",),
        **further,
    )


SUITE = Suite(
    rounds=3,
    least=1,
    seconds=340,
    quick_rounds=1,
    tables=tuple(
        Table(
            title=f"Checkpoint, two compute threads: {column}",
            script="checkpoints.py",
            contenders=("bare_clone 2", "plain_save 2", "lightning_async 2", "darkit 2"),
            base="plain_save 2" if column == "durable" else "bare_clone 2",
            unit=unit,
            field=column,
            digits=2,
        )
        for column, unit in _COLUMNS
    ),
    goals=(
        _goal("stall per save, two compute threads / clone", "darkit 2", "bare_clone 2", 0.4, 0.3, field="stall"),
        _goal("stall per save, one compute thread / clone", "darkit 1", "bare_clone 1", 0.2, 0.05, field="stall"),
        _goal("steps/s with a save every 50 / without", "every_50 2", "never 2", 0.93, 0.98, better="higher"),
        _goal("durable after / torch.save + fsync", "darkit 2", "plain_save 2", 0.8, 0.6, field="durable"),
        _goal("resume to the first step / torch.load", "resume 2", "torch_load 2", 1.3, 1.05),
        _goal("ten Adam checkpoints, `keep_optimizer=last` / weights", "disk_last", None, 12.5, 12.1),
        _goal("memory of saves beyond 1.05 of the state", "darkit 2", None, 60, None, field="beyond", unit="MB"),
    ),
)

"""The cost of a checkpoint in two processes that each hold a part of the model, or all of it."""

from frame import Suite, Table

SUITE = Suite(
    rounds=1,
    least=1,
    tables=tuple(
        Table(
            title=f"A checkpoint of two processes: {column}",
            script="fsdp.py",
            contenders=("ddp", "fsdp"),
            base="ddp",
            unit=unit,
            field=column,
            digits=1,
        )
        for column, unit in (
            ("state", "MB of state"),
            ("memory", "MB more in one process"),
            ("stall", "ms"),
            ("durable", "s"),
        )
    ),
)

"""Batches of memory-mapped tokens."""

from frame import Goal, Suite, Table

SUITE = Suite(
    rounds=3,
    seconds=40,
    tables=tuple(
        Table(
            title=f"Memory-mapped tokens, batches of {windows}",
            script="windows.py",
            contenders=("random_offsets", "darkit"),
            arguments=(size,),
            base="random_offsets",
            unit="us per batch",
        )
        for size, windows in (("small", "16 windows of 128"), ("large", "12 windows of 1,024"))
    ),
    goals=(
        Goal(
            what="windows of memory-mapped tokens to batches / nanoGPT's way",
            script="windows.py",
            contender="darkit",
            base="random_offsets",
            arguments=("small",),
            must=1.0,
            aim=0.8,
        ),
    ),
)

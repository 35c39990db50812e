"""Messages between two processes."""

from frame import Suite, Table

SUITE = Suite(
    rounds=1,
    least=1,
    tables=(
        Table(
            title="Two processes, one batch a step",
            script="collectives.py",
            contenders=("ddp", "lightning", "lightning_averaged", "darkit", "darkit_further"),
            base="ddp",
            unit="messages per step",
            digits=2,
        ),
        Table(
            title="Two processes, four batches a step",
            script="collectives.py",
            contenders=("ddp_4", "darkit_4"),
            base="ddp_4",
            unit="messages per step",
            digits=2,
        ),
    ),
)

"""The cost of `run.log` in a hand-written loop."""

from frame import Suite, Table

SUITE = Suite(
    rounds=1,
    least=1,
    tables=(
        Table(
            title="run.log on the training thread",
            script="loop.py",
            contenders=("floats", "floats_and_ints", "cpu_tensor", "second_call_of_a_step"),
            base="floats",
            unit="us per call",
            digits=2,
        ),
    ),
)

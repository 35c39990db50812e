"""The speed of making text ready."""

from frame import Suite, Table

SUITE = Suite(
    rounds=2,
    least=1,
    seconds=100,
    tables=(
        Table(
            title="28 million characters, a vocabulary of 8,192",
            script="preparation.py",
            contenders=("prepare", "encode_batch"),
            base="encode_batch",
            unit="million characters per second",
            digits=2,
        ),
    ),
)

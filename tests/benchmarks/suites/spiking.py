"""A spiking language model beside the GPT of equal parameters, after equal steps."""

from frame import Goal, Suite, Table

_STEPS = "400"

SUITE = Suite(
    rounds=1,
    least=1,
    quick_rounds=1,
    tables=tuple(
        Table(
            title=f"{_STEPS} steps: {column}",
            script="spiking.py",
            contenders=("gpt", "spikegpt"),
            arguments=(_STEPS,),
            base="gpt",
            unit=unit,
            field=column,
            digits=2,
        )
        for column, unit in (("val_loss", "nats per token"), ("speed", "tokens per second"))
    ),
    goals=(
        Goal(
            what="spikegpt, training tokens/s / gpt (must: 1.4x the time)",
            script="spiking.py",
            contender="spikegpt",
            base="gpt",
            arguments=(_STEPS,),
            quick=("40",),
            field="speed",
            better="higher",
            must=1 / 1.4,
            aim=1 / 1.2,
        ),
        Goal(
            what=f"spikegpt, validation loss after {_STEPS} steps beyond gpt's",
            script="spiking.py",
            contender="spikegpt",
            base="gpt",
            arguments=(_STEPS,),
            in_quick=False,
            field="val_loss",
            compare="difference",
            unit="nats",
            must=0.15,
        ),
    ),
)

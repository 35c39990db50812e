"""The training speed of the built-in language models."""

from frame import Goal, Suite, Table

_STEPS = ("25",)
_QUICK = ("6",)

SUITE = Suite(
    rounds=3,
    least=2,
    quick_rounds=1,
    tables=(
        Table(
            title="Language models of 2.2 million parameters, 16 windows of 128 tokens",
            script="gpt.py",
            contenders=("plain", "gpt", "fit", "spikegpt"),
            arguments=_STEPS,
            base="plain",
            unit="tokens per second",
        ),
    ),
    goals=(
        Goal(
            what="built-in gpt, training tokens/s / a GPT as nanoGPT's",
            script="gpt.py",
            contender="gpt",
            base="plain",
            arguments=_STEPS,
            quick=_QUICK,
            better="higher",
            must=1.0,
            aim=1.2,
        ),
        Goal(
            what="the same in fit, everything on",
            script="gpt.py",
            contender="fit",
            base="plain",
            arguments=_STEPS,
            quick=_QUICK,
            better="higher",
            must=1.0,
            aim=1.2,
        ),
    ),
)

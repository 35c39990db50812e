"""How soon a command is done or shows something."""

from frame import Goal, Suite

SUITE = Suite(
    rounds=3,
    quick_rounds=1,
    goals=(
        Goal(
            what="`darkit.train model=mymodel trainer.max_step=1` to its end / `import torch, lightning`",
            script="start.py",
            contender="train",
            base="import_lightning",
            must=1.0,
        ),
        Goal(
            what="the same with only what darkit requires, beyond `import torch`",
            script="start.py",
            contender="train",
            base="import_torch",
            arguments=("minimal",),
            compare="difference",
            unit="s",
            must=None,
            aim=2.0,
        ),
        Goal(
            what="`darkit predict` of a small model, to the first character / `import torch`",
            script="start.py",
            contender="predict",
            base="import_torch",
            arguments=("minimal",),
            must=1.5,
        ),
    ),
)

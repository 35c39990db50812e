"""The speed of generating text."""

from frame import Goal, Suite, Table

SUITE = Suite(
    rounds=3,
    least=2,
    seconds=150,
    quick_rounds=1,
    tables=(
        *(
            Table(
                title=f"A {size} model, one thread, with its cache",
                script="generation.py",
                contenders=("darkit", "transformers", "darkit_transformers"),
                arguments=(size,),
                base="transformers",
                unit="tokens per second",
            )
            for size in ("small", "medium")
        ),
        Table(
            title="Sixteen texts together, a medium model, one thread, with its cache",
            script="generation.py",
            contenders=("darkit", "transformers", "darkit_transformers"),
            arguments=("medium", "16"),
            base="transformers",
            unit="tokens per second",
        ),
    ),
    goals=(
        Goal(
            what="built-in gpt, generation with cache, medium / transformers",
            script="generation.py",
            contender="darkit",
            base="transformers",
            arguments=("medium",),
            better="higher",
            must=1.05,
            aim=1.3,
        ),
        Goal(
            what="the same, sixteen texts together",
            in_quick=False,
            script="generation.py",
            contender="darkit",
            base="transformers",
            arguments=("medium", "16"),
            better="higher",
            must=1.05,
            aim=1.3,
        ),
    ),
)

"""A language model's training: ``python tests/benchmarks/spiking.py MODEL STEPS``.

Trains ``gpt`` or ``spikegpt`` with their default settings, which have as many parameters, on the embedded text, and
prints as JSON the validation loss in nats per token and the tokens per second of the training.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

BATCH, CONTEXT = 16, 128


def main(model: str, steps: str) -> None:
    """Train one model and print what came of it."""
    with tempfile.TemporaryDirectory() as home:
        os.environ["DARWIN_KIT_HOME"] = home
        from darkit.cli.train import main as train
        from darkit.runs import load

        arguments = [f"model={model}", "name=run", f"trainer.max_step={steps}", f"trainer.eval_step_interval={steps}"]
        code = train([*arguments, f"trainer.batch_size={BATCH}", f"data.context_length={CONTEXT}"])
        if code:
            sys.exit(code)
        log = load("run", root=Path(home) / "base").log()
    rows = log.filter(log["val_loss"].is_null())
    seconds = rows["time"][-1] - rows["time"][0]
    speed = (rows["step"][-1] - rows["step"][0]) * BATCH * CONTEXT / seconds
    print(json.dumps({"val_loss": log["val_loss"].drop_nulls()[-1], "speed": speed}))


if __name__ == "__main__":
    main(*sys.argv[1:])

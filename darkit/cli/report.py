"""What a finished training tells: where it is, how good it got, and how to go on."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from darkit.runs import Run


def final_report(run: Run, *, seconds: float, steps: int, baselines: Mapping[str, float]) -> str:
    """Composes the block at the end of ``darkit train``.

    Args:
        run: The run.
        seconds: How long it trained.
        steps: How many steps it did in that time.
        baselines: Losses to compare with: what it is -> its loss.
    """
    details = run.details
    lines = [
        f"{run.name}: {details.state} at step {details.step} of {details.max_step}",
        f"  run directory  {run.path}",
    ]
    lines += [f"  {name:<13}  {text}" for name, text in _losses(run, baselines)]
    lines.append(f"  speed          {steps / max(seconds, 1e-9):.1f} steps/s, {seconds:.0f} s in all")
    name = shlex.quote(run.name)
    more = 2 * (details.max_step or details.step)
    example = '"The import statement"' if (run.path / "tokenizer.json").exists() else "INPUT"
    lines += [
        "go on with",
        f"  darkit predict {name} {example}",
        "  darkit start",
        f"  darkit train resume={name} trainer.max_step={more}",
    ]
    return "\n".join(lines)


def _losses(run: Run, baselines: Mapping[str, float]) -> list[tuple[str, str]]:
    log = run.log()
    found = []
    for column in ("train_loss", "val_loss"):
        values = log[column].drop_nulls().to_list() if column in log.columns else []
        if values:
            text = f"best {min(values):.4f}, last {values[-1]:.4f}"
            if column == "val_loss" and baselines:
                text += f" ({', '.join(f'{name}: {value:.4f}' for name, value in baselines.items())})"
            found.append((column.replace("_", " "), text))
    return found

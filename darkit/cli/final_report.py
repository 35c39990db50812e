"""The report at the end of a training: the run, its losses, and the next commands."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkit.engine.log.rate import speed
from darkit.runs import Run
from darkit.runs.best import best_mode, best_value
from darkit.runs.example import example_input
from darkit.runs.inert import inert
from darkit.runs.names import resume_words

if TYPE_CHECKING:
    import polars

_EARLY = "Stopped early"  # how the reason of an early stop begins


def final_report(
    run: Run, *, first_step: int, seconds: float, baselines: Mapping[str, float], next_commands: bool = True
) -> str:
    """Compose the block at the end of ``darkit train``.

    Args:
        run: The run.
        first_step: The step after which this training began.
        seconds: How long it took, with all that is around the steps.
        baselines: Losses to compare with: what it is -> its loss.
        next_commands: Whether to end with commands that use the run.
    """
    details, log, trainer = run.details, run.log(), run.trainer_config
    rows = [
        ("run directory", str(run.path)),
        *_metrics(log, trainer, baselines),
        ("speed", f"{speed(_speed(log, first_step, details.step, seconds))}, {seconds:.1f} s in all"),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"{run.name}: {inert(details.state)} at step {details.step} of {details.max_step}"]
    lines += [f"  {name:<{width}}  {text}" for name, text in rows]
    if not next_commands:
        return "\n".join(lines)
    command, name = darkit_command(), shlex.quote(run.name)
    more = f"trainer.max_step={2 * (details.max_step or details.step)}"
    if details.reason.startswith(_EARLY):  # more steps alone would be refused
        more = "trainer.early_stop_patience=0"
    lines += [
        "next",
        f"  {command} predict {name} {example_input(run.path, run.info)}",
        f"  {command} start",
        f"  {command} train {resume_words(run.name)} {more}",
    ]
    return "\n".join(lines)


def resume_hint(run: Run) -> str:
    """Compose the last lines of a stopped training."""
    details = run.details
    if not run.checkpoints():
        return f"{run.name}: stopped before its first checkpoint."
    command = f"{darkit_command()} train {resume_words(run.name)}"
    return f"{run.name}: {inert(details.state)} at step {details.step} of {details.max_step}; resume with\n  {command}"


def darkit_command() -> str:
    """Return what starts darkit in this shell: its name alone only where the shell would find this very one."""
    script = Path(sys.executable).with_name("darkit")
    found = shutil.which("darkit")
    if found is not None and (not script.exists() or script.samefile(found)):
        return "darkit"
    if not script.exists():
        return f"{shlex.quote(sys.executable)} -m darkit"
    folder = Path.cwd()
    return shlex.quote(str(script.relative_to(folder) if script.is_relative_to(folder) else script))


def _metrics(
    log: polars.DataFrame, trainer: Mapping[str, Any], baselines: Mapping[str, float]
) -> Iterator[tuple[str, str]]:
    """Yield the losses and the other metrics of the validation, without those that exist once per layer."""
    others = [column for column in log.columns if column.startswith("val_") and not column[-1].isdigit()]
    for column in dict.fromkeys(("train_loss", "val_loss", *others)):
        values = log[column].drop_nulls().to_list() if _is_numeric(log, column) else []
        if values:
            best = best_value(values, best_mode(trainer, column))
            text = ("" if best is None else f"best {best:.4f}, ") + f"last {values[-1]:.4f}"
            if column == "val_loss" and baselines:
                text += f" ({', '.join(f'{name}: {value:.4f}' for name, value in baselines.items())})"
            yield inert(column.replace("_", " ")), text


def _speed(log: polars.DataFrame, first_step: int, last_step: int, seconds: float) -> float:
    """Return the steps per second between the first and the last row that this training logged, or on the whole."""
    if _is_numeric(log, "step") and _is_numeric(log, "time"):
        rows = log.filter(log["step"] > first_step)
        if rows.height > 1:
            steps, elapsed = (rows[name][-1] - rows[name][0] for name in ("step", "time"))
            if elapsed > 0:
                return float(steps / elapsed)
    return (last_step - first_step) / max(seconds, 1e-9)


def _is_numeric(log: polars.DataFrame, column: str) -> bool:
    return column in log.columns and log[column].dtype.is_numeric()

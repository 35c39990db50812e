"""Callbacks of a trial: pause it at a rung or below the median, and record the sweep that it belongs to.

A paused trial is a stopped run with a checkpoint of the step at which it was paused. Its settings, with the schedule up
to ``max_step``, are those of a run that is never paused, so it is promoted by an exact resume.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer

from darkit.engine.callbacks import StopOnRequest
from darkit.engine.callbacks.base import StepCallback, log_values
from darkit.errors import ConfigError
from darkit.runs import Run, files
from darkit.sweep.objective import values_by_step
from darkit.sweep.progress import PAUSED, PRUNED
from darkit.sweep.sampling import optuna_direction, quiet_optuna


class _Pause(StepCallback):
    """Stop the training at the end of a step, as a request does."""

    def __init__(self, sweep: str) -> None:
        self.sweep = sweep

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        found = [callback for callback in trainer.callbacks if isinstance(callback, StopOnRequest)]  # type: ignore[attr-defined]
        if not found:
            raise ConfigError(
                "A sweep cannot pause a model that Lightning's own loop trains. Give sweep.pruner=none, which trains "
                "every trial to its end."
            )
        self._request = found[0].request

    def pause(self, step: int, why: str = "") -> None:
        self._request.ask(f"{PAUSED} {step} of the sweep {self.sweep!r}{why}.")


class PauseAt(_Pause):
    """Pause at a step.

    Args:
        step: The step.
        sweep: The sweep's name.
    """

    def __init__(self, step: int, sweep: str) -> None:
        super().__init__(sweep)
        self.step = step

    def on_step(self, trainer: Trainer, pl_module: Any, outputs: dict[str, Any], step: int) -> None:
        if step >= self.step:
            self.pause(step)


class PauseBelowMedian(_Pause):
    """Pause at an evaluation where Optuna's `MedianPruner` would prune the trial.

    Args:
        others: The values by step of the trials that are complete.
        objective: The metric that is compared.
        direction: ``min`` or ``max``.
        sweep: The sweep's name.
    """

    def __init__(self, others: Sequence[Mapping[int, float]], objective: str, direction: str, sweep: str) -> None:
        super().__init__(sweep)
        self.others, self.objective, self.direction = others, objective, direction

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report to the pruner what the run has logged so far."""
        import optuna
        from optuna.trial import create_trial

        super().on_train_start(trainer, pl_module)
        with quiet_optuna():
            study = optuna.create_study(
                direction=optuna_direction(self.direction), pruner=optuna.pruners.MedianPruner()
            )
            finite = [{at: value for at, value in values.items() if math.isfinite(value)} for values in self.others]
            for values in filter(None, finite):
                study.add_trial(create_trial(value=values[max(values)], intermediate_values=dict(values)))
            self._trial = study.ask()
        for step, value in values_by_step(Run(Path(trainer.default_root_dir)), self.objective).items():
            if step <= trainer.global_step and math.isfinite(value):
                self._trial.report(value, step)

    def on_step(self, trainer: Trainer, pl_module: Any, outputs: dict[str, Any], step: int) -> None:
        value = log_values(trainer, outputs).get(self.objective)
        if value is None or not math.isfinite(float(value)):
            return
        self._trial.report(float(value), step)
        if step < trainer.max_steps and self._trial.should_prune():
            self.pause(step, f" {PRUNED}")


class RecordLineage(StepCallback):
    """Record in ``run.json`` which sweep the run belongs to.

    Args:
        facts: What is added.
    """

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.facts = dict(facts)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._recorded = self._record(trainer)

    def on_step(self, trainer: Trainer, pl_module: Any, outputs: dict[str, Any], step: int) -> None:
        if not self._recorded:  # under Lightning's own loop, run.json is written late
            self._recorded = self._record(trainer)

    def _record(self, trainer: Trainer) -> bool:
        folder = Path(trainer.default_root_dir)
        info = Run(folder).info
        if info and trainer.is_global_zero and any(info.get(key) != value for key, value in self.facts.items()):
            files.write_json(folder / files.RUN, info | self.facts)
        return bool(info)

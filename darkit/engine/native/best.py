"""Which step of a training by Lightning's own loop is the best so far, in all processes alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import lightning

from darkit.engine.config import TrainerConfig
from darkit.engine.lightning import call_at, logged_step
from darkit.runs.best import is_better


class BestStep:
    """Find the steps to save for ``load_best_at_end``.

    Only the first process gets what is logged, so it decides for all of them. They ask it after a validation and after
    steps at which Lightning or darkit logs, which all of them know.

    Args:
        config: Has ``load_best_at_end``, ``monitor``, ``mode`` and ``log_step_interval``.
    """

    def __init__(self, config: TrainerConfig) -> None:
        self._config = config
        self._best: float | None = None
        self._validated = False  # since the last step

    def watch(self, trainer: lightning.Trainer) -> Callable[[], None]:
        """Begin to note validations; return what undoes this."""
        return call_at(trainer.fit_loop.epoch_loop.val_loop, "on_run_end", self._note)

    def _note(self) -> None:
        self._validated = True

    def is_new(self, trainer: lightning.Trainer, row: Mapping[str, float], *, due: bool) -> bool:
        """Return whether a step is better than all before. All processes must call it after every step.

        Args:
            trainer: The trainer.
            row: What was logged for the step; empty in other processes than the first.
            due: Whether a row is due, or an epoch has ended.
        """
        if not self._config.load_best_at_end:
            return False
        several, validated = trainer.world_size > 1, self._validated
        self._validated = False
        if several and not (due or validated or logged_step(trainer) % self._config.log_step_interval == 0):
            return False
        value = row.get(self._config.monitor)
        is_best = value is not None and is_better(value, self._best, self._config.best_mode)
        if several:
            is_best = bool(trainer.strategy.broadcast(is_best))
        self._best = value if is_best else self._best
        return is_best

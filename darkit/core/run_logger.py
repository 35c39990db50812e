"""A logger for Lightning that keeps a run by itself."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from darkit.core.active import ActiveRun, start_run
from darkit.engine.native.experiment import Experiment
from darkit.runs import Run
from darkit.runs.configs import public_values
from darkit.runs.names import check_name, check_project


class RunLogger(Logger):
    """Keep what Lightning logs as a run: ``Trainer(logger=darkit.RunLogger("my-run"))``.

    It saves no checkpoints; `darkit.RunRecorder` does. The run begins with the first thing that is logged, and ends
    with the training.

    Args:
        name: The run's name; None generates one.
        project: The project that the run belongs to; None for none.
        tensorboard: Whether the log also goes to TensorBoard files in the run directory.
        series: The curves to show: name -> [x column, y column].

    Raises:
        NameInvalidError: The name is not valid.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        project: str | None = None,
        tensorboard: bool = False,
        series: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        super().__init__()
        if name is not None:
            check_name(name)
        if project is not None:
            check_project(project)
        self._name = name
        self._settings: dict[str, Any] = {"project": project, "tensorboard": tensorboard, "series": series}
        self._hparams: dict[str, Any] = {}
        self._active: ActiveRun | None = None
        self._experiment = Experiment(lambda: Run(self.run.path), self._put)

    @property
    def name(self) -> str | None:
        """The run's name; None before it is generated."""
        return self._name

    @property
    def version(self) -> str:
        """Empty: a run's name is unique."""
        return ""

    @property
    def save_dir(self) -> str | None:
        """The folder of the runs, once the run has begun."""
        return None if self._active is None else str(self._active.path.parent)

    @property
    def log_dir(self) -> str | None:
        """The run directory, once the run has begun."""
        return None if self._active is None else str(self._active.path)

    @property
    def run(self) -> ActiveRun:
        """The run, which begins here if it has not yet."""
        if self._active is None:
            self._active = start_run(self._name, config=self._hparams or None, **self._settings)
            self._name = self._active.name
        return self._active

    @property
    def experiment(self) -> Experiment:
        """Takes what a TensorBoard writer takes, and has the run's attributes."""
        return self._experiment

    @rank_zero_only
    def _put(self, values: Mapping[str, Any], step: int | None) -> None:
        self.run.log(values, step=self.run.step)  # of the module's own count of epochs or steps

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Record hyperparameters, for ``config.json``."""
        self._hparams |= public_values(vars(params) if isinstance(params, Namespace) else params)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log values.

        Args:
            metrics: Values by name.
            step: Steps completed before; Lightning counts them from 0. A smaller one than before is the last one.
        """
        run = self.run
        run.log(metrics, step=max(run.step, 1 + (run.step if step is None else step)))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the run: ``failed`` with the error that is being handled, anything else well."""
        run, self._active = self._active, None
        if run is None:
            return
        error = sys.exc_info()
        if status == "failed" and error[0] is not None:
            run.__exit__(*error)
        else:
            run.finish()

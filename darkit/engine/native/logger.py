"""darkit's logger for Lightning: what ``self.log`` says becomes rows of a run."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from darkit.engine.native.experiment import Experiment
from darkit.runs import Run


class RowLogger(Logger):
    """Pass values on to the run that a training records.

    Args:
        run: Returns the run, or None before it exists.
        put: Called with values and media by name, and the step that Lightning gives them.
    """

    def __init__(self, run: Callable[[], Run | None], put: Callable[[Mapping[str, Any], int | None], None]) -> None:
        super().__init__()
        self._run = run
        self._put = put
        self._experiment = Experiment(run, put)
        self.hparams: dict[str, Any] = {}

    @property
    def name(self) -> str:
        """The run's name."""
        run = self._run()
        return run.name if run is not None else "darkit"

    @property
    def version(self) -> str:
        """Empty: a run's name is unique."""
        return ""

    @property
    def save_dir(self) -> str | None:
        """The folder of the runs."""
        run = self._run()
        return str(run.path.parent) if run is not None else None

    @property
    def log_dir(self) -> str | None:
        """The run directory."""
        run = self._run()
        return str(run.path) if run is not None else None

    @property
    def experiment(self) -> Experiment:
        """Takes what a TensorBoard writer takes, and has the run's attributes."""
        return self._experiment

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Record the hyperparameters of module and data module."""
        self.hparams |= vars(params) if isinstance(params, Namespace) else dict(params)

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        """Record values of the step that is being done."""
        self._put({key: value for key, value in metrics.items() if key != "epoch"}, step)

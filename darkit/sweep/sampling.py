"""What a sweep tries next: Optuna's samplers, so that a suggestion depends on nothing but what it may see.

The suggestion for a trial is made in a study in memory that holds the earlier trials, by a sampler with a seed of the
trial's own. So it is the same in a sweep that was interrupted, and with several jobs however long each takes: the last
``jobs`` trials count as running.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, Literal

from darkit.errors import ConfigError
from darkit.sweep.settings import SweepSettings
from darkit.sweep.space import Dimension

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

_LEARNING = ("tpe", "cmaes")  # samplers that look at results
_USUAL_TRIALS = 20
_MOST_COMBINATIONS = 100_000  # that a grid lists


@dataclass(frozen=True)
class Suggestion:
    """What Optuna suggests for a trial.

    Attributes:
        params: The value of each dimension, by its key.
        attributes: What the sampler has to find again.
    """

    params: dict[str, Any]
    attributes: dict[str, Any]


class Suggestions:
    """Suggest the settings of one trial after the other.

    Args:
        settings: The sampler, its seed and the number of jobs.
        space: The search space.
        direction: ``min`` or ``max``.

    Raises:
        ConfigError: The sampler does not fit the search space, or needs a package that is missing.
    """

    def __init__(self, settings: SweepSettings, space: Sequence[Dimension], direction: str) -> None:
        check_sampler(settings, space)
        self.settings, self.direction = settings, direction
        self.distributions = {dimension.key: dimension.distribution() for dimension in space}
        self.grid = {}
        if settings.sampler == "grid":
            self.grid = {dimension.key: list(dimension.values or ()) for dimension in space}
        self._sequence: Any = None

    @property
    def learns(self) -> bool:
        """Whether suggestions depend on the results of earlier trials."""
        return bool(self.distributions) and self.settings.sampler in _LEARNING

    def suggest(self, number: int, earlier: Sequence[FrozenTrial]) -> Suggestion:
        """Suggest the settings of a trial.

        Args:
            number: The trial's number.
            earlier: All trials before it, the last ones as running.
        """
        if not self.distributions:
            return Suggestion({}, {})
        with quiet_optuna():
            if self.settings.sampler == "qmc":
                return self._next_of_sequence(number)
            study = self._study(self._sampler(number))
            study.add_trials(earlier)
            trial = study.ask(self.distributions)
            made = study.get_trials(deepcopy=False)[trial.number]
            return Suggestion(dict(made.params), dict(made.system_attrs))

    def _next_of_sequence(self, number: int) -> Suggestion:
        """Continue a quasi-random sequence, whose position only the study knows, up to a trial."""
        if self._sequence is None:
            self._sequence = self._study(self._sampler(0))
        asked = len(self._sequence.get_trials(deepcopy=False))
        for _ in range(asked, number + 1):
            self._sequence.ask(self.distributions)
        made = self._sequence.get_trials(deepcopy=False)[number]
        return Suggestion(dict(made.params), {})

    def _study(self, sampler: BaseSampler) -> Any:
        import optuna

        return optuna.create_study(direction=optuna_direction(self.direction), sampler=sampler)

    def _sampler(self, number: int) -> BaseSampler:
        from optuna import samplers

        digest = hashlib.sha256(f"{self.settings.seed}/{number}".encode()).digest()
        seed, name = int.from_bytes(digest[:4], "big"), self.settings.sampler
        if name == "tpe":
            return samplers.TPESampler(seed=seed, constant_liar=self.settings.jobs > 1)
        if name == "random":
            return samplers.RandomSampler(seed=seed)
        if name == "grid":
            return samplers.GridSampler(self.grid, seed=self.settings.seed)
        if name == "qmc":
            return samplers.QMCSampler(seed=self.settings.seed, scramble=True)
        return samplers.CmaEsSampler(seed=seed)


def trials_of(settings: SweepSettings, space: Sequence[Dimension]) -> int:
    """Return the number of trials: the one asked for, but not more than there are combinations without repeating."""
    combinations = prod(dimension.size for dimension in space)  # 0 with an interval
    if not space:
        return 1
    if settings.sampler == "grid":
        return min(settings.trials or combinations, combinations)
    return settings.trials or (min(_USUAL_TRIALS, combinations) if combinations else _USUAL_TRIALS)


def check_sampler(settings: SweepSettings, space: Sequence[Dimension]) -> None:
    """Check that the sampler can sample the space. Raises `ConfigError`."""
    if importlib.util.find_spec("optuna") is None:
        raise ConfigError("A sweep needs Optuna: pip install 'darkit[sweep]'.")
    if settings.sampler == "cmaes" and importlib.util.find_spec("cmaes") is None:
        raise ConfigError("sweep.sampler=cmaes needs the package cmaes: pip install cmaes.")
    endless = next((dimension.key for dimension in space if not dimension.size), "")
    if settings.sampler == "grid" and endless:
        raise ConfigError(
            f"sweep.sampler=grid tries all combinations, but {endless} is an interval: give choices or a range, or "
            "another sampler."
        )
    combinations = prod(dimension.size for dimension in space)
    if settings.sampler == "grid" and combinations > _MOST_COMBINATIONS:
        raise ConfigError(
            f"sweep.sampler=grid tries all combinations, here {combinations}, and takes {_MOST_COMBINATIONS} at most: "
            "give fewer values, or another sampler."
        )


def optuna_direction(direction: str) -> Literal["maximize", "minimize"]:
    """Return Optuna's word for ``min`` or ``max``."""
    return "maximize" if direction == "max" else "minimize"


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Silence what Optuna logs and warns of its own: a sweep tells its trials itself."""
    logger = logging.getLogger("optuna")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            from optuna.exceptions import ExperimentalWarning

            warnings.simplefilter("ignore", ExperimentalWarning)
            warnings.filterwarnings("ignore", module=r"optuna\.")
            yield
    finally:
        logger.setLevel(level)

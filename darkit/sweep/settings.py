"""The settings of a sweep: the group ``sweep:`` of the config."""

from __future__ import annotations

from dataclasses import dataclass, fields

from darkit.errors import ConfigError

SAMPLERS = ("tpe", "random", "grid", "cmaes", "qmc")
PRUNERS = ("none", "median", "hyperband", "halving")
RESULT_SETTINGS = ("objective", "direction")  # what a sweep of Hydra's knows too


@dataclass
class SweepSettings:
    """What ``darkit sweep`` does; ``darkit train -m`` reads `objective` and `direction` only."""

    objective: str | None = None
    """Column of the log to optimise; None means the trainer's `monitor`."""
    direction: str = "auto"
    """``min`` or ``max``; ``auto`` goes by the objective, as `darkit.runs.best` does."""
    trials: int | None = None
    """Number of trials; None means 20, all combinations for ``grid``, and 1 without a search space."""
    sampler: str = "tpe"
    """``tpe``, ``random``, ``grid``, ``cmaes`` or ``qmc``."""
    pruner: str = "none"
    """``none``, ``median``, ``hyperband`` or ``halving``."""
    jobs: int = 1
    """Trials that train at once."""
    seed: int = 0
    """Seed of the sampler."""
    factor: int = 3
    """Of ``hyperband`` and ``halving``: one trial in so many is promoted, to so many times the steps."""
    min_step: int | None = None
    """Of ``hyperband`` and ``halving``: step of the first rung; None means about max_step / factor**3."""

    def check(self) -> None:
        """Check every value. Raises `ConfigError`."""
        _choice("direction", self.direction, ("auto", "min", "max"))
        _choice("sampler", self.sampler, SAMPLERS)
        _choice("pruner", self.pruner, PRUNERS)
        for name, least in (("trials", 1), ("jobs", 1), ("seed", 0), ("factor", 2), ("min_step", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"sweep.{name} must be at least {least}, not {value}.")

    def as_dict(self) -> dict[str, object]:
        """Return the values by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def _choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"sweep.{name} must be one of {', '.join(choices)}, not {value!r}.")

"""The search space of a sweep: overrides in Hydra's sweep grammar, read by Hydra's own parser.

``lr=1e-3,1e-2`` and ``choice(...)`` are choices, ``range(1,9,2)`` is a grid of numbers, ``interval(1e-4,1e-1,log)`` is
continuous; ``tag(log, interval(...))`` and ``int(interval(1,64))`` mean what they mean to Hydra's Optuna sweeper.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from darkit.errors import ConfigError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

_TAGS = ("log", "int")
_LONGEST_RANGE = 100_000  # numbers
_LARGEST = 2**53  # whole numbers up to here are exact as floats, which Optuna keeps them as


@dataclass(frozen=True)
class Dimension:
    """One setting that a sweep varies.

    Attributes:
        key: What the override sets, with the signs before it, such as ``trainer.lr``.
        kind: ``choice``, ``int`` or ``float``.
        choices: The values of a choice, as they are written in an override.
        low: The smallest number.
        high: The largest number.
        step: The distance of the numbers of a range, or None.
        log: Whether the logarithm is uniform.
    """

    key: str
    kind: str
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    log: bool = False

    @property
    def size(self) -> int:
        """Number of values; 0 for an interval."""
        if self.kind == "choice":
            return len(self.choices)
        return 0 if self.step is None else round((self.high - self.low) / self.step) + 1

    @property
    def values(self) -> tuple[Any, ...] | None:
        """All values, or None for an interval."""
        if self.kind == "choice":
            return self.choices
        if self.step is None:
            return None
        found = (self.low + number * self.step for number in range(self.size))
        return tuple(int(value) if self.kind == "int" else min(value, self.high) for value in found)

    @property
    def first(self) -> str:
        """A value to check the config with."""
        return self.choices[0] if self.kind == "choice" else text_of(int(self.low) if self.kind == "int" else self.low)

    def distribution(self) -> BaseDistribution:
        """Return Optuna's form of it."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.kind == "choice":
            return CategoricalDistribution(self.choices)
        if self.kind == "int":
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)


def text_of(value: Any) -> str:
    """Return a value as it is written in an override, from which it is read back exactly."""
    return value if isinstance(value, str) else repr(value)


def split_space(words: Sequence[str]) -> tuple[list[str], list[Dimension]]:
    """Split overrides into those with one value and the dimensions of the search space.

    Raises:
        ConfigError: An override cannot be read, or asks for what a sweep cannot do.
    """
    from hydra.errors import HydraException

    parser = _parser()
    fixed, space = [], []
    for word in words:
        try:
            override = parser.parse_override(word)
        except (HydraException, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"The value of {word.partition('=')[0]} cannot be read: {reason}") from error
        if not override.is_sweep_override():
            fixed.append(word)
        else:
            space.append(_dimension(override))
    keys = [dimension.key for dimension in space]
    if twice := next((key for key in keys if keys.count(key) > 1), ""):
        raise ConfigError(f"{twice} has two search spaces. Give one of them.")
    return fixed, space


def interval_tag(low: float, high: float, *tags: str) -> Any:
    """Make Hydra's interval, with its tags as further arguments."""
    from hydra.core.override_parser.types import IntervalSweep

    whole = isinstance(low, int) and isinstance(high, int) and "int" in tags
    return IntervalSweep(tags={*tags}, start=low if whole else float(low), end=high if whole else float(high))


def _parser() -> Any:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parser = OverridesParser.create()
    for table in (parser.functions.definitions, parser.functions.functions):
        del table["interval"]
    parser.functions.register("interval", _interval)
    return parser


def _interval(start: int | float, end: int | float, *tags: str) -> Any:
    return interval_tag(start, end, *tags)


_interval.__annotations__ |= {"start": int | float, "end": int | float, "tags": str}  # Hydra checks against the types


def _dimension(override: Any) -> Dimension:
    from hydra.core.override_parser.types import Glob, IntervalSweep, RangeSweep

    key, sweep = override.get_key_element(), override.value()
    if isinstance(sweep, Glob) or isinstance(override._value, Glob):
        raise ConfigError(f"{key} is a glob, which a sweep does not take: list the choices, such as {key}=a,b.")
    if unknown := sorted({*sweep.tags} - {*_TAGS}):
        raise ConfigError(f"{key} has the unknown tag {unknown[0]!r}. Available: {', '.join(_TAGS)}.")
    if getattr(sweep, "shuffle", False):
        raise ConfigError(f"{key} is shuffled, with which a sweep cannot be continued: leave out shuffle(...).")
    if isinstance(sweep, IntervalSweep):
        return _number(key, sweep)
    if isinstance(sweep, RangeSweep):
        return _range(key, sweep)
    choices = tuple(dict.fromkeys(override.sweep_string_iterator()))
    if "log" in sweep.tags:
        raise ConfigError(f"{key} has the tag log, which only an interval takes.")
    return Dimension(key, "choice", choices=choices)


def _number(key: str, sweep: Any) -> Dimension:
    low, high, log = sweep.start, sweep.end, "log" in sweep.tags
    whole = (isinstance(low, int) and isinstance(high, int)) or "int" in sweep.tags
    _check_numbers(key, low, high)
    if not low < high:
        raise ConfigError(f"{key} has the interval from {low} to {high}: the first number must be the smaller one.")
    if log and low <= 0:
        raise ConfigError(f"{key} has a logarithmic interval from {low}: it must begin above 0.")
    if whole:
        least, most = math.ceil(low), math.floor(high)
        _check_numbers(key, least, most)
        if least > most:
            raise ConfigError(f"{key} has the interval from {low} to {high}, which has no whole number.")
        return Dimension(key, "int", low=least, high=most, step=None if log else 1, log=log)
    return Dimension(key, "float", low=low, high=high, log=log)


def _range(key: str, sweep: Any) -> Dimension:
    if "log" in sweep.tags:
        raise ConfigError(f"{key} has the tag log, which only an interval takes.")
    start, stop, step = sweep.start, sweep.stop, sweep.step
    _check_numbers(key, start, stop, step)
    if step == 0:
        raise ConfigError(f"{key} has a range with steps of 0: the step must be another number.")
    if (stop - start) / step > _LONGEST_RANGE:
        raise ConfigError(
            f"{key} has a range of more than {_LONGEST_RANGE} numbers. Give a larger step, or an interval such as "
            f"interval({start},{stop})."
        )
    values = list(sweep.range())
    if not values:
        raise ConfigError(f"{key} has an empty range.")
    if len(values) == 1:
        return Dimension(key, "choice", choices=(text_of(values[0]),))
    whole = all(isinstance(value, int) for value in values)
    return Dimension(
        key, "int" if whole else "float", low=min(values), high=max(values), step=abs(values[1] - values[0])
    )


def _check_numbers(key: str, *numbers: float) -> None:
    for number in numbers:
        if not abs(number) < math.inf:  # NaN is refused too
            raise ConfigError(f"{key} has the number {number} in its search space: it must be finite.")
        if isinstance(number, int) and abs(number) > _LARGEST:
            raise ConfigError(f"{key} has the number {number} in its search space: whole ones must be below 2**53.")


def as_records(space: Iterable[Dimension]) -> list[dict[str, Any]]:
    """Return dimensions as plain values, for ``sweep.json``."""
    return [{**vars(dimension), "choices": list(dimension.choices)} for dimension in space]


def from_records(records: Iterable[dict[str, Any]]) -> list[Dimension]:
    """Return the dimensions that `as_records` made plain."""
    return [Dimension(**{**record, "choices": tuple(record["choices"])}) for record in records]

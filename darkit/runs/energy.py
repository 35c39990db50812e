"""The energy that the accelerators of a run's machine took, from the power in ``system_log.csv``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from darkit.errors import StorageError
from darkit.runs import files
from darkit.runs.log import read_log
from darkit.runs.safe import finite_number

_POWER = re.compile(r"(gpu[0-9]+)_power")
_LONGEST_GAP = 60.0  # seconds between two samples of the same training; they are ten seconds apart
_JOULES = 3600.0  # of a watt-hour


@dataclass(frozen=True)
class Energy:
    """Energy of a run.

    Attributes:
        watt_hours: Energy by accelerator, such as ``gpu0``.
        seconds: The time that the samples cover.
    """

    watt_hours: Mapping[str, float]
    seconds: float

    def __str__(self) -> str:
        each = ", ".join(f"{name} {energy:.4g} Wh" for name, energy in self.watt_hours.items())
        return f"{sum(self.watt_hours.values()):.4g} Wh in {self.seconds:.0f} s ({each}), whoever used them"


def energy_of(folder: Path) -> Energy | None:
    """Integrate the sampled power of each accelerator by the trapezoidal rule; None without samples of power.

    Gaps of more than a minute, in which the run was stopped, do not count. The power is that of the whole accelerator,
    also of those that the run did not use.
    """
    try:
        log = read_log(folder / files.SYSTEM_LOG)
    except StorageError:
        return None
    cards = [match[1] for name in log.columns if (match := _POWER.fullmatch(name)) and log[name].dtype.is_numeric()]
    if not cards or "time" not in log.columns or not log["time"].dtype.is_numeric():
        return None
    times = [float("nan") if moment is None else float(moment) for moment in log["time"]]
    powers = {card: list(map(finite_number, log[f"{card}_power"])) for card in cards}
    found = dict.fromkeys(cards, 0.0)
    covered = 0.0
    for index in range(1, len(times)):
        seconds = times[index] - times[index - 1]
        if not 0 < seconds <= _LONGEST_GAP:
            continue
        covered += seconds
        for card, values in powers.items():
            before, now = values[index - 1 : index + 1]
            if before is not None and now is not None:
                found[card] += seconds * (before + now) / 2 / _JOULES
    return Energy(found, covered) if covered else None

"""Loss spikes for which a training was rewound, as ``run.json`` records them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from darkit.runs.safe import as_dict, finite_number

SPIKES = "spikes"
_MOST = 1000


@dataclass(frozen=True)
class RecordedSpike:
    """A loss spike of a run.

    Attributes:
        step: The step of the spike.
        noticed: The step after which it was noticed.
        resumed: The step of the checkpoint that the training returned to.
        loss: The loss.
        z: Its robust z-score.
        skipped: The batches that were skipped: (epoch, batches of it) before the first and after the last one.
    """

    step: int
    noticed: int
    resumed: int
    loss: float
    z: float
    skipped: tuple[tuple[int, int], tuple[int, int]]

    def __str__(self) -> str:
        (epoch, first), (other, last) = self.skipped
        end = f"{last}" if other == epoch else f"{last} of epoch {other}"
        return (
            f"step {self.step}: loss {self.loss:.4g} (z = {self.z:.1f}); returned to step {self.resumed} and skipped "
            f"the batches {first + 1} of epoch {epoch} to {end}"
        )


def recorded_spikes(info: Mapping[str, Any]) -> list[RecordedSpike]:
    """Return the spikes in the content of ``run.json``, which anybody may have written."""
    entries = info.get(SPIKES)
    return [spike for one in entries[:_MOST] if (spike := _read(as_dict(one)))] if isinstance(entries, list) else []


def _read(entry: dict[str, Any]) -> RecordedSpike | None:
    skipped = as_dict(entry.get("skipped"))
    places = [as_dict(skipped.get(key)).get(name) for key in ("from", "to") for name in ("epoch", "batches")]
    whole = [entry.get(key) for key in ("step", "noticed", "checkpoint_step")] + places
    loss, z = finite_number(entry.get("loss")), finite_number(entry.get("z"))
    if loss is None or z is None or any(type(number) is not int for number in whole):
        return None
    step, noticed, resumed, *numbers = (int(number) for number in whole if number is not None)
    first, last = (numbers[0], numbers[1]), (numbers[2], numbers[3])
    return RecordedSpike(step, noticed, resumed, loss, z, (first, last))

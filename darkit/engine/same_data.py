"""The data of several processes before a training: prepared once, and the same in all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningDataModule

from darkit.engine.data.fingerprint import digest_of_samples
from darkit.engine.data.order import SeededDataset
from darkit.engine.meeting import Meeting
from darkit.engine.processes import Place, has_group
from darkit.errors import DataError


def prepare_once(data: LightningDataModule, place: Place, meeting: Meeting | None) -> None:
    """Call ``prepare_data`` in the first process of each node, or of all, and wait until it has ended everywhere.

    Args:
        data: The data module; its ``prepare_data_per_node`` decides which.
        place: The place of this process.
        meeting: Where the processes meet; None if this is the only one.

    Raises:
        ProcessFailedError: It failed in another process.
    """
    if meeting is None:
        data.prepare_data()
        return
    per_node = data.prepare_data_per_node and place.environment.local_rank() == 0
    if per_node or place.rank == 0:
        data.prepare_data()
    if place.started == "outside" or has_group():
        meeting.arrive("prepared")
    else:  # the first process starts the others, all on its node, later
        meeting.agree("prepared")


def agree_on_data(datasets: Mapping[str, Any], meeting: Meeting | None) -> None:
    """Check that each process has the whole of the map-style datasets that are divided over them.

    Otherwise the part of a process, such as ``data[rank::2]``, would be divided again, and most of it never be used.

    Args:
        datasets: The datasets by purpose; None for data that divides itself.
        meeting: Where the processes meet; None if this is the only one.

    Raises:
        DataError: A dataset has another type, length or content than that of the first process.
    """
    if meeting is None:
        return
    mine = {purpose: _facts(dataset) for purpose, dataset in datasets.items()}
    first = meeting.agree("data", mine)
    for purpose, facts in mine.items():
        if _differ(first.get(purpose), facts):
            raise DataError(
                f"The {purpose} data of process {meeting.rank} ({_shown(facts)}) is not that of process 0 "
                f"({_shown(first.get(purpose))}). Give every process all of the data in the same order, with a seed "
                "for whatever draws, shuffles or splits it: it is divided over the processes during the training."
            )


def _facts(dataset: Any) -> dict[str, Any] | None:
    if dataset is None:
        return None
    dataset = dataset.dataset if isinstance(dataset, SeededDataset) else dataset
    return {"type": type(dataset).__name__, "samples": len(dataset), "content": digest_of_samples(dataset)}


def _differ(first: Mapping[str, Any] | None, mine: Mapping[str, Any] | None) -> bool:
    if first is None or mine is None:
        return first is not mine
    known = ("type", "samples", *(["content"] if first["content"] and mine["content"] else []))
    return any(first[name] != mine[name] for name in known)


def _shown(facts: Mapping[str, Any] | None) -> str:
    if facts is None:
        return "divided already, or none"
    content = f", content {facts['content'][:8]}" if facts["content"] else ""
    return f"{facts['type']} of {facts['samples']} samples{content}"

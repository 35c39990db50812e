"""Worker processes end with their training, and with the process."""

from __future__ import annotations

import multiprocessing
from typing import Any

import pytest
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from darkit.engine import workers
from tests.engine.parts import Numbers, made, train, xy


class Broken(Numbers):
    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if index == 13:
            raise ValueError("a file that cannot be read")
        return super().__getitem__(index)


def own_workers(before: set[Any]) -> set[Any]:
    return set(multiprocessing.active_children()) - before


@pytest.mark.parametrize("purpose", ["training", "validation"])
def test_no_worker_is_left_while_somebody_holds_the_error(purpose: str) -> None:
    before = set(multiprocessing.active_children())
    broken = DataLoader(Broken(), batch_size=4, num_workers=1)
    data = (broken, None) if purpose == "training" else (Numbers(), broken)
    with pytest.raises(ValueError, match="a file that cannot be read") as held:
        train(made(), *data, max_step=8, eval_step_interval=1)
    assert held.value.__traceback__ is not None
    assert not own_workers(before)


def test_workers_that_are_kept_for_the_next_epoch_end_with_the_process() -> None:
    before = set(multiprocessing.active_children())
    loader = DataLoader(TensorDataset(*xy(8)), batch_size=4, num_workers=1, persistent_workers=True)
    workers.make_polite(loader)
    batches = workers.begin(loader)
    assert len(next(batches)) == 2
    workers.end(batches)
    assert own_workers(before)
    workers._end_all()  # as `atexit` calls it; Python would wait for them without end
    assert not own_workers(before)

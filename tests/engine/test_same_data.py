"""Several processes prepare data once, and are refused if they do not all have the same."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import numpy
import pytest
import torch
from torch.distributed import HashStore
from torch.utils.data import DataLoader, DistributedSampler, Subset

import darkit
from darkit.engine.config import TrainerConfig
from darkit.engine.data.fingerprint import digest_of_samples
from darkit.engine.data.loaders import make_loaders
from darkit.engine.meeting import Meeting
from darkit.engine.processes import FixedEnvironment, Place
from darkit.engine.same_data import prepare_once
from darkit.errors import DarkitError, DataError
from tests.children import Zygote
from tests.engine.native.modules import Base
from tests.engine.parts import Numbers
from tests.engine.ranks import Noting, Numbered, on_ranks


class Prepared(lightning.LightningDataModule):
    """Its download takes a moment; `calls` has the ranks that made it."""

    def __init__(self, rank: int, calls: list[int], per_node: bool = True) -> None:
        super().__init__()
        self.rank, self.calls = rank, calls
        self.prepare_data_per_node = per_node

    def prepare_data(self) -> None:
        time.sleep(0.2)  # the others would be past it
        self.calls.append(self.rank)


@pytest.mark.parametrize(("per_node", "expected"), [(True, {0, 2}), (False, {0})])
def test_data_is_prepared_by_the_first_process_of_a_node_before_any_goes_on(per_node: bool, expected: set[int]) -> None:
    store, calls, seen = HashStore(), [], []

    def prepare(rank: int) -> None:
        environment = FixedEnvironment(rank % 2, external=True, node=rank // 2)
        place = Place(rank, 4, environment, "outside")
        prepare_once(Prepared(rank, calls, per_node), place, Meeting(store, rank, 4))
        seen.append(set(calls))

    threads = [threading.Thread(target=prepare, args=(rank,)) for rank in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [expected] * 4
    assert len(calls) == len(expected)


def test_the_first_process_prepares_data_before_it_starts_the_others() -> None:
    store, calls = HashStore(), []
    for rank in range(2):
        place = Place(rank, 2, FixedEnvironment(rank, external=rank > 0))
        prepare_once(Prepared(rank, calls), place, Meeting(store, rank, 2))
    assert calls == [0]


class Augmented(Numbers):
    """Random samples: from the global generators, or from one of its own."""

    def __init__(self, own: bool) -> None:
        super().__init__()
        self.generator = numpy.random.default_rng() if own else None

    def __getitem__(self, index: int) -> Any:
        x, y = super().__getitem__(index)
        noise = torch.rand(()) + numpy.random.rand() if self.generator is None else self.generator.random()
        return x + noise, y


def test_samples_are_compared_whatever_the_global_generators_are_and_not_if_they_have_their_own() -> None:
    before = torch.get_rng_state()
    assert digest_of_samples(Augmented(False)) == digest_of_samples(Augmented(False)) is not None
    assert digest_of_samples(Augmented(True)) is None
    assert digest_of_samples(Subset(Numbers(), range(0, 16, 2))) != digest_of_samples(
        Subset(Numbers(), range(1, 16, 2))
    )
    assert torch.equal(torch.get_rng_state(), before)


def test_a_map_style_dataset_that_divides_itself_is_refused_in_several_processes() -> None:
    class Ranked(Numbers):
        def set_rank(self, rank: int, world_size: int) -> None:
            raise AssertionError

    for workers in (0, 1):
        feed = make_loaders(Ranked(), None, TrainerConfig(device="cpu", num_workers=workers)).train
        feed.share(0, 1)
        with pytest.raises(DataError, match=r"^Ranked has a method set_rank, but map-style data in darkit's order"):
            feed.share(0, 2)
        feed.close()


class Module(lightning.LightningDataModule):
    """Data that is there only once it is prepared."""

    def __init__(self, folder: Path, rank: int) -> None:
        super().__init__()
        self.folder, self.rank = folder, rank

    def prepare_data(self) -> None:
        time.sleep(0.2)  # the other process would be past it
        (self.folder / f"prepared-by-{self.rank}").touch()

    def setup(self, stage: str) -> None:
        assert (self.folder / "prepared-by-0").exists()

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(Numbered(16), batch_size=4)


def case(ranks: int, folder: str) -> dict[str, Any]:
    """Train with shards and then with whole data; return what was said, and the number of samples seen."""
    rank = int(os.environ["RANK"])
    settings: dict[str, Any] = {"device": "cpu", "device_num": ranks, "tensorboard": False, "batch_size": 4}
    settings |= {"max_step": 2, "eval_step_interval": 0}
    whole, shard = Numbered(16), Subset(Numbered(16), range(rank, 16, ranks))
    pairs = [(sample["x"], sample["id"] % 3) for sample in shard]
    own = {key: value for key, value in settings.items() if key != "eval_step_interval"}
    refused: dict[str, Callable[[], Any]] = {
        "equal": lambda: darkit.fit(Noting(), shard, name="equal", **settings),
        "loader": lambda: darkit.fit(Noting(), DataLoader(shard, 4, shuffle=True), name="loader", **settings),
        "workers": lambda: darkit.fit(Noting(), shard, name="workers", num_workers=1, **settings),
        "unequal": lambda: darkit.fit(Noting(), Subset(whole, range(9 + rank)), name="unequal", **settings),
        "validation": lambda: darkit.fit(Noting(), whole, shard, name="validation", **settings),
        "native": lambda: darkit.fit(Base(), pairs, name="native", **own),
        "native loader": lambda: darkit.fit(Base(), DataLoader(pairs, 4), name="nativeloader", **own),
    }
    said = {}
    for name, train in refused.items():
        try:
            train()
        except DarkitError as error:
            said[name] = f"{type(error).__name__}: {error}"
    names = [run.name for run in darkit.runs()]
    steps = {}
    sampled = DataLoader(whole, 4, sampler=DistributedSampler(whole, ranks, rank))
    for name, data in (("module", Module(Path(folder), rank)), ("whole", whole), ("sampled", sampled)):
        model = Noting()
        darkit.fit(model, data, whole, name=name, **settings)
        steps[name] = sorted(number for ids in model.ids for number in ids)
    return {"said": said, "runs": names, "ids": steps}


def test_shards_are_refused_before_the_first_step_and_whole_data_is_divided(zygote: Zygote, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    first, second = on_ranks(zygote, tmp_path, case, folder=str(folder))
    for name, said in second["said"].items():
        purpose = "validation" if name == "validation" else "training"
        assert said.startswith(f"DataError: The {purpose} data of process 1 ("), name
        assert "Give every process all of the data in the same order, with a seed for whatever draws" in said
        assert first["said"][name].startswith(f"ProcessFailedError: Process 1 of 2 failed: {said}"), name
    assert len(second["said"]) == len(first["said"]) == 7
    assert "(Subset of 10 samples, content" in second["said"]["unequal"]
    assert first["runs"] == [], "a refused training leaves nothing behind"
    assert [path.name for path in folder.iterdir()] == ["prepared-by-0"]
    for name in ("module", "whole", "sampled"):
        assert sorted(first["ids"][name] + second["ids"][name]) == list(range(16)), name

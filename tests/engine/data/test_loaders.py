"""All kinds of data become batches; the order is a function of seed, epoch and offset."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lightning
import psutil
import pytest
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    ChainDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from darkit.engine.config import TrainerConfig
from darkit.engine.data.loaders import make_loaders
from darkit.engine.data.order import BatchOrder
from darkit.errors import DataError
from tests.engine.parts import DataModule, Numbers, Stream, made, train, xy

CONFIG = TrainerConfig(batch_size=4, device="cpu")


class OwnSequence:
    """Data with only a length and items, such as a `datasets.Dataset`."""

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> Any:
        return xy()[0][index], xy()[1][index]


class Once(IterableDataset[Any]):
    """An iterator that can be used only once."""

    def __init__(self, length: int) -> None:
        self.samples = iter(list(zip(*xy(length), strict=True)))

    def __iter__(self) -> Iterator[Any]:
        return self.samples


def dict_of_arrays() -> Any:
    return {"x": xy()[0], "y": xy()[1].numpy()}


KINDS = {
    "tuple of arrays": lambda: tuple(part.numpy() for part in xy()),
    "tuple of doubles": lambda: tuple(part.numpy().astype("float64") for part in xy()),
    "dict of arrays": dict_of_arrays,
    "dict of tuples of arrays": lambda: {"train": tuple(part.numpy() for part in xy()), "val": dict_of_arrays()},
    "map-style dataset": Numbers,
    "iterable dataset": Stream,
    "list of samples": lambda: list(zip(*xy(), strict=True)),
    "tuple of tensors": xy,
    "sequence of one's own": OwnSequence,
    "loader": lambda: DataLoader(Numbers(), batch_size=4),
    "loader of a stream": lambda: DataLoader(Stream(), batch_size=4),
    "LightningDataModule": DataModule,
    "LightningDataModule without validation": lambda: DataModule(validation=False),
    "dict": lambda: {"train": xy(), "val": Numbers()},
    "dict of loaders": lambda: {
        "train": DataLoader(Numbers(), batch_size=4),
        "val": DataLoader(Stream(), batch_size=4),
    },
}


BRINGS_VALIDATION = ("LightningDataModule", "dict", "dict of loaders", "dict of tuples of arrays")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_data_trains_over_several_epochs(kind: str) -> None:
    run = train(made(), KINDS[kind](), max_step=10, eval_step_interval=5)
    log = run.log()
    assert run.status == "finished"
    assert log["step"].to_list() == list(range(1, 11))
    assert log["epoch"].to_list() == [0] * 4 + [1] * 4 + [2] * 2
    evaluated = log.filter(log["val_loss"].is_not_null())["step"].to_list()
    assert evaluated == ([5, 10] if kind in BRINGS_VALIDATION else [])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "Module" not in kind and kind not in BRINGS_VALIDATION])
def test_every_kind_of_data_evaluates_to_the_same_loss(kind: str) -> None:
    model = made()
    run = train(model, xy(), KINDS[kind](), max_step=3)
    with torch.no_grad():
        expected = torch.nn.functional.mse_loss(model(xy()[0]), xy()[1]).item()
    assert run.log()["val_loss"][-1] == pytest.approx(expected, rel=1e-5)


def test_validation_data_of_its_own_comes_over_that_of_the_dict() -> None:
    loaders = make_loaders({"train": xy(), "val": xy(8)}, xy(12), CONFIG)
    assert len(loaders.val.dataset) == 12


def test_a_dict_may_have_no_validation() -> None:
    assert make_loaders({"train": xy()}, None, CONFIG).val is None


def test_exhausted_data_finishes_the_run_at_the_step_and_keeps_its_results() -> None:
    run = train(made(), Once(16), name="once")
    assert (run.status, run.details.reason) == ("finished", "The training data ended at step 4 of 6.")
    assert run.log()["step"].to_list() == [1, 2, 3, 4]


def test_a_run_uses_every_sample_once_per_epoch_in_the_order_of_its_seed() -> None:
    data = Numbers()
    train(made(), data, max_step=12, seed=3)
    asked = data.asked[-48:]
    expected = []
    for epoch in range(3):
        order = BatchOrder(16, 4, seed=3)
        order.start(epoch, 0)
        expected += [index for batch in order for index in batch]
    assert asked == expected


def test_a_loader_that_does_not_shuffle_keeps_its_batches_and_order() -> None:
    data = Numbers(12)
    loader = DataLoader(data, batch_size=3)
    run = train(made(), loader, max_step=4, batch_size=99)
    assert data.asked[-12:] == list(range(12))
    assert run.log()["epoch"].to_list() == [0] * 4


def test_a_loader_that_shuffles_is_put_into_the_order_of_the_seed_and_keeps_the_rest() -> None:
    def collate(samples: list[Any]) -> Any:
        return torch.utils.data.default_collate(samples)

    loader = DataLoader(Numbers(10), batch_size=3, shuffle=True, drop_last=True, collate_fn=collate)
    feed = make_loaders(loader, None, CONFIG).train
    order = feed.order
    assert order is not None
    assert (order.length, order.batch_size, order.shuffle, order.drop_last) == (10, 3, True, True)
    assert len(feed) == 3
    assert feed.loader.collate_fn is collate
    expected = BatchOrder(10, 3, CONFIG.seed, drop_last=True)
    assert [x.tolist() for x, _ in feed] == [Numbers(10).x[list(batch)].tolist() for batch in expected]


class OwnLoader(DataLoader[Any]):
    """A custom subclass."""


class OwnBatchSampler(torch.utils.data.BatchSampler):
    """Another custom subclass."""


@pytest.mark.parametrize(
    "make",
    [
        lambda: DataLoader(Numbers(12), batch_size=3, sampler=[3, 1, 2]),
        lambda: DataLoader(Numbers(12), batch_size=3, shuffle=True, generator=torch.Generator()),
        lambda: DataLoader(Numbers(12), sampler=torch.utils.data.RandomSampler(range(12), replacement=True)),
        lambda: DataLoader(Numbers(12), sampler=torch.utils.data.RandomSampler(range(12), num_samples=5)),
        lambda: DataLoader(Numbers(12), sampler=torch.utils.data.RandomSampler(range(12), generator=torch.Generator())),
        lambda: DataLoader(Numbers(12), batch_sampler=OwnBatchSampler(range(12), 3, False)),
        lambda: DataLoader(Numbers(12), batch_size=None),
        lambda: OwnLoader(Numbers(12), batch_size=3, shuffle=True),
        lambda: DataLoader(Numbers(12), batch_sampler=BatchSampler(WeightedRandomSampler([1.0] * 12, 8), 4, False)),
        lambda: DataLoader(Numbers(12), batch_sampler=BatchSampler(SequentialSampler(range(12)), 4, True)),
        lambda: DataLoader(Numbers(12), batch_size=4, sampler=SequentialSampler(range(10))),
        lambda: DataLoader(Numbers(12), batch_size=4, sampler=RandomSampler(range(12))),
        lambda: DataLoader(Numbers(12), batch_size=4, sampler=RandomSampler(Numbers(12))),
        lambda: DataLoader(Numbers(12), batch_size=4, sampler=SequentialSampler(Subset(Numbers(12), range(6)))),
        lambda: DataLoader(Numbers(12), batch_size=4, sampler=SubsetRandomSampler(range(6))),
        lambda: DataLoader(Numbers(12), batch_size=4, sampler=WeightedRandomSampler([1.0] * 12, 8)),
        lambda: DataLoader(Numbers(12), batch_sampler=[[0, 1], [2]]),
        lambda: DataLoader(Numbers(12), batch_size=4, in_order=False),
        lambda: changed(DataLoader(Numbers(12), batch_size=4, shuffle=True), batch_size=2),
    ],
)
def test_any_other_loader_is_used_unchanged(make: Any) -> None:
    loader = make()
    feed = make_loaders(loader, None, CONFIG).train
    assert feed.loader is loader
    assert feed.order is None


def changed(loader: DataLoader[Any], **attributes: Any) -> DataLoader[Any]:
    """A loader whose batch sampler was changed after it was made."""
    vars(loader.batch_sampler).update(attributes)
    return loader


@pytest.mark.parametrize("workers", [0, 2])
def test_custom_batches_are_used_unchanged(workers: int) -> None:
    for loader, expected in (
        (BatchSampler(SubsetRandomSampler([7]), 3, False), [[7]]),
        ([[3, 1], [2], [2, 2, 9]], [[3, 1], [2], [2, 2, 9]]),
        (BatchSampler(SequentialSampler(range(5)), 2, True), [[0, 1], [2, 3]]),
    ):
        data = list(range(12))
        made = DataLoader(data, batch_sampler=loader, num_workers=workers)  # type: ignore[arg-type]
        loaders = make_loaders(made, DataLoader(data, batch_sampler=loader, num_workers=workers), CONFIG)  # type: ignore[arg-type]
        for batches in (loaders.train, loaders.val):
            assert [batch.tolist() for batch in batches] == expected
        loaders.close()


def test_a_part_of_the_data_stays_a_part() -> None:
    data = Numbers(100)
    train(made(), DataLoader(data, batch_size=4, sampler=SequentialSampler(range(10))), max_step=7)
    assert data.asked[-24:] == [*range(10), *range(10), *range(4)]


@pytest.mark.parametrize("persistent", [False, True])
def test_a_loader_that_is_made_again_keeps_its_workers_as_they_are(persistent: bool) -> None:
    loader = DataLoader(Numbers(12), batch_size=4, shuffle=True, num_workers=1, persistent_workers=persistent)
    feed = make_loaders(loader, None, CONFIG).train
    assert feed.order is not None
    assert feed.loader.persistent_workers is persistent


def test_validation_data_keeps_its_order_and_is_not_shuffled() -> None:
    loaders = make_loaders(xy(), TensorDataset(*xy()), CONFIG)
    assert torch.equal(torch.cat([batch[0] for batch in loaders.val]), xy()[0])


def test_workers_load_the_same_batches_as_the_process_itself() -> None:
    alone, helped = made(), made()
    logs = [train(model, xy(), max_step=6, num_workers=n).log() for model, n in ((alone, 0), (helped, 2))]
    assert logs[0]["train_loss"].to_list() == logs[1]["train_loss"].to_list()


class Failing(lightning.Callback):
    def on_train_batch_end(self, trainer: lightning.Trainer, *arguments: Any) -> None:
        if trainer.global_step == 2:
            raise ZeroDivisionError


@pytest.mark.parametrize("data", [xy, Stream, lambda: DataLoader(Numbers(), batch_size=4, num_workers=2)])
def test_worker_processes_end_with_the_training_however_it_ends(data: Any) -> None:
    before = set(psutil.Process().children(recursive=True))
    train(made(), data(), xy(), num_workers=2, eval_step_interval=2)
    assert set(psutil.Process().children(recursive=True)) <= before
    with pytest.raises(ZeroDivisionError) as caught:
        train(made(), data(), xy(), num_workers=2, eval_step_interval=2, callbacks=[Failing()])
    assert caught.tb is not None
    assert set(psutil.Process().children(recursive=True)) <= before


class Words(Dataset[Any]):
    """Samples of different lengths, with its own padding."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Tensor:
        return torch.full((index + 1,), float(index))

    def collate_fn(self, samples: list[Tensor]) -> Tensor:
        return torch.nn.utils.rnn.pad_sequence(samples, batch_first=True)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_dataset_makes_its_own_batches(workers: int) -> None:
    config = TrainerConfig(device="cpu", batch_size=6, num_workers=workers)
    loaders = make_loaders(Words(), torch.utils.data.Subset(Words(), [0, 2]), config)
    assert [tuple(batch.shape) for batch in loaders.train] == [(6, 6)]
    assert [tuple(batch.shape) for batch in loaders.val] == [(2, 3)]
    loaders.close()


def test_a_chain_of_streams_without_a_length_is_data_to_train_and_evaluate_on() -> None:
    samples = [(x, y) for x, y in zip(*xy(16), strict=True)]
    chain: Any = ChainDataset([OwnStream(samples[:9]), OwnStream(samples[9:])])
    run = train(made(), chain, chain, max_step=4, eval_step_interval=4)
    assert run.log()["val_loss"][-1] is not None


class OwnStream(IterableDataset[Any]):
    def __init__(self, samples: list[Any]) -> None:
        self.samples = samples

    def __iter__(self) -> Iterator[Any]:
        return iter(self.samples)


@pytest.mark.parametrize("name", ["val", "validation", "valid", "dev", "eval"])
def test_validation_data_has_any_of_its_usual_names(name: str, caplog: pytest.LogCaptureFixture) -> None:
    loaders = make_loaders({"train": Numbers(), name: Numbers(8), "test": Numbers()}, None, CONFIG)
    assert len(loaders.val) == 2
    assert not caplog.records


def test_an_unused_part_of_the_data_gives_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert make_loaders({"train": Numbers(), "test": Numbers()}, None, CONFIG).val is None
    assert "'test' is not used" in caplog.text


def test_validation_data_under_two_names_is_refused() -> None:
    with pytest.raises(DataError, match=r"validation data under 'val' and 'validation'"):
        make_loaders({"train": Numbers(), "val": Numbers(), "validation": Numbers()}, None, CONFIG)

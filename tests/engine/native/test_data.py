"""Which of the loaders in a dict Lightning's own loop trains and validates on."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from torch.utils.data import DataLoader

from darkit.engine.config import TrainerConfig
from darkit.engine.native.data import NativeData
from darkit.errors import DataError
from tests.engine.native.modules import samples


def loader(count: int = 12) -> DataLoader[Any]:
    return DataLoader(samples(count), batch_size=6)


@pytest.mark.parametrize("name", ["val", "valid", "validation", "dev", "eval"])
def test_the_validation_loader_is_found_by_its_name_and_not_by_the_number_of_loaders(name: str) -> None:
    parts = {"train": loader(), "test": loader(), name: loader()}
    used = NativeData(parts, None, TrainerConfig()).arguments()
    assert used == {"train_dataloaders": parts["train"], "val_dataloaders": parts[name]}
    own = loader()
    assert NativeData(parts, own, TrainerConfig()).arguments()["val_dataloaders"] is own


def test_test_data_is_no_validation_data_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        used = NativeData({"train": loader(), "test": loader()}, None, TrainerConfig()).arguments()
    assert used["val_dataloaders"] is None
    assert "'test' is not used, so the run has no validation" in caplog.text


@pytest.mark.parametrize(
    ("further", "said"),
    [
        (("unlabelled",), "has 'train' and 'unlabelled': name validation data 'val'"),
        (("val", "other"), "has 'train' and 'other'"),
        (("val", "dev"), "validation data under 'val' and 'dev': keep one of them"),
    ],
)
def test_loaders_of_which_the_use_is_unknown_are_refused(further: tuple[str, ...], said: str) -> None:
    with pytest.raises(DataError, match=said):
        NativeData({name: loader() for name in ("train", *further)}, None, TrainerConfig())

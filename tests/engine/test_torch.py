"""The parts of torch, NumPy and torchmetrics that darkit uses without a promise, each by its name."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_sharer
from types import FrameType
from typing import Any

import numpy
import pytest
import torch
import torch.nn.functional as F
import torchmetrics
from torch import nn, overrides
from torch.multiprocessing import reductions
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, default_collate

from darkit.engine.data import samples, workers
from darkit.engine.steps import loss

LINE = nn.Linear(1, 1)


class Waiting(Dataset[int]):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        return index


SGD = torch.optim.SGD(LINE.parameters(), lr=0.1)
LOADER = DataLoader(Waiting())


class Stream(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(3))


NAMES: list[tuple[str, Any, tuple[str, ...]]] = [
    ("description/likeness.py", vars(LINE), ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")),
    ("description/likeness.py", vars(LINE), ("_is_full_backward_hook", "training")),
    ("description/likeness.py", vars(nn.LSTM(1, 1)), ("_flat_weights", "_flat_weight_refs")),
    ("loop.py, metrics/denominators.py", LINE, ("_compiled_call_impl",)),
    ("loop.py", nn.modules.batchnorm, ("_BatchNorm",)),
    ("loop.py", nn.modules.dropout, ("_DropoutNd",)),
    ("checkpoints/archive.py", torch.serialization, ("_save",)),
    ("checkpoints/boundary.py, metrics/undisturbed.py", torch.zeros(1), ("_version",)),
    ("checkpoints/boundary.py, steps/averages.py", torch, ("_foreach_copy_", "_foreach_lerp_")),
    ("metrics/denominators.py", overrides, ("_get_current_function_mode", "_pop_mode_temporarily")),
    ("metrics/denominators.py", nn, ("_reduction",)),
    ("steps/optim.py", LambdaLR(SGD, lambda step: 1.0), ("_step_count", "_last_lr", "base_lrs", "lr_lambdas")),
    ("data/loaders.py", RandomSampler([1]), ("_num_samples",)),
    ("data/workers.py", vars(LOADER), ("_iterator",)),
    ("data/feed.py", iter(DataLoader(Stream())), ("_dataset_fetcher",)),
    ("metrics/gathering.py", torchmetrics.MeanMetric(), ("_update_count", "metric_state")),
    ("checkpoints/boundary.py", numpy.random.mtrand._rand, ("_bit_generator",)),
]


@pytest.mark.parametrize(
    ("file", "owner", "name"), [(file, owner, name) for file, owner, names in NAMES for name in names]
)
def test_every_private_name_exists(file: str, owner: Any, name: str) -> None:
    found = name in owner if isinstance(owner, dict) else hasattr(owner, name)
    assert found, f"torch {torch.__version__} has no {name} where engine/{file} uses it"


def test_the_private_module_of_compiled_models_is_named() -> None:
    compiled = torch.compile(nn.Linear(1, 1))
    assert type(compiled).__name__ == "OptimizedModule"
    assert hasattr(compiled, "_orig_mod")


def test_a_module_calls_its_compiled_implementation() -> None:
    module = nn.Linear(1, 1)
    module._compiled_call_impl = lambda value: value + 1
    assert module(1) == 2


def test_a_schedule_steps_on_from_its_counters() -> None:
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    schedule = LambdaLR(optimizer, lambda step: 0.5**step)
    optimizer._opt_called = True  # type: ignore[attr-defined]
    schedule.last_epoch, schedule._step_count = 3, 4
    schedule.step()
    assert schedule.get_last_lr() == schedule._last_lr == [0.5**4]


def test_a_schedule_warns_of_a_step_before_the_first_unless_its_optimizer_was_called() -> None:
    schedule = LambdaLR(torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0), lambda step: 1.0)
    with pytest.warns(UserWarning, match="before"):
        schedule.step()


def test_a_fetcher_of_an_iterable_dataset_says_that_it_has_ended() -> None:
    batches = iter(DataLoader(Stream(), batch_size=2))
    ended = [batches._dataset_fetcher.ended for _ in batches]  # type: ignore[attr-defined]
    assert ended == [False, True]


def test_the_legacy_reduction_of_a_loss_is_read_by_name() -> None:
    assert nn._reduction.legacy_get_string(None, False, emit_warning=False) == "none"


def test_the_weight_of_l1_loss_reaches_a_function_mode_in_a_local_variable_of_its_caller() -> None:
    weight, found = torch.ones(1), []

    class Mode(overrides.TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is F.l1_loss:
                found.append(sys._getframe(1).f_locals["relevant_args"])
            return func(*args, **(kwargs or {}))

    with Mode():
        F.l1_loss(torch.zeros(1), torch.ones(1), weight=weight)  # type: ignore[call-arg]
    assert found[0][2] is weight


def test_a_function_mode_can_be_left_for_a_block() -> None:
    class Mode(overrides.TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return func(*args, **(kwargs or {}))

    with Mode() as mode:
        assert overrides._get_current_function_mode() is mode  # type: ignore[no-untyped-call]
        with overrides._pop_mode_temporarily():
            assert overrides._get_current_function_mode() is None  # type: ignore[no-untyped-call]


def _resized() -> Any:
    fixed = torch.frombuffer(bytearray(4), dtype=torch.uint8)
    return fixed.resize_(10**6)


COLLATED: list[tuple[str, Callable[[], Any]]] = [
    ("stack expects", lambda: default_collate([torch.zeros(1), torch.zeros(2)])),
    ("each element", lambda: default_collate([[1], [1, 2]])),
    ("default_collate", lambda: default_collate([object()])),
    ("resize storage", _resized),
]


@pytest.mark.parametrize(("part", "collate"), COLLATED)
def test_the_texts_of_errors_about_samples_are_those_that_are_searched(part: str, collate: Callable[[], Any]) -> None:
    (text,) = [text for text in samples._NO_BATCH if part in text]
    with pytest.raises((RuntimeError, TypeError), match=re.escape(text)):
        collate()


def test_the_text_of_an_error_about_memory_is_one_that_is_searched() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**60, dtype=torch.uint8)
    assert loss.is_out_of_memory(raised.value), f"torch {torch.__version__}: {raised.value}"


def test_the_text_of_a_workers_death_is_the_one_that_is_searched() -> None:
    with pytest.raises(RuntimeError) as raised:
        for _ in DataLoader(Dying(), num_workers=1):
            pass
    assert workers._DIED.search(str(raised.value)), f"torch {torch.__version__}: {raised.value}"


def test_the_files_that_fetch_from_workers_have_their_names() -> None:
    for module in (reductions, resource_sharer):
        assert str(module.__file__).endswith(workers._FETCHING)


class Dying(Waiting):
    """A dataset whose worker is killed."""

    def __getitem__(self, index: int) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return index


@contextmanager
def handler_kept(number: signal.Signals) -> Iterator[None]:
    before = signal.getsignal(number)
    try:
        yield
    finally:
        signal.signal(number, before)


def test_torch_reports_a_workers_death_from_a_python_handler_of_sigchld() -> None:
    with handler_kept(signal.SIGCHLD):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        torch.utils.data._utils.signal_handling._SIGCHLD_handler_set = False
        batches = iter(DataLoader(Waiting(), num_workers=1))
        handler = signal.getsignal(signal.SIGCHLD)
        assert callable(handler), f"torch {torch.__version__} handles SIGCHLD elsewhere: see data/workers.py"
        frame: FrameType = sys._getframe()
        handler(signal.SIGCHLD, frame)  # nobody died
        assert callable(batches._shutdown_workers)  # type: ignore[attr-defined]
        assert batches._persistent_workers is False
        batches._shutdown_workers()  # type: ignore[attr-defined]

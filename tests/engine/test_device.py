"""The device in use, and the state of every generator."""

from __future__ import annotations

import random
import warnings

import numpy
import pytest
import torch

from darkit.engine.config import TrainerConfig
from darkit.engine.device import (
    describe_machine,
    generator_states,
    move_to_device,
    resolve_device,
    restore_generators,
    seed_generators,
)
from darkit.errors import DeviceWarning
from tests.engine.parts import made, train, xy

MISSING = "mps" if not torch.backends.mps.is_available() else "cuda"


def test_an_unavailable_device_becomes_the_cpu_with_a_warning() -> None:
    config = TrainerConfig(device=MISSING)
    with pytest.warns(DeviceWarning, match=f"Device '{MISSING}' is not available; using the CPU"):
        assert resolve_device(config) == "cpu"
    assert config.device == "cpu"


def test_the_cpu_is_used_without_a_warning() -> None:
    config = TrainerConfig(device="cpu")
    assert resolve_device(config) == "cpu"


def test_auto_uses_an_available_device_without_a_warning() -> None:
    config = TrainerConfig(device="auto")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resolve_device(config)
    expected = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert config.device == expected


def test_fit_warns_once_trains_on_the_cpu_and_sets_the_config() -> None:
    config = TrainerConfig(device=MISSING, max_step=3, batch_size=4, tensorboard=False)
    with pytest.warns(DeviceWarning) as caught:
        run = train(made(), xy(), config=config)
    assert len(caught) == 1
    assert caught[0].filename == train.__code__.co_filename
    assert config.device == "cpu"
    assert run.trainer_config["device"] == "cpu"
    assert run.status == "finished"


def test_fit_sets_the_device_but_leaves_the_rest_of_a_shared_config() -> None:
    config = TrainerConfig(device="auto", max_step=3, batch_size=4, tensorboard=False)
    runs = [train(made(), xy(), config=config, device="cpu", max_step=2) for _ in range(2)]
    assert config == TrainerConfig(device="cpu", max_step=3, batch_size=4, tensorboard=False)
    assert len({run.name for run in runs}) == 2


def test_batches_of_any_type_are_moved_and_objects_by_their_to_method() -> None:
    class Own:
        moved_to = None

        def to(self, device: torch.device, **options: object) -> Own:
            self.moved_to = device
            return self

    own = Own()
    moved = move_to_device({"a": [torch.ones(2)], "b": (own, "text", 3)}, "meta")
    assert moved["a"][0].device.type == "meta"
    assert own.moved_to == torch.device("meta")
    assert moved["b"][1:] == ("text", 3)


def draws() -> list[object]:
    return [random.random(), float(numpy.random.rand()), torch.rand(3).tolist()]


@pytest.mark.parametrize("seed", [0, 2**40, 2**63 - 1])
def test_one_seed_decides_all_generators(seed: int) -> None:
    seed_generators(seed)
    first = draws()
    seed_generators(seed)
    assert draws() == first


def test_generator_states_bring_all_generators_back() -> None:
    seed_generators(5)
    numpy.random.randn()  # leaves a second normal number waiting
    random.gauss(0, 1)
    states = generator_states()
    first = [*draws(), float(numpy.random.randn()), random.gauss(0, 1)]
    restore_generators(states)
    assert [*draws(), float(numpy.random.randn()), random.gauss(0, 1)] == first


def test_a_machine_has_a_gpu_only_if_the_training_uses_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(torch.version, "cuda", "1.0")
    found = describe_machine(TrainerConfig(device="cpu"))["machine"]
    assert found["threads"] == torch.get_num_threads()
    assert found["cpu"].endswith(f"({torch.backends.cpu.get_cpu_capability()})")
    assert describe_machine(TrainerConfig(device="cuda"))["machine"] == {**found, "device": "a GPU", "cuda": "1.0"}
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    assert describe_machine(TrainerConfig(device="cpu"))["machine"] == found
    assert describe_machine(None)["machine"]["device"] == "a GPU"

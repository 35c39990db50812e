"""Fused optimizer kernels: chosen where torch has them, kept by a run, refused in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import darkit
from darkit.engine.checkpoints import snapshot
from darkit.engine.config import TrainerConfig
from darkit.engine.steps.fused import use_fused
from darkit.errors import ConfigError, ReproductionWarning
from tests.engine.parts import MLP, equal_weights, hand_loop, in_order, made, run_names, train, xy

OPTIMIZERS = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
    "adagrad": torch.optim.Adagrad,
}


def is_fused(run: darkit.Run, step: int) -> bool:
    """Whether the optimizer in the checkpoint of a step is fused."""
    content = torch.load(Path(run.path) / f"iter-{step}-ckpt.pth", weights_only=True)
    (group,) = content["optimizer_state_dict"]["param_groups"]
    return bool(group.get("fused"))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_are_those_of_a_plain_loop_with_the_same_kernel(name: str) -> None:
    settings = {"lr": 0.01} | ({"weight_decay": 0.0} if "w" in name else {})
    fused, plain, theirs = made(), made(), [made(), made()]
    run = train(fused, in_order(), optimizer=name, lr=0.01, max_step=8)
    train(plain, in_order(), optimizer=name, lr=0.01, max_step=8, fused=False)
    for model, kernel in zip(theirs, (True, None), strict=True):
        hand_loop(model, list(in_order()) * 2, OPTIMIZERS[name](model.parameters(), fused=kernel, **settings))
    assert is_fused(run, 8)
    assert equal_weights(fused, theirs[0])
    assert equal_weights(plain, theirs[1])


def test_gradients_are_clipped_before_a_fused_step_in_mixed_precision() -> None:
    ours = made()
    run = train(ours, in_order(), optimizer="sgd", lr=1.0, max_step=1, precision="bf16-mixed", gradient_clip=1e-3)
    moved = torch.cat([(a - b).flatten() for a, b in zip(ours.parameters(), made().parameters(), strict=True)])
    assert is_fused(run, 1)
    assert moved.norm().item() == pytest.approx(1e-3, rel=1e-2)


def test_a_run_keeps_the_kernel_it_has_used() -> None:
    """A run of an earlier version recorded no fused kernel, and resumes bit for bit."""
    for kernel in (True, False):
        whole, name = made(), f"kernel-{kernel}"
        train(whole, xy(), optimizer="adam", fused=kernel, max_step=8)
        train(made(), xy(), name=name, optimizer="adam", fused=kernel, max_step=4)
        resumed = made()
        run = train(resumed, xy(), name=name, optimizer="adam", max_step=8, resume=True)
        assert equal_weights(whole, resumed)
        assert is_fused(run, 8) is kernel


def test_another_kernel_is_refused_or_taken_whole() -> None:
    train(made(), xy(), name="run", optimizer="adam", fused=False, max_step=4)
    with pytest.raises(ConfigError, match="fused False -> True"):
        train(made(), xy(), name="run", optimizer="adam", fused=True, max_step=8, resume=True)
    options: dict[str, Any] = {"optimizer": "adam", "resume": True, "resume_overrides": True}
    assert is_fused(train(made(), xy(), name="run", fused=True, max_step=8, **options), 8)
    assert not is_fused(train(made(), xy(), name="run", fused=False, max_step=12, **options), 12)


def test_another_optimizer_chooses_anew() -> None:
    train(made(), xy(), name="run", optimizer="adam", fused=False, max_step=4)
    run = train(made(), xy(), name="run", optimizer="sgd", max_step=8, resume=True, resume_overrides=True)
    assert is_fused(run, 8)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"optimizer": "rmsprop"}, "RMSprop has none"),
        ({"precision": "16-mixed"}, "gradients that are still scaled"),
        ({"optimizer": lambda parameters: torch.optim.SGD(parameters)}, "does not apply to the given SGD"),
    ],
    ids=["class", "scaled", "given"],
)
def test_a_kernel_that_is_not_possible_is_refused_before_the_first_step(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        train(made(), xy(), fused=True, **options)
    assert not run_names()


def test_a_given_optimizer_is_used_as_it_is() -> None:
    for kernel in (None, True):
        model = made()
        optimizer = torch.optim.Adam(model.parameters(), fused=kernel)
        train(model, xy(), optimizer=optimizer)
        assert optimizer.param_groups[0]["fused"] is kernel


def own(**settings: Any) -> Any:
    return lambda parameters: torch.optim.Adam(parameters, lr=0.01, **settings)


def test_a_given_optimizer_with_another_kernel_is_told_of_it_or_keeps_it() -> None:
    """The state in a checkpoint has the kernel too, and restoring it would silently replace the given one."""
    whole = made()
    train(whole, xy(), name="whole", optimizer=own(fused=True), max_step=8)
    train(made(), xy(), name="run", optimizer=own(fused=True), max_step=4)
    train(made(), xy(), name="fork", fork="run", optimizer=own(fused=False), max_step=6)
    assert darkit.load("fork").fork["changes"]["optimizer.fused"] == [True, False]
    assert not is_fused(darkit.load("fork"), 6)
    resumed = made()
    with pytest.warns(
        ReproductionWarning, match=r"optimizer\.fused True -> False has no effect; resume_overrides=true"
    ):
        train(resumed, xy(), name="run", optimizer=own(fused=False), max_step=8, resume=True)
    assert equal_weights(whole, resumed)
    options: dict[str, Any] = {"name": "run", "resume": True, "resume_overrides": True}
    run = train(made(), xy(), optimizer=own(fused=False, foreach=True), max_step=10, **options)
    (group,) = torch.load(Path(run.path) / "iter-10-ckpt.pth", weights_only=True)["optimizer_state_dict"][
        "param_groups"
    ]
    assert (group["fused"], group["foreach"]) == (False, True)
    assert run.info["continued"][-1]["changes"].keys() == {"optimizer.foreach", "optimizer.fused"}


class Looking(nn.Module):
    """Its embedding has sparse gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.EmbeddingBag(16, 1, sparse=True, mode="sum")

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.rows(ids)


def test_sparse_gradients_are_stepped_without_it() -> None:
    ids = torch.arange(16).reshape(8, 2)
    run = train(made(Looking), (ids, torch.ones(8, 1)), loss=F.mse_loss, optimizer="sgd")
    assert not is_fused(run, 6)


class ChannelsLast(nn.Module):
    """A convolution whose weight is not contiguous."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(4, 3, 3)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {"loss": F.mse_loss(self.convolution(x).mean((1, 2, 3)), y)}


@pytest.mark.parametrize("earlier", [False, True])
def test_weights_in_channels_last_are_resumed_bit_for_bit(earlier: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints of earlier versions have contiguous state, which a fused kernel would take for channels last."""
    whole, first, second = (made(ChannelsLast) for _ in range(3))
    images = DataLoader(TensorDataset(torch.randn(16, 4, 6, 6), torch.randn(16)), batch_size=4)
    settings: dict[str, Any] = {"optimizer": "adamw", "lr": 0.1, "fused": True}
    train(whole, images, max_step=8, **settings)
    with monkeypatch.context() as patched:
        if earlier:
            patched.setattr(snapshot, "is_dense", lambda tensor: False)
        train(first, images, name="halves", max_step=4, **settings)
    train(second, images, name="halves", max_step=8, resume=True, **settings)
    assert equal_weights(whole, second)


def test_a_parameter_in_a_larger_tensor_is_stepped_without_it() -> None:
    """The kernels step through memory, and would change what is beside the parameter."""

    class Part(MLP):
        def __init__(self) -> None:
            super().__init__()
            self.whole = torch.zeros(3, 4)
            self.part = nn.Parameter(self.whole[:, :2])

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + self.part.sum()

    model = made(Part)
    run = train(model, in_order(), loss=F.mse_loss, optimizer="adam", max_step=2)
    assert not is_fused(run, 2)
    assert model.whole[:, :2].all()
    assert not model.whole[:, 2:].any()
    with pytest.raises(ConfigError, match=r"^fused=true is not possible: a parameter is a part of a larger tensor\."):
        train(made(Part), in_order(), loss=F.mse_loss, optimizer="adam", fused=True)


def test_what_a_run_has_used_must_be_possible() -> None:
    model = made()
    weights = list(model.parameters())
    assert use_fused(model, torch.optim.Adam, weights, "auto", "32-true", True)
    with pytest.raises(ConfigError, match="was trained with a fused"):
        use_fused(model, torch.optim.RMSprop, weights, "auto", "32-true", True)
    turned = nn.Parameter(torch.zeros(2, dtype=torch.complex64))
    assert not use_fused(model, torch.optim.Adam, [*weights, turned], "auto", "32-true")


def test_the_setting_is_checked() -> None:
    for wrong in ("sometimes", 1, None):
        with pytest.raises(ConfigError, match="fused"):
            darkit.TrainerConfig(fused=wrong)  # type: ignore[arg-type]


def test_another_choice_is_refused_with_all_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"^fused must be one of auto, true, false, not 'maybe'\.$"):
        TrainerConfig(fused="maybe")

"""`fit`: the weights of a plain loop, whatever is around it; names, files, order of a step."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

import lightning
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import darkit
from darkit.errors import BatchError, ConfigError, LossError, ModelError
from tests.engine.parts import (
    MLP,
    LossMLP,
    Numbers,
    Stream,
    equal_weights,
    hand_loop,
    in_order,
    made,
    run_names,
    train,
    weights_at,
    xy,
)

SGD = functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9)


def batches_of(data: Numbers, size: int = 4) -> list[tuple[Tensor, Tensor]]:
    """The batches in the order in which a run asked for their samples, after the pass of the fingerprint."""
    whole = list(range(len(data)))
    before = next(at for at in range(len(data.asked)) if data.asked[at : at + len(whole)] == whole)
    indices = data.asked[before + len(whole) :]
    return [(data.x[indices[at : at + size]], data.y[indices[at : at + size]]) for at in range(0, len(indices), size)]


@pytest.mark.parametrize(
    "make_optimizer", [SGD, torch.optim.AdamW, torch.optim.RMSprop], ids=["sgd", "adamw", "rmsprop"]
)
def test_weights_are_those_of_a_plain_loop_over_the_same_batches_bit_for_bit(
    make_optimizer: Callable[..., Any],
) -> None:
    data = Numbers()
    ours, theirs = made(), made()
    run = train(ours, data, xy(), optimizer=make_optimizer, max_step=20, eval_step_interval=3, tensorboard=True)
    losses = hand_loop(theirs, batches_of(data), make_optimizer(theirs.parameters()))
    assert equal_weights(ours, theirs)
    assert run.log()["train_loss"].to_list() == losses
    assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in weights_at(run, 20).items())


def test_dropout_and_buffers_too_are_those_of_a_plain_loop() -> None:
    class Noisy(MLP):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))

    ours, theirs = made(Noisy), made(Noisy)
    train(ours, in_order(), xy(), loss=F.mse_loss, optimizer=SGD, max_step=8, seed=5, eval_step_interval=2)
    epochs = [batch for _ in range(2) for batch in in_order()]  # a loader of one's own would draw from the generator
    torch.manual_seed(5)
    hand_loop(theirs, epochs, SGD(theirs.parameters()))
    assert equal_weights(ours, theirs)


@pytest.mark.parametrize("max_step", [1, 3, 7])
def test_as_many_steps_are_made_as_were_asked_for(max_step: int) -> None:
    model = made()
    optimizer = torch.optim.Adam(model.parameters())
    run = train(model, xy(), optimizer=optimizer, max_step=max_step)
    assert {int(state["step"]) for state in optimizer.state.values()} == {max_step}
    assert (run.details.step, run.details.max_step, run.status) == (max_step, max_step, "finished")


def test_accumulated_batches_make_the_step_of_the_bigger_batch() -> None:
    small, big = made(), made()
    train(small, in_order(batch_size=2), optimizer=SGD, max_step=4, gradient_accumulation_steps=4)
    train(big, in_order(batch_size=8), optimizer=SGD, max_step=4)
    for ours, theirs in zip(small.parameters(), big.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_accumulation_is_a_plain_loop_that_divides_the_loss_bit_for_bit() -> None:
    ours, theirs = made(), made()
    train(ours, in_order(length=12), optimizer=SGD, max_step=4, gradient_accumulation_steps=2)  # windows cross epochs
    optimizer = SGD(theirs.parameters())
    batches = list(in_order(length=12)) * 3
    for first in range(0, 8, 2):
        optimizer.zero_grad()
        for x, y in batches[first : first + 2]:
            (F.mse_loss(theirs(x), y) / 2).backward()
        optimizer.step()
    assert equal_weights(ours, theirs)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_gradients_are_clipped_to_the_norm_as_torch_does(accumulation: int) -> None:
    ours, theirs = made(), made()
    train(ours, in_order(), optimizer=SGD, max_step=4, gradient_clip=0.1, gradient_accumulation_steps=accumulation)
    optimizer = SGD(theirs.parameters())
    batches = list(in_order()) * accumulation
    for first in range(0, 4 * accumulation, accumulation):
        optimizer.zero_grad()
        for x, y in batches[first : first + accumulation]:
            loss = F.mse_loss(theirs(x), y)
            (loss if accumulation == 1 else loss / accumulation).backward()
        norm = nn.utils.clip_grad_norm_(theirs.parameters(), 0.1)
        assert norm > 0.1
        optimizer.step()
    assert equal_weights(ours, theirs)


def test_in_a_step_evaluation_comes_first_then_user_callbacks_then_log_then_save() -> None:
    seen: list[tuple[str, int]] = []

    class Own(lightning.Callback):
        def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, *rest: Any) -> None:
            folder = darkit.load("order").path
            step = trainer.global_step
            if "val_loss" in outputs:
                seen.append(("evaluated before", step))
            if not (folder / f"iter-{step}-ckpt.pth").exists():
                seen.append(("not yet saved", step))
            outputs["mine"] = step

    run = train(
        made(), xy(), xy(), name="order", max_step=4, eval_step_interval=2, save_step_interval=2, callbacks=[Own()]
    )
    assert [step for what, step in seen if what == "evaluated before"] == [2, 4]
    assert [step for what, step in seen if what == "not yet saved"] == [1, 2, 3, 4]
    assert run.log()["mine"].to_list() == [1, 2, 3, 4]
    for checkpoint in run.checkpoints():
        row = run.log().row(checkpoint.step - 1, named=True)
        assert checkpoint.metrics["mine"] == checkpoint.step
        assert checkpoint.metrics["val_loss"] == row["val_loss"]
        assert checkpoint.metrics["train_loss"] == row["train_loss"]


def test_every_hook_of_a_user_callback_is_called_as_often_as_by_lightning() -> None:
    class Counts(lightning.Callback):
        def __init__(self) -> None:
            self.calls: dict[str, int] = {}

        def count(self, name: str) -> None:
            self.calls[name] = self.calls.get(name, 0) + 1

        def on_train_batch_start(self, *rest: Any) -> None:
            self.count("start")

        def on_train_batch_end(self, *rest: Any) -> None:
            self.count("end")

        def on_before_backward(self, *rest: Any) -> None:
            self.count("backward")

        def on_before_optimizer_step(self, *rest: Any) -> None:
            self.count("optimizer")

        def on_train_epoch_end(self, *rest: Any) -> None:
            self.count("epoch")

    counts = Counts()
    train(made(), xy(), max_step=10, callbacks=[counts])
    assert counts.calls == {"start": 10, "end": 10, "backward": 10, "optimizer": 10, "epoch": 3}


def test_a_batch_may_be_a_dict_or_an_object_with_its_own_to() -> None:
    class Pair:
        def __init__(self, samples: list[Any]) -> None:
            self.x, self.y = (torch.stack(part) for part in zip(*samples, strict=True))

        def to(self, device: Any, **options: Any) -> Pair:
            self.x, self.y = self.x.to(device), self.y.to(device)
            return self

    ours, named, theirs = made(), made(), made()
    samples = TensorDataset(*xy())
    train(
        ours,
        DataLoader(samples, batch_size=4, collate_fn=Pair),
        optimizer=SGD,
        loss=lambda model, batch: F.mse_loss(model(batch.x), batch.y),
    )
    train(named, [{"x": x, "target": y} for x, y in samples], optimizer=SGD, loss=F.mse_loss, max_step=1, batch_size=16)
    assert [tuple(weight.shape) for weight in named.parameters()] == [tuple(w.shape) for w in theirs.parameters()]
    assert not equal_weights(named, theirs)
    hand_loop(theirs, (list(in_order()) * 2)[:6], SGD(theirs.parameters()))
    assert equal_weights(ours, theirs)


def test_a_later_batch_that_does_not_fit_crashes_the_run_with_shapes_and_step() -> None:
    samples = list(zip(*xy(), strict=True))
    samples[9] = (torch.ones(3), torch.ones(1))
    loader = DataLoader(samples, batch_size=1)  # type: ignore[arg-type]
    with pytest.raises(
        BatchError, match=r"The model failed on a batch of \(float32\[1, 3\], float32\[1, 1\]\): Runtime"
    ):
        train(made(), loader, name="misfit", max_step=20)
    run = darkit.load("misfit")
    assert (run.status, run.details.step) == ("crashed", 9)
    assert "float32[1, 3]" in run.details.reason
    assert "shapes cannot be multiplied" in run.details.traceback
    assert run.log()["step"].to_list() == list(range(1, 10))


@pytest.mark.parametrize(
    "model", [None, 3, MLP, lambda x: x, {"a": nn.Linear(1, 1)}], ids=["none", "number", "class", "function", "dict"]
)
def test_what_is_no_module_is_refused_and_leaves_nothing(model: Any) -> None:
    with pytest.raises(ModelError, match=r"model must be a torch\.nn\.Module, not "):
        darkit.fit(model, xy())
    assert run_names() == []


@pytest.mark.parametrize(
    "settings",
    [{"strategy": "no-such"}],
    ids=str,
)
def test_settings_that_lightning_refuses_are_one_error_and_leave_nothing(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="Incompatible settings") as caught:
        train(made(), xy(), **settings)
    for key, value in settings.items():
        assert f"{key}={value!r}" in str(caught.value)
    assert run_names() == []


@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed", "bf16-true", "64-true"])
def test_other_number_formats_train(precision: str) -> None:
    model = made()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    run = train(model, xy(), xy(), precision=precision, max_step=3)
    assert run.status == "finished"
    assert not all(torch.equal(value.float(), before[key]) for key, value in model.state_dict().items())
    assert all(torch.isfinite(torch.tensor(run.log()["train_loss"].to_list())))


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
@pytest.mark.parametrize("workers", [0, 1])
def test_data_is_made_with_the_types_that_it_has_outside_of_a_training(precision: str, workers: int) -> None:
    class Typed(Dataset[tuple[Tensor, Tensor]]):
        """Samples that say with which types they were made."""

        def __len__(self) -> int:
            return 8

        def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
            made = {torch.rand(1).dtype, (torch.ones(1, 1) @ torch.ones(1, 1)).dtype}
            assert made == {torch.float32}
            return torch.rand(4), torch.rand(1)

    settings: dict[str, Any] = {"max_step": 6, "eval_step_interval": 2, "num_workers": workers}
    assert train(made(), Typed(), Typed(), precision=precision, **settings).status == "finished"


def test_what_a_run_sets_for_the_process_is_undone() -> None:
    settings = [
        torch.are_deterministic_algorithms_enabled,
        lambda: torch.backends.cudnn.benchmark,
        threading.active_count,
    ]
    before = [setting() for setting in settings]
    train(made(), xy(), deterministic=True)
    assert [setting() for setting in settings] == before
    torch.use_deterministic_algorithms(True)
    try:
        train(made(), xy())
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_the_model_that_was_given_is_trained_in_place_and_stays_a_plain_module() -> None:
    model = made()
    before = model.layers[0].weight
    train(model, xy())
    assert model.layers[0].weight is before
    assert set(vars(model)) == set(vars(made()))
    assert not model._forward_hooks
    assert not model._forward_pre_hooks
    assert "_trainer" not in vars(model)


def test_two_trainings_of_one_seed_are_equal_and_of_two_seeds_are_not() -> None:
    logs = [train(made(), xy(), seed=seed, max_step=8).log()["train_loss"].to_list() for seed in (1, 1, 2)]
    assert logs[0] == logs[1] != logs[2]


def test_a_run_in_another_thread_is_the_same() -> None:
    ours, theirs = made(), made()
    train(ours, xy())
    thread = threading.Thread(target=train, args=(theirs, xy()))
    thread.start()
    thread.join()
    assert equal_weights(ours, theirs)


def test_data_of_unknown_length_is_a_plain_loop_too() -> None:
    ours, theirs = made(), made()
    run = train(ours, Stream(10), optimizer=SGD, max_step=7)
    batches = [(x, y) for x, y in DataLoader(Stream(10), batch_size=4)]
    assert [len(x) for x, _ in batches] == [4, 4, 2]
    hand_loop(theirs, (batches * 3)[:7], SGD(theirs.parameters()))
    assert equal_weights(ours, theirs)
    assert run.log()["epoch"].to_list() == [0, 0, 0, 1, 1, 1, 2]
    assert [checkpoint.step for checkpoint in run.checkpoints()] == [7]


def test_an_error_of_a_user_loss_at_the_first_step_leaves_nothing_but_later_keeps_the_run() -> None:
    calls = []

    def loss(outputs: Tensor, target: Tensor) -> Any:
        calls.append(1)
        return F.mse_loss(outputs, target) if len(calls) < 3 else "no tensor"

    with pytest.raises(LossError, match="No loss"):
        train(made(LossMLP.__mro__[1]), xy(), loss=loss, name="later")
    assert (darkit.load("later").status, darkit.load("later").details.step) == ("crashed", 2)


def test_compiling_is_for_the_time_of_the_training_only() -> None:
    class Looks(lightning.Callback):
        compiled = False

        def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: Any, *rest: Any) -> None:
            self.compiled = pl_module.module._compiled_call_impl is not None

    looks = Looks()
    ours, theirs = made(), made()
    with torch.compiler.set_stance("force_eager"):  # compiling for real takes longer than all of these tests
        train(ours, xy(), compile=True, callbacks=[looks])
    train(theirs, xy())
    assert looks.compiled
    assert ours._compiled_call_impl is None
    assert equal_weights(ours, theirs)


def test_a_model_that_its_owner_compiled_stays_compiled() -> None:
    model = made()
    model.compile()
    with torch.compiler.set_stance("force_eager"):
        train(model, xy())
    assert model._compiled_call_impl is not None

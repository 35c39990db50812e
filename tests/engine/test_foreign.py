"""What `fit` would ignore of Lightning's modules, data modules and callbacks is refused by name; the rest works."""

from __future__ import annotations

import re
from typing import Any

import lightning
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import callbacks as stock
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor, nn

import darkit
from darkit.engine.callbacks import EmaWeights
from darkit.engine.foreign import NEVER_CALLED
from darkit.errors import ConfigError, DataError, LossError, ModelError
from tests.engine.parts import DataModule, equal_weights, in_order, made, run_names, train, xy


class Plain(lightning.LightningModule):
    """Overrides only what is honoured, or what Lightning does not call in a training either."""

    def __init__(self, width: int = 1) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = nn.Linear(4, width)

    def forward(self, x: Tensor) -> Any:
        return self.layer(x)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss = F.mse_loss(self(batch[0]), batch[1])
        self.log("root", loss.sqrt())
        return loss

    def test_step(self, batch: Any, batch_idx: int) -> None: ...

    def predict_step(self, batch: Any, batch_idx: int) -> None: ...

    def on_test_start(self) -> None: ...

    def on_predict_epoch_end(self) -> None: ...


def test_a_module_that_overrides_only_what_is_honoured_trains_with_what_is_given() -> None:
    ours, theirs = made(Plain), made(Plain)
    run = train(ours, in_order(), optimizer="sgd", lr=0.1, max_step=4)
    assert run.config == {"width": 1}
    assert "root" in run.log().columns
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1, fused=True)
    for x, y in in_order():
        optimizer.zero_grad()
        F.mse_loss(theirs(x), y).backward()
        optimizer.step()
    assert equal_weights(ours, theirs)


def test_its_validation_step_is_how_it_is_evaluated() -> None:
    class Validates(Plain):
        def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
            self.log("val_loss", (self(batch[0]) - batch[1]).abs().mean())

    model = made(Validates)
    run = train(model, in_order(), in_order(), max_step=4)
    x, y = xy()
    assert run.log()["val_loss"][-1] == pytest.approx(F.l1_loss(model(x), y).item(), rel=1e-6)


class Driving(nn.Module):
    """Steps an optimizer of its own, and returns the loss as it is, detached, or from a closure."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)
        self.way = way
        kind: Any = torch.optim.LBFGS if way == "closure" else torch.optim.SGD
        self.optimizers = [kind(self.layer.parameters(), lr=0.1)]

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        def closure() -> Tensor:
            self.optimizers[0].zero_grad()
            loss = F.mse_loss(self.layer(batch[0]), batch[1])
            loss.backward()
            return loss

        if self.way == "closure":
            return torch.as_tensor(self.optimizers[0].step(closure))
        loss = closure()
        self.optimizers[0].step()
        return loss.detach() if self.way == "detached" else loss


@pytest.mark.parametrize("way", ["plain", "detached", "closure"])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.filterwarnings("ignore:No config of Driving")
def test_a_model_that_steps_an_optimizer_itself_is_refused_before_the_first_step(way: str, accumulate: int) -> None:
    model = made(Driving, way=way)
    before = model.layer.weight.clone()
    with pytest.raises(LossError, match=r"Driving steps a (SGD|LBFGS) itself .* darkit.core.Trainer"):
        train(model, xy(), gradient_accumulation_steps=accumulate)
    assert torch.equal(before, model.layer.weight)
    assert run_names() == []


class Critic(nn.Module):
    """Trains a critic with an optimizer of its own, beginning at a later batch."""

    def __init__(self, start: int) -> None:
        super().__init__()
        self.layer, self.critic = nn.Linear(4, 1), nn.Linear(1, 1)
        self.start, self.batches = start, 0
        self.steps: list[int] = []
        self.optimizers = [torch.optim.Adam(self.critic.parameters())]

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        self.batches += 1
        if self.batches > self.start:
            F.mse_loss(self.critic(batch[1]), batch[1]).backward()
            self.optimizers[0].step()
        return F.mse_loss(self.layer(batch[0]), batch[1])


@pytest.mark.parametrize(("accumulate", "saved"), [(1, [2, 3]), (2, [1])])
@pytest.mark.filterwarnings("ignore:No config of Critic", "ignore:.*rediction needs")
def test_a_second_optimizer_that_begins_in_a_later_step_is_refused_there(accumulate: int, saved: list[int]) -> None:
    model = made(Critic, start=3)
    before = model.critic.weight.clone()
    with pytest.raises(LossError, match="Critic steps a Adam itself"):
        train(model, xy(), name="late", gradient_accumulation_steps=accumulate, save_step_interval=2)
    assert torch.equal(before, model.critic.weight)
    assert [checkpoint.step for checkpoint in darkit.load("late").checkpoints()] == saved
    theirs = nn.Linear(1, 1)
    theirs.weight.grad = torch.ones(1, 1)
    torch.optim.Adam(theirs.parameters()).step()  # nothing is refused any more


class Perturbing(nn.Module):
    """Searches for the worst change of its input from the second batch on, with an optimizer of that change."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)
        self.batches = 0

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, y = batch
        self.batches += 1
        change = torch.zeros_like(x, requires_grad=True)
        if self.batches > 1:
            search = torch.optim.Adam([change])
            (gradient,) = torch.autograd.grad(-F.mse_loss(self.layer(x + change), y), change)
            change.grad = gradient
            search.step()
        return F.mse_loss(self.layer(x + change.detach()), y)


def test_an_optimizer_of_other_tensors_than_the_models_may_be_stepped() -> None:
    assert train(Perturbing(), xy(), max_step=4).status == "finished"


@pytest.mark.filterwarnings("ignore:No config of Plain")
def test_callbacks_may_step_optimizers_of_their_own() -> None:
    class Probes(lightning.Callback):
        def __init__(self) -> None:
            self.probe = nn.Linear(1, 1)
            self.optimizer = torch.optim.SGD(self.probe.parameters(), lr=0.1)

        def probe_it(self, *arguments: Any) -> None:
            self.probe(torch.ones(1, 1)).sum().backward()
            self.optimizer.step()

        on_train_batch_start = on_train_batch_end = on_before_optimizer_step = probe_it

    assert train(made(Plain), in_order(), callbacks=[Probes()]).status == "finished"


def overriding(name: str) -> lightning.LightningModule:
    model: lightning.LightningModule = made(type("Overriding", (Plain,), {name: lambda self, *rest: None}))
    return model


@pytest.mark.parametrize(
    "name",
    [
        "configure_model",
        "configure_callbacks",
        "configure_gradient_clipping",
        "validation_epoch_end",
        "on_train_epoch_end",
        "on_before_optimizer_step",
        "on_after_batch_transfer",
        "on_save_checkpoint",
        "optimizer_step",
        "lr_scheduler_step",
        "backward",
        "setup",
        "train_dataloader",
        "transfer_batch_to_device",
        "log",
    ],
)
def test_a_module_that_overrides_more_is_refused_by_that_name_and_leaves_nothing(name: str) -> None:
    with pytest.raises(
        ModelError, match=rf"Overriding, a LightningModule without configure_optimizers, .* ignore its {name}\."
    ):
        train(overriding(name), xy())
    assert run_names() == []


def test_all_that_would_be_ignored_is_named_also_when_a_base_class_or_the_object_has_it() -> None:
    class Without(BoringModel):
        configure_optimizers = lightning.LightningModule.configure_optimizers

    with pytest.raises(ModelError, match=r"ignore its configure_.*train_dataloader"):
        train(Without(), xy())
    manual = made(Plain)
    manual.automatic_optimization = False
    iterating = made(type("Iterating", (Plain,), {"training_step": lambda self, dataloader_iter: None}))
    for model, said in (
        (manual, "automatic_optimization=False"),
        (iterating, "dataloader_iter of training_step"),
    ):
        with pytest.raises(ModelError, match=rf"ignore its {said}\."):
            train(model, xy())
    assert run_names() == []


def test_a_module_of_the_older_package_is_refused() -> None:
    older = type("LightningModule", (nn.Module,), {"__module__": "pytorch_lightning.core.module"})
    model = type("Theirs", (older,), {"training_step": lambda self, batch, batch_idx: None})()
    with pytest.raises(ModelError, match=r"Theirs is a LightningModule of the package pytorch_lightning"):
        train(model, xy())


@pytest.mark.filterwarnings("ignore:No config of Sequential")
def test_a_lightning_module_inside_a_plain_one_is_the_plain_ones_business() -> None:
    assert train(nn.Sequential(overriding("configure_optimizers")), xy(), loss=F.mse_loss).status == "finished"


# Data modules


@pytest.mark.parametrize(
    "name",
    [
        "on_after_batch_transfer",
        "on_before_batch_transfer",
        "transfer_batch_to_device",
        "state_dict",
        "load_state_dict",
    ],
)
def test_a_data_module_whose_hooks_would_be_ignored_is_refused_by_name(name: str) -> None:
    data = type("Theirs", (DataModule,), {name: lambda self, *rest: None})()
    with pytest.raises(DataError, match=rf"ignore {name} of the LightningDataModule Theirs"):
        train(made(), data)
    assert run_names() == []


class Noting(DataModule):
    def __init__(self) -> None:
        super().__init__()
        self.noted: list[Any] = []

    def teardown(self, stage: str) -> None:
        self.noted.append(stage)

    def on_exception(self, exception: BaseException) -> None:
        self.noted.append(exception)


def test_a_data_module_is_torn_down_and_gets_the_error() -> None:
    data = Noting()
    train(made(), data)
    assert data.noted == ["fit"]
    failing = Noting()
    with pytest.raises(ConfigError) as caught:
        train(made(), failing, optimizer="none such")
    assert failing.noted == [caught.value, "fit"]


@pytest.mark.parametrize("kind", [dict, list, CombinedLoader])
def test_several_training_loaders_are_refused(kind: Any) -> None:
    class Several(DataModule):
        def train_dataloader(self) -> Any:
            loaders = {"a": in_order(), "b": in_order()}
            return [*loaders.values()] if kind is list else kind(loaders)

    with pytest.raises(DataError, match=rf"train_dataloader of Several returned a {kind.__name__}"):
        train(made(), Several())
    assert run_names() == []


# Callbacks


class EveryHook(lightning.Callback):
    """Notes which of its hooks are called."""

    def __init__(self) -> None:
        self.called: set[str] = set()
        self.hooks = [name for name in dir(lightning.Callback) if name.startswith("on_")]

    def listen(self) -> None:
        for name in self.hooks:
            setattr(self, name, lambda *rest, _name=name: self.called.add(_name))


def test_the_hooks_that_are_refused_are_those_that_the_loop_does_not_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("darkit.engine.foreign.NEVER_CALLED", ())
    callback = EveryHook()
    callback.listen()
    train(made(), xy(), xy(), callbacks=[callback], eval_step_interval=2, save_step_interval=2)
    elsewhere = ("on_test_", "on_predict_", "on_exception")
    expected = {name for name in callback.hooks if not name.startswith(elsewhere)}
    assert expected - callback.called == set(NEVER_CALLED)


@pytest.mark.parametrize("hook", NEVER_CALLED)
def test_a_callback_with_a_hook_that_only_lightnings_loop_calls_gets_that_loop(hook: str) -> None:
    called: list[str] = []
    theirs = type("Theirs", (lightning.Callback,), {hook: lambda *rest: called.append(hook)})()
    train(made(), xy(), xy(), callbacks=[theirs], eval_step_interval=2, max_step=4, save_step_interval=2)
    assert called or hook == "on_load_checkpoint"


def test_so_does_one_of_lambdas() -> None:
    called: list[int] = []
    train(made(), xy(), xy(), callbacks=[stock.LambdaCallback(on_validation_end=lambda *rest: called.append(1))])
    train(made(), xy(), callbacks=[stock.LambdaCallback(on_train_epoch_end=lambda trainer, _: called.append(2))])
    assert {1, 2} <= set(called)


@pytest.mark.parametrize(
    ("callback", "instead"),
    [
        (lambda: EmaWeights(0.5), "ema_decay"),
        (lambda: stock.LearningRateFinder(), "set lr"),
        (lambda: stock.BatchSizeFinder(), "set batch_size"),
    ],
)
def test_callbacks_that_cannot_work_are_refused_with_what_to_use(callback: Any, instead: str) -> None:
    made_callback = callback()
    with pytest.raises(ConfigError, match=f"{type(made_callback).__name__}.*{re.escape(instead)}"):
        train(made(), xy(), callbacks=[made_callback])
    assert run_names() == []


def test_lightnings_callbacks_that_work_are_accepted() -> None:
    timer = stock.Timer({"hours": 1})
    assert train(made(), xy(), callbacks=[timer, stock.ModelSummary()]).details.step == 6
    assert timer.time_elapsed() > 0


@pytest.mark.parametrize("wrong", [3, "x", [3], stock.Timer(), [darkit.TrainerConfig()]])
def test_what_is_no_list_of_callbacks_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError, match=r"callbacks must be a list of lightning.Callback objects"):
        train(made(), xy(), callbacks=wrong)
    assert run_names() == []


@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_after_backward", "on_train_epoch_end"])
def test_what_a_callback_logs_through_the_module_is_in_the_log(hook: str) -> None:
    class Logging(lightning.Callback): ...

    setattr(Logging, hook, lambda self, trainer, pl_module, *rest: pl_module.log("norm", 1.0))
    run = train(made(), xy(), callbacks=[Logging()])
    assert run.log()["norm"].drop_nulls().to_list()


def test_what_it_logs_in_a_way_that_nobody_sees_is_refused_and_not_lost() -> None:
    def tell(module: Any) -> None:
        module.log("norm", 1.0)

    class Logging(lightning.Callback):
        def on_after_backward(self, trainer: lightning.Trainer, pl_module: Any) -> None:
            tell(pl_module)

    with pytest.raises(ConfigError, match=r"logged 'norm' with pl_module.log.*outputs\['norm'\]"):
        train(made(), xy(), callbacks=[Logging()])

"""Metrics of outputs and target, torchmetrics objects, and a model's own way to validate."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import CatMetric, F1Score, MeanSquaredError, MetricCollection
from torchmetrics.classification import BinaryAccuracy

from darkit.engine.metrics.gathering import collect_metrics, fresh_metrics, restore_metrics
from darkit.errors import BatchError, ConfigError, LossError
from tests.engine.parts import MLP, LossMLP, made, run_names, train, xy

X = torch.randn(22, 4, generator=torch.Generator().manual_seed(0))
LABELS = (X.sum(1) > 0).long()


def classes() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(4, 2)


def accuracy(outputs: Tensor, target: Tensor) -> Tensor:
    assert not outputs.requires_grad
    return (outputs.argmax(-1) == target).float().mean()


def test_a_metric_is_computed_in_training_and_over_the_whole_evaluation() -> None:
    model = classes()
    log = train(model, (X, LABELS), (X, LABELS), loss=F.cross_entropy, metrics={"acc": accuracy}, lr=0.0).log()
    with torch.no_grad():
        assert log["val_acc"][-1] == pytest.approx(accuracy(model(X), LABELS).item())
    assert 0 < log["acc"].mean() < 1


def test_and_over_accumulated_batches() -> None:
    data = DataLoader(TensorDataset(X[:8], LABELS[:8]), batch_size=4)
    model = classes()
    log = train(
        model, data, loss=F.cross_entropy, metrics={"acc": accuracy}, lr=0.0, max_step=1, gradient_accumulation_steps=2
    ).log()
    with torch.no_grad():
        assert log["acc"][0] == pytest.approx(accuracy(model(X[:8]), LABELS[:8]).item())


def test_a_metric_of_a_model_that_returns_its_loss_gets_what_it_predicts() -> None:
    class Both(LossMLP):
        def forward(self, x: Tensor, y: Tensor) -> Any:  # type: ignore[override]
            outputs = self.layers(x)
            return outputs, F.mse_loss(outputs, y)

    log = train(made(Both), xy(), metrics={"mean": lambda outputs, target: F.mse_loss(outputs, target)}).log()
    assert log["mean"].to_list() == pytest.approx(log["train_loss"].to_list(), rel=1e-6)


def test_torchmetrics_objects_are_computed_over_the_whole_evaluation_each_time_anew() -> None:
    model = classes()
    f1, both = Wrapped(), MetricCollection({"error": MeanSquaredError(), "again": MeanSquaredError()})
    data, settings = (X, LABELS), {"loss": F.cross_entropy, "lr": 0.0, "eval_step_interval": 1, "max_step": 3}
    log = train(model, data, data, metrics={"f1": f1}, **settings).log()
    with torch.no_grad():
        expected = F1Score("binary")(model(X).argmax(-1), LABELS).item()
    assert log["val_f1"].to_list() == pytest.approx([expected] * 3)
    assert f1.update_count == 0
    log = train(made(MLP), xy(), xy(), metrics={"several": both}, max_step=2).log()
    assert log["val_error"][-1] == log["val_again"][-1] == pytest.approx(log["val_loss"][-1], rel=1e-5)


class Wrapped(BinaryAccuracy):
    """The F1 score of logits (B, 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.score = F1Score("binary")

    def update(self, outputs: Tensor, target: Tensor) -> None:
        self.score.update(outputs.argmax(-1), target)

    def compute(self) -> Tensor:
        return self.score.compute()  # type: ignore[no-any-return]

    def reset(self) -> None:
        super().reset()
        if hasattr(self, "score"):
            self.score.reset()


class Measured(MLP):
    """Has its own metric, which its step updates and returns."""

    def __init__(self) -> None:
        super().__init__()
        self.error = MeanSquaredError()

    def training_step(self, batch: tuple[Tensor, Tensor]) -> dict[str, Any]:
        outputs = self.layers(batch[0])
        self.error.update(outputs.detach(), batch[1])
        return {"loss": F.mse_loss(outputs, batch[1]), "error": self.error}


@pytest.mark.filterwarnings("ignore::darkit.errors.ReproductionWarning")
def test_a_models_own_metric_is_not_mixed_between_training_and_evaluation() -> None:
    with_it, without = made(Measured), made(Measured)
    log = train(with_it, xy(), xy(10), eval_step_interval=2).log()
    plain = train(without, xy()).log()
    assert log["error"].to_list() == plain["error"].to_list()
    assert log["val_error"].drop_nulls().to_list() == pytest.approx(log["val_loss"].drop_nulls().to_list(), rel=1e-5)


@pytest.mark.filterwarnings("ignore::darkit.errors.ReproductionWarning")
def test_a_models_own_metric_is_restored_by_a_resume() -> None:
    straight = train(made(Measured), xy(), name="straight", max_step=6).log()
    train(made(Measured), xy(), name="broken", max_step=3)
    resumed = train(made(Measured), xy(), name="broken", max_step=6, resume=True).log()
    assert resumed["error"].to_list() == straight["error"].to_list()


def gathered() -> nn.ModuleDict:
    parts = nn.ModuleDict({"all": CatMetric(), "error": MeanSquaredError()})
    for _ in range(2):
        parts["all"].update(torch.tensor([1.0, 2.0]))
        parts["error"].update(torch.ones(2), torch.zeros(2))
    return parts


def test_metrics_that_gather_lists_come_back_too() -> None:
    parts = gathered()
    assert parts["error"].compute() == 1
    with fresh_metrics(parts):
        assert [part.update_count for part in parts.values()] == [0, 0]
        parts["all"].update(torch.tensor(7.0))
        parts["error"].update(torch.ones(2), torch.zeros(2) - 2)
        assert parts["error"].compute() == 9
    assert parts["all"].compute().tolist() == [1, 2, 1, 2]
    assert parts["error"].compute() == 1
    assert [part.update_count for part in parts.values()] == [2, 2]


def test_a_checkpoint_has_all_of_a_metric_and_leaves_others_alone() -> None:
    parts, states = gathered(), collect_metrics(gathered())
    parts["all"].update(torch.tensor(7.0))
    assert len(parts["all"].compute()) == 5  # which it keeps
    restore_metrics(parts, states)
    assert parts["all"].compute().tolist() == [1, 2, 1, 2]
    assert [part.update_count for part in parts.values()] == [2, 2]
    restore_metrics(parts, {})
    assert parts["error"].compute() == 1


def test_torchmetrics_objects_begin_anew_with_the_training_and_with_every_step() -> None:
    metric, model = MeanSquaredError(), made()
    metric.update(torch.full((4,), 1000.0), torch.zeros(4))
    log = train(model, xy(), xy(), metrics={"mse": metric}, max_step=4, eval_step_interval=4).log()
    assert log["mse"].to_list() == pytest.approx(log["train_loss"].to_list(), rel=1e-5)
    assert log["val_mse"][-1] == pytest.approx(log["val_loss"][-1], rel=1e-5)


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ([accuracy], "metrics must be a dict of callables by name, not list"),
        ({"acc": 3}, "metrics must be callables by name, but 'acc' is 3"),
        ({"loss": accuracy}, "The metric name 'loss' is reserved"),
        ({"val_loss": accuracy}, "The metric name 'val_loss' is reserved"),
        ({3: accuracy}, "metrics must be callables by name, but 3 is"),
    ],
)
def test_invalid_metrics_are_refused_and_leave_nothing(metrics: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        train(made(), xy(), metrics=metrics)
    assert run_names() == []


def test_a_failing_metric_is_named() -> None:
    with pytest.raises(BatchError, match="The metric 'mine' failed on a batch: KeyError"):
        train(made(), xy(), metrics={"mine": lambda outputs, target: {}["a"]})
    assert run_names() == []


def test_metrics_that_a_step_cannot_provide_are_refused_and_leave_nothing() -> None:
    class Own(LossMLP):
        def training_step(self, batch: Any) -> Tensor:
            return self(*batch)["loss"]

    with pytest.raises(LossError, match="The metrics acc need outputs and target, which the training_step of Own does"):
        train(made(Own), xy(), metrics={"acc": accuracy})
    assert run_names() == []
    log = train(made(Own), xy(), metrics={"size": lambda model, batch: float(len(batch[0]))}, max_step=2).log()
    assert log["size"].to_list() == [4.0, 4.0]


class Validates(MLP):
    """Has its own validation step."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, Any]] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.calls.append(("train", batch_idx))
        return F.mse_loss(self.layers(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        self.calls.append(("val", batch_idx))
        assert not self.training
        return {"val_loss": F.l1_loss(self.layers(batch[0]), batch[1]), "val_size": float(len(batch[0]))}


def test_a_validation_step_is_how_a_plain_module_is_evaluated() -> None:
    model = made(Validates)
    log = train(model, xy(), xy(10), lr=0.0, max_step=5).log()
    with torch.no_grad():
        assert log["val_loss"][-1] == pytest.approx(F.l1_loss(model.layers(xy(10)[0]), xy(10)[1]).item(), rel=1e-6)
    assert {"val_val_loss", "val_val_size"}.isdisjoint(log.columns)
    assert log["val_size"][-1] == pytest.approx((4 * 4 + 4 * 4 + 2 * 2) / 10)


def test_a_validation_step_may_return_its_loss_alone_or_numbers_alone() -> None:
    class Alone(Validates):
        def validation_step(self, batch: Any) -> Any:  # type: ignore[override]
            return F.l1_loss(self.layers(batch[0]), batch[1])

    class Numbers(Validates):
        def validation_step(self, batch: Any) -> Any:  # type: ignore[override]
            return {"error": 0.5}

    alone, numbers = (train(made(cls), xy(), xy(), max_step=1).log() for cls in (Alone, Numbers))
    assert alone["val_loss"][0] > 0
    assert numbers["val_error"].to_list() == [0.5]


def test_batch_numbers_count_within_an_epoch_and_continue_after_a_resume() -> None:
    model = made(Validates)
    train(model, xy(), xy(8), name="numbers", max_step=6, eval_step_interval=2)
    assert [index for kind, index in model.calls if kind == "train"] == [0, 1, 2, 3, 0, 1]
    assert [index for kind, index in model.calls if kind == "val"] == [0, 1] * 3
    resumed = made(Validates)
    train(resumed, xy(), xy(8), name="numbers", max_step=9, eval_step_interval=2, resume=True)
    assert [index for kind, index in resumed.calls if kind == "train"] == [2, 3, 0]


@pytest.mark.parametrize("names", ["pred, target", "outputs, labels, scale=1.0", "a, b", "y_hat, y=None"])
def test_a_method_called_loss_of_outputs_and_target_gets_these(names: str) -> None:
    scope: dict[str, Any] = {"F": F}
    first, second = (name.strip().partition("=")[0] for name in names.split(",")[:2])
    exec(f"def loss(self, {names}):\n    return F.mse_loss({first}, {second})", scope)
    model = made(type("Net", (MLP,), {"loss": scope["loss"]}))
    plain = made(MLP)
    log, expected = train(model, xy()).log(), train(plain, xy()).log()
    assert log["train_loss"].to_list() == expected["train_loss"].to_list()


def test_a_method_called_loss_of_a_batch_gets_the_batch() -> None:
    class Net(MLP):
        def loss(self, batch: Any) -> Tensor:
            return F.mse_loss(self(batch[0]), batch[1])

    assert train(made(Net), xy()).log()["train_loss"].to_list() == train(made(MLP), xy()).log()["train_loss"].to_list()

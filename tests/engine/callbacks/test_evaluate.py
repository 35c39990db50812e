"""Evaluation: when it is due, what it averages, and that it does not change the training."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import lightning
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from darkit.engine.callbacks import StepEvaluate
from darkit.engine.callbacks.evaluate import evaluate
from darkit.errors import DataError, LossError
from tests.engine.callbacks.stock import Foreign, WatchOutputs, stock_fit
from tests.engine.parts import CountingMLP, LossMLP, in_order, made, train, xy


def evaluated(outputs: WatchOutputs) -> list[int]:
    return [step for step, row in outputs.rows.items() if "val_loss" in row]


@pytest.mark.parametrize(
    ("every", "options", "expected"),
    [
        (2, {"max_steps": 5}, [2, 4, 5]),
        (0, {"max_steps": 5}, [5]),
        (9, {"max_steps": 5}, [5]),
        (1, {"max_steps": 2, "accumulate_grad_batches": 2}, [1, 2]),
        (3, {"max_epochs": 2}, [3, 6, 8]),
        (0, {"max_epochs": 1, "accumulate_grad_batches": 3}, [2]),
        (0, {"max_epochs": 1, "max_steps": 3}, [3]),
    ],
)
def test_it_comes_every_so_many_steps_and_at_the_last_planned_one(
    every: int, options: dict[str, Any], expected: list[int]
) -> None:
    outputs = WatchOutputs()
    stock_fit(Foreign(), StepEvaluate(in_order(8), every), outputs, **options)
    assert evaluated(outputs) == expected


def test_the_modules_own_validation_step_gives_the_loss() -> None:
    outputs, module = WatchOutputs(), Foreign()
    stock_fit(module, StepEvaluate(in_order(8), 0), outputs, max_steps=3)
    module.eval()
    with torch.no_grad():
        expected = F.mse_loss(module.layers(xy()[0][:8]), xy()[1][:8]).item()
    assert outputs.rows[3]["val_loss"] == pytest.approx(expected, rel=1e-6)


def test_a_validation_step_that_returns_nothing_is_an_error_with_advice() -> None:
    class Silent(Foreign):
        def validation_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
            self.log("val_loss", 1.0)

    with pytest.raises(LossError, match=r"validation_step of Silent returned nothing: .* compute="):
        stock_fit(Silent(), StepEvaluate(in_order(8), 1))


def test_further_values_are_averaged_and_named_too() -> None:
    model = made(LossMLP)
    run = train(model, xy(), xy(10), max_step=3)
    with torch.no_grad():
        error = model.layers(xy(10)[0]) - xy(10)[1]
    last = run.log().row(-1, named=True)
    assert last["val_loss"] == pytest.approx(error.square().mean().item(), rel=1e-6)
    assert last["val_absolute"] == pytest.approx(error.abs().mean().item(), rel=1e-6)


def test_a_smaller_last_batch_counts_by_its_samples() -> None:
    module = nn.Linear(1, 1)
    batches = [torch.zeros(4), torch.full((1,), 10.0)]
    for shape in (lambda x: x, lambda x: (x, 1), lambda x: {"x": x}, lambda x: [None, x]):
        means = evaluate(module, map(shape, batches), lambda batch, _: {"loss": _tensor(batch).mean()}, 0)
        assert means["loss"].item() == pytest.approx(2.0)


def _tensor(batch: Any) -> Tensor:
    parts = batch.values() if isinstance(batch, dict) else batch if isinstance(batch, tuple | list) else [batch]
    return next(part for part in parts if isinstance(part, Tensor))


def test_batches_without_a_length_count_once_each() -> None:
    batches = [SimpleNamespace(x=1.0), SimpleNamespace(x=3.0), torch.tensor(5.0)]
    means = evaluate(nn.Linear(1, 1), batches, lambda batch, _: {"loss": torch.tensor(getattr(batch, "x", 5.0))}, 0)
    assert means["loss"].item() == 3.0


@pytest.mark.parametrize(("iters", "seen"), [(1, 1), (3, 3), (0, 4), (99, 4)])
def test_it_evaluates_the_given_number_of_batches_or_all(iters: int, seen: int) -> None:
    class Counted(DataLoader[Any]):
        count = 0

        def __iter__(self) -> Any:
            for batch in super().__iter__():
                self.count += 1
                yield batch

    loader = Counted(TensorDataset(*xy()), batch_size=4)
    compute_calls: list[int] = []
    callback = StepEvaluate(loader, 0, iters, lambda batch: compute_calls.append(1) or {"loss": torch.ones(())})  # type: ignore[func-returns-value]
    stock_fit(Foreign(), callback, max_steps=1)
    assert len(compute_calls) == seen
    assert loader.count == seen


def test_eval_iters_of_a_run_limits_its_evaluation() -> None:
    model = made()
    run = train(model, xy(), xy(), max_step=2, eval_iters=2)
    with torch.no_grad():
        expected = F.mse_loss(model(xy()[0][:8]), xy()[1][:8]).item()
    assert run.log()["val_loss"][-1] == pytest.approx(expected, rel=1e-6)


def test_modes_are_put_back_for_every_submodule_even_after_an_error() -> None:
    module = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm1d(2), nn.Dropout()))
    module.train()
    module[1][0].eval()  # somebody froze it on purpose
    modes = {name: part.training for name, part in module.named_modules()}

    def failing(batch: Any, index: int) -> dict[str, Any]:
        assert not any(part.training for part in module.modules())
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        evaluate(module, [torch.ones(1)], failing, 0)
    assert {name: part.training for name, part in module.named_modules()} == modes


def test_no_batch_at_all_is_an_error() -> None:
    with pytest.raises(DataError, match="validation data is empty"):
        evaluate(nn.Linear(1, 1), [], lambda batch, index: {}, 0)


def test_evaluating_often_or_never_trains_the_same_weights() -> None:
    class Noisy(CountingMLP):
        def training_step(self, batch: tuple[Tensor, Tensor]) -> Any:
            x, y = batch
            return F.mse_loss(self.layers(F.dropout(x, training=self.training)), y)

    shuffled = DataLoader(TensorDataset(*xy()), batch_size=4, shuffle=True)
    often, never = made(Noisy), made(Noisy)
    train(often, xy(), shuffled, eval_step_interval=1)
    train(never, xy())
    assert all(torch.equal(a, b) for a, b in zip(often.parameters(), never.parameters(), strict=True))


def test_a_callback_after_it_sees_the_loss_and_may_add_to_it() -> None:
    class Perplexity(lightning.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *rest: Any) -> None:
            if "val_loss" in outputs:
                outputs["perplexity"] = outputs["val_loss"].exp()

    run = train(made(), xy(), xy(), callbacks=[Perplexity()], eval_step_interval=3)
    log = run.log()
    told = log.filter(log["perplexity"].is_not_null())
    assert told["step"].to_list() == [3, 6]
    assert told["perplexity"].to_list() == pytest.approx(told["val_loss"].exp().to_list(), rel=1e-5)

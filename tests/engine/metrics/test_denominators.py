"""The denominators of values, observed in their computation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkit.engine.metrics.denominators import Denominators, can_be_observed, observed_loss, unobserved

X = torch.linspace(-1, 1, 24).reshape(6, 4)
LABELS = torch.tensor([0, 1, -100, 2, -100, 1])
MASK = (LABELS != -100).float()
LINEAR = nn.Linear(4, 3)


def seen(compute: Callable[[], Any]) -> tuple[float | None, bool]:
    watch = Denominators()
    with watch:
        value = compute()
    weight = watch.weight_of(value)
    return (None if weight is None else float(weight)), watch.is_sum(value)


def logits() -> Tensor:
    return LINEAR(X)


def entropy(**settings: Any) -> Tensor:
    return F.cross_entropy(logits(), LABELS, **settings)


def error() -> Tensor:
    return (logits() - 1).square()


def right() -> Tensor:
    return logits().argmax(-1) == LABELS


def penalty() -> Any:
    return 1e-4 * sum(parameter.pow(2).sum() for parameter in LINEAR.parameters())


def added_in_place() -> Tensor:
    loss = entropy()
    loss += 1
    return loss


def summed_in_a_loop() -> Any:
    loss: Any = 0.0
    for _ in range(3):
        loss += entropy()
    return loss / 3


MEANS: dict[str, tuple[Callable[[], Any], float]] = {
    "targets that are asked for": (entropy, 4),
    "class weights": (lambda: entropy(weight=torch.tensor([1.0, 2.0, 3.0])), 8),
    "another ignore_index": (lambda: F.cross_entropy(logits(), LABELS.clamp(min=0), ignore_index=1), 4),
    "smoothed labels": (lambda: nn.CrossEntropyLoss(label_smoothing=0.1)(logits(), LABELS), 4),
    "soft targets": (lambda: F.cross_entropy(logits(), torch.full((6, 3), 1 / 3)), 6),
    "nll": (lambda: F.nll_loss(F.log_softmax(logits(), -1), LABELS), 4),
    "mse": (lambda: F.mse_loss(logits(), torch.zeros(6, 3)), 18),
    "bce": (lambda: nn.BCEWithLogitsLoss()(logits(), torch.zeros(6, 3)), 18),
    "batchmean": (lambda: F.kl_div(logits(), torch.full((6, 3), 1 / 3), reduction="batchmean"), 6),
    "triplets": (lambda: F.triplet_margin_loss(X, X + 1, X - 1), 6),
    "ctc": (
        lambda: F.ctc_loss(
            torch.zeros(5, 2, 3).log_softmax(-1),
            torch.ones(2, 2, dtype=torch.long),
            torch.tensor([5, 5]),
            torch.tensor([2, 2]),
        ),
        2,
    ),
    "plain mean": (lambda: error().mean(), 18),
    "mean of samples' means": (lambda: error().mean(1).mean(), 6),
    "mean of samples' sums": (lambda: error().sum(1).mean(), 6),
    "sum of columns' means": (lambda: error().mean(0).sum(), 6),
    "masked": (lambda: (error().sum(1) * MASK).sum() / MASK.sum(), 4),
    "picked": (lambda: error().sum(1)[MASK.bool()].mean(), 4),
    "sum of columns' means by keyword": (lambda: error().mean(dim=(0,)).sum(), 6),
    "sum by a length": (lambda: error().sum() / len(X), 6),
    "sum by a negative number": (lambda: -error().sum() / -len(X), 6),
    "sum by a negative tensor": (lambda: error().sum() / -MASK.sum(), 4),
    "sum by two numbers": (lambda: error().sum() / 3 / len(X), 18),
    "a sum of losses by a number of items": (lambda: entropy(reduction="sum") / torch.tensor(4), 4),
    "scaled": (lambda: -0.5 * entropy() / 2, 4),
    "two of the same": (lambda: entropy() + 0.3 * entropy(), 4),
    "two of the same, halved": (lambda: (entropy() + entropy()) / 2, 8),
    "two of the same, by a float": (lambda: (entropy() + entropy()) / 2.0, 8),
    "stacked": (lambda: torch.stack([entropy(), 0 * X.sum()]).sum(), 4),
    "in a loop": (summed_in_a_loop, 12),
    "a mean for each sample": (lambda: torch.stack([F.mse_loss(row, row * 0) for row in logits()]).mean(), 18),
    "added up and divided": (lambda: sum(F.mse_loss(row, row * 0) for row in logits()) / 6, 18),
    "in place": (added_in_place, 4),
    "with a penalty": (lambda: entropy() + penalty(), 4),
    "with a norm": (lambda: entropy() + 0.1 * LINEAR.weight.norm(), 4),
    "as a number": (lambda: entropy().item(), 4),
    "as a float": (lambda: float(entropy().detach()), 4),
    "accuracy": (lambda: right().float().mean(), 6),
    "accuracy of those asked for": (lambda: right()[MASK.bool()].float().mean().item(), 4),
    "an error rate": (lambda: 1 - right().sum() / len(LABELS), 6),
}


@pytest.mark.parametrize("name", MEANS)
def test_a_mean_is_of_so_many(name: str) -> None:
    compute, expected = MEANS[name]
    assert seen(compute)[0] == expected


def changed_in_place() -> Tensor:
    loss = F.mse_loss(logits().detach(), torch.zeros(6, 3))
    loss.sqrt_()
    return loss


@pytest.mark.parametrize(
    "compute",
    [
        lambda: entropy().sqrt(),
        changed_in_place,
        lambda: entropy() + error().mean(),
        lambda: entropy() * error().mean(),
        lambda: entropy() + error().sum(),
        lambda: error().sum() + penalty(),
        lambda: (error().sum() + penalty()) / len(X),
        lambda: error().sum().div(6, rounding_mode="floor"),
        lambda: error().sum() / torch.ones(6),
        lambda: torch.stack([error().sum(), error().sum()]).mean(),
        lambda: entropy() / error().mean(),
        lambda: error().max(),
        lambda: 0.5,
        lambda: error(),
    ],
    ids=[
        "root",
        "root in place",
        "of different many",
        "product",
        "with a sum",
        "sum and penalty",
        "both divided",
        "rounded",
        "by many",
        "mean of sums",
        "ratio",
        "largest",
        "number",
        "many values",
    ],
)
def test_other_values_are_not_treated_as_means(compute: Callable[[], Any]) -> None:
    assert seen(compute) == (None, False)


def test_a_sum_is_known_as_one() -> None:
    assert seen(lambda: 2 * error().sum()) == (None, True)
    assert seen(lambda: entropy(reduction="sum")) == (None, True)


@pytest.mark.filterwarnings("ignore:size_average")
def test_the_arguments_before_reduction_are_understood() -> None:
    assert seen(lambda: F.mse_loss(logits(), torch.zeros(6, 3), size_average=True)) == (18, False)
    assert seen(lambda: F.mse_loss(logits(), torch.zeros(6, 3), size_average=False)) == (None, True)
    assert seen(lambda: F.mse_loss(logits(), torch.zeros(6, 3), reduce=False)) == (None, False)


def test_class_weights_that_are_made_for_each_loss_count_for_that_one() -> None:
    base, watch = torch.tensor([1.0, 2.0, 3.0]), Denominators()
    with watch:
        losses = [entropy(weight=base * factor) for factor in range(1, 7)]
    assert [watch.weight_of(loss) for loss in losses] == [8 * factor for factor in range(1, 7)]


def test_labels_that_are_changed_in_place_are_counted_again() -> None:
    labels, watch = LABELS.clone(), Denominators()
    with watch:
        losses = [F.cross_entropy(logits(), labels), F.cross_entropy(logits(), labels.fill_(0))]
    assert [watch.weight_of(loss) for loss in losses] == [4, 6]


def test_observation_does_not_change_results() -> None:
    for loss in (F.l1_loss, F.mse_loss, F.huber_loss):
        plain = [loss(X, -X, reduction=how, weight=X.abs()) for how in ("mean", "sum", "none")]
        with Denominators():
            watched = [loss(X, -X, reduction=how, weight=X.abs()) for how in ("mean", "sum", "none")]
        assert all(torch.equal(one, other) for one, other in zip(plain, watched, strict=True))


def test_gradients_flow_as_ever() -> None:
    with Denominators():
        loss = entropy()
    (watched,) = torch.autograd.grad(loss, LINEAR.weight)
    (plain,) = torch.autograd.grad(entropy(), LINEAR.weight)
    assert torch.equal(watched, plain)


@pytest.mark.parametrize("loss", [F.mse_loss, F.l1_loss])
def test_errors_that_are_weighted_are_divided_by_the_weights(loss: Callable[..., Any]) -> None:
    weights = torch.rand(6, 3)
    assert seen(lambda: loss(logits(), torch.ones(6, 3), weight=weights))[0] == pytest.approx(weights.sum().item())


def test_huber_losses_are_divided_by_the_elements_whatever_their_weights() -> None:
    assert seen(lambda: F.huber_loss(logits(), torch.ones(6, 3), weight=torch.rand(6, 3)))[0] == 18


def test_nonlinear_functions_of_a_mean_are_recognised() -> None:
    watch = Denominators()
    with watch:
        columns = error().mean(0).sqrt()
        curved = [error().mean().sqrt(), (2 * entropy()).exp().item(), error().sum() ** 2, columns.mean()]
        others = [error().mean(), LINEAR.weight.square().sum(), error().sqrt().mean()]
    assert [watch.is_nonlinear(value) for value in (*curved, *others)] == [True] * 4 + [False] * 3
    assert [watch.weight_of(value) for value in curved] == [None] * 4


def test_compiled_functions_are_observed_only_if_the_observation_is_hidden() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    assert can_be_observed(model)
    assert not can_be_observed(nn.Sequential(torch.compile(model, backend="eager")))
    model[0].compile(backend="eager")
    assert not can_be_observed(model)
    model[0]._compiled_call_impl = unobserved(model[0]._compiled_call_impl)
    assert can_be_observed(model)


ONES = torch.ones(6, 3)
LOSSES_OF_TORCH: list[tuple[Any, Tensor]] = [
    (F.mse_loss, ONES),
    (F.mse_loss, torch.ones(3)),  # which is broadcast
    (F.l1_loss, ONES),
    (F.smooth_l1_loss, ONES),
    (F.huber_loss, ONES),
    (F.cross_entropy, LABELS),
    (F.cross_entropy, ONES / 3),
    (F.nll_loss, LABELS),
    (F.kl_div, ONES),
    (F.binary_cross_entropy_with_logits, ONES),
    (F.poisson_nll_loss, ONES),
    (F.soft_margin_loss, ONES),
    (F.multilabel_soft_margin_loss, ONES),
    (nn.MSELoss(), ONES),
    (nn.MSELoss(reduction="sum"), ONES),
    (nn.CrossEntropyLoss(), LABELS),
    (nn.CrossEntropyLoss(ignore_index=1), LABELS.clamp(min=0)),
    (nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0]), label_smoothing=0.1), LABELS),
    (nn.KLDivLoss(reduction="batchmean"), ONES),
]


@pytest.mark.filterwarnings("ignore::UserWarning")  # of shapes that are broadcast, and of a mean of kl_div
@pytest.mark.parametrize(("loss", "target"), LOSSES_OF_TORCH)
def test_a_loss_of_torch_shows_its_denominator_by_its_call_alone(loss: Any, target: Tensor) -> None:
    alone = observed_loss(loss)
    assert alone is not None
    alone.seen = Denominators()
    value = alone(logits(), target)
    assert (alone.seen.weight_of(value), alone.seen.is_sum(value)) == seen(lambda: loss(logits(), target))


def test_the_call_alone_shows_nothing_of_a_loss_of_ones_own() -> None:
    class Own(nn.MSELoss):
        pass

    def own(outputs: Tensor, target: Tensor) -> Tensor:
        return F.mse_loss(outputs, target) * 3

    assert [observed_loss(loss) for loss in (own, Own(), torch.mean, "mse", lambda a, b: (a - b).sum())] == [None] * 5

"""The loss of a batch: the order of its sources, the types of batches, and the error without one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import lightning
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from darkit.engine.data.samples import describe
from darkit.engine.steps.loss import call_model, make_step, scalars
from darkit.errors import BatchError, LossError
from tests.engine.parts import MLP, LossMLP, run_names, train, xy

X, Y = torch.ones(2, 4), torch.zeros(2, 1)


class Everything(nn.Module):
    """Offers every way at once; each gives a loss of its own value."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, *parts: Any, **named: Any) -> dict[str, Tensor]:
        return {"loss": self.weight * 4}

    def training_step(self, batch: Any) -> Tensor:
        return self.weight * 2

    def loss(self, batch: Any) -> Tensor:
        return self.weight * 3


class WithLossMethod(Everything):
    training_step = None


class WithOutput(WithLossMethod):
    loss = None


def returning(make_output: Any) -> nn.Module:
    """A model that returns what is made of its weight."""

    class Returning(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, *parts: Any, **named: Any) -> Any:
            return make_output(self.weight)

    return Returning()


def test_the_given_loss_comes_before_the_models_methods_before_its_output() -> None:
    given_loss = make_step(Everything(), lambda model, batch: model.weight * 1)
    values = [given_loss, *(make_step(model) for model in (Everything(), WithLossMethod(), WithOutput()))]
    assert [step((X, Y))["loss"].item() for step in values] == [1, 2, 3, 4]


def test_a_submodule_called_loss_is_no_way_to_a_loss() -> None:
    model = LossMLP()
    model.loss = nn.MSELoss()
    assert make_step(model)((X, Y))["loss"].requires_grad


def test_a_lightning_module_without_a_training_step_is_asked_for_its_output() -> None:
    class Other(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 1)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return F.mse_loss(self.layer(x), y)

    assert make_step(Other())((X, Y))["loss"].requires_grad


@pytest.mark.filterwarnings("ignore:No config of Other")
def test_a_lightning_module_trains_as_a_model() -> None:
    class Other(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.width = 4
            self.layer = nn.Linear(4, 1)

        def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Any]:
            assert isinstance(batch_idx, int)
            return {"loss": F.mse_loss(self.layer(batch[0]), batch[1])}

    model = Other()
    before = model.layer.weight.clone()
    assert train(model, xy()).status == "finished"
    assert not torch.equal(before, model.layer.weight)


@pytest.mark.filterwarnings("ignore:No config of Other")
def test_values_of_self_log_are_logged_in_training_and_evaluation() -> None:
    class Other(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 1)

        def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
            loss = F.mse_loss(self.layer(batch[0]), batch[1])
            self.log("train_loss", loss, prog_bar=True)
            self.log_dict({"root": loss.sqrt(), "index": batch_idx})
            return loss

    model = Other()
    log = train(model, xy(), xy(), eval_step_interval=1).log()
    for loss, root in (("train_loss", "root"), ("val_loss", "val_root")):
        assert log[root].to_list() == pytest.approx([value**0.5 for value in log[loss]], rel=0.1)
    assert log["index"][0] == 0
    assert "train_train_loss" not in log.columns
    assert model.log.__func__ is lightning.LightningModule.log  # the module is the user's again


@pytest.mark.parametrize(
    "make_output",
    [
        lambda weight: SimpleNamespace(loss=weight * 5, logits=torch.ones(2)),
        lambda weight: {"logits": torch.ones(2), "loss": weight * 5},
        lambda weight: (torch.ones(2), weight * 5),
        lambda weight: weight * 5,
    ],
    ids=["out.loss", "out['loss']", "(logits, loss)", "scalar"],
)
def test_the_loss_is_found_in_every_documented_output(make_output: Any) -> None:
    loss = make_step(returning(make_output))((X, Y))["loss"]
    assert (loss.item(), loss.ndim, loss.requires_grad) == (5, 0, True)


@pytest.mark.parametrize("batch", [(X, Y), [X, Y], {"x": X, "y": Y}], ids=["tuple", "list", "dict"])
def test_without_a_loss_the_model_gets_the_whole_batch(batch: Any) -> None:
    expected = (LossMLP().train().layers(X) - Y).square().mean()
    assert make_step(LossMLP())(batch)["loss"].shape == expected.shape


def test_a_tensor_and_a_user_object_are_passed_whole() -> None:
    seen = []
    model = returning(lambda weight: weight * 1)
    model.forward = lambda batch: (seen.append(batch), model.weight * 1)[1]  # type: ignore[method-assign]
    own = SimpleNamespace(x=X)
    make_step(model)(X)
    make_step(model)(own)
    assert seen == [X, own] or (seen[0] is X and seen[1] is own)


def test_a_loss_of_two_arguments_gets_the_outputs_and_the_last_element() -> None:
    calls = []

    def loss(outputs: Any, target: Tensor) -> Tensor:
        calls.append((outputs, target))
        return outputs

    class Two(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return (a.sum() + b.sum()).requires_grad_()

    for batch in ((X, Y, torch.tensor(7)), {"a": X, "b": Y, "target": torch.tensor(7)}):
        make_step(Two(), loss)(batch)
    assert [(outputs.item(), target.item()) for outputs, target in calls] == [(8, 7), (8, 7)]


@pytest.mark.parametrize("loss", [F.mse_loss, nn.MSELoss(), lambda outputs, target: (outputs - target).square().mean()])
def test_functions_modules_and_lambdas_are_losses_of_outputs_and_target(loss: Any) -> None:
    torch.manual_seed(0)
    model = MLP()
    assert make_step(model, loss)((X, Y))["loss"].item() == F.mse_loss(model(X), Y).item()


def test_a_loss_of_model_and_batch_gets_both_whole() -> None:
    model = MLP()
    batch = SimpleNamespace(x=X, y=Y)
    seen = []

    def loss(model: nn.Module, batch: Any) -> Tensor:
        seen.append((model, batch))
        return model(batch.x).mean()

    make_step(model, loss)(batch)
    assert seen[0][0] is model
    assert seen[0][1] is batch


def test_a_module_as_loss_may_have_a_model_parameter_too() -> None:
    class Penalty(nn.Module):
        def forward(self, model: nn.Module, batch: Any) -> Tensor:
            return sum(parameter.square().sum() for parameter in model.parameters())  # type: ignore[return-value]

    assert make_step(MLP(), Penalty())(X)["loss"].item() > 0


def test_a_dict_from_a_step_gives_its_scalars_and_leaves_the_rest() -> None:
    weight = nn.Parameter(torch.ones(()))
    output = {"loss": weight * 2, "acc": 0.5, "hits": torch.tensor([3]), "logits": torch.ones(2, 3), "note": "text"}
    values = scalars(output)
    assert {key: torch.as_tensor(value).item() for key, value in values.items()} == {"loss": 2, "acc": 0.5, "hits": 3}
    assert not values["hits"].requires_grad


def test_a_value_from_a_step_is_kept_as_it_was() -> None:
    buffer = torch.tensor(1)
    values = scalars({"loss": nn.Parameter(torch.ones(())) * 1, "count": buffer})
    buffer += 1
    assert values["count"].item() == 1


def test_a_loss_of_one_element_from_a_user_loss_becomes_a_scalar() -> None:
    assert make_step(MLP(), lambda outputs, target: (outputs - target).mean().reshape(1))((X, Y))["loss"].ndim == 0


@pytest.mark.parametrize("output", [(torch.ones(1, 2), torch.ones(1, 1)), torch.ones(1, 1)], ids=["last", "alone"])
def test_predictions_with_one_element_are_not_a_loss(output: Any) -> None:
    with pytest.raises(LossError, match="must be a scalar"):
        make_step(returning(lambda weight: output))(X)


@pytest.mark.parametrize(
    ("make_output", "said"),
    [
        (lambda weight: torch.ones(2, 3) * weight, r"must be a scalar, but its shape is \(2, 3\)"),
        (lambda weight: {"logits": weight * 1}, r"No loss in what the model returned \(\{logits: float32\[\]\}\)"),
        (lambda weight: (weight * 1, None), "No loss"),
        (lambda weight: None, r"No loss in what the model returned \(NoneType\)"),
        (lambda weight: 3.0, "No loss"),
        (lambda weight: "loss", "No loss"),
        (lambda weight: SimpleNamespace(loss=None), "No loss"),
        (lambda weight: weight.detach() * 1, "carries no gradient"),
    ],
    ids=["shape", "dict", "None in tuple", "None", "float", "text", "out.loss None", "detached"],
)
def test_an_unusable_loss_is_one_error_with_advice(make_output: Any, said: str) -> None:
    with pytest.raises(LossError, match=said) as caught:
        make_step(returning(make_output))((X, Y))
    for way in ("loss=", "training_step(batch)", "loss(batch)", "out.loss", "out['loss']", "(logits, loss)", "scalar"):
        assert way in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("loss", [None, F.mse_loss])
def test_without_gradients_a_loss_needs_none(loss: Any) -> None:
    with torch.no_grad():
        assert make_step(LossMLP() if loss is None else MLP(), loss)((X, Y))["loss"].ndim == 0


@pytest.mark.parametrize("loss", [3, "mse", nn.Parameter(torch.ones(()))])
def test_a_loss_that_cannot_be_called_is_refused(loss: Any) -> None:
    with pytest.raises(LossError, match="loss must be a callable"):
        make_step(MLP(), loss)


@pytest.mark.parametrize("batch", [X, (X,), {"x": X}, SimpleNamespace(x=X)])
def test_a_loss_of_two_arguments_refuses_a_batch_without_a_target(batch: Any) -> None:
    with pytest.raises(LossError, match=r"whose last element is the target.*loss\(model, batch\)"):
        make_step(MLP(), F.mse_loss)(batch)


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        ((torch.ones(2, 3), Y), r"\(float32\[2, 3\], float32\[2, 1\]\): RuntimeError: .*shapes cannot be multiplied"),
        ((X.long(), Y), r"\(int64\[2, 4\], float32\[2, 1\]\): RuntimeError"),
        ({"z": X, "y": Y}, r"\{z: float32\[2, 4\], y: float32\[2, 1\]\}: TypeError: .*'z'"),
        ((X, X, Y), r".*: TypeError: .*positional arguments"),
    ],
    ids=["shape", "dtype", "name", "count"],
)
def test_a_batch_that_does_not_fit_is_the_models_error_after_shapes_and_dtypes(batch: Any, said: str) -> None:
    with pytest.raises(BatchError, match="The model failed on a batch of " + said) as caught:
        make_step(MLP(), F.mse_loss)(batch)
    assert isinstance(caught.value.__cause__, RuntimeError | TypeError)


def test_an_error_of_another_kind_in_the_model_stays_what_it_is() -> None:
    def broken(model: nn.Module, batch: Any) -> Tensor:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        make_step(MLP(), broken)((X, Y))


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (MLP(), {"loss": None}),
        (MLP(), {"loss": lambda outputs, target: outputs - target}),
        (MLP(), {"loss": lambda outputs, target: F.mse_loss(outputs, target).detach()}),
        (MLP(), {"loss": "mse"}),
        (MLP(width=5), {}),
    ],
    ids=["none", "shape", "detached", "no callable", "misfit"],
)
def test_a_run_that_fails_at_its_first_loss_leaves_nothing(model: nn.Module, options: dict[str, Any]) -> None:
    with pytest.raises((LossError, BatchError)):
        train(model, xy(), **options)
    assert run_names() == []


TENSORS = st.builds(
    lambda shape, dtype: torch.zeros(shape, dtype=dtype),
    st.lists(st.integers(0, 3), max_size=3),
    st.sampled_from([torch.float32, torch.int64, torch.bool]),
)
OUTPUTS = st.recursive(
    st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=3), TENSORS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.tuples(inner, inner), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(deadline=None)
@given(OUTPUTS)
def test_whatever_a_model_returns_it_is_a_scalar_loss_or_one_sentence(output: Any) -> None:
    try:
        with torch.no_grad():
            loss = scalars(output)["loss"]
    except LossError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert isinstance(loss, Tensor)
        assert loss.ndim == 0


@settings(deadline=None)
@given(OUTPUTS)
def test_any_batch_can_be_described_in_one_line(batch: Any) -> None:
    assert "\n" not in describe(batch)


def test_call_model_spreads_what_is_a_sequence_or_a_mapping() -> None:
    model = returning(lambda weight: weight)
    calls: list[Any] = []
    model.forward = lambda *parts, **named: calls.append((parts, named))  # type: ignore[method-assign]
    for batch in ((1, 2), [3], {"a": 4}, 5):
        call_model(model, batch)
    assert calls == [((1, 2), {}), ((3,), {}), ((), {"a": 4}), ((5,), {})]


def test_a_batch_has_its_number_in_the_epoch_also_after_a_resume_and_beside_evaluations() -> None:
    numbers: dict[bool, list[int]] = {True: [], False: []}

    class Numbered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 1)

        def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
            numbers[self.training].append(batch_idx)
            return F.mse_loss(self.layer(batch[0]), batch[1])

    options: dict[str, Any] = {"val_data": xy(8), "name": "run", "batch_size": 4, "eval_step_interval": 2}
    train(Numbered(), xy(16), max_step=3, **options)
    train(Numbered(), xy(16), max_step=6, resume=True, **options)
    assert numbers == {True: [0, 1, 2, 3, 0, 1], False: [0, 1] * 4}

"""What a hand-written loop has besides model, optimizer and schedule; and the last step of a loop that fails."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import CyclicLR, OneCycleLR, StepLR
from torch.optim.swa_utils import AveragedModel

import darkit
from darkit.core import Trainer
from darkit.engine.checkpoints.difference import differences
from darkit.errors import CheckpointMismatchError, ConfigError
from tests.core.parts import Loop, LoopConfig, loop, samples, saved
from tests.core.test_resume import Random, rows, state


def same(one: str = "straight", other: str = "broken", step: int = 6) -> bool:
    return list(differences(state(one, step), state(other, step))) == [] and rows(one) == rows(other)


def resumed(kind: type[Trainer], **settings: Any) -> None:
    """Train straight through, and broken off after four steps and resumed."""
    loop(kind, name="straight").train(samples(24))
    broken = type("Short", (kind,), {"until": 4})
    loop(broken, name="broken").train(samples(24))
    assert saved("broken") == [4]
    loop(kind, name="broken", resume=True, **settings).train(samples(24))


class OneCycle(Random):
    def make_schedule(self) -> Any:
        return OneCycleLR(self.optimizer, max_lr=0.1, total_steps=10)


class Cyclic(Random):
    def make_schedule(self) -> Any:
        return CyclicLR(self.optimizer, 0.01, 0.1, step_size_up=3)

    def _get_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)


@pytest.mark.parametrize("kind", [OneCycle, Cyclic])
def test_a_schedule_that_writes_into_its_optimizer_resumes_exactly(kind: type[Trainer]) -> None:
    resumed(kind)
    assert same()


class Several(Random):
    """Two optimizers, as a list or by name, an average of the weights, a generator and a second network."""

    as_dict = False

    def train(self, train_dataset: Any, val_dataset: Any = None) -> None:
        x, y = train_dataset.tensors
        weight, bias = list(self.model.parameters())[:2], list(self.model.parameters())[2:]
        parts = [torch.optim.Adam(weight, lr=0.05), torch.optim.SGD(bias, lr=0.05, momentum=0.9)]
        self.optimizer = dict(zip("ab", parts, strict=True)) if self.as_dict else parts
        self.scheduler = [OneCycleLR(parts[0], max_lr=0.2, total_steps=10), StepLR(parts[1], 2, 0.5)]
        self.ema = AveragedModel(self.model, avg_fn=lambda average, value, _: 0.5 * average + 0.5 * value)
        with torch.random.fork_rng():
            torch.manual_seed(3 + self.current_step)
            self.critic = nn.Linear(1, 1)
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), lr=0.1)
        self.noise = torch.Generator().manual_seed(9)
        self.same = self.model
        for step in range(self.current_step, min(self.until, self.max_step)):
            out = self.model(x[:4]) + torch.randn(4, 1, generator=self.noise)
            loss = F.mse_loss(out, y[:4]) + self.critic(out).pow(2).mean()
            for part in (*parts, self.critic_optimizer):
                part.zero_grad()
            loss.backward()
            for part in (*parts, self.critic_optimizer, *self.scheduler):
                part.step()
            self.ema.update_parameters(self.model)
            self.current_step = step
            self.log(step=step + 1, train_loss=loss)
            self._auto_save_pretrained()


class ByName(Several):
    as_dict = True


@pytest.mark.parametrize("kind", [Several, ByName])
def test_everything_with_a_state_is_saved_and_restored(kind: type[Trainer]) -> None:
    resumed(kind)
    assert same()
    content = state("broken")
    assert set(content["trainer"]["attributes"]) == {"ema", "critic", "critic_optimizer", "noise"}


class Own(Random):
    """Saves its further state itself."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.total = torch.zeros(())

    def state_dict(self) -> dict[str, Any]:
        return {"total": self.total}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.total = state["total"]

    def log(self, row: Any = None, /, **values: Any) -> None:
        self.total = self.total + values["train_loss"].detach()
        super().log(row, total=float(self.total), **values)


def test_a_trainer_with_state_dict_saves_its_state_with_it() -> None:
    resumed(Own)
    assert same()
    assert state("broken")["trainer"].keys() == {"own"}


def test_a_state_of_the_trainer_needs_a_class_that_loads_it() -> None:
    loop(Own, name="own", max_step=2).train(samples(24))
    with pytest.raises(CheckpointMismatchError, match=r"its class has no load_state_dict\(\)"):
        loop(Random, name="own", resume=True).train(samples(24))


def test_an_optimizer_that_is_made_before_train_gets_its_state_too() -> None:
    class Early(Random):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.05)
            self.scheduler = StepLR(self.optimizer, 2, 0.5)
            made = self.optimizer, self.scheduler
            self._get_optimizer = lambda: made[0]  # type: ignore[method-assign]
            self.make_schedule = lambda: made[1]  # type: ignore[method-assign]

    resumed(Early)
    assert same()


class Odd:
    """Has a state that no checkpoint may hold."""

    def state_dict(self) -> dict[str, Any]:
        return {"odd": object()}

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def test_attributes_that_are_not_saved_are_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    class Loses(Loop):
        def train(self, train_dataset: Any, val_dataset: Any = None) -> None:
            self.best, self.odd, self.words = 1.0, Odd(), "not a number"
            super().train(train_dataset)

    loop(Loses).train(samples(24))
    (warned,) = [record.message for record in caplog.records if "do not include" in record.message]
    assert warned.startswith("The checkpoints of this Loses do not include: self.best, self.odd. Define state_dict()")


class Noisy(Random):
    """Batch normalisation and dropout, and an error of somebody's at a place of the fourth or fifth step."""

    place = ""

    def train(self, train_dataset: Any, val_dataset: Any = None) -> None:
        x, y = train_dataset.tensors
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.05)
        for step in range(self.current_step, self.max_step):
            fails = step == 4 and self.place
            loss = F.mse_loss(self.model(x[:4] + 0.1 * torch.randn(4, x.shape[1])), y[:4])
            if fails == "forward":
                raise ZeroDivisionError
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            if fails == "after the optimizer":
                raise ZeroDivisionError
            self.current_step = step
            self.log(step=step + 1, train_loss=loss)
            if fails == "after the log":
                raise ZeroDivisionError
            self._auto_save_pretrained()


def noisy(cls: type[Trainer], name: str, **settings: Any) -> Any:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.3), nn.Linear(3, 1))
    return cls(model, LoopConfig(name=name), **settings)


def test_a_loop_that_fails_within_a_step_is_saved_at_the_one_before_and_resumes_exactly() -> None:
    broken = type("Broken", (Noisy,), {"place": "forward"})
    noisy(Noisy, "straight").train(samples(24))
    with pytest.raises(ZeroDivisionError):
        noisy(broken, "broken").train(samples(24))
    run = darkit.load("broken")
    assert (run.status, run.details.step, saved("broken")) == ("crashed", 4, [4])
    assert run.checkpoints()[-1].metrics["train_loss"] == run.log()["train_loss"][-1]
    noisy(Noisy, "broken", resume=True).train(samples(24))
    assert same()


@pytest.mark.parametrize("place", ["after the optimizer", "after the log"])
def test_weights_of_an_unreported_step_are_not_saved_as_another(place: str) -> None:
    broken = type("Broken", (Noisy,), {"place": place})
    with pytest.raises(ZeroDivisionError) as caught:
        noisy(broken, "broken").train(samples(24))
    assert saved("broken") == []
    assert caught.value.__notes__ == ["Step 4 could not be saved: the weights have changed since."]


def test_a_loop_without_a_torch_optimizer_is_watched_by_its_weights() -> None:
    class Manual(Loop):
        def train(self, train_dataset: Any, val_dataset: Any = None) -> None:
            x, y = train_dataset.tensors
            for step in range(self.max_step):
                (self.model(x) - y).pow(2).mean().backward()
                with torch.no_grad():
                    for parameter in self.model.parameters():
                        parameter -= 0.01 * _grad(parameter)
                if step == 3:
                    raise ZeroDivisionError
                self.current_step = step
                self._auto_save_pretrained()

    with pytest.raises(ZeroDivisionError):
        loop(Manual, name="manual").train(samples(24))
    assert saved("manual") == []


def _grad(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def test_a_loop_whose_evaluation_does_not_give_the_monitor_is_refused_at_the_first_one() -> None:
    class Evaluates(Loop):
        def validate(self, val_dataloader: Any) -> Any:
            return {"val_acc": 0.5}

        def on_step(self, step: int, loss: Tensor) -> None:
            self.log(step=step + 1, train_loss=loss)
            self._auto_validate([])

    settings: dict[str, Any] = {"eval_step_interval": 2, "save_step_interval": 1, "keep_best": 1}
    with pytest.raises(ConfigError, match=r"'val_loss' is not among the metrics of step 2\. .*Available: .*val_acc"):
        loop(Evaluates, name="refused", **settings).train(samples(24))
    assert saved("refused") == [1, 2]
    loop(Evaluates, name="right", monitor="val_acc", mode="max", **settings).train(samples(24))
    assert saved("right")[-1] == 6


class Counted(Loop):
    """A loop that counts, saves and reports in its own way."""

    def train(self, train_dataset: Any, val_dataset: Any = None) -> None:
        x, y = train_dataset.tensors
        self.optimizer = self._get_optimizer()
        for index in range(4):
            self.count(index)
            self.optimizer.zero_grad()
            F.mse_loss(self.model(x), y).backward()
            self.optimizer.step()
            self.report(index)

    def count(self, index: int) -> None:
        self.current_step = index

    def report(self, index: int) -> None:
        self._auto_save_pretrained()


@pytest.mark.parametrize("kind", [numpy.int64, torch.tensor], ids=["numpy", "tensor"])
def test_a_step_may_be_any_whole_number(kind: Any) -> None:
    class Other(Counted):
        def count(self, index: int) -> None:
            self.current_step = kind(index)

    loop(Other, name="counted").train(samples(24))
    run = darkit.load("counted")
    assert (run.details.state, run.details.step, saved("counted")) == ("finished", 4, [4])


def test_a_step_that_is_no_whole_number_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"current_step must be a whole number, .* not 2\.5\."):
        loop(Counted, name="half").current_step = 2.5  # type: ignore[assignment]


def test_a_loop_that_does_not_count_its_steps_is_refused_at_the_second() -> None:
    class Uncounted(Counted):
        def count(self, index: int) -> None:
            """Count nothing."""

    with pytest.raises(ConfigError, match=r"Uncounted\.train\(\) does not count its steps.*set self\.current_step"):
        loop(Uncounted, name="uncounted").train(samples(24))
    assert darkit.load("uncounted").details.step == 1


def test_a_loop_that_saves_itself_has_the_step_of_its_last_save() -> None:
    class Own(Counted):
        def report(self, index: int) -> None:
            if index % 2:
                self.save_pretrained()

    loop(Own, name="own").train(samples(24))
    run = darkit.load("own")
    assert (run.details.state, run.details.step, saved("own")) == ("finished", 4, [2, 4])


def test_a_loop_that_reports_nothing_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    class Silent(Counted):
        def report(self, index: int) -> None:
            """Reports nothing."""

    trainer = loop(Silent, name="silent")
    trainer.train(samples(24))
    assert "Silent.train() reported no step, so nothing is saved" in caplog.text
    trainer.save_pretrained()
    assert saved("silent") == [4]

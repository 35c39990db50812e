"""Settings that code gives to optimizers and schedules, which Lightning's own loop restores from a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch import callbacks as stock
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import ExponentialLR, StepLR

import darkit
from darkit.engine.native.recorder import RunRecorder
from darkit.errors import ConfigError, ReproductionWarning
from darkit.runs import Run, base
from tests.engine.native.modules import Base, Gan, same, samples, train_loader, weights

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
QUIET = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)


def module(
    lr: float = 0.01, gamma: float = 0.9, make: Any = torch.optim.Adam, schedule: Any = ExponentialLR, **more: Any
) -> Base:
    """Return a module whose code has these numbers, which no argument of it has."""

    class Written(Base):
        def configure_optimizers(self) -> Any:
            optimizer = make(self.parameters(), lr=lr, **more)
            numbers = (gamma,) if schedule is ExponentialLR else (2, gamma)
            by_steps = {"scheduler": schedule(optimizer, *numbers), "interval": "step"}
            return {"optimizer": optimizer, "lr_scheduler": by_steps}

    return Written()


def fit(made: lightning.LightningModule, name: str, max_step: int, **settings: Any) -> Run:
    return darkit.fit(made, train_loader(), name=name, max_step=max_step, device="cpu", tensorboard=False, **settings)


def rates(run: Run) -> dict[int, float]:
    return dict(run.log().select("step", "lr").iter_rows())


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "rate": ({"lr": 0.001}, "optimizer.lr 0.01 -> 0.001"),
    "schedule": ({"gamma": 0.5}, "scheduler.gamma 0.9 -> 0.5"),
    "epsilon": ({"eps": 0.1}, "optimizer.eps 1e-08 -> 0.1"),
    "class": ({"make": torch.optim.AdamW, "weight_decay": 0}, "optimizers ['Adam'] -> ['AdamW']"),
    "class of a schedule": ({"schedule": StepLR}, "schedulers ['ExponentialLR'] -> ['StepLR']"),
}


@pytest.mark.parametrize("other", OTHERS)
def test_a_fork_with_another_number_in_the_code_is_refused_and_a_resume_warns(other: str) -> None:
    changed, said = OTHERS[other]
    fit(module(), "run", 3)
    with pytest.raises(ConfigError, match=f"{re.escape(said)}.* has no effect: give the earlier value"):
        fit(module(**changed), "fork", 6, fork="run")
    assert not (base() / "fork").exists()
    with pytest.warns(ReproductionWarning, match=rf"{re.escape(said)}.* has no effect\.$"):
        run = fit(module(**changed), "run", 4, resume=True)
    assert rates(run) == pytest.approx({step: 0.01 * 0.9 ** (step - 1) for step in range(1, 5)})


def test_a_fork_or_resume_with_the_same_code_continues_exactly() -> None:
    straight = module()
    fit(straight, "straight", 8, save_step_interval=4)
    for name, start in (("fork", "straight:4"), ("again", "fork:4")):
        forked = module()
        run = fit(forked, name, 8, fork=start, save_step_interval=4)
        assert same(weights(forked), weights(straight))
        assert run.fork["changes"] == {}
    resumed, straight = module(), module()
    fit(resumed, "again", 10, resume=True)
    fit(straight, "straight", 10, resume=True)
    assert same(weights(resumed), weights(straight))


def test_what_does_not_hold_is_not_recorded_as_given() -> None:
    fit(module(), "run", 2)
    with pytest.warns(ReproductionWarning, match=r"lr 0\.01 -> 0\.001"):
        fit(module(lr=0.001), "run", 4, resume=True)
    with pytest.warns(ReproductionWarning, match=r"lr 0\.01 -> 0\.001"):
        fit(module(lr=0.001), "fork", 6, fork="run", resume_overrides=True)
    assert fit(module(), "run", 6, resume=True).details.step == 6


@pytest.mark.parametrize("number", [0, 1])
def test_several_optimizers_are_told_by_number(number: int) -> None:
    class Other(Gan):
        def configure_optimizers(self) -> Any:
            optimizers = super().configure_optimizers()
            optimizers[number].param_groups[0]["lr"] = 0.5
            return optimizers

    fit(Gan(), "run", 4)
    with pytest.raises(ConfigError, match=rf"so optimizers\[{number}\]\.lr 0\.01 -> 0\.5 has no effect"):
        fit(Other(), "fork", 8, fork="run")
    fit(Gan(), "fork", 8, fork="run")


class Warming(lightning.Callback):
    """Sets the rate itself, from the start on."""

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        trainer.optimizers[0].param_groups[0]["lr"] = 0.5

    def on_train_batch_start(self, trainer: lightning.Trainer, *rest: Any) -> None:
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = group["initial_lr"] = 0.001 * (trainer.global_step + 1)


def test_what_a_callback_makes_of_the_rate_is_no_difference() -> None:
    straight, forked = Base(), Base()
    fit(straight, "straight", 6, save_step_interval=3, callbacks=[Warming()])
    fit(forked, "fork", 6, fork="straight:3", callbacks=[Warming()])
    assert same(weights(forked), weights(straight))
    fit(forked, "other", 6, fork="straight:3")


def test_a_checkpoint_without_the_record_is_resumed_and_forked_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("darkit.engine.native.state.GIVEN_SETTINGS", "not_known_then")
        fit(module(), "run", 3)
    run = fit(module(lr=0.001), "fork", 5, fork="run")
    assert rates(run) == pytest.approx({step: 0.01 * 0.9 ** (step - 1) for step in (4, 5)})


def sgd(**settings: Any) -> Callable[[Any], Any]:
    return lambda parameters: torch.optim.SGD(parameters, **{"lr": 0.01, "momentum": 0.5} | settings)


def fit_plain(name: str, max_step: int, *callbacks: lightning.Callback, **settings: Any) -> tuple[nn.Module, Run]:
    torch.manual_seed(2)
    made = nn.Linear(4, 3)
    shared: dict[str, Any] = {"loss": cross_entropy, "batch_size": 6, "device": "cpu", "optimizer": sgd()}
    shared |= {"name": name, "max_step": max_step, "callbacks": callbacks}
    return made, darkit.fit(made, samples(), **shared | settings)


@pytest.mark.parametrize("scheduler", [None, lambda made: ExponentialLR(made, 0.9)])
def test_a_plain_modules_own_rate_holds_in_a_fork_as_in_darkits_own_loop(scheduler: Any) -> None:
    found = []
    for name, callbacks in (("own", ()), ("lightnings", (stock.LearningRateMonitor(),))):
        fit_plain(name, 4, *callbacks, scheduler=scheduler)
        changed = sgd(lr=0.1, weight_decay=0.5)
        made, run = fit_plain(f"{name}-fork", 6, *callbacks, scheduler=scheduler, optimizer=changed, fork=name)
        found.append((weights(made), run.log()["lr"].to_list(), run.fork["changes"]))
        with pytest.raises(ConfigError, match=r"optimizer\.momentum 0\.5 -> 0\.9 has no effect"):
            fit_plain("other", 6, *callbacks, scheduler=scheduler, optimizer=sgd(momentum=0.9), fork=name)
        with pytest.warns(ReproductionWarning, match=r"lr 0\.01 -> 0\.1 has no effect; resume_overrides=true"):
            fit_plain(name, 5, *callbacks, scheduler=scheduler, optimizer=sgd(lr=0.1), resume=True)
    (own, *said), (lightnings, *also_said) = found
    assert same(own, lightnings)
    assert said == also_said
    assert said[1] == {"max_step": [4, 6], "optimizer.lr": [0.01, 0.1], "optimizer.weight_decay": [0, 0.5]}


def test_another_kernel_of_a_plain_modules_optimizer_is_told_or_kept() -> None:
    callback = stock.LearningRateMonitor()
    fit_plain("run", 4, callback, optimizer=lambda p: torch.optim.SGD(p, lr=0.01, fused=True))
    other = {"optimizer": lambda p: torch.optim.SGD(p, lr=0.01, fused=False)}
    _, fork = fit_plain("fork", 6, callback, fork="run", **other)
    assert fork.fork["changes"] == {"max_step": [4, 6], "optimizer.fused": [True, False]}
    with pytest.warns(ReproductionWarning, match=r"optimizer\.fused True -> False has no effect; resume_overrides"):
        fit_plain("run", 6, callback, resume=True, **other)


def test_another_kernel_in_configure_optimizers_is_told() -> None:
    class Fused(Base):
        kernel = True

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=0.01, fused=self.kernel)

    class Plain(Fused):
        kernel = False

    fit_module = {"max_step": 2, "device": "cpu", "name": "run"}
    darkit.fit(Fused(), train_loader(), **fit_module)
    with pytest.warns(ReproductionWarning, match=r"optimizer\.fused True -> False has no effect\.$"):
        darkit.fit(Plain(), train_loader(), resume=True, **fit_module | {"max_step": 4})
    with pytest.warns(ReproductionWarning, match=r"optimizer\.fused True -> False has no effect\.$"):  # by machine
        darkit.fit(Plain(), train_loader(), fork="run:iter-2", **fit_module | {"max_step": 4, "name": "fork"})


def test_beside_a_callback_that_sets_rates_itself_a_plain_modules_other_rate_is_refused() -> None:
    averaging = stock.StochasticWeightAveraging(0.05, swa_epoch_start=1, device=None)
    fit_plain("run", 4, averaging)
    with pytest.raises(ConfigError, match=r"optimizer\.lr 0\.01 -> 0\.1 has no effect: give the earlier value"):
        fit_plain("fork", 6, averaging, optimizer=sgd(lr=0.1), fork="run")


@pytest.mark.parametrize("by_path", [False, True])
def test_a_recorder_in_a_stock_trainer_warns_when_it_resumes(by_path: bool) -> None:
    def train(made: Base, steps: int) -> lightning.Trainer:
        recorder = RunRecorder("run", resume=None if by_path else "auto")
        trainer = lightning.Trainer(accelerator="cpu", max_steps=steps, callbacks=[recorder], **QUIET)
        trainer.fit(made, train_loader(), ckpt_path=recorder.latest if by_path else None, weights_only=True)
        assert "setup_optimizers" not in vars(trainer.strategy), "the trainer is not left as it was"
        return trainer

    train(module(), 2)
    train(module(), 3)
    with pytest.warns(ReproductionWarning, match=r"scheduler\.gamma 0\.9 -> 0\.5 has no effect\.$"):
        train(module(gamma=0.5), 4)

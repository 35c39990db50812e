"""A trainer whose ``train`` is not overridden: the engine's training with the trainer's methods."""

from __future__ import annotations

import warnings
from typing import Any

import lightning
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.demos.boring_classes import BoringModel
from torch import nn

import darkit
from darkit.core import Trainer
from darkit.errors import ConfigError, LossError, ReproductionWarning, RunExistsError
from darkit.runs import base
from tests.core.parts import LoopConfig, Net, net, samples


def engine(cls: type[Trainer] = Trainer, model: nn.Module | None = None, **settings: Any) -> Trainer:
    arguments = {"loss": F.mse_loss} | {
        key: settings.pop(key) for key in ("loss", "resume", "callbacks", "log_fieldnames") if key in settings
    }
    return cls(model or net(), LoopConfig(**{"name": "engine", **settings}), **arguments)


def test_it_trains_as_fit_does_and_leaves_the_same_files() -> None:
    trainer = engine(save_step_interval=2)
    run = trainer.train(samples(24), samples(8))
    model = net()
    fitted = darkit.fit(
        model, samples(24), samples(8), loss=F.mse_loss, config=LoopConfig(name="fitted", save_step_interval=2)
    )
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in trainer.model.state_dict().items())
    assert sorted(path.name for path in run.path.iterdir()) == sorted(path.name for path in fitted.path.iterdir())
    assert run.log().drop("time").equals(fitted.log().drop("time"))
    assert run.config == fitted.config
    assert run.trainer_config == fitted.trainer_config | {"name": "engine"}
    assert (run.status, run.details.step) == ("finished", 6)
    assert [checkpoint.step for checkpoint in run.checkpoints()] == [2, 4, 6]


def test_the_step_and_the_optimizer_are_the_trainers_attributes() -> None:
    class Small(Trainer):
        def _get_optimizer(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.model.parameters(), lr=0.5)

    trainer = engine(Small)
    run = trainer.train(samples(24))
    assert isinstance(trainer.optimizer, torch.optim.SGD)
    assert trainer.current_step == 5
    assert run.log()["lr"].unique().to_list() == [0.5]
    content = torch.load(run.path / "iter-6-ckpt.pth", weights_only=True)
    assert content["optimizer_state_dict"]["param_groups"][0]["lr"] == 0.5


def test_an_overridden_validate_is_used_at_the_due_steps() -> None:
    class Own(Trainer):
        seen: list[tuple[int, bool, int]]

        def validate(self, val_dataloader: Any) -> Any:
            batches = list(val_dataloader)
            self.seen = [*getattr(self, "seen", []), (self.current_step, self.model.training, len(batches))]
            return {"val_loss": 0.25, "val_share": torch.tensor(0.5)}

    trainer = engine(Own, eval_step_interval=2)
    run = trainer.train(samples(24), samples(8))
    assert isinstance(trainer, Own)
    assert trainer.seen == [(1, False, 2), (3, False, 2), (5, False, 2)]
    assert trainer.model.training
    assert run.log()["val_loss"].to_list() == [None, 0.25] * 3
    assert run.log()["val_share"].to_list() == [None, 0.5] * 3


def test_a_validate_may_save_and_log_and_stays_in_the_same_run() -> None:
    class Best(Trainer):
        def validate(self, val_dataloader: Any) -> Any:
            if self.current_step == 1:
                self.log(step=self.current_step + 1, best=1.5)
                self.save_pretrained()
            return 0.25

    run = engine(Best, eval_step_interval=1).train(samples(24), samples(8))
    assert [checkpoint.step for checkpoint in run.checkpoints()] == [2, 6]
    assert 1.5 in run.log()["best"].to_list()
    early = torch.load(run.path / "iter-2-ckpt.pth", weights_only=True)
    assert early["current_step"] == 2
    assert {key: early["position"][key] for key in ("epoch", "batches")} == {"epoch": 0, "batches": 2}


def test_saving_after_the_training_keeps_what_resuming_needs() -> None:
    trainer = engine()
    run = trainer.train(samples(32))
    before = torch.load(run.path / "iter-6-ckpt.pth", weights_only=True)
    metrics = run.checkpoints()[0].metrics
    assert trainer.save_pretrained().name == "iter-6-ckpt.pth"
    after = torch.load(run.path / "iter-6-ckpt.pth", weights_only=True)
    assert after.keys() == before.keys()
    assert after["position"] == before["position"]
    assert run.checkpoints()[0].metrics == metrics != {}
    assert run.status == "finished"
    resumed = engine(resume=True, max_step=8).train(samples(32))
    assert (resumed.status, resumed.details.step) == ("finished", 8)
    assert resumed.log()["step"].to_list() == list(range(1, 9))


@pytest.mark.parametrize("opened_before", [True, False])
def test_an_error_in_the_training_is_a_crash_with_its_traceback(opened_before: bool) -> None:
    class Broken(Net):
        calls = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            if self.calls == 3:
                raise OSError("the model broke")
            return super().forward(x)

    trainer = engine(model=Broken(net().config))
    if opened_before:
        trainer.log(step=0, note=1)
    with pytest.raises(OSError, match="the model broke"):
        trainer.train(samples(24))
    details = darkit.load("engine").details
    assert (details.state, details.step) == ("crashed", 2)
    assert "in forward" in details.traceback


@pytest.mark.parametrize("opened_before", [True, False])
def test_a_mistake_before_the_first_step_leaves_nothing_behind(opened_before: bool) -> None:
    trainer = engine(loss="mse")
    if opened_before:
        assert trainer.save_directory == base() / "engine"
        trainer._auto_validate(None)
    with pytest.raises(LossError):
        trainer.train(samples(24))
    assert not (base() / "engine").exists()


def test_a_with_block_around_it_changes_nothing() -> None:
    with engine() as trainer:
        trainer.log(step=0, train_loss=9.0)
        run = trainer.train(samples(24))
    assert run.status == "finished"
    assert run.log()["step"].to_list() == list(range(7))
    assert run.info["data"]["samples"] == 24


def test_a_train_that_only_prepares_and_calls_the_engines_is_one_run() -> None:
    class Prepared(Trainer):
        def train(self, train_dataset: Any, val_dataset: Any = None) -> Any:
            return super().train(samples(24), val_dataset)

    run = engine(Prepared, tensorboard=True).train(None)
    assert (run.status, run.details.step) == ("finished", 6)
    assert len(list((run.path / "tensorboard").iterdir())) == 1
    assert run.log()["step"].to_list() == list(range(1, 7))


def test_a_default_optimizer_with_another_kernel_than_before_is_no_setting_that_differs() -> None:
    """The run keeps its kernel: nobody has given another one."""
    engine(max_step=4, fused=False).train(samples(32))
    with warnings.catch_warnings():
        warnings.simplefilter("error", ReproductionWarning)
        engine(resume=True, max_step=8).train(samples(32))


def test_training_a_second_time_needs_a_new_name_or_resume() -> None:
    trainer = engine()
    trainer.train(samples(24))
    with pytest.raises(RunExistsError, match="Choose another name, or resume it"):
        trainer.train(samples(24))
    assert darkit.load("engine").status == "finished"


def test_a_log_of_fixed_columns_has_no_others() -> None:
    from dataclasses import dataclass

    @dataclass
    class Columns:
        step: int = 0
        train_loss: float = 0.0

    run = engine(log_fieldnames=Columns).train(samples(24))
    assert run.log().columns == ["step", "train_loss"]


@pytest.mark.parametrize("kind", ["callback", "module"])
def test_what_needs_lightnings_own_loop_is_refused_and_leaves_nothing(kind: str) -> None:
    model = BoringModel() if kind == "module" else nn.Linear(4, 1)
    callbacks = [] if kind == "module" else [lightning.pytorch.callbacks.EarlyStopping("val_loss")]
    trainer = engine(model=model, callbacks=callbacks)
    with pytest.raises(ConfigError, match=r"(EarlyStopping|BoringModel) needs Lightning's own loop.*darkit\.fit"):
        trainer.train([(torch.zeros(4), torch.zeros(1))] * 4)
    assert not darkit.runs()

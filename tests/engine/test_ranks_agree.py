"""Two processes with different values decide the same, and one without items does not spoil the others' weights."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import darkit
from darkit.engine.callbacks import base
from darkit.engine.metrics.merging import share_buffers
from darkit.engine.steps import sharding
from darkit.errors import NonFiniteLossError
from darkit.runs import Run
from tests.children import Zygote
from tests.engine.oracles import train
from tests.engine.ranks import Noting, Numbered, on_ranks, weights_of

SCORES = [0.1, 0.2, 0.9, 0.3, 0.4, 0.5, 0.6, 0.7]


def rank() -> int:
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


class Scores(lightning.Callback):
    """Adds a value, in the last process another one than in the first, or in the first process only."""

    def __init__(self, name: str = "val_bleu", *, first_only: bool = False) -> None:
        self.name, self.first_only = name, first_only
        self.steps: list[int] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        step = trainer.global_step
        if step in self.steps:  # a stretch of steps is closed
            return
        self.steps.append(step)
        if trainer.is_global_zero:
            outputs[self.name] = SCORES[min(step, len(SCORES)) - 1]
        elif not self.first_only:
            outputs[self.name] = float(step)


class Rate(lightning.Callback):
    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])


def decisions(ranks: int) -> dict[str, Any]:
    """Stop early, change the rate, and save and load the best step, by values that the processes do not share."""
    found: dict[str, Any] = {}
    asked: list[str] = []
    before = base.agreed

    def counted(name: str, *arguments: Any) -> Any:
        asked.append(name)
        return before(name, *arguments)

    base.agreed = counted

    def case(name: str, scores: Scores, val_data: Any = None, **settings: Any) -> None:
        asked.clear()
        rate = Rate()
        done = train(
            Noting(),
            Numbered(64),
            val_data,
            name,
            ranks,
            batch_size=4 // ranks,
            callbacks=[scores, rate],
            **({"max_step": 8, "monitor": scores.name, "mode": "max", "eval_step_interval": 1} | settings),
        )
        found[name] = {"steps": scores.steps, "rates": rate.rates, "asked": len(asked), "weights": done["weights"]}

    def plateau(optimizer: Any) -> Any:
        return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", patience=0, factor=0.5)

    case("early", Scores(), early_stop_patience=2)
    case("early_first", Scores(first_only=True), early_stop_patience=2)
    case("early_training", Scores("bleu", first_only=True), early_stop_patience=2)
    case("early_replaced", Scores("val_loss", first_only=True), Numbered(8), early_stop_patience=2)
    case("plateau", Scores(), scheduler=plateau)
    best = {"keep_best": 1, "keep_last": 1, "save_step_interval": 1, "load_best_at_end": True}
    case("best", Scores(first_only=True), Numbered(8), **best)
    case("seldom", Scores(first_only=True), early_stop_patience=5, eval_step_interval=4)
    base.agreed = before
    return found


def test_all_processes_decide_by_what_the_first_one_has(zygote: Zygote, tmp_path: Path) -> None:
    one = on_ranks(zygote, tmp_path / "one", decisions, ranks=1)[0]
    two = on_ranks(zygote, tmp_path / "two", decisions)
    assert one.pop("seldom")["asked"] == 0
    assert [found.pop("seldom")["asked"] for found in two] == [2, 2], "no message where nothing is decided"
    assert one["early"]["steps"][-1] == 5
    assert len(set(one["plateau"]["rates"])) > 2
    for name, expected in one.items():
        for found in (process[name] for process in two):
            assert found["steps"] == expected["steps"], name
            assert found["rates"] == expected["rates"], name
            for key, weight in expected["weights"].items():
                torch.testing.assert_close(found["weights"][key], weight, msg=lambda text, name=name: f"{name}: {text}")
    steps = [[c.step for c in Run(tmp_path / ranks / "base" / "best").checkpoints()] for ranks in ("one", "two")]
    assert steps[0] == steps[1] == [3, 8]


class Masked(nn.Module):
    """A mean over the items of a mask, by hand; with its count, or observed."""

    def __init__(self, says: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.says = says
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        self.register_buffer("short", torch.arange(3, dtype=torch.int16))

    def training_step(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        mask = batch["counts"].float()[:, None]
        error = (self.layers(batch["x"]) - batch["y"]).square()
        loss = (error * mask).sum() / mask.sum()
        return {"loss": loss, "count": mask.sum()} if self.says else {"loss": loss}


class Marked(Numbered):
    """Of each four samples one counts; from a number on none does."""

    def __init__(self, until: int = 1000) -> None:
        super().__init__(24)
        self.until = until

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {**super().__getitem__(index), "counts": torch.tensor(index % 4 == 0 and index < self.until)}


def masked(ranks: int) -> dict[str, Any]:
    """Train on steps of four samples, of which one counts; in the last case no sample of the third step does."""
    found: dict[str, Any] = {}

    def case(name: str, size: int, says: bool, strategy: str = "ddp", until: int = 1000, **settings: Any) -> None:
        model = Masked(says)
        found[name] = {"weights": {}, "error": ""}
        try:
            darkit.fit(
                model,
                DataLoader(Marked(until), batch_size=size),
                name=name,
                device="cpu",
                device_num=ranks,
                strategy=strategy if ranks > 1 else "auto",
                optimizer="sgd",
                lr=0.3,
                max_step=6,
                tensorboard=False,
                **settings,
            )
            found[name]["weights"] = {
                key: getattr(value, "full_tensor", lambda value=value: value)()
                for key, value in weights_of(model).items()
            }
        except NonFiniteLossError as error:
            found[name]["error"] = str(error)

    for says in (True, False):
        case(f"plain_{says}", 4 // ranks, says)
        case(f"accumulated_{says}", 1, says, gradient_accumulation_steps=4 // ranks)
        case(f"split_{says}", 4 // ranks, says, "fsdp")
    case("nothing", 4 // ranks, True, until=8)
    return found


@pytest.fixture(scope="module")
def of_masked(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    home = tmp_path_factory.mktemp("masked")
    return home, on_ranks(zygote, home / "one", masked, ranks=1)[0], on_ranks(zygote, home / "two", masked)


def test_a_process_without_items_leaves_the_weights_of_one_process(of_masked: tuple[Path, Any, Any]) -> None:
    home, one, two = of_masked
    for name in [name for name in one if name != "nothing"]:
        assert not one[name]["error"]
        for process in two:
            assert not process[name]["error"]
            for key, weight in one[name]["weights"].items():
                torch.testing.assert_close(
                    process[name]["weights"][key], weight, msg=lambda text, name=name: f"{name}: {text}"
                )
        losses = [Run(home / ranks / "base" / name).log()["train_loss"].to_list() for ranks in ("one", "two")]
        assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_a_step_without_any_item_has_no_loss_and_stops(of_masked: tuple[Path, Any, Any]) -> None:
    home, one, two = of_masked
    for process in (one, *two):
        assert process["nothing"]["error"].startswith("The loss is not finite at step 3 (nan)")
    rows = Run(home / "two" / "base" / "nothing").log()["train_loss"].to_list()
    assert len(rows) == 3
    assert math.isnan(rows[2])


def buffers(ranks: int) -> dict[str, Any]:
    """Share buffers of every dtype."""
    del ranks
    torch.distributed.init_process_group("gloo")
    model = nn.Module()
    dtypes = ("int16", "uint16", "uint32", "int64", "bool", "bfloat16", "float64", "complex64")
    for name in dtypes:
        model.register_buffer(f"of_{name}", torch.full((2, 3), rank()).to(getattr(torch, name)).T)
    model.register_buffer("number", torch.tensor(rank(), dtype=torch.int16))
    model.register_buffer("empty", torch.zeros(0, dtype=torch.int16))
    found = {}
    for share in (share_buffers, sharding._share_buffers, lambda module: sharding._share_parameters(module, "cpu")):
        for buffer in model.buffers():
            buffer.copy_(torch.full(buffer.shape, 1 + rank()))
        share(model)
        found[len(found)] = {name: buffer.to(torch.complex128) for name, buffer in model.named_buffers()}
    return found


def test_buffers_of_every_dtype_are_those_of_the_first_process(zygote: Zygote, home: Path) -> None:
    for found in on_ranks(zygote, home, buffers):
        for values in found.values():
            assert len(values) == 10
            assert all((value == 1).all() for value in values.values()), values

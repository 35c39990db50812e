"""The first step of Lightning's own loop is counted as torch counts the same step, and the later ones are free."""

from __future__ import annotations

from typing import Any

import lightning
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

import darkit
from darkit.runs.graph import read_graph
from darkit.runs.work import Work, read_work
from tests.engine.native.modules import Base, Gan, samples

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


class Plain(Base):
    """Logs nothing, and its net is called."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.loss(batch)


class Manual(Plain):
    """Steps its optimizer itself, one that multiplies matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(self.loss(batch))
        optimizer.step()

    def configure_optimizers(self) -> Any:
        return Multiplying(self.parameters(), {})


class Multiplying(torch.optim.Optimizer):
    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        if closure is not None:
            with torch.enable_grad():
                closure()
        torch.ones(64, 64) @ torch.ones(64, 64)


class Closing(Manual):
    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer: Any = self.optimizers()

        def closure() -> Tensor:
            loss = self.loss(batch)
            self.manual_backward(loss)
            return loss

        optimizer.step(closure)


class Skipping(Plain):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.loss(batch) if batch_idx else None


def record(module: Any, loader: Any = None, **options: Any) -> darkit.Run:
    recorder = darkit.RunRecorder(console=False)
    settings: dict[str, Any] = {"max_steps": 3, "logger": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = lightning.Trainer(
        **{**settings, "enable_model_summary": False, "enable_checkpointing": False, "callbacks": [recorder], **options}
    )
    trainer.fit(module, loader or DataLoader(samples(), batch_size=6))
    assert not {"training_step", "backward"} & vars(trainer.strategy).keys()
    assert recorder.run is not None
    return recorder.run


def work_of(run: darkit.Run) -> Work:
    work = read_work(run.info)
    assert work is not None
    return work


def flops_of(module: Base, size: int = 6) -> int:
    """Count a step as torch does."""
    with FlopCounterMode(display=False) as counter:
        module.loss((torch.randn(size, 4), torch.zeros(size, dtype=torch.long))).backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("kind", [Plain, Manual])
def test_a_step_is_counted_as_torch_counts_it(kind: type[Base]) -> None:
    work = work_of(record(kind()))
    expected = flops_of(kind())
    assert (work.flops, work.samples, work.tokens, work.uncounted) == (expected, 6, None, "")
    assert work.parameters == work.trained == sum(one.numel() for one in Plain().parameters())


def test_fit_records_it_too_with_the_modules() -> None:
    loader = DataLoader(samples(), batch_size=6)
    run = darkit.fit(Plain(), loader, max_step=2, device="cpu", peak_flops=1e12, console=False)
    assert (work_of(run).flops, work_of(run).peak) == (flops_of(Plain()), 1e12)
    graph = read_graph(run.path)
    assert graph is not None
    found = {node.name: (node.kind, node.outputs, node.sources) for node in graph.nodes}
    assert found["net.0"] == ("Linear", [(6, 8)], ["input"])
    assert found["net.4"] == ("Linear", [(6, 3)], ["net.3"])


def test_accumulated_batches_are_one_step() -> None:
    work = work_of(record(Plain(), accumulate_grad_batches=3))
    assert (work.flops, work.samples) == (3 * flops_of(Plain()), 18)


def test_tokens_are_counted() -> None:
    class Words(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(11, 3), nn.Linear(3, 5)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self.head(self.embed(batch[0])).square().mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    work = work_of(record(Words(), DataLoader(TensorDataset(torch.ones(8, 7, dtype=torch.long)), batch_size=4)))
    assert (work.samples, work.tokens, work.flops) == (4, 28, 3 * 2 * 28 * 15)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Gan, "several optimizer steps per batch"),
        (Closing, "a closure of an optimizer"),
        (Skipping, "a batch without a loss in the first step"),
    ],
)
def test_what_is_no_step_like_others_is_not_counted_and_says_why(kind: type[Base], reason: str) -> None:
    work = work_of(record(kind()))
    assert (work.flops, work.uncounted) == (None, reason)
    assert work.samples == (6 if kind is Closing else None)


def test_of_several_loaders_at_once_the_samples_are_not_known() -> None:
    class Two(Plain):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self.loss(batch["a"]) + self.loss(batch["b"])

    loaders = {"a": DataLoader(samples(), batch_size=4), "b": DataLoader(samples(), batch_size=2)}
    work = work_of(record(Two(), loaders))
    assert (work.samples, work.flops) == (None, flops_of(Plain(), 4) + flops_of(Plain(), 2))


def test_a_second_evaluation_of_a_step_is_not_a_second_batch() -> None:
    class Second(Plain):
        def configure_optimizers(self) -> Any:
            return torch.optim.LBFGS(self.parameters(), max_iter=2, max_eval=2, line_search_fn=None)

    work = work_of(record(Second()))
    assert work.samples == 6
    assert work.flops == 2 * flops_of(Plain())

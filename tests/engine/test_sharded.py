"""``strategy="fsdp"``: two processes that each hold a part of the model, beside one that has all of it."""

from __future__ import annotations

import logging
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import darkit
from darkit.engine.callbacks import StepCheckpoint
from darkit.engine.checkpoints import sharded
from darkit.engine.checkpoints.checkpoint import read_checkpoint, read_run_checkpoint
from darkit.engine.checkpoints.difference import differences
from darkit.errors import DarkitError
from darkit.prediction.predicter import Predicter
from darkit.runs import Run
from darkit.runs.checkpoints import find_checkpoint, list_checkpoints
from darkit.runs.verify import find_problem
from tests.children import Zygote
from tests.engine.ranks import on_ranks, start_ranks
from tests.engine.resuming import Held
from tests.faults.parts import temporary_files, wait_until

WIDE = 256  # more elements than the state of any random generator has


class Block(nn.Module):
    """A block with a residual connection."""

    def __init__(self, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.wide = nn.Linear(width, 3 * width)
        self.narrow = nn.Linear(3 * width, width, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.dropout(self.narrow(torch.relu(self.wide(self.norm(x)))))


class Words(nn.Module):
    """Predicts tokens; input and output share their weights, and the loss is a method that calls parts of it."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.config = {"dropout": dropout}
        self.embedding = nn.Embedding(7, 5)
        self.blocks = nn.ModuleList([Block(5, dropout) for _ in range(2)])
        self.head = nn.Linear(5, 7, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))
        self.register_buffer("drift", torch.zeros(()))  # with dropout: what this process has seen, as a running mean

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(x)

    def training_step(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        tokens, labels = batch
        if self.training:
            self.seen += 1
            if self.config["dropout"]:
                self.drift.lerp_(tokens.float().mean(), 0.5)
        hidden = self.blocks[1](self.blocks[0](self.embedding(tokens) + self.drift))
        loss = F.cross_entropy(self.head(hidden).flatten(0, 1), labels.flatten())
        return {"loss": loss}


def sentences(count: int = 12) -> tuple[Tensor, Tensor]:
    """Tokens of which very different numbers count in each sample."""
    lengths = torch.tensor([2, 20, 3, 11, 20, 1, 7, 7, 19, 4, 12, 9])[:count]
    tokens = torch.randint(0, 7, (count, 20), generator=torch.Generator().manual_seed(0))
    return tokens, tokens.roll(-1, 1).where(torch.arange(20) < lengths[:, None], -100)


def train(name: str, ranks: int, model: nn.Module | None = None, samples: int = 12, **settings: Any) -> Run:
    """Train with a global batch of four and an accumulation of two."""
    several = {"device_num": ranks, "strategy": "fsdp", "batch_size": 4 // ranks} if ranks > 1 else {"batch_size": 4}
    given = {
        **several,
        "max_step": 7,
        "gradient_accumulation_steps": 2,
        "gradient_clip": 0.3,
        "lr": 0.01,
        "weight_decay": 0.1,
        "eval_step_interval": 3,
        "save_step_interval": 3,
        "fused": False,  # models in parts have no fused kernel
    }
    return darkit.fit(
        model or Words(),
        sentences(samples),
        sentences(5),
        name=name,
        device="cpu",
        tensorboard=False,
        **(given | settings),
    )


def cases(ranks: int) -> dict[str, Any]:
    """Train everything that the tests below look at, in one pair of processes."""
    train("two", ranks)
    for strategy in ("fsdp", "ddp"):
        train(f"uneven-{strategy}", ranks, samples=11, strategy=strategy)
    other = Words(0.3)
    if torch.distributed.get_rank():
        nn.init.ones_(other.head.weight)  # the first process's weights count
    train("straight", ranks, other, max_step=8)
    train("broken", ranks, Words(0.3), max_step=6)
    logging.disable(logging.CRITICAL)
    held = Held()
    with held.watching():
        train("broken", ranks, Words(0.3), resume="broken:iter-3-ckpt", max_step=8, callbacks=[held])
    best = Words()
    train("best", ranks, best, max_step=6, keep_best=1, keep_last=1, load_best_at_end=True, lr=1.0)
    part = best.blocks[0].wide.weight
    largest, failure = largest_in_a_save(ranks), ""
    try:  # the last one: no other may follow a failure in these processes
        train("nan", ranks, Spoiled(), max_step=6, save_step_interval=1)
    except DarkitError as error:
        failure = str(error)
    return {
        "part": part.to_local().detach().clone(),
        "whole": list(part.shape),
        "failure": failure,
        "largest": largest,
        "held": held.left if held.read else ["nothing was read"],
    }


class Largest(TorchDispatchMode):
    """Notes the largest tensor that any operation of this thread returns."""

    def __init__(self, found: list[int]) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        returned = function(*args, **(kwargs or {}))
        for value in tree_leaves(returned):
            if isinstance(value, Tensor):
                self.found.append(value.to_local().nbytes if isinstance(value, DTensor) else value.nbytes)
        return returned


def largest_in_a_save(ranks: int) -> int:
    """Train a wide layer and return the bytes of the largest tensor of a save, in both threads."""
    found: list[int] = []

    def watched(function: Any) -> Any:
        def call(*arguments: Any, **settings: Any) -> Any:
            with Largest(found):
                return function(*arguments, **settings)

        return call

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(StepCheckpoint, "save", watched(StepCheckpoint.save))
        patched.setattr(sharded, "write_sharded", watched(sharded.write_sharded))
        several = {"device": "cpu", "device_num": ranks, "strategy": "fsdp", "batch_size": 4}
        model = nn.Sequential(nn.Linear(WIDE, WIDE), nn.Linear(WIDE, 1))
        data = torch.ones(8, WIDE), torch.ones(8, 1)
        darkit.fit(model, data, loss=F.mse_loss, name="wide", max_step=2, save_step_interval=1, **several)
    return max(found)


def assert_close(found: Any, expected: Any, most: float) -> None:
    """Assert that nested state is equal but for the order in which numbers were added."""
    different = [(path, by) for path, by in differences(expected, found) if not isinstance(by, float) or by > most]
    assert different == []


class Spoiled(Words):
    """Its gradient is infinite in one row of one weight, which one process holds, at the third step."""

    def training_step(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        if int(self.seen) == 4 and self.training:
            mask = torch.zeros(7, 1)
            mask[0] = float("inf")
            self.head.weight.register_hook(lambda gradient: torch.where(mask > 0, mask.expand_as(gradient), gradient))
        return super().training_step(batch)


@pytest.fixture(scope="module")
def trained(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """The home of the cases, and what they returned in each process."""
    home = tmp_path_factory.mktemp("sharded")
    return home / "base", on_ranks(zygote, home, cases)


@pytest.fixture
def runs(trained: tuple[Path, list[Any]], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DARWIN_KIT_HOME", str(trained[0].parent))
    return trained[0]


def test_two_parts_end_with_the_weights_of_one_whole(runs: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARWIN_KIT_HOME", str(home))
    one = train("one", 1)
    for step in (3, 6, 7):
        expected = read_checkpoint(find_checkpoint(one.path, step))
        found = read_checkpoint(find_checkpoint(runs / "two", step))
        for key in ("state_dict", "optimizer_state_dict", "scheduler_state_dict"):
            assert_close(found[key], expected[key], 2e-5)
        assert expected.keys() == found.keys() - {"ranks", "weight"}
    for column in ("train_loss", "val_loss"):
        expected = one.log()[column].drop_nulls().to_list()
        assert Run(runs / "two").log()[column].drop_nulls().to_list() == pytest.approx(expected, rel=1e-4)


def test_an_uneven_last_batch_counts_as_with_whole_copies(runs: Path) -> None:
    parts, copies = (read_run_checkpoint(runs / f"uneven-{strategy}")[1] for strategy in ("fsdp", "ddp"))
    for key in ("state_dict", "optimizer_state_dict"):
        assert_close(parts[key], copies[key], 1e-6)


def test_each_process_writes_a_part_of_every_tensor(runs: Path) -> None:
    folder = runs / "two" / "iter-7-ckpt"
    assert sorted(path.name for path in folder.iterdir()) == ["index.json", "shard-0.pth", "shard-1.pth", "state.pth"]
    parts = [torch.load(folder / f"shard-{rank}.pth", weights_only=True) for rank in (0, 1)]
    largest = 15 * 5
    assert max(part.numel() for rank in parts for part in rank.values()) < largest
    rest = torch.load(folder / "state.pth", weights_only=True)
    assert [key for key, value in rest["state_dict"].items() if value is not None] == ["seen", "drift"]


def test_no_process_has_more_than_its_part_of_a_tensor_while_it_saves(trained: tuple[Path, list[Any]]) -> None:
    assert [returned["largest"] for returned in trained[1]] == [4 * WIDE * WIDE // 2] * 2


def test_no_process_holds_the_checkpoint_that_it_resumed_from(trained: tuple[Path, list[Any]]) -> None:
    assert [set(returned["held"]) for returned in trained[1]] == [{0}, {0}]


def test_a_resumed_training_ends_as_one_that_went_straight_through(runs: Path) -> None:
    contents = [read_run_checkpoint(runs / name) for name in ("straight", "broken")]
    assert [checkpoint.step for checkpoint, _ in contents] == [8, 8]
    assert list(differences(contents[0][1], contents[1][1])) == []
    logs = [Run(runs / name).log().drop("time") for name in ("straight", "broken")]
    assert logs[0].equals(logs[1])


def test_all_of_it_is_intact_and_loads_into_the_bare_model(runs: Path) -> None:
    for name in ("two", "straight", "broken", "best"):
        found = Run(runs / name).checkpoints()
        assert [(checkpoint.is_folder, find_problem(checkpoint)) for checkpoint in found] == [(True, "")] * len(found)
        assert len(found) == (2 if name == "best" else 3)
    predicter = Predicter.from_pretrained("two", "cpu")
    assert type(predicter.model) is Words
    assert torch.equal(
        predicter.model.state_dict()["head.weight"], read_run_checkpoint(runs / "two")[1]["state_dict"]["head.weight"]
    )


def test_the_best_weights_are_loaded_into_the_parts(runs: Path, trained: tuple[Path, list[Any]]) -> None:
    best = Run(runs / "best").info["best"]["step"]
    whole = read_checkpoint(find_checkpoint(runs / "best", best))["state_dict"]["blocks.0.wide.weight"]
    assert torch.equal(torch.cat([returned["part"] for returned in trained[1]]), whole)
    assert trained[1][0]["whole"] == list(whole.shape)


def test_a_weight_that_is_not_finite_in_one_part_stops_all(runs: Path, trained: tuple[Path, list[Any]]) -> None:
    sentences = [returned["failure"] for returned in trained[1]]
    assert sentences[0] == sentences[1]
    assert "is not finite" in sentences[0]
    assert [checkpoint.step for checkpoint in Run(runs / "nan").checkpoints()] == [1, 2]


def held(ranks: int, rank: int, mark: str) -> None:
    """Train, but for one process that stops for ever while it writes its part of step 6."""
    original = sharded.write_archive

    def write(path: Path, content: Any) -> tuple[int, str]:
        written = original(path, content)
        if path.parent.name.startswith(".iter-6-ckpt.tmp-") and torch.distributed.get_rank() == rank:
            Path(mark).touch()
            threading.Event().wait()
        return written

    sharded.write_archive = write
    train("straight", ranks, Words(0.3), max_step=8)


def continued(ranks: int) -> None:
    train("straight", ranks, Words(0.3), resume=True, max_step=8)


@pytest.mark.few(1)
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_killed_in_a_save_costs_nothing_that_was_saved(
    runs: Path, zygote: Zygote, tmp_path: Path, rank: int
) -> None:
    mark, run = tmp_path / "mark", tmp_path / "base" / "straight"
    children = start_ranks(zygote, tmp_path, held, processes=2, ranks=2, rank=rank, mark=str(mark))
    wait_until(mark.exists, "the save")
    children[rank].kill_group()
    assert children[1 - rank].wait() != 0
    assert temporary_files(run) != [] or rank == 1, "the first process removes what it can"
    assert [(checkpoint.step, find_problem(checkpoint)) for checkpoint in list_checkpoints(run)] == [(3, "")]
    assert not (run / "iter-6-ckpt").exists()
    on_ranks(zygote, tmp_path, continued)
    assert temporary_files(run) == []
    assert list(differences(read_run_checkpoint(runs / "straight")[1], read_run_checkpoint(run)[1])) == []


def going_on(ranks: int) -> None:
    train("begun", ranks, resume=True, resume_overrides=True)


def test_what_two_began_resumes_on_one_and_what_one_began_on_two(
    runs: Path, zygote: Zygote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARWIN_KIT_HOME", str(tmp_path))
    train("one", 1, max_step=7)
    copy = tmp_path / "base" / "two"
    shutil.copytree(runs / "two", copy)
    run = train("two", 1, resume="two:iter-3-ckpt", resume_overrides=True)
    assert run.checkpoints()[-1].path.name == "iter-7-ckpt.pth"
    train("begun", 1, max_step=3)
    on_ranks(zygote, tmp_path, going_on)
    found = [read_run_checkpoint(tmp_path / "base" / name) for name in ("one", "two", "begun")]
    assert found[2][0].path.name == "iter-7-ckpt"
    for key in ("state_dict", "optimizer_state_dict"):
        assert_close(found[1][1][key], found[0][1][key], 5e-5)
        assert_close(found[2][1][key], found[0][1][key], 5e-5)

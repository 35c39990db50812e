"""A fork equals its parent bit for bit from its step on; what differs is recorded, and what cannot be exact refused."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from torch.optim.lr_scheduler import ExponentialLR

import darkit
from darkit.engine.checkpoints.checkpoint import read_checkpoint
from darkit.engine.checkpoints.difference import differences
from darkit.engine.config import TrainerConfig
from darkit.engine.fork import adopt_checkpoints
from darkit.engine.resume import Resume
from darkit.errors import (
    CheckpointMismatchError,
    ConfigError,
    ReproductionWarning,
    RunExistsError,
    RunNotFoundError,
)
from darkit.runs import Run, base, files
from darkit.runs.checkpoints import find_checkpoint, folder_path, manifest_path
from darkit.runs.sharded import make_manifest, sha256_of
from darkit.runs.verify import find_damage
from tests.children import Zygote
from tests.engine import oracles
from tests.engine.native.modules import Base, train_loader, train_run
from tests.engine.parts import MLP, train, xy
from tests.engine.ranks import on_ranks
from tests.engine.resuming import STEPS, Augmented, Continuing, Dropping, Epochs, Shuffled, run_one

adam = functools.partial(torch.optim.AdamW, lr=0.01, amsgrad=True)
CASES: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "augmented": (Augmented, {}),
    "stream": (Shuffled, {}),
    "stream with a state": (Continuing, {}),
    "accumulation and averages": (Augmented, {"gradient_accumulation_steps": 3, "ema_decay": 0.9}),
    "schedule of the config": (xy, {"scheduler": "cosine", "warmup_step": 3, "gradient_clip": 0.1}),
    "schedule of one's own": (xy, {"optimizer": adam, "scheduler": lambda made: ExponentialLR(made, 0.9)}),
    "evaluation": (lambda: {"train": Augmented(), "val": xy()}, {"eval_step_interval": 2, "load_best_at_end": True}),
    "callbacks": (Augmented, {"callbacks": lambda: [Epochs()]}),
}


class Rated(Base):
    """Its learning rate is an argument."""

    def __init__(self, lr: float = 0.1) -> None:
        super().__init__()
        self.lr = lr
        self.save_hyperparameters()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.lr)


def assert_continues(parent: Run, child: Run, step: int) -> None:
    """Assert that a fork has the same rows and checkpoints as its parent after a step."""
    rows = [[row for row in run.log().drop("time").to_dicts() if row["step"] > step] for run in (parent, child)]
    assert rows[0] == [dict.fromkeys(rows[0][0]) | row for row in rows[1]]
    assert rows[0], "the parent has rows after that step"
    assert child.log()["step"].min() == step + 1
    saved = [checkpoint for checkpoint in child.checkpoints() if checkpoint.step > step]
    assert saved
    for checkpoint in saved:
        twin = find_checkpoint(parent.path, checkpoint.step)
        ignored = {"darkit.run", "darkit.id"}
        found = differences(read_checkpoint(twin), read_checkpoint(checkpoint))
        assert [one for one in found if one[0] not in ignored] == []


@pytest.mark.few(3)
@pytest.mark.parametrize("case", CASES)
def test_an_unchanged_fork_equals_its_parent_from_any_step(case: str) -> None:
    data, options = CASES[case]
    parent = run_one(data, "parent", **options)
    for step in (4, 5):  # with 4 batches an epoch its end, and within
        child = run_one(data, f"child-{step}", fork=f"parent:iter-{step}", **options)
        assert_continues(parent, child, step)
        assert child.fork["changes"] == {}


@pytest.mark.few(1)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("kind", ["metrics", "validation inside epochs", "accumulation"])
def test_a_lightning_module_is_forked_exactly(kind: str) -> None:
    _, parent = train_run(kind, "parent", save_step_interval=1)
    for step in (7, 9):
        child = train_run(kind, f"child-{step}", save_step_interval=1, fork=f"parent:{step}")[1]
        assert child.fork["step"] == step
        last = [read_checkpoint(find_checkpoint(run.path, parent.details.step)) for run in (parent, child)]
        found = differences(last[0]["state_dict"], last[1]["state_dict"])
        assert list(found) == []
        assert list(differences(last[0]["optimizer_states"], last[1]["optimizer_states"])) == []
        one, other = (run.log().drop("time").filter(run.log()["step"] > step) for run in (parent, child))
        assert one.select(sorted(one.columns)).equals(other.select(sorted(other.columns)))


def test_two_processes_fork_exactly(zygote: Zygote, tmp_path: Path) -> None:
    on_ranks(zygote, tmp_path, oracles.forked)
    parent, child = (Run(tmp_path / "base" / name) for name in ("parent", "child"))
    assert_continues(parent, child, 3)
    assert child.fork["sha256"] == find_checkpoint(parent.path, 3).sha256


def test_a_model_in_parts_is_forked_exactly(zygote: Zygote, tmp_path: Path) -> None:
    on_ranks(zygote, tmp_path, oracles.forked, strategy="fsdp")
    parent, child = (Run(tmp_path / "base" / name) for name in ("parent", "child"))
    assert find_checkpoint(child.path, 3).is_folder
    assert_continues(parent, child, 3)


def test_a_fork_takes_the_files_of_a_strangers_checkpoint_and_follows_no_link_beside_them(tmp_path: Path) -> None:
    outside, parent, child = (tmp_path / name for name in ("outside", "parent", "child"))
    for folder in (outside, parent, child):
        folder.mkdir()
    (outside / "secret").write_text("mine")
    saved = folder_path(parent, 5)
    saved.mkdir()
    names = {"index.json", "shard-0.pth", "state.pth"}
    for name in names:
        (saved / name).write_text("{}")
    manifest = make_manifest({name: (2, sha256_of(saved / name)) for name in names}, {"step": 5})
    files.write_json(manifest_path(saved), manifest)
    (saved / "link").symlink_to(outside)
    (saved / "further").mkdir()
    checkpoint = find_checkpoint(parent, 5)
    found = Resume(Run(parent), checkpoint, {}, same_run=False, fork=True)
    adopt_checkpoints(found, child, "id", TrainerConfig())
    adopted = find_checkpoint(child, 5)
    assert {path.name for path in adopted.path.iterdir()} == names
    assert (adopted.verified, adopted.sha256) == (True, checkpoint.sha256)
    assert find_damage(adopted) == ""


def test_what_differs_is_said_and_recorded(capsys: pytest.CaptureFixture[str]) -> None:
    parent = run_one(xy, "parent")
    capsys.readouterr()
    child = run_one(xy, "child", fork="parent:4", lr=0.02, weight_decay=0.5)
    said = " ".join(capsys.readouterr().err.split())
    assert "Forking parent:iter-4-ckpt; the next step is 5. Changed: lr 0.001 -> 0.02, weight_decay 0.0 -> 0.5." in said
    assert child.fork == {
        "parent": "parent",
        "parent_id": parent.info["id"],
        "checkpoint": "iter-4-ckpt",
        "step": 4,
        "sha256": find_checkpoint(parent.path, 4).sha256,
        "changes": {"lr": [0.001, 0.02], "weight_decay": [0.0, 0.5]},
        "ancestors": [],
    }
    assert child.log()["lr"].to_list() == [0.02] * (STEPS - 4)
    assert parent.info["id"] != child.info["id"]


def sgd(**settings: Any) -> Callable[[Any], Any]:
    return lambda parameters: torch.optim.SGD(parameters, **{"lr": 0.01, "momentum": 0.5} | settings)


def test_another_rate_of_ones_own_optimizer_holds_and_is_recorded(capsys: pytest.CaptureFixture[str]) -> None:
    run_one(xy, "parent", optimizer=sgd())
    capsys.readouterr()
    child = run_one(xy, "child", fork="parent:4", optimizer=sgd(lr=0.002, weight_decay=0.5))
    assert "Changed: optimizer.lr 0.01 -> 0.002, optimizer.weight_decay 0 -> 0.5." in capsys.readouterr().err
    assert child.fork["changes"] == {"optimizer.lr": [0.01, 0.002], "optimizer.weight_decay": [0, 0.5]}
    assert child.log()["lr"].to_list() == [0.002] * (STEPS - 4)
    again = run_one(xy, "again", fork="child:5", optimizer=sgd(lr=0.002, weight_decay=0.5))
    assert again.fork["changes"] == {}
    for checkpoint in child.checkpoints()[1:]:  # as if it was killed before it saved
        checkpoint.path.unlink()
        checkpoint.path.with_suffix(".json").unlink()
    child = run_one(xy, "child", resume=True, optimizer=sgd(lr=0.002, weight_decay=0.5))
    assert child.log()["lr"].to_list() == [0.002] * (STEPS - 4)


def test_another_rate_of_ones_own_optimizer_scales_that_of_its_schedule() -> None:
    options = {"scheduler": lambda made: ExponentialLR(made, 0.9)}
    parent = run_one(xy, "parent", optimizer=sgd(), **options)
    child = run_one(xy, "child", fork="parent:4", optimizer=sgd(lr=0.1), **options)
    assert child.log()["lr"].to_list() == pytest.approx([10 * rate for rate in parent.log()["lr"]][4:])


def test_what_a_restored_optimizer_or_schedule_would_ignore_is_refused() -> None:
    run_one(xy, "parent", optimizer=sgd(), scheduler=lambda made: ExponentialLR(made, 0.9))
    for options, said in (
        ({"optimizer": sgd(momentum=0.9)}, r"optimizer\.momentum 0\.5 -> 0\.9"),
        ({"scheduler": lambda made: ExponentialLR(made, 0.5)}, r"scheduler\.gamma 0\.9 -> 0\.5"),
    ):
        settings = {"optimizer": sgd(), "scheduler": lambda made: ExponentialLR(made, 0.9)} | options
        with pytest.raises(ConfigError, match=f"so {said} has no effect: give the earlier value"):
            run_one(xy, "child", fork="parent:4", **settings)
        assert not (base() / "child").exists()


class Warming(lightning.Callback):
    """Sets the rate of each step itself."""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = 0.001 * (trainer.global_step + 1)


def test_a_rate_that_a_callback_changed_is_no_difference() -> None:
    options: dict[str, Any] = {"optimizer": sgd(), "callbacks": lambda: [Warming()]}
    parent = run_one(xy, "parent", **options)
    child = run_one(xy, "child", fork="parent:4", **options)
    assert child.fork["changes"] == {}
    assert_continues(parent, child, 4)


@pytest.mark.parametrize("setting", [{"seed": 4}, {"batch_size": 8}, {"optimizer": "sgd"}, {"precision": "64-true"}])
def test_a_fork_that_has_no_exact_beginning_is_refused(setting: dict[str, Any]) -> None:
    run_one(xy, "parent")
    with pytest.raises(ConfigError, match=f"cannot begin exactly at its step 4 with {next(iter(setting))}"):
        run_one(xy, "child", fork="parent:4", **setting)
    assert not (base() / "child").exists()


def test_a_fork_may_have_another_seed_when_that_is_said() -> None:
    run_one(xy, "parent")
    child = run_one(xy, "child", fork="parent:4", seed=4, resume_overrides=True)
    assert child.fork["changes"] == {"seed": [3, 4]}


def test_another_model_is_refused() -> None:
    run_one(xy, "parent", model=MLP)
    with pytest.raises(CheckpointMismatchError, match="has shape"):
        run_one(xy, "child", model=lambda: MLP(hidden=5), fork="parent:4")


def test_other_data_is_named_and_recorded() -> None:
    run_one(xy, "parent")
    with pytest.warns(ReproductionWarning, match="data differs"):
        child = run_one(lambda: xy(20), "child", fork="parent:4")
    assert child.fork["changes"] == {"data.samples": [16, 20]}


def test_a_killed_fork_continues_as_itself_without_its_parent() -> None:
    parent = run_one(Augmented, "parent")
    kept = shutil.copytree(parent.path, base() / "kept")
    child = run_one(Augmented, "child", fork="parent:4", max_step=6)
    before = child.info["id"]
    shutil.rmtree(parent.path)
    child = run_one(Augmented, "child", fork="parent:4", resume="auto")
    assert_continues(Run(kept), child, 4)
    assert child.info["id"] == before
    assert child.fork["parent"] == "parent"
    for checkpoint in child.checkpoints()[1:]:  # as if it was killed before it saved
        checkpoint.path.unlink()
        checkpoint.path.with_suffix(".json").unlink()
    assert_continues(Run(kept), run_one(Augmented, "child", resume=True), 4)


def test_a_fork_killed_before_its_first_save_keeps_what_it_changed() -> None:
    run_one(xy, "parent")
    options: dict[str, Any] = {"lr": 0.02, "weight_decay": 0.5}
    straight = run_one(xy, "straight", fork="parent:4", **options)
    run_one(xy, "killed", fork="parent:4", max_step=6, **options)
    for checkpoint in darkit.load("killed").checkpoints()[1:]:
        checkpoint.path.unlink()
        checkpoint.path.with_suffix(".json").unlink()
    assert_continues(straight, run_one(xy, "killed", resume=True, **options), 4)


def test_a_lightning_modules_argument_that_its_restored_optimizer_ignores_is_refused() -> None:
    settings: dict[str, Any] = {"max_epochs": 1, "device": "cpu", "tensorboard": False}
    darkit.fit(Rated(), train_loader(), name="parent", **settings)
    with pytest.raises(ConfigError, match=r"so model\.lr may not have the effect"):
        darkit.fit(Rated(0.5), train_loader(), name="child", fork="parent", **settings | {"max_epochs": 2})


def test_a_fork_without_any_checkpoint_is_forked_again_and_never_started_from_nothing() -> None:
    parent = run_one(xy, "parent")
    child = run_one(xy, "child", fork="parent:4")
    for checkpoint in child.checkpoints():
        checkpoint.path.unlink()
        checkpoint.path.with_suffix(".json").unlink()
    with pytest.raises(ConfigError, match=r"without a checkpoint of its own\. Give fork='parent:iter-4-ckpt'"):
        run_one(xy, "child", resume="auto")
    assert_continues(parent, run_one(xy, "child", fork="parent:4", resume="auto"), 4)
    assert_continues(parent, run_one(xy, "other", fork="parent:4", resume="auto"), 4)


def test_a_run_is_not_resumed_as_a_fork_of_another() -> None:
    run_one(xy, "parent")
    run_one(xy, "child", fork="parent:4")
    with pytest.raises(ConfigError, match="is no fork, not one of 'child'"):
        run_one(xy, "parent", fork="child", resume="auto")
    with pytest.raises(ConfigError, match="forked at step 4 of 'parent', not at '5'"):
        run_one(xy, "child", fork="parent:5", resume=True)
    with pytest.raises(ConfigError, match="both say what to start from"):
        run_one(xy, "child", fork="parent:5", resume="parent")
    with pytest.raises(RunNotFoundError):
        run_one(xy, "missing", fork="parent:5", resume=True)
    with pytest.raises(RunExistsError):
        run_one(xy, "child", fork="parent:4")
    with pytest.raises(ConfigError, match="needs another name"):
        run_one(xy, "parent", fork="parent:4")


def test_a_fork_of_a_fork_knows_both() -> None:
    parent = run_one(Augmented, "parent")
    run_one(Augmented, "child", fork="parent:4")
    grandchild = run_one(Augmented, "grandchild", fork="child:7")
    assert_continues(parent, grandchild, 7)
    assert [one["checkpoint"] for one in grandchild.fork["ancestors"]] == ["iter-4-ckpt"]
    assert grandchild.fork["ancestors"][0]["parent_id"] == parent.info["id"]


def test_a_run_of_another_home_is_forked_by_its_path(tmp_path: Path) -> None:
    parent = run_one(Augmented, "parent")
    elsewhere = Path(shutil.move(parent.path, tmp_path / "parent"))
    child = run_one(Augmented, "parent", fork=f"{elsewhere}:iter-5-ckpt")  # of the same name, in this home
    assert_continues(Run(elsewhere), child, 5)


def test_what_is_not_in_the_checkpoint_is_named(tmp_path: Path) -> None:
    parent = run_one(xy, "parent")
    path = find_checkpoint(parent.path, 4).path
    content = torch.load(path, weights_only=True)
    for missing, said in (("optimizer_state_dict", "no optimizer state"), ("position", "no position in the data")):
        path.with_suffix(".json").unlink(missing_ok=True)
        torch.save({key: value for key, value in content.items() if key != missing}, path)
        with pytest.raises(CheckpointMismatchError, match=said):
            run_one(xy, "child", fork="parent:4")
    assert not (base() / "child").exists()


def test_a_checkpoint_without_a_manifest_gets_its_digest() -> None:
    parent = run_one(xy, "parent")
    expected = find_checkpoint(parent.path, 4).sha256
    find_checkpoint(parent.path, 4).path.with_suffix(".json").unlink()
    child = run_one(xy, "child", fork="parent:4", save_step_interval=0)
    assert child.fork["sha256"] == expected
    assert find_checkpoint(child.path, 4).sha256 == expected


def test_the_parents_best_checkpoint_can_stay_the_best() -> None:
    data = {"train": Augmented(), "val": xy()}
    options: dict[str, Any] = {"eval_step_interval": 1, "load_best_at_end": True, "lr": 0.05, "keep_last": 20}
    run_one(lambda: data, "parent", **options)
    child = run_one(lambda: data, "child", fork="parent:6", **{**options, "lr": 5.0})
    assert child.info["best"]["step"] <= 6


def test_a_best_checkpoint_without_its_optimizer_is_not_said_to_have_it() -> None:
    data = {"train": Augmented(), "val": xy()}
    options: dict[str, Any] = {"eval_step_interval": 1, "load_best_at_end": True, "keep_optimizer": "last"}
    last = run_one(lambda: data, "parent", lr=0.5, **options).checkpoints()[-1].step
    child = run_one(
        lambda: data, "child", fork="parent", max_step=last + 1, lr=0.5, **options | {"keep_optimizer": "all"}
    )
    adopted = [one for one in child.checkpoints() if one.step < last]
    assert [(one.verified, one.has_optimizer) for one in adopted] == [(True, False)]


def test_a_run_of_anybodys_loop_is_not_forked() -> None:
    with darkit.start_run("loop") as run:
        run.log({"train_loss": 1.0}, step=1)
        run.save(MLP())
    with pytest.raises(ConfigError, match="start_run"):
        train(MLP(), xy(), name="child", fork="loop")


def test_a_failed_fork_leaves_nothing_behind() -> None:
    run_one(xy, "parent")

    class Failing(Dropping):
        def training_step(self, batch: Any) -> Any:
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        run_one(xy, "child", model=Failing, fork="parent:4")
    assert not (base() / "child").exists()

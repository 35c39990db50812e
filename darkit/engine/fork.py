"""Exact forks: a new run that continues from everything in another run's checkpoint, and records where it began."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning import Callback
from lightning.pytorch import callbacks as stock

from darkit.engine.checkpoints.checkpoint import read_run_checkpoint
from darkit.engine.config import AUTO, TrainerConfig
from darkit.engine.native.state import KEY
from darkit.engine.resume import Changes, Resume, find_resume, refuse_imported
from darkit.engine.stores import launch_name
from darkit.errors import CheckpointMismatchError, CheckpointNotFoundError, ConfigError
from darkit.runs import Run, files
from darkit.runs.checkpoints import WITHOUT_OPTIMIZER, Checkpoint, list_checkpoints, manifest_path
from darkit.runs.lineage import ancestry, changed_from, changes_of, find_parent
from darkit.runs.names import run_path
from darkit.runs.retention import Retention
from darkit.runs.safe import as_dict
from darkit.runs.sharded import INDEX, STATE, list_shards

_OPTIMIZER = ("lr", "optimizer", "fused", "weight_decay", "betas", "scheduler", "warmup_step")
_DECIDING = (stock.StochasticWeightAveraging, stock.BaseFinetuning)


def find_start(root: Path, config: TrainerConfig, resume: bool | str | None, fork: str | None) -> Resume | None:
    """Find what a training starts from: nothing, a run to resume, or one to fork.

    A fork that has a checkpoint of its own is resumed with ``resume=True`` or ``"auto"``; its parent is then not
    needed.

    Args:
        root: The folder of the runs.
        config: The trainer's config, with the run's ``name``; see `darkit.engine.resume.find_resume`.
        resume: As there.
        fork: ``"NAME"`` or ``"NAME:CHECKPOINT"`` of the run to fork, or the path of its folder in place of the name.

    Raises:
        ConfigError: Incompatible arguments, or a run that cannot be forked.
        CheckpointMismatchError: The checkpoint lacks something that an exact fork needs.
        DarkitError: As `find_resume`.
    """
    if not fork:
        return find_resume(root, config, resume)
    if not isinstance(fork, str):
        raise ConfigError(f"fork must be 'NAME' or 'NAME:CHECKPOINT', not {fork!r}.")
    again = False
    if resume:
        if resume not in (True, AUTO):
            raise ConfigError(f"fork={fork!r} and resume={resume!r} both say what to start from: give one of them.")
        if config.name is None and resume == AUTO:
            config.name = launch_name()
        folder = run_path(root, config.name) if config.name is not None else None
        if folder is None or (resume is True and not folder.exists()) or list_checkpoints(folder):
            found = find_resume(root, config, resume)  # refuses what there is not
            if found is not None:
                _refuse_other_parent(found.run, fork)
            return found
        again = folder.exists()
    parent, wanted = find_parent(fork, root=root)
    refuse_imported(parent)
    if config.name == parent.name and run_path(root, config.name) == parent.path:
        raise ConfigError(f"A fork of {parent.name!r} needs another name.")
    if parent.has_own_loop:
        raise ConfigError(
            f"The run {parent.name!r} was made by darkit.start_run, whose loop restores its state itself, and cannot "
            f"be forked: resume={parent.name!r} with another name starts from its weights."
        )
    known = frozenset(checkpoint.step for checkpoint in list_checkpoints(parent.path))
    checkpoint, content = read_run_checkpoint(parent.path, wanted)
    _refuse_incomplete(parent, checkpoint, content)
    return Resume(parent, checkpoint, content, same_run=False, known=known, fork=True, again=again)


def refuse_other_loop(found: Resume | None) -> None:
    """Refuse to fork a run of Lightning's own loop in darkit's. Raises `CheckpointMismatchError`."""
    if found is not None and found.fork and KEY in found.content:
        raise CheckpointMismatchError(
            f"The run {found.run.name!r} was trained by Lightning's own loop, so only that loop can fork it exactly: "
            f"resume={found.run.name!r} with another name starts from its weights."
        )


def changed_since(found: Resume | None, changes: Changes) -> set[str]:
    """Return the names of the settings that differ from those with which the checkpoint was trained.

    A fork that is resumed from the checkpoint it began with differs in what it changed then, too, and a run in what an
    earlier resume from there, or from a later step, changed.
    """
    if found is None or not found.same_run:
        return set(changes)
    forked = changes_of(found.run.fork) if found.run.fork.get("step") == found.step else {}
    return {*changes, *forked, *changed_from(found.run.info, found.step)}


def deciding_callback(callbacks: Sequence[Callback]) -> str:
    """Return the class name of a callback that sets learning rates or parameter groups itself; empty if none does."""
    return next((type(one).__name__ for one in callbacks if isinstance(one, _DECIDING)), "")


def changed_optimizer(
    found: Resume, changes: Changes, config: TrainerConfig, callbacks: Sequence[Callback]
) -> set[str]:
    """Return the settings of optimizer and schedule that differ from those with which the checkpoint was trained.

    For Lightning's own loop, which restores all settings of both; empty if it may.

    Args:
        found: The run or the parent.
        changes: See `darkit.engine.resume.check_settings`.
        config: The trainer's config.
        callbacks: The user's callbacks.

    Raises:
        ConfigError: A callback decides these settings itself.
    """
    changed = changed_since(found, changes).intersection(_OPTIMIZER)
    deciding = deciding_callback(callbacks)
    if changed and deciding:
        name = min(changed)
        raise ConfigError(
            f"{name} cannot change beside the callback {deciding}, which sets learning rates or parameter groups "
            f"itself: give the earlier {name}, or leave the callback out."
        )
    is_longer = found.run.trainer_config.get("max_step") != config.max_step  # the schedule is a function of it
    return changed | {"max_step"} if is_longer and not deciding and config.scheduler != "constant" else changed


def refuse_restored(found: Resume | None, changes: Changes, *, allowed: bool) -> None:
    """Refuse to fork a LightningModule with other arguments, which its restored optimizers would ignore.

    Raises:
        ConfigError: An argument differs, and that is not ``allowed``.
    """
    own = [key for key in changes if key.startswith("model.")]
    if found is not None and found.fork and own and not allowed:
        raise ConfigError(
            f"A fork of {found.run.name!r} restores the optimizers and schedules of the LightningModule with their "
            f"settings, so {own[0]} may not have the effect that it says: give the earlier value, or "
            "resume_overrides=true to fork nevertheless."
        )


def lineage_of(found: Resume | None, changes: Changes) -> dict[str, Any]:
    """Return what a fork records in ``run.json`` about its parent; nothing for another training.

    Args:
        found: What the training starts from.
        changes: The settings, and facts of the data, that differ from the parent's.
    """
    if found is None or not found.fork or found.checkpoint is None:
        return {}
    checkpoint = found.checkpoint
    return {
        "parent": found.run.name,
        "parent_id": found.run.info.get("id"),
        "checkpoint": checkpoint.name,
        "step": checkpoint.step,
        "sha256": checkpoint.sha256 or _digest(checkpoint),
        "changes": {key: list(pair) for key, pair in changes.items()},
        "ancestors": ancestry(found.run),
    }


def adopt_checkpoints(found: Resume | None, folder: Path, run_id: str, config: TrainerConfig) -> None:
    """Put the checkpoint that a fork begins with into its folder, so that the fork never needs its parent again.

    With ``load_best_at_end`` the parent's best checkpoint before that step comes too, because it may stay the best. A
    file on the same file system takes no space: it is linked, and no checkpoint is ever written in place.

    Args:
        found: What the training starts from; nothing happens for another training than a fork.
        folder: The fork's run directory.
        run_id: The fork's id.
        config: Its config.

    Raises:
        CheckpointNotFoundError: The checkpoint was deleted or replaced in the meantime.
        StorageError: The file system failed.
    """
    if found is None or not found.fork or found.checkpoint is None:
        return
    wanted = [found.checkpoint]
    if config.load_best_at_end:
        earlier = [one for one in list_checkpoints(found.run.path) if one.step < found.step]
        wanted += Retention(monitor=config.monitor, mode=config.best_mode).ranked(earlier)[:1]
    for checkpoint in wanted:
        with files.storage_errors(f"put {checkpoint.name} into {folder}"):
            _adopt(checkpoint, folder, run_id)


def _adopt(checkpoint: Checkpoint, folder: Path, run_id: str) -> None:
    manifest = files.read_json(manifest_path(checkpoint.path))
    described = manifest if checkpoint.has_optimizer else as_dict(manifest.get(WITHOUT_OPTIMIZER))
    if described.get("sha256", "") != checkpoint.sha256:
        raise CheckpointNotFoundError(f"The checkpoint {checkpoint.path} was replaced while it was read; try again.")
    target, beside = folder / checkpoint.path.name, folder / f".{checkpoint.path.name}.tmp-{os.urandom(6).hex()}"
    try:
        if checkpoint.is_folder:
            _link_files(checkpoint, manifest, beside)
        else:
            _link(checkpoint.path, beside)
    except (FileNotFoundError, ValueError) as error:
        raise CheckpointNotFoundError(
            f"The checkpoint {checkpoint.path} was deleted or replaced while it was read; try again."
        ) from error
    os.replace(beside, target)
    files.sync_folder(folder)
    facts = {"size": checkpoint.size, "step": checkpoint.step, "metrics": checkpoint.metrics, **manifest}
    facts.pop(WITHOUT_OPTIMIZER, None)
    adopted: dict[str, Any] = {"sha256": checkpoint.sha256 or _digest(checkpoint), "run_id": run_id}
    if not checkpoint.has_optimizer:
        own = {"size": checkpoint.size, "sha256": checkpoint.sha256}
        adopted |= own | {WITHOUT_OPTIMIZER: own}
    files.write_json(manifest_path(target), facts | adopted)


def _link_files(checkpoint: Checkpoint, manifest: Mapping[str, Any], folder: Path) -> None:
    """Link the files that the manifest lists, and nothing else: a stranger's folder may also have links elsewhere."""
    names = (*list_shards(manifest, checkpoint.sha256), INDEX, STATE)
    folder.mkdir()
    for name in names:
        _link(checkpoint.path / name, folder / name)
    files.sync_folder(folder)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except FileNotFoundError:
        raise
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target, follow_symlinks=False)
        with target.open("rb") as file:
            os.fsync(file.fileno())


def _digest(checkpoint: Checkpoint) -> str:
    with files.storage_errors(f"read {checkpoint.path}"), checkpoint.path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_other_parent(child: Run, fork: str) -> None:
    """Refuse to resume a run that is not a fork of that checkpoint. Raises `ConfigError`."""
    name, _, wanted = fork.rpartition(os.sep)[2].partition(":")
    recorded = child.fork
    if recorded.get("parent") != name:
        of = f"a fork of {recorded['parent']!r}" if recorded else "no fork"
        raise ConfigError(
            f"The run {child.name!r} is {of}, not one of {name!r}: choose another name, or leave out fork=."
        )
    step = wanted.removeprefix("iter-").removesuffix(".pth").removesuffix("-ckpt")
    if wanted not in ("", "latest") and step != str(recorded.get("step")):
        raise ConfigError(
            f"The run {child.name!r} was forked at step {recorded.get('step')} of {name!r}, not at {wanted!r}: choose "
            "another name, or leave out fork=."
        )


def _refuse_incomplete(parent: Run, checkpoint: Checkpoint, content: Mapping[str, Any]) -> None:
    """Refuse a checkpoint without an optimizer's state or a place in the data. Raises `CheckpointMismatchError`."""
    if KEY in content:
        missing = "" if content.get("optimizer_states") else "no optimizer state"
    elif content.get("optimizer_state_dict") is None:
        missing = "no optimizer state"
    else:
        missing = "" if "position" in content and "rng" in content else "no position in the data"
    if missing:
        raise CheckpointMismatchError(
            f"{parent.name}:{checkpoint.name} has {missing}, so it cannot be forked exactly. Choose another "
            f"checkpoint, or start a new run from its weights with resume='{parent.name}:{checkpoint.name}' and "
            "another name."
        )

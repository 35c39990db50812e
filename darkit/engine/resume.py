"""The run and checkpoint that a training resumes from, and the comparison of their settings."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from darkit.engine.checkpoints.checkpoint import read_run_checkpoint
from darkit.engine.checkpoints.lighter import refuse_without_optimizer
from darkit.engine.config import AUTO, CUTS, TrainerConfig
from darkit.engine.description.exports import tokenizer_digest
from darkit.engine.steps.fused import recorded_fused
from darkit.engine.stores import launch_name
from darkit.errors import CheckpointNotFoundError, ConfigError, ReproductionWarning, RunLockedError
from darkit.runs import Run, files, load
from darkit.runs.checkpoints import Checkpoint, list_checkpoints, manifest_path
from darkit.runs.configs import public_values
from darkit.runs.names import run_path, split_reference

_SET_ASIDE = "superseded"
_MATHEMATICS = (
    "batch_size",
    "lr",
    "optimizer",
    "fused",
    "weight_decay",
    "betas",
    "scheduler",
    "warmup_step",
    "gradient_accumulation_steps",
    "global_batch_size",
    "gradient_clip",
    "ema_decay",
    "precision",
    "device_num",
    "num_nodes",
    "seed",
    "reset_state",
    "tokenizer",
)
_DRAWN = ("sample", "sample_parts", "fingerprint")
_EXPECTED_TO_DIFFER = ("name", "project", "max_step", "max_epoch", "device")
_NEVER_THE_SAME = ("name", "project")  # of a fork and its parent
_FORKABLE = ("lr", "weight_decay", "betas", "scheduler", "warmup_step", "gradient_clip", "ema_decay")
Changes = Mapping[str, tuple[Any, Any]]


@dataclass(frozen=True)
class Resume:
    """What a training resumes from.

    Attributes:
        run: The run that made the checkpoint.
        checkpoint: The checkpoint; None when the run has none and starts from step 0 in its folder.
        content: The checkpoint's content, or empty.
        same_run: Whether that run is resumed; otherwise a new run starts from its weights.
        known: The steps of all checkpoints that existed when this one was chosen.
        automatic: Whether ``"auto"`` was given, so that a complete run is no mistake.
        fork: Whether a new run continues from everything in the checkpoint, as `darkit.engine.fork` describes.
        again: Whether the fork's folder exists, because it was killed before it had a checkpoint.
        paused: The session of a training that was rewound, which the new one takes over; or None.
    """

    run: Run
    checkpoint: Checkpoint | None
    content: dict[str, Any]
    same_run: bool
    known: frozenset[int] = frozenset()
    automatic: bool = False
    fork: bool = False
    again: bool = False
    paused: Any = None

    @property
    def restores(self) -> bool:
        """Whether the training restores all of the checkpoint, and not only its weights."""
        return self.same_run or self.fork

    @property
    def has_folder(self) -> bool:
        """Whether the run directory exists."""
        return self.same_run or self.again

    @property
    def step(self) -> int:
        """The last step before the resumed training, in the same run or the parent."""
        return self.checkpoint.step if self.checkpoint is not None else 0

    def describe(self, changes: Changes) -> str:
        """Return what happens next, in one or two sentences for a person."""
        if self.checkpoint is None:
            text = f"Run {self.run.name!r} has no checkpoint yet; starting from step 0."
        elif self.same_run:
            text = f"Resuming run {self.run.name!r} from step {self.step}."
        elif self.fork:
            text = f"Forking {self.run.name}:{self.checkpoint.name}; the next step is {self.step + 1}."
            text += "" if changes else " No setting of the config differs from the parent's."
        else:
            text = f"Starting a new run from the weights of {self.run.name}:{self.checkpoint.name}."
        return text + (f" Changed: {_listed(changes)}." if changes else "")

    def has_nothing_to_do(self, max_step: int | None) -> bool:
        """Return whether the run has all its steps, which is a mistake unless ``"auto"`` was given."""
        return max_step is not None and self.automatic and self.same_run and self.step >= max_step

    def release(self) -> None:
        """Let go of the content once it is restored, for all who hold it: a training may last for days."""
        self.content.clear()

    def set_aside_later(self) -> None:
        """Move checkpoints of later steps into a separate folder when the same run resumes from an earlier one.

        The caller holds the run's lock.

        Raises:
            RunLockedError: Another process has trained the run since the checkpoint was read.
            StorageError: A file or folder cannot be moved or created.
        """
        if not self.same_run:
            return
        later = [checkpoint for checkpoint in list_checkpoints(self.run.path) if checkpoint.step > self.step]
        if any(checkpoint.step not in self.known for checkpoint in later):
            raise RunLockedError(f"The run {self.run.name!r} was trained by another process just now; try again.")
        if not later:
            return
        with files.storage_errors(f"set later checkpoints of {self.run.name!r} aside"):
            folder = _new_folder(self.run.path)
            for checkpoint in later:
                for path in (manifest_path(checkpoint.path), checkpoint.path):
                    if path.exists():
                        os.replace(path, folder / path.name)
            files.sync_folder(folder)
            files.sync_folder(self.run.path)


def warn_of_other_data(run: Run, facts: Mapping[str, Any]) -> Changes:
    """Warn when the recorded facts of the data differ from those of the run, and return those that do.

    Samples are not compared: a dataset may draw them at random.
    """
    before = run.info.get("data")
    known = {key: value for key, value in before.items() if key not in _DRAWN} if isinstance(before, dict) else {}
    changed = [key for key, value in known.items() if key in facts and facts[key] != value]
    if changed:
        warnings.warn(
            f"The data differs from that of run {run.name!r} before ({', '.join(changed)}): the resumed training is "
            "not an exact continuation.",
            ReproductionWarning,
            stacklevel=2,
        )
    return {f"data.{key}": (known[key], facts[key]) for key in changed}


def _new_folder(run: Path) -> Path:
    """Make a folder for superseded checkpoints: ``superseded``, or with a number if it exists."""
    for number in count(1):
        folder = run / (_SET_ASIDE if number == 1 else f"{_SET_ASIDE}-{number}")
        with suppress(FileExistsError):
            folder.mkdir()
            return folder
    raise AssertionError("unreachable")


def find_resume(root: Path, config: TrainerConfig, resume: bool | str | None) -> Resume | None:
    """Find the run and checkpoint to resume from, and set ``config.name`` when the same run is resumed.

    Args:
        root: The folder of the runs.
        config: The trainer's config, with the run's ``name``.
        resume: True for the run called ``name``; ``"auto"`` for the same if it exists, else a new run of that name,
            which a SLURM job or torchrun has also without a ``name``; ``"NAME"`` or ``"NAME:CHECKPOINT"``.

    Raises:
        ConfigError: ``name`` is missing.
        RunNotFoundError: The run does not exist.
        CheckpointNotFoundError: The run has no such checkpoint.
        CheckpointCorruptError: The checkpoint is damaged.
        StorageError: A file of the resumed run is a link, or cannot be read.
    """
    if not resume:
        return None
    if resume == AUTO and config.name is None:
        config.name = launch_name()
    if resume in (True, AUTO) and config.name is None:
        raise ConfigError(f"resume={resume!r} resumes the run called name=, but no name was given.")
    reference = config.name if resume in (True, AUTO) else resume
    name, wanted = split_reference(reference)
    if resume == AUTO:
        folder = run_path(root, name)
        if not folder.exists():
            return None
        refuse_imported(Run(folder))
        files.refuse_linked_run(folder)
        if not list_checkpoints(folder):
            if parent := Run(folder).fork:
                begun = f"{parent.get('parent')}:{parent.get('checkpoint')}"
                raise ConfigError(
                    f"The run {name!r} is a fork without a checkpoint of its own. Give fork={begun!r} too."
                )
            return Resume(Run(folder), None, {}, same_run=True)
    run = load(name, root=root)
    refuse_imported(run)
    same_run = config.name in (None, name)
    if same_run:
        files.refuse_linked_run(run.path)
    known = frozenset(checkpoint.step for checkpoint in list_checkpoints(run.path))
    try:
        checkpoint, content = read_run_checkpoint(run.path, wanted)
    except CheckpointNotFoundError as error:
        if same_run and not known:
            error.add_note(f"To start it again from step 0, set resume to 'auto' and name to {name!r}.")
        raise
    if same_run:
        refuse_without_optimizer(run.name, checkpoint, content)
        config.name = name
    return Resume(run, checkpoint, content, same_run, known, automatic=resume == AUTO)


def refuse_imported(run: Run) -> None:
    """Raise `ConfigError` for a run that was trained elsewhere; its next import would replace what is added here."""
    if run.origin:
        raise ConfigError(
            f"The run {run.name!r} was imported from {run.origin.get('kind')} and cannot be resumed: there is no state "
            "to resume from. Choose another name."
        )


def check_settings(
    found: Resume,
    config: TrainerConfig,
    model_config: Mapping[str, Any],
    tokenizer: Any,
    allowed: bool,
    *,
    max_step: int | None,
    keeps_steps: bool = False,
) -> Changes:
    """Compare the settings of a resumed run with those that it was trained with.

    Args:
        found: The run.
        config: The trainer's config now.
        model_config: The model's config now.
        tokenizer: The tokenizer now, or None.
        allowed: Whether settings that change the mathematics may differ.
        max_step: The step at which the resumed training ends, or None.
        keeps_steps: Whether steps have the same samples whatever the settings are that cut them into batches.

    Returns:
        Every setting that differs: its name -> (value before, value now).

    Raises:
        ConfigError: A setting that changes the mathematics differs, or the run is complete.
    """
    if found.run.has_own_loop:
        raise ConfigError(
            f"The run {found.run.name!r} was made by darkit.start_run, with a loop and a config of its own: resume it "
            "there, or give another name= to start a new run from its weights."
        )
    if not allowed and found.checkpoint is not None:
        _refuse_unknown_settings(found.run)
    changes = {
        key: pair
        for key, pair in _changes(found.run.trainer_config, public_values(config)).items()
        if key not in (_NEVER_THE_SAME if found.fork else _EXPECTED_TO_DIFFER)
    }
    changes = _with_kernel(changes, found, config)
    changes |= {f"model.{key}": pair for key, pair in _changes(found.run.model_config, model_config).items()}
    digests = tokenizer_digest(found.run.path / files.TOKENIZER), tokenizer_digest(tokenizer)
    if None not in digests and digests[0] != digests[1]:
        changes["tokenizer"] = digests
    serious = {key: pair for key, pair in changes.items() if key in _MATHEMATICS or key.startswith("model.")}
    if keeps_steps:
        serious = {key: pair for key, pair in serious.items() if key not in CUTS}
    if found.fork and not allowed:
        _refuse_inexact_fork(found, serious)
    elif serious and not allowed and found.checkpoint is not None:
        raise ConfigError(
            f"The run {found.run.name!r} was trained with other settings: {_listed(serious)}. Give the "
            "earlier values, or resume_overrides=true to resume with the new ones."
        )
    if max_step is not None and found.step >= max_step and not found.automatic:
        raise ConfigError(
            f"The run {found.run.name!r} is at step {found.step} {'there' if found.fork else 'already'}. "
            f"To {'fork' if found.fork else 'resume'} it, max_step must be larger than that, not {max_step}."
        )
    return changes


def _refuse_inexact_fork(found: Resume, serious: Changes) -> None:
    """Refuse changes with which a fork has no exact beginning. Raises `ConfigError`.

    Weights decide whether the model may be another one.
    """
    refused = {key: pair for key, pair in serious.items() if key not in _FORKABLE and not key.startswith("model.")}
    if refused:
        raise ConfigError(
            f"A fork of {found.run.name!r} cannot begin exactly at its step {found.step} with {_listed(refused)}: they "
            "change the order of the data or what the restored state means. Give the earlier values, or "
            "resume_overrides=true to fork with the new ones."
        )


def _with_kernel(changes: Changes, found: Resume, config: TrainerConfig) -> dict[str, tuple[Any, Any]]:
    """Return changes in which ``fused`` is compared with what the run has used and not with its setting."""
    rest = {key: pair for key, pair in changes.items() if key != "fused"}
    used = recorded_fused(found.content)
    if used is None or "optimizer" in rest or config.fused in ("auto", used):
        return rest
    return rest | {"fused": (used, config.fused)}


def _refuse_unknown_settings(run: Run) -> None:
    """Refuse to resume a run whose settings cannot be read. Raises `ConfigError`."""
    for name in (files.TRAINER_CONFIG, files.MODEL_CONFIG):
        if reason := files.why_unreadable(run.path / name):
            raise ConfigError(
                f"The settings of the run {run.name!r} cannot be compared with those given, because its {name} cannot "
                f"be read ({reason}): restore the file, or resume_overrides=true resumes with the settings given."
            )


def _listed(changes: Changes) -> str:
    """Return the settings that differ as text, such as ``lr 0.001 -> 0.01``."""
    return ", ".join(f"{key} {before!r} -> {now!r}" for key, (before, now) in changes.items())


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Compare settings that both have: one that only one version of darkit has was not changed by a person."""
    return {key: (before[key], now[key]) for key in before if key in now and before[key] != now[key]}

"""What a subclass of `darkit.core.Trainer` may read, set and override besides its methods, as in DarwinKit."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from darkit.core.logger import CsvLogger
from darkit.core.own_save import STAGING, staged
from darkit.core.recorder import RunRecorder
from darkit.core.resume import ResumeState
from darkit.engine.checkpoints.checkpoint import read_run_checkpoint
from darkit.engine.checkpoints.weights import load_weights
from darkit.engine.config import TrainerConfig, with_overrides
from darkit.engine.processes import own_rank
from darkit.engine.steps.averages import raw_weights
from darkit.errors import ConfigError
from darkit.runs import base, files
from darkit.runs.checkpoints import COMPLETE, find_checkpoint, step_of
from darkit.runs.names import run_path, split_reference

logger = logging.getLogger(__name__)
SETTINGS = "_settings"  # attribute with the settings that a trainer has set, by name
_NOT_CALLED = {  # hooks of DarwinKit's trainer that write what darkit writes itself
    *("_init_save_file", "_save_model_config", "_save_trainer_config", "_save_external_config", "_save_tokenizer"),
    *("_copy_model_code", "_inject_fork_script"),
}


class Setting:
    """A setting of the config as an attribute: assigning it changes it for this trainer, and not in the config."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, trainer: Any, owner: type | None = None) -> Any:
        if trainer is None:
            return self
        overrides = vars(trainer).get(SETTINGS, {})
        return overrides[self.name] if self.name in overrides else getattr(trainer.config, self.name)

    def __set__(self, trainer: Any, value: Any) -> None:
        if "config" in vars(trainer):
            value = getattr(with_overrides(trainer.config, {self.name: value}), self.name)
        vars(trainer).setdefault(SETTINGS, {})[self.name] = value


class TrainerAttributes:
    """Base of `darkit.core.Trainer`.

    Attributes:
        config: The settings; those that the trainer has as attributes come first.
        model: The model.
        tokenizer: Exported with the run; None for none. It may be set until the training starts.
    """

    config: TrainerConfig
    model: nn.Module
    tokenizer: Any
    csv_logger: CsvLogger
    fork: ClassVar[None] = None  # DarwinKit's: scripts to run
    max_step = Setting()
    eval_iters = Setting()
    eval_step_interval = Setting()
    save_step_interval = Setting()
    _NAMES: ClassVar[tuple[str, ...]] = ("max_step", "eval_iters", "eval_step_interval", "save_step_interval")
    _run_recorder: RunRecorder
    _resume: bool | str | None
    _resume_state: ResumeState | None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Make the class's own ``_save_model`` part of a save, and warn of hooks that darkit does not call."""
        super().__init_subclass__(**kwargs)
        if "_save_model" in vars(cls):
            cls._save_model = staged(cls._save_model)  # type: ignore[method-assign]
        if found := sorted(_NOT_CALLED.intersection(vars(cls))):
            logger.warning(
                "%s overrides %s, which darkit does not call: it writes the files of a run itself.",
                cls.__name__,
                ", ".join(f"{name}()" for name in found),
            )

    @property
    def root(self) -> Path:
        """The folder of the runs; a subclass may override it."""
        return base()

    @property
    def save_directory(self) -> Path:
        """The run directory; created now, under a fresh name, for a run without a name."""
        if STAGING in vars(self):
            return vars(self)[STAGING][0]  # type: ignore[no-any-return]
        if self._run_recorder.folder is None and self.config.name is not None:
            return Path(self.root) / self.config.name
        return self._run_recorder.folder or self._run_recorder.open().folder

    @property
    def is_name_exist(self) -> bool:
        """Whether the run directory exists."""
        folder = self._run_recorder.folder
        if folder is None and self.config.name is not None:
            folder = Path(self.root) / self.config.name
        return folder is not None and folder.exists()

    @property
    def model_config_save_path(self) -> Path:
        """The file with the model's config."""
        return self.save_directory / files.MODEL_CONFIG

    modle_config_save_path = model_config_save_path  # as DarwinKit spells it

    @property
    def trainer_config_save_path(self) -> Path:
        """The file with the settings."""
        return self.save_directory / files.TRAINER_CONFIG

    @property
    def external_config_save_path(self) -> Path:
        """The file with the model's class and the curves: ``run.json``."""
        return self.save_directory / files.RUN

    @property
    def tokenizer_save_path(self) -> Path:
        """The folder with a transformers tokenizer; one of ``tokenizers`` is in ``tokenizer.json``."""
        return self.save_directory / files.TOKENIZER_FOLDER

    @property
    def model_code_archive_path(self) -> Path:
        """The file with the source of the model's class."""
        return self.save_directory / files.MODEL_SOURCE

    @property
    def device(self) -> Any:
        """The device in use: a name, or what the trainer has set."""
        return vars(self).get("_device", self.config.device)

    @device.setter
    def device(self, device: Any) -> None:
        if "config" in vars(self):
            with_overrides(self.config, {"device": torch.device(device).type})
        vars(self)["_device"] = device

    @property
    def resume(self) -> bool | str | None:
        """What ``resume=`` was given."""
        return self._resume

    @property
    def resume_key(self) -> str | None:
        """Name of the run that ``resume=`` names."""
        return self._resumed()[0]

    @property
    def resume_ckpt(self) -> str | None:
        """The checkpoint that ``resume=`` names, or None for the latest."""
        return self._resumed()[1]

    def _resumed(self) -> tuple[str | None, str | None]:
        if isinstance(self._resume, str) and self._resume != "auto":
            return split_reference(self._resume)
        return (self.config.name if self._resume else None), None

    def log_exception(self, error: BaseException) -> None:
        """Write an error with its traceback into ``exception.log``, in a run that exists."""
        text = "".join(traceback.format_exception(error))
        if self.is_name_exist and self._is_master_process():
            files.write_text(self.save_directory / files.EXCEPTION, text)
        else:
            logger.error("%s", text)

    def _is_master_process(self) -> bool:
        """Return whether this process writes the run."""
        return not own_rank(self.config)

    def _own_config(self) -> TrainerConfig:
        """Return the config with the settings that the trainer has as attributes; the same object if none differs."""
        values = {name: getattr(self, name) for name in self._NAMES}
        values["device"] = torch.device(self.device).type if "_device" in vars(self) else self.config.device
        return with_overrides(
            self.config, {name: value for name, value in values.items() if value != getattr(self.config, name)}
        )

    def _init_logger(self, log_fieldnames: Sequence[str] | None) -> None:
        """Set the columns of the log, until the run is created; None means the default ones and any others.

        Raises:
            ConfigError: The run exists.
        """
        if self._run_recorder.folder is not None:
            raise ConfigError(f"The log of the run {self._run_recorder.folder.name!r} exists: its columns are set.")
        self._run_recorder.columns = None if log_fieldnames is None else list(log_fieldnames)
        self.csv_logger = CsvLogger(self._run_recorder.log)

    def save_pretrained(self, check_poinent: str | None = None) -> Path:
        """Save a step: `darkit.core.Trainer` does."""
        raise NotImplementedError

    def _save_model(self, checkpoint: str = COMPLETE) -> None:
        """Save a checkpoint; a subclass may override it to save other or further entries under that name.

        It then writes ``save_directory / f"{checkpoint}.pth"``, a dict for `torch.load` without code, whose entries
        become those of darkit's checkpoint.

        Args:
            checkpoint: As in `save_pretrained`.
        """
        if STAGING not in vars(self):
            self.save_pretrained(checkpoint)
            return
        folder, content = vars(self)[STAGING]
        torch.save(dict(content), folder / f"{checkpoint}.pth")

    def _get_checkpoint_path(self) -> Path:
        """Return the file of the checkpoint that ``resume=`` names."""
        name, checkpoint = self._resumed()
        return find_checkpoint(run_path(Path(self.root), name), _known(checkpoint)).path

    def _load_checkpoint(self, model: nn.Module, optimizer: Any) -> tuple[nn.Module, Any, int]:
        """Load the checkpoint that ``resume=`` names, without running code from it.

        Returns:
            The model with its weights, the optimizer with its state, and the number of steps done; without ``resume=``,
            what was given and `current_step`.

        Raises:
            CheckpointNotFoundError: The run has no such checkpoint.
            CheckpointMismatchError: It does not fit.
        """
        state = self._resume_state
        if not self._resume or (state is None and self._resume == "auto"):
            return model, optimizer, self.current_step  # type: ignore[attr-defined]
        if state is not None:
            content = state.found.content
        else:
            name, checkpoint = self._resumed()
            content = read_run_checkpoint(run_path(Path(self.root), name), _known(checkpoint))[1]
        if not content:  # the run has no checkpoint yet
            return model, optimizer, self.current_step  # type: ignore[attr-defined]
        load_weights(model, raw_weights(content))
        if state is not None and state.found.same_run:
            state.restore_attribute("optimizer", optimizer)
        elif content.get("optimizer_state_dict") is not None:
            optimizer.load_state_dict(content["optimizer_state_dict"])
        return model, optimizer, content["current_step"]


def _known(checkpoint: str | None) -> str | None:
    return None if checkpoint == COMPLETE else checkpoint


def step_named(checkpoint: str | None) -> int | None:
    """Return the step of a checkpoint's name; None for None and ``complete``, which mean the step just done.

    Raises:
        ConfigError: It is another name.
    """
    if checkpoint in (None, COMPLETE):
        return None
    step = step_of(str(checkpoint))
    if step is None:
        raise ConfigError(
            f"A checkpoint is named by its step, such as 'iter-400-ckpt', so it cannot be called {checkpoint!r}. "
            "Save it without a name."
        )
    return step

"""Callbacks that make a training by Lightning's own loop a run."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import lightning
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

from darkit.engine.checkpoints.weights import bare
from darkit.engine.config import AUTO, TrainerConfig
from darkit.engine.description.describe import describe_model
from darkit.engine.description.exports import write_exports
from darkit.engine.lightning import call_at, copies_process, own_children, restore_from, was_sent_sigterm
from darkit.engine.log.progress import announce
from darkit.engine.log.rows import Sink
from darkit.engine.log.tensorboard import TensorBoardSink
from darkit.engine.native.given import compare_given
from darkit.engine.native.logger import RowLogger
from darkit.engine.native.recording import Recording
from darkit.engine.native.settings import recorded_settings, settings_of
from darkit.engine.native.sharded import ShardedStrategy
from darkit.engine.native.state import KEY, other_processes
from darkit.engine.resume import Resume, find_resume
from darkit.engine.session import DEFAULT_SERIES, Session
from darkit.engine.steps.own_settings import OwnSettings
from darkit.engine.together import meeting_of_loop
from darkit.errors import ConfigError
from darkit.runs import Run, base, files
from darkit.runs.checkpoints import latest_checkpoint
from darkit.runs.names import check_name, run_path
from darkit.runs.retention import Retention

_OWN = (
    *("name", "save_step_interval", "keep_last", "keep_best", "monitor", "mode", "tensorboard", "nan_policy"),
    "log_step_interval",
)
_NOT_RECORDED = frozenset(field.name for field in fields(TrainerConfig)).difference(_OWN)


class RunRecorder(lightning.Callback):
    """Make every ``fit`` of a stock `lightning.Trainer` a run: ``Trainer(callbacks=[RunRecorder("my-run")])``.

    The training itself is not changed. The run gets what ``self.log`` and other callbacks log, durable checkpoints that
    ``load_from_checkpoint`` and ``fit(ckpt_path=...)`` read too, configs, a status that is also true after a crash, and
    can be stopped from the dashboard. A resume is exact if the training loader is `darkit.dataloader` or has
    ``state_dict`` and ``load_state_dict``; otherwise what is not exact is said.

    Args:
        name: The run's name; None generates one.
        project: The project that the run belongs to; None for none.
        save_step_interval: Steps between checkpoints; the last step is always saved, 0 saves nothing else.
        keep_last: Number of latest checkpoints kept; None keeps all.
        keep_best: Number of best checkpoints kept in addition.
        monitor: Metric that decides which checkpoint is best.
        mode: ``min`` or ``max``; ``auto`` goes by the metric's name.
        tokenizer: A tokenizer to export, as for `darkit.fit`.
        tensorboard: Whether the log also goes to TensorBoard files in the run directory.
        visual_series: The curves to show: name -> [x column, y column].
        nan_policy: ``warn`` once of a loss that is not finite, or ``stop``.
        console: Whether to record what the process prints during the training.
        resume: ``"auto"`` resumes the run called ``name`` from its latest checkpoint if it has one; None starts a new
            run, or continues the run whose checkpoint ``fit`` gets as ``ckpt_path``.

    Raises:
        ConfigError: A setting is out of its range.
        NameInvalidError: The name is not valid.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        project: str | None = None,
        save_step_interval: int = 0,
        keep_last: int | None = None,
        keep_best: int = 0,
        monitor: str = "val_loss",
        mode: str = "auto",
        tokenizer: Any = None,
        tensorboard: bool = False,
        visual_series: Mapping[str, Sequence[str]] | None = None,
        nan_policy: str = "warn",
        console: bool = True,
        resume: str | None = None,
    ) -> None:
        if resume not in (None, AUTO):
            raise ConfigError(f"resume must be 'auto' or None, not {resume!r}.")
        if resume == AUTO and name is None:
            raise ConfigError("resume='auto' resumes the run called name=, but no name was given.")
        if name is not None:
            check_name(name)
        self.config = TrainerConfig(
            name=name,
            project=project,
            save_step_interval=save_step_interval,
            keep_last=keep_last,
            keep_best=keep_best,
            monitor=monitor,
            mode=mode,
            tensorboard=tensorboard,
            nan_policy=nan_policy,
            console=console,
        )
        self.tokenizer = tokenizer
        self.series = visual_series
        self.resume = resume
        self.session: Session | None = None
        self.recording: Recording | None = None
        self._run: Run | None = None
        self._found: Resume | None = None
        self._given: Mapping[str, Any] | None = None
        self._restored: Callable[[], None] = lambda: None
        self._own = OwnSettings(honours=False)
        self._logger = RowLogger(lambda: self._run, lambda values, step: None)

    @property
    def run(self) -> Run | None:
        """The run, or None before ``fit`` has begun."""
        return self._run

    @property
    def latest(self) -> str | None:
        """The path of the latest checkpoint that can be trusted, for ``fit(ckpt_path=...)``, or None."""
        if self.config.name is None:
            return None
        folder = run_path(base(), self.config.name)
        found = latest_checkpoint(folder) if folder.is_dir() else None
        return None if found is None else str(found.path)

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Have the trainer restore the latest checkpoint, if the run is to be resumed.

        Raises:
            ConfigError: The trainer's strategy is not supported, or the run cannot be resumed by it.
        """
        if stage != "fit":
            return
        refuse_strategy(trainer)
        self._given, self._found = None, None
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        self._own = OwnSettings(honours=False)
        call_at(trainer.strategy, "setup_optimizers", lambda: self._compare(trainer))
        self._found = find_resume(base(), self.config, self.resume)
        if self._found is not None and self._found.content:
            refuse_other_loops(self._found.run.name, self._found.content)
            self._restored = restore_from(trainer, self._found.content, str(self._found.run.path))

    def _compare(self, trainer: lightning.Trainer) -> None:
        """Warn of settings of optimizers and schedules that the checkpoint's replace."""
        vars(trainer.strategy).pop("setup_optimizers", None)
        compare_given(trainer, self._own, self._given or {})

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Note the checkpoint that ``fit`` got as ``ckpt_path``."""
        self._given = checkpoint

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Open the run.

        Raises:
            RunExistsError: A run of that name exists.
            ConfigError: The checkpoint is of another number of processes, or the processes find different ones.
            ProcessFailedError: Another process failed.
        """
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            announce("fast_dev_run: nothing is recorded.")
            return
        state = self._given or {}
        refuse_other_processes(trainer, state)
        with meeting_of_loop(watch=True) as meeting:
            if meeting is not None:
                own_children(trainer)
            self.session = session = self._open(trainer, pl_module, state)
        session.meeting = meeting
        self._run = Run(session.folder)
        self.config.log_step_interval = max(1, trainer.log_every_n_steps)  # type: ignore[attr-defined]
        session.begin(
            trainer.max_steps if trainer.max_steps > 0 else None,
            None,
            self._sinks,
            Retention(self.config.keep_last, self.config.keep_best, self.config.monitor, self.config.best_mode),
            console=self.config.console,
        )
        self.recording = Recording(session, self.config, state=state if KEY in state else {})
        self.recording.attach(trainer, pl_module)
        self.recording.moments.given = self._own.given

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write the run's description, and begin to receive what is logged."""
        session, recording = self.session, self.recording
        if session is None or recording is None:
            return
        recording.on_train_start(trainer)
        self._forget_checkpoint()
        description = describe_model(bare(pl_module))
        seed = os.environ.get("PL_GLOBAL_SEED")  # of Lightning's seed_everything
        known = TrainerConfig(seed=int(seed)) if seed else None
        session.project = self.config.project
        session.describe(description, known, self.series or DEFAULT_SERIES, {})
        if session.writes:
            record = recorded_settings(self.config, settings_of(trainer), _NOT_RECORDED)
            write_exports(session.folder, pl_module, record, self.tokenizer, description)
        self._logger = RowLogger(
            lambda: self._run, lambda values, step: recording.log(trainer, values, step) if self.recording else None
        )
        trainer.loggers = [*trainer.loggers, self._logger]

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Save the last completed step, and record how the training ended."""
        if self.recording is not None:
            self.recording.on_exception(trainer, exception)
        session = self.session
        if session is not None and was_sent_sigterm(trainer):
            session.guard.request.ask("Stopped by SIGTERM.")
        self._end(exception, trainer)

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """End the run."""
        if stage == "fit":
            self._end(None, trainer)

    def _forget_checkpoint(self) -> None:
        """Let go of the content that the trainer restored: a training may last for days."""
        self._restored()
        self._restored, self._found, self._given = lambda: None, None, None

    def _open(self, trainer: lightning.Trainer, module: lightning.LightningModule, state: Mapping[str, Any]) -> Session:
        rank, own = trainer.global_rank, self._run
        found = self._found if self._found is not None else self._run_of(state)
        if found is not None:
            session = Session.reopen(found.run.path, found.step, rank=rank)
            if session.writes:
                found.set_aside_later()
                announce(found.describe({}))
            return session
        if state and trainer.is_global_zero:
            announce(_whence(state))
        if own is not None and trainer.global_step and not state:  # the same trainer goes on
            return Session.reopen(own.path, trainer.global_step, keep_log=True, rank=rank)
        return Session.create(base(), self.config, type(bare(module)).__name__, rank)

    def _run_of(self, state: Mapping[str, Any]) -> Resume | None:
        """Return the run that a checkpoint belongs to, if it is the one of this recorder."""
        name = state.get(KEY, {}).get("run")
        if name is None or self.config.name not in (None, name) or not run_path(base(), name).is_dir():
            return None
        found = find_resume(base(), self.config, f"{name}:{state['current_step']}")
        return found if found is not None and found.content[KEY]["id"] == state[KEY]["id"] else None

    def _sinks(self) -> list[Sink]:
        session = self.session
        if not self.config.tensorboard or session is None:
            return []
        return [TensorBoardSink(session.folder / files.TENSORBOARD, session.step + 1 if session.step else None)]

    def _end(self, error: BaseException | None, trainer: lightning.Trainer | None = None) -> None:
        session, self.session = self.session, None
        recording, self.recording = self.recording, None
        if recording is not None:
            recording.detach()
        self._restored()
        if trainer is not None:
            trainer.loggers = [logger for logger in trainer.loggers if logger is not self._logger]
        if session is None:
            return
        session.end(error)
        if not session.folder.exists():  # nothing had begun
            self._run = None


def refuse_other_loops(name: str, content: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that Lightning's own loop did not make. Raises `ConfigError`."""
    if KEY not in content:
        raise ConfigError(
            f"The run {name!r} was not trained by Lightning's own loop, which therefore cannot resume it. Its weights "
            "are in its checkpoints under 'state_dict'."
        )


def refuse_other_processes(trainer: lightning.Trainer, content: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that another number of processes made. Raises `ConfigError`."""
    if KEY in content and (lost := other_processes(content, trainer.world_size)):
        raise ConfigError(f"{lost}: resume on as many as before.")


def _whence(state: Mapping[str, Any]) -> str:
    """Say what a new run starts from."""
    step = state.get("global_step", 0)
    if KEY in state:
        return f"Starting a new run from step {step} of {state[KEY]['run']!r}."
    return (
        f"Starting a new run from step {step} of a checkpoint of Lightning's: weights, optimizers, schedules and loops "
        "are restored; random generators, the place in the data and what was logged in that epoch are not in it."
    )


def refuse_strategy(trainer: lightning.Trainer) -> None:
    """Refuse strategies whose processes do not have the whole state. Raises `ConfigError`."""
    if copies_process(trainer):
        raise ConfigError(
            "Training with copies of this process (strategies *_spawn, *_fork and *_notebook) is not supported: use "
            "strategy='ddp' in a script."
        )
    if type(trainer.strategy) not in (SingleDeviceStrategy, DDPStrategy, ShardedStrategy):
        raise ConfigError(
            f"The strategy {type(trainer.strategy).__name__} is not supported: its processes may each hold a part of "
            "the model. Use one device, or strategy='ddp'."
        )

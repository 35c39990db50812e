"""`Trainer`: a run around a hand-written loop, or around the engine's."""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import lightning
from torch import nn
from torch.optim import Optimizer

from darkit.core.arguments import refuse_of_darwinkit, tokenizer_and_config
from darkit.core.attributes import SETTINGS, TrainerAttributes, step_named
from darkit.core.bridge import FollowSteps, OwnEvaluation, validation_metrics
from darkit.core.loop_state import LoopState, state_of, whole_step
from darkit.core.own_save import with_own
from darkit.core.recorder import RunParts, RunRecorder
from darkit.core.resume import ResumeState, find_resume_state
from darkit.core.server import start_dashboard
from darkit.engine.callbacks import LossGuard
from darkit.engine.callbacks.evaluate import StepEvaluate, evaluate
from darkit.engine.checkpoints.boundary import Boundary
from darkit.engine.checkpoints.savable import check_savable
from darkit.engine.checkpoints.state import collect_state
from darkit.engine.checkpoints.weights import bare, class_path
from darkit.engine.config import TrainerConfig
from darkit.engine.device import generator_states, move_to_device, resolve_device, seed_generators
from darkit.engine.processes import own_rank
from darkit.engine.series import check_series, column_names
from darkit.engine.session import DEFAULT_SERIES
from darkit.engine.steps.loss import make_step
from darkit.engine.steps.optim import make_optimizer
from darkit.engine.training import train_run
from darkit.errors import ConfigError, ModelError
from darkit.runs import Run
from darkit.runs.log import DEFAULT_COLUMNS
from darkit.runs.names import refuse_existing

logger = logging.getLogger(__name__)


class Trainer(TrainerAttributes):
    """Train a model into a run.

    Called as ``Trainer(model, config)`` or ``Trainer(model, tokenizer, config)``, by position or by keyword. Calling
    this class itself builds the subclass registered for the model's class, if any.

    A subclass may write its own ``train``. darkit then records the run's status around it, and ``train`` uses
    ``self.current_step`` (the step just completed, counted from 0), ``self._auto_save_pretrained()``,
    ``self._auto_validate(...)`` and ``self.csv_logger.log(...)``. These settings apply to such a loop: name, device,
    max_step, the intervals of saving and evaluating, eval_iters, seed, tensorboard, console and, before a save,
    nan_policy; the loop reads the others itself. A subclass without ``train`` is trained by the engine, with its
    ``_get_optimizer`` and ``validate``.

    Args:
        model: The module; it is moved to the config's device.
        config: A `TrainerConfig`. Its ``device`` is set to the device in use; nothing else is changed, so several
            trainers may share one without a name.
        tokenizer: Exported with the run, or None.
        log_fieldnames: A dataclass whose fields are the log's only columns; None means the default ones and any others.
        visual_series: The curves to show: name -> [x column, y column]; by default the class's ``_visual_series``.
        loss: How the engine, or `validate`, gets a loss; see `darkit.engine.steps.loss`.
        callbacks: Lightning callbacks for the engine.
        resume: What `train` resumes from; see `darkit.fit`. A hand-written ``train`` starts with the weights in the
            model, the generators restored and ``self.current_step`` set to the index of the step to start at. Optimizer
            and schedule (one, a list or a dict) get their states when it sets ``self.optimizer`` and
            ``self.scheduler``; so does every other attribute with a ``state_dict`` and ``load_state_dict``. A trainer
            class with those two methods saves its further state with them; ``load_state_dict`` is called before
            ``train``.
        resume_overrides: Whether a run may resume with other settings that change its mathematics.
        enable_server: Whether to show the dashboard during the training.
        fork: None; code for DarwinKit gives it.
        server_prot: Likewise.

    Raises:
        ModelError: The model is not a module.
        ConfigError: ``config`` is not a `TrainerConfig`, or an argument has the wrong form.
        RunExistsError: The config's name is taken.
    """

    _registry: ClassVar[dict[str, type[Trainer]]] = {}
    _builds_registered: ClassVar[bool] = True  # of a class itself, not of its subclasses
    _visual_series: Mapping[str, Sequence[str]] | None = None
    current_step: int = 0
    """The step just completed, counted from 0; a hand-written loop sets it."""

    def __new__(cls, model: Any = None, *args: Any, **kwargs: Any) -> Self:
        """Build the subclass registered for the model's class when this class itself is called."""
        kind = type(bare(model) if isinstance(model, nn.Module) else model).__name__
        found = Trainer._registry.get(kind, cls)
        chosen = found if issubclass(found, cls) and "_builds_registered" in vars(cls) else cls
        return object.__new__(chosen)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Record the run around a hand-written ``train``, inherited or not."""
        super().__init_subclass__(**kwargs)
        if cls.train is not Trainer.train and not hasattr(cls.train, "_is_recorded"):
            cls.train = _recorded(cls.train)  # type: ignore[method-assign]

    def __init__(
        self,
        model: nn.Module,
        *args: Any,
        config: TrainerConfig | None = None,
        tokenizer: Any = None,
        log_fieldnames: Any = None,
        visual_series: Mapping[str, Sequence[str]] | None = None,
        loss: Callable[..., Any] | None = None,
        callbacks: Sequence[lightning.Callback] = (),
        resume: bool | str | None = None,
        resume_overrides: bool = False,
        enable_server: bool = False,
        fork: None = None,
        server_prot: None = None,
    ) -> None:
        refuse_of_darwinkit(fork, server_prot)
        others = set(vars(self)) - {SETTINGS}
        vars(self).setdefault(SETTINGS, {})
        self._engine: tuple[lightning.Trainer, lightning.LightningModule] | None = None
        self._resume_state: ResumeState | None = None
        if not isinstance(model, nn.Module):
            raise ModelError(f"model must be a torch.nn.Module, not {type(model).__name__}.")
        given, self.config = tokenizer_and_config(args, tokenizer, config)
        self.tokenizer = vars(self).get("tokenizer") if given is None else given
        self._own_config().validate()
        columns = column_names(log_fieldnames)
        series = check_series(visual_series or self._visual_series or DEFAULT_SERIES)
        first = not own_rank(self.config)
        if self.config.name is not None and not resume and first:
            refuse_existing(Path(self.root), self.config.name)
        self.model = model.to(resolve_device(self.config))
        self.optimizer: Any = None
        self._run_recorder = RunRecorder(self._run_parts, self._save, columns, series, resumes=bool(resume))
        own_logger = type(self)._init_logger is not Trainer._init_logger
        self._init_logger(list(DEFAULT_COLUMNS) if own_logger and columns is None else columns)
        self._loss = loss
        self._callbacks = callbacks
        self._resume, self._resume_overrides = resume, resume_overrides
        self._block: AbstractContextManager[None] | None = None
        self._training = 0
        self._is_new = False
        self._checked = False
        self._guard = LossGuard(self.config.nan_policy)
        self._further: LoopState = LoopState(self, others)
        if enable_server and first:
            start_dashboard()

    @classmethod
    def register(cls, name: str, trainer: type[Trainer]) -> None:
        """Register the subclass that ``Trainer(model, ...)`` builds for models whose class has this name."""
        if not (isinstance(trainer, type) and issubclass(trainer, Trainer)):
            raise ModelError(f"Only subclasses of Trainer can be registered for {name!r}, not {trainer!r}.")
        Trainer._registry[name] = trainer

    def train(self, train_dataset: Any, val_dataset: Any = None) -> Run:
        """Train with the engine.

        Args:
            train_dataset: As ``data`` of `darkit.fit`.
            val_dataset: As its ``val_data``.

        Returns:
            A handle on the run.
        """
        recorder, config = self._run_recorder, copy.copy(self._own_config())
        if recorder.folder is not None:
            config.name = recorder.folder.name
        own_validate = type(self).validate is not Trainer.validate
        state, self._resume_state = self._resume_state, None  # the engine restores everything
        try:
            run = train_run(
                self.model,
                train_dataset,
                val_dataset,
                config,
                root=Path(self.root),
                loss=self._loss,
                tokenizer=self.tokenizer,
                optimizer=self._own_optimizer,
                columns=recorder.columns,
                series=recorder.series,
                callbacks=[FollowSteps(self._attach_engine, self._follow_engine), *self._callbacks],
                resume=state.found if state is not None else None if self._is_new else self._resume,
                resume_overrides=self._resume_overrides,
                evaluate=functools.partial(OwnEvaluation, self._validation_metrics, self._follow_engine)
                if own_validate
                else StepEvaluate,
                session=recorder.session,
                started=recorder.attach,
            )
        except BaseException as error:
            if not self._training:
                recorder.end(error)
            raise
        finally:
            self._engine = None
        if not self._training:
            recorder.end()
        return run

    def validate(self, val_dataloader: Any) -> Any:
        """Evaluate the model on at most ``eval_iters`` batches (0: all).

        A subclass may override it and return a number or numbers by name. It is called with the model in evaluation
        mode and without gradients.

        Args:
            val_dataloader: A loader, or any iterable of batches.

        Returns:
            ``{"val_loss": ..., ...}``: means, weighted as `darkit.engine.metrics.means` describes.

        Raises:
            LossError: Neither the model nor ``loss=`` returns a loss.
        """
        compute = make_step(self.model, self._loss).evaluation
        batches = (move_to_device(batch, self.device) for batch in val_dataloader)
        means = evaluate(self.model, batches, compute, self.eval_iters)
        return {key if key.startswith("val_") else f"val_{key}": value.item() for key, value in means.items()}

    def log(self, row: Any = None, /, **values: Any) -> None:
        """Append a row to the log, as ``csv_logger.log`` does."""
        self.csv_logger.log(row, **values)

    def save_pretrained(self, check_poinent: str | None = None) -> Path:
        """Save the step just completed (0 if none), or after the end of the run its last step; return the file.

        Args:
            check_poinent: ``iter-400-ckpt`` saves as that step; None and ``complete`` mean the step just completed.

        Raises:
            ConfigError: Another name; or the run is over and the model does not have the weights of its last step.
        """
        if (step := step_named(check_poinent)) is not None and not self._run_recorder.is_over:
            return self._save(step)
        if self._run_recorder.is_over and self._run_recorder.step:
            other = [name for name in ("load_best_at_end", "ema_decay") if getattr(self.config, name)]
            if other and type(self).train is Trainer.train:
                raise ConfigError(
                    f"The model does not have the weights of the last step ({other[0]}), so it cannot be saved as that "
                    "step. The run's last step is saved already."
                )
            return self._save(self._run_recorder.step)
        if self._resume_state is not None and not self._resume_state.moved:
            return self._save(self._resume_state.first)
        return self._save(self.current_step + 1 if "current_step" in vars(self) else 0)

    def _get_optimizer(self) -> Optimizer:
        """Return the optimizer; a subclass may override it."""
        # a hand-written loop may scale gradients and unscale them itself
        return make_optimizer(self.model, self.config, None, fused=False)

    def _auto_save_pretrained(self) -> None:
        """Save when the completed step, ``current_step + 1``, is due by the config or is the last one."""
        step, every = self.current_step + 1, self.save_step_interval
        if "current_step" not in vars(self):
            self._run_recorder.refuse_uncounted()
        if not self._run_recorder.is_over:
            self._run_recorder.open()
        self._run_recorder.record_step(step, self.model)
        if self._resume_state is not None:
            self._resume_state.warn_of_pending()
        if not self._checked:  # before there is work to lose
            check_savable(self._state_of_loop(step))
            self._checked = True
        if step == self.max_step or (every and step % every == 0 and step < self.max_step):
            self._save(step, wait=False)
        elif step == self.max_step + 1:
            logger.warning("The loop continues after max_step (%d); later steps are not saved.", self.max_step)
        self._run_recorder.stop_if_asked()

    def _auto_validate(self, val_dataloader: Any) -> dict[str, float] | None:
        """Evaluate when the completed step is due by the config or is the last one, and log and return the numbers."""
        step, every, columns = self.current_step + 1, self.eval_step_interval, self._run_recorder.columns
        if val_dataloader is None or (step != self.max_step and (not every or step % every)):
            return None
        metrics = self._validation_metrics(val_dataloader)
        row = {key: value for key, value in metrics.items() if columns is None or key in columns}
        if row:
            self._run_recorder.log({"step": step, **row} if columns is None or "step" in columns else row)
        self._run_recorder.record_values(metrics)
        self._run_recorder.evaluated = True
        return metrics

    def __setattr__(self, name: str, value: Any) -> None:
        """Restore the state of an attribute when a resumed loop assigns it."""
        if name == "current_step":
            value = whole_step(value)
        state: ResumeState | None = getattr(self, "_resume_state", None)
        if state is not None and self._engine is None:
            state.restore_attribute(name, value)
        super().__setattr__(name, value)

    def __enter__(self) -> Self:
        self._block = self._run_recorder.running()
        self._block.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        block, self._block = self._block, None
        if block is not None:
            block.__exit__(kind, error, trace)

    def _run_parts(self) -> RunParts:
        kind = type(self).__name__
        return RunParts(kind, Path(self.root), self._own_config(), self.model, self.tokenizer, self.max_step)

    def _attach_engine(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._engine = (trainer, pl_module)

    def _follow_engine(self, step: int) -> None:
        self.current_step = max(0, step - 1)
        self._run_recorder.step = step

    def _validation_metrics(self, batches: Any) -> dict[str, float]:
        return validation_metrics(self.model, self.validate, batches)

    def _own_optimizer(self, parameters: Any) -> Optimizer:
        is_default = type(self)._get_optimizer is Trainer._get_optimizer
        made = make_optimizer(self.model, self.config, None) if is_default else self._get_optimizer()
        self.optimizer = made
        return made

    def _save(self, step: int, *, wait: bool = True, boundary: Boundary | None = None) -> Path:
        self._guard.check_together(self.model, step)
        state = self._state_of_loop(step, boundary) if self._engine is None else collect_state(*self._engine)
        if self._engine is None and boundary is None and type(self)._save_model is not Trainer._save_model:
            state = with_own(self, self._run_recorder.folder or self._run_recorder.open().folder, step, state)
        return self._run_recorder.save(step, state, wait=wait, check=self._guard.check_copy(self.model, step, state))

    def _state_of_loop(self, step: int, boundary: Boundary | None = None) -> dict[str, Any]:
        weights = bare(self.model).state_dict()
        if boundary is not None:  # the next step has begun
            boundary.check_weights()
            weights.update({key: value for key, value in boundary.buffers().items() if key in weights})
        further = self._further.collect()
        return {
            "state_dict": weights,
            "model_class": class_path(type(bare(self.model))),
            "current_step": step,
            "optimizer_state_dict": state_of(self.optimizer),
            "scheduler_state_dict": state_of(getattr(self, "scheduler", None)),
            **({"trainer": further} if further else {}),
            "rng": generator_states() if boundary is None else boundary.generators(),
        }


def _recorded(train: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a hand-written ``train``: the run is running during it, then finished, stopped or crashed."""

    @functools.wraps(train)
    def recorded(self: Trainer, *args: Any, **kwargs: Any) -> Any:
        if self._training:
            return train(self, *args, **kwargs)
        if self.config.max_epoch is not None:
            raise ConfigError(
                f"max_epoch={self.config.max_epoch} is counted by darkit's own loop: {type(self).__name__}.train() "
                "counts steps, so give max_step."
            )
        first = self._run_recorder.folder is None
        if first and self._resume and self._resume_state is None:
            parts = self._run_parts()
            state = find_resume_state(parts, self._resume, self._resume_overrides, vars(self))
            self.config.name = parts.config.name
            self._is_new = state is None
            self._run_recorder.resume(*((None, {}) if state is None else (state.found, state.changes)))
            if state is not None and state.found.same_run:
                self.current_step = state.first
            self._resume_state = state
        self._training += 1
        try:
            with self._run_recorder.running():
                self._run_recorder.open()
                if first:
                    seed_generators(self.config.seed)
                    if self._resume_state is not None:
                        self._resume_state.restore(getattr(self, "load_state_dict", None))
                return train(self, *args, **kwargs)
        finally:
            self._training -= 1

    recorded._is_recorded = True  # type: ignore[attr-defined]
    return recorded


def __getattr__(name: str) -> Any:
    if name in ("FabricTrainer", "LogFieldnames"):  # as in DarwinKit, whose module of this name has them
        return getattr(import_module("darkit.core"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

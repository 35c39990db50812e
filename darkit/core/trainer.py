"""`Trainer`: a run around a hand-written loop, or around the engine's."""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import lightning
from torch import nn
from torch.optim import Optimizer

from darkit.core.bridge import FollowSteps, OwnEvaluation, validation_metrics
from darkit.core.keeper import RunKeeper
from darkit.core.logger import CsvLogger
from darkit.core.loop_state import LoopState, state_of, whole_step
from darkit.core.resume import GoingOn, go_on
from darkit.core.server import start_dashboard
from darkit.engine.callbacks import LossGuard
from darkit.engine.callbacks.evaluate import StepEvaluate, evaluate
from darkit.engine.checkpoints.boundary import Boundary
from darkit.engine.checkpoints.checkpoint import bare, check_savable, class_path
from darkit.engine.checkpoints.state import collect_state
from darkit.engine.config import TrainerConfig
from darkit.engine.device import generator_states, move_to_device, resolve_device, seed_generators
from darkit.engine.processes import own_rank
from darkit.engine.session import DEFAULT_SERIES, check_series
from darkit.engine.steps.loss import make_step
from darkit.engine.steps.optim import make_optimizer
from darkit.engine.training import column_names, train_run
from darkit.errors import ConfigError, ModelError
from darkit.runs import Run, base
from darkit.runs.names import refuse_existing

logger = logging.getLogger(__name__)


class Trainer:
    """Trains a model into a run.

    Called as ``Trainer(model, config)`` or ``Trainer(model, tokenizer, config)``, by position or by keyword. On this
    class itself it builds the subclass that was registered for the model's class, if there is one.

    A subclass may write its own ``train``: around it the run's status is kept, and in it ``self.current_step`` (the
    step that was just done, counted from 0), ``self._auto_save_pretrained()``, ``self._auto_validate(...)`` and
    ``self.csv_logger.log(...)`` do the rest. Of the config it gets name, device, max_step, the intervals of saving and
    evaluating, eval_iters, seed, tensorboard and, before a save, nan_policy done for it, and reads what else it wants.
    A subclass that writes none is trained by the engine, and its ``_get_optimizer`` and ``validate`` are honoured.

    Args:
        model: The module; it is moved to the config's device.
        config: A `TrainerConfig`; its ``device`` then says what is really used. Nothing else of it is changed, so that
            several trainers may share one without a name.
        tokenizer: Exported with the run, or None.
        log_fieldnames: A dataclass whose fields are the log's only columns; None takes the default ones and whatever
            comes.
        visual_series: The curves to show: name -> [x column, y column]; by default the class's ``_visual_series``.
        loss: How the engine, or `validate`, gets a loss; see `darkit.engine.steps.loss`.
        callbacks: Lightning callbacks for the engine.
        resume: What `train` goes on from; see `darkit.fit`. A hand-written ``train`` finds the weights in the model,
            the generators as they were and in ``self.current_step`` the index of the step to start at. Optimizer and
            schedule (one, a list or a dict) get their states when it sets ``self.optimizer`` and ``self.scheduler``;
            so does every other attribute with a ``state_dict`` and ``load_state_dict``. A trainer class that has those
            two methods itself saves its further state with them; ``load_state_dict`` is called before ``train``.
        resume_overrides: Whether a run that goes on may do so with other settings that change its mathematics.
        enable_server: Whether to show the dashboard beside the training.

    Raises:
        ModelError: The model is not a module.
        ConfigError: There is no `TrainerConfig`, or an argument has not the form it should have.
        RunExistsError: The config's name is taken.
    """

    _registry: ClassVar[dict[str, type[Trainer]]] = {}
    _visual_series: Mapping[str, Sequence[str]] | None = None
    current_step: int = 0
    """The step that was just done, counted from 0; a hand-written loop sets it."""

    def __new__(cls, model: Any = None, *args: Any, **kwargs: Any) -> Self:
        """Builds the subclass that is registered for the model's class when this class itself is called."""
        kind = type(bare(model) if isinstance(model, nn.Module) else model).__name__
        chosen = Trainer._registry.get(kind, cls) if cls is Trainer else cls
        return object.__new__(chosen)  # type: ignore[return-value]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Keeps the run's status around a hand-written ``train``, wherever the class has it from."""
        super().__init_subclass__(**kwargs)
        if cls.train is not Trainer.train and not hasattr(cls.train, "_is_watched"):
            cls.train = _watched(cls.train)  # type: ignore[method-assign]

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
    ) -> None:
        others = set(vars(self))
        self._engine: tuple[lightning.Trainer, lightning.LightningModule] | None = None
        self._going_on: GoingOn | None = None
        self._begins_anew = False
        if not isinstance(model, nn.Module):
            raise ModelError(f"model must be a torch.nn.Module, not {type(model).__name__}.")
        self.tokenizer, self.config = _tokenizer_and_config(args, tokenizer, config)
        self.config.validate()
        columns = column_names(log_fieldnames)
        series = check_series(visual_series or self._visual_series or DEFAULT_SERIES)
        first = not own_rank(self.config)
        if self.config.name is not None and not resume and first:
            refuse_existing(Path(self.root), self.config.name)
        self.model = model.to(resolve_device(self.config))
        self.optimizer: Any = None
        self._keeper = RunKeeper(self, columns, series)
        self.csv_logger = CsvLogger(self._keeper.put)
        self._loss = loss
        self._callbacks = callbacks
        self._resume, self._resume_overrides = resume, resume_overrides
        self._block: AbstractContextManager[None] | None = None
        self._training = 0
        self._checked = False
        self._guard = LossGuard(self.config.nan_policy)
        self._further: LoopState = LoopState(self, others)
        if enable_server and first:
            start_dashboard()

    @classmethod
    def register(cls, name: str, trainer: type[Trainer]) -> None:
        """Lets ``Trainer(model, ...)`` build ``trainer`` for models whose class has this name.

        Raises:
            ModelError: It is not a subclass of `Trainer`.
        """
        if not (isinstance(trainer, type) and issubclass(trainer, Trainer)):
            raise ModelError(f"Only subclasses of Trainer can be registered for {name!r}, not {trainer!r}.")
        Trainer._registry[name] = trainer

    @property
    def root(self) -> Path:
        """Where the runs are; a subclass may override it."""
        return base()

    @property
    def save_directory(self) -> Path:
        """The run directory; a run that has no name yet gets its name and its folder now."""
        if self._keeper.folder is None and self.config.name is not None:
            return Path(self.root) / self.config.name
        return self._keeper.folder or self._keeper.open().folder

    @property
    def max_step(self) -> int:
        """The step at which the run ends."""
        return self.config.max_step

    def train(self, train_dataset: Any, val_dataset: Any = None) -> Run:
        """Trains with the engine.

        Args:
            train_dataset: What `darkit.fit` takes as ``data``.
            val_dataset: What it takes as ``val_data``.

        Returns:
            A handle on the run.
        """
        keeper, config = self._keeper, copy.copy(self.config)
        if keeper.folder is not None:
            config.name = keeper.folder.name
        own_validate = type(self).validate is not Trainer.validate
        found, self._going_on = self._going_on, None  # the engine does all of it
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
                columns=keeper.columns,
                series=keeper.series,
                callbacks=[FollowSteps(self), *self._callbacks],
                resume=found.found if found is not None else None if self._begins_anew else self._resume,
                resume_overrides=self._resume_overrides,
                evaluate=functools.partial(OwnEvaluation, self) if own_validate else StepEvaluate,
                session=keeper.session,
                started=keeper.join,
            )
        except BaseException as error:
            if not self._training:
                keeper.end(error)
            raise
        finally:
            self._engine = None
        if not self._training:
            keeper.end()
        return run

    def validate(self, val_dataloader: Any) -> Any:
        """Evaluates the model on at most ``eval_iters`` batches (0: all).

        A subclass may override it and return a number or numbers by name; where it is due it is called with the model
        in evaluation mode and without gradients.

        Args:
            val_dataloader: A loader, or any iterable of batches.

        Returns:
            ``{"val_loss": ..., ...}``: means; `darkit.engine.metrics.means` says how much each batch counts.

        Raises:
            LossError: Neither the model nor ``loss=`` gives a loss.
        """
        compute = make_step(self.model, self._loss).evaluation
        batches = (move_to_device(batch, self.config.device) for batch in val_dataloader)
        means = evaluate(self.model, batches, compute, self.config.eval_iters)
        return {key if key.startswith("val_") else f"val_{key}": value.item() for key, value in means.items()}

    def log(self, row: Any = None, /, **values: Any) -> None:
        """Appends a row to the log, as ``csv_logger.log`` does."""
        self.csv_logger.log(row, **values)

    def save_pretrained(self) -> Path:
        """Saves now: the step that was just done (0 if none was), or after the end of the run its last one.

        Returns:
            The checkpoint file.

        Raises:
            ConfigError: The run is over and the model has other weights than those of its last step.
        """
        if self._keeper.is_over and self._keeper.step:
            other = [name for name in ("load_best_at_end", "ema_decay") if getattr(self.config, name)]
            if other and type(self).train is Trainer.train:
                raise ConfigError(
                    f"The model has other weights than those of the last step ({other[0]}), so it cannot be saved as "
                    "that step. Every step of the run that counts is saved already."
                )
            return self._save(self._keeper.step)
        if self._going_on is not None and not self._going_on.moved:
            return self._save(self._going_on.first)
        return self._save(self.current_step + 1 if "current_step" in vars(self) else 0)

    def _get_optimizer(self) -> Optimizer:
        """Makes the optimizer; a subclass may override it."""
        return make_optimizer(self.model, self.config, None)

    def _auto_save_pretrained(self) -> None:
        """Saves when the completed step, ``current_step + 1``, is due by the config or is the last one."""
        step, every = self.current_step + 1, self.config.save_step_interval
        self._keeper.refuse_uncounted()
        if not self._keeper.is_over:
            self._keeper.open()
        self._keeper.tell(step)
        if self._going_on is not None:
            self._going_on.tell_of_the_rest()
        if not self._checked:  # before there is work to lose
            check_savable(self._state_of_loop(step))
            self._checked = True
        if step == self.max_step or (every and step % every == 0 and step < self.max_step):
            self._save(step, wait=False)
        elif step == self.max_step + 1:
            logger.warning("The loop goes on after max_step (%d): what it does from here is not saved.", self.max_step)
        self._keeper.stop_if_asked()

    def _auto_validate(self, val_dataloader: Any) -> dict[str, float] | None:
        """Evaluates when the completed step is due by the config or is the last one, and logs the result.

        Args:
            val_dataloader: What `validate` takes, or None, on which nothing is evaluated.

        Returns:
            What `validate` returned, by name, or None when no evaluation was due.
        """
        step, every, columns = self.current_step + 1, self.config.eval_step_interval, self._keeper.columns
        if val_dataloader is None or (step != self.max_step and (not every or step % every)):
            return None
        metrics = validation_metrics(self, val_dataloader)
        row = {key: value for key, value in metrics.items() if columns is None or key in columns}
        if row:
            self._keeper.put({"step": step, **row} if columns is None or "step" in columns else row)
        self._keeper.note(metrics)
        self._keeper.evaluated = True
        return metrics

    def __setattr__(self, name: str, value: Any) -> None:
        """Restores the state of an attribute when a resumed loop assigns it."""
        if name == "current_step":
            value = whole_step(value)
        going_on: GoingOn | None = getattr(self, "_going_on", None)
        if going_on is not None and self._engine is None:
            going_on.take(name, value)
        super().__setattr__(name, value)

    def __enter__(self) -> Self:
        self._block = self._keeper.held()
        self._block.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        block, self._block = self._block, None
        if block is not None:
            block.__exit__(kind, error, trace)

    def _own_optimizer(self, parameters: Any) -> Optimizer:
        self.optimizer = optimizer = self._get_optimizer()
        return optimizer

    def _save(self, step: int, *, wait: bool = True, boundary: Boundary | None = None) -> Path:
        self._guard.check_weights(self.model, step)
        if self._engine is not None:
            return self._keeper.save(step, collect_state(*self._engine), wait=wait)
        return self._keeper.save(step, self._state_of_loop(step, boundary), wait=wait)

    def _state_of_loop(self, step: int, boundary: Boundary | None = None) -> dict[str, Any]:
        weights = bare(self.model).state_dict()
        if boundary is not None:  # the step after it was begun
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


def _watched(train: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps a hand-written ``train``: running while it runs, then finished, stopped or crashed."""

    @functools.wraps(train)
    def watched(self: Trainer, *args: Any, **kwargs: Any) -> Any:
        if self._training:
            return train(self, *args, **kwargs)
        if self.config.max_epoch is not None:
            raise ConfigError(
                f"max_epoch={self.config.max_epoch} is counted by darkit's own loop: {type(self).__name__}.train() "
                "counts steps, so give max_step."
            )
        first = self._keeper.folder is None
        if first and self._resume and self._going_on is None:
            going_on = go_on(self, self._resume, self._resume_overrides)
            self._begins_anew = going_on is None
            if going_on is not None and going_on.found.same_run:
                self.current_step = going_on.first
            self._going_on = going_on
        self._training += 1
        try:
            with self._keeper.held():
                self._keeper.open()
                if first:
                    seed_generators(self.config.seed)
                    if self._going_on is not None:
                        self._going_on.restore(self)
                return train(self, *args, **kwargs)
        finally:
            self._training -= 1

    watched._is_watched = True  # type: ignore[attr-defined]
    return watched


def _tokenizer_and_config(args: tuple[Any, ...], tokenizer: Any, config: Any) -> tuple[Any, TrainerConfig]:
    if len(args) > 2:
        raise TypeError(f"Trainer takes (model, config) or (model, tokenizer, config), not {len(args) + 1} arguments.")
    if len(args) == 2:
        tokenizer, config = args
    elif args and config is None:
        config = args[0]
    elif args:
        tokenizer = args[0]
    if not isinstance(config, TrainerConfig):
        raise ConfigError(f"config must be a TrainerConfig, not {type(config).__name__}.")
    return tokenizer, config

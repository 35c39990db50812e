"""`Trainer`: a run around a hand-written loop, or around the engine's."""

from __future__ import annotations

import atexit
import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import lightning
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from darkit.core.logger import CsvLogger
from darkit.engine.callbacks.evaluate import StepEvaluate, evaluate
from darkit.engine.checkpoint import class_path, write_checkpoint
from darkit.engine.config import TrainerConfig
from darkit.engine.device import generator_states, move_to_device, resolve_device
from darkit.engine.exports import describe_model, write_exports
from darkit.engine.loss import make_step
from darkit.engine.optim import make_optimizer
from darkit.engine.session import DEFAULT_SERIES, Session, refuse_existing
from darkit.engine.training import column_names, train_run
from darkit.errors import ConfigError, ModelError
from darkit.runs import Run, base
from darkit.runs.checkpoints import checkpoint_path


class Trainer:
    """Trains a model into a run.

    Called as ``Trainer(model, config)`` or ``Trainer(model, tokenizer, config)``, by position or by keyword. On this
    class itself it builds the subclass that was registered for the model's class, if there is one.

    A subclass may write its own ``train``: around it the run's status is kept, and in it ``self.current_step`` (counted
    from 0), ``self._auto_save_pretrained()``, ``self._auto_validate(...)`` and ``self.csv_logger.log(...)`` do the rest.
    A subclass that does not is trained by the engine, and its ``_get_optimizer`` and ``validate`` are honoured.

    Args:
        model: The module; it is moved to the config's device.
        config: A `TrainerConfig`; its ``device`` then says what is really used.
        tokenizer: Exported with the run, or None.
        log_fieldnames: A dataclass whose fields are the log's only columns; None takes the default ones and whatever
            comes.
        visual_series: The curves to show: name -> [x column, y column]; by default the class's ``_visual_series``.
        loss: How the engine, or `validate`, gets a loss; see `darkit.engine.loss`.
        callbacks: Lightning callbacks for the engine.
        resume: What the engine goes on from; see `darkit.fit`.
        enable_server: Whether to show the dashboard beside the training.

    Raises:
        ModelError: The model is not a module.
        ConfigError: There is no config, or it is not a `TrainerConfig`.
        RunExistsError: The config's name is taken.
    """

    _registry: ClassVar[dict[str, type[Trainer]]] = {}
    _visual_series: Mapping[str, Sequence[str]] | None = None

    def __new__(cls, model: Any = None, *args: Any, **kwargs: Any) -> Self:
        """Builds the subclass that is registered for the model's class when this class itself is called."""
        chosen = Trainer._registry.get(type(model).__name__, cls) if cls is Trainer else cls
        return object.__new__(chosen)  # type: ignore[return-value]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Keeps the run's status around a hand-written ``train``."""
        super().__init_subclass__(**kwargs)
        if "train" in cls.__dict__:
            cls.train = _watched(cls.__dict__["train"])  # type: ignore[method-assign]

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
        enable_server: bool = False,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise ModelError(f"model must be a torch.nn.Module, not {type(model).__name__}.")
        self.tokenizer, self.config = _tokenizer_and_config(args, tokenizer, config)
        self.config.validate()
        if self.config.name is not None and not resume:
            refuse_existing(self.root, self.config.name)
        self.model = model.to(resolve_device(self.config))
        self.optimizer: Optimizer | None = None
        self.current_step = 0
        self.csv_logger = CsvLogger(self._put)
        self._columns = column_names(log_fieldnames)
        self._series = visual_series or self._visual_series or DEFAULT_SERIES
        self._loss = loss
        self._callbacks = callbacks
        self._resume = resume
        self._session: Session | None = None
        self._folder: Path | None = None
        self._metrics: dict[str, float] = {}
        self._training = 0
        if enable_server:
            warnings.warn(
                "The dashboard is not part of this version: look at the run with `darkit show`, or with `tensorboard "
                f"--logdir {self.root}`.",
                stacklevel=2,
            )

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
        if self.config.name is None:
            self._open()
        return Path(self.root) / str(self.config.name)

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
        own_validate = type(self).validate is not Trainer.validate
        run = train_run(
            self.model,
            train_dataset,
            val_dataset,
            self.config,
            root=Path(self.root),
            loss=self._loss,
            tokenizer=self.tokenizer,
            optimizer=self._own_optimizer,
            columns=self._columns,
            series=self._series,
            callbacks=[*self._callbacks, _FollowSteps(self)],
            resume=self._resume,
            evaluate=functools.partial(_OwnEvaluation, self) if own_validate else StepEvaluate,
            session=self._session,
        )
        self._folder = run.path
        return run

    def validate(self, val_dataloader: Any) -> Any:
        """Evaluates the model on at most ``eval_iters`` batches (0: all); a subclass may override it.

        Args:
            val_dataloader: A loader, or any iterable of batches.

        Returns:
            ``{"val_loss": ..., ...}``: means over the samples.
        """
        compute = make_step(self.model, self._loss)
        batches = (move_to_device(batch, self.config.device) for batch in val_dataloader)
        means = evaluate(self.model, batches, lambda batch, _: compute(batch), self.config.eval_iters)
        return {f"val_{key}": value.item() for key, value in means.items()}

    def log(self, row: Any = None, /, **values: Any) -> None:
        """Appends a row to the log, as ``csv_logger.log`` does."""
        self.csv_logger.log(row, **values)

    def save_pretrained(self) -> Path:
        """Saves the completed step now.

        Returns:
            The checkpoint file.
        """
        step = self.current_step + 1
        session = self._open()
        if session.stream is not None:
            session.stream.flush()
        content = {
            "state_dict": self.model.state_dict(),
            "model_class": class_path(type(self.model)),
            "current_step": step,
            "optimizer_state_dict": self.optimizer.state_dict() if isinstance(self.optimizer, Optimizer) else None,
            "scheduler_state_dict": _state(getattr(self, "scheduler", None)),
            "rng": generator_states(),
        }
        return write_checkpoint(session.folder, step, content, metrics=self._metrics, run_id=session.run_id)

    def _get_optimizer(self) -> Optimizer:
        """Makes the optimizer; a subclass may override it."""
        return make_optimizer(self.model, self.config, None)

    def _auto_save_pretrained(self) -> None:
        """Saves when the completed step, ``current_step + 1``, is due by the config or is the last one."""
        step = self.current_step + 1
        self._open().step = step
        every = self.config.save_step_interval
        if step == self.max_step or (every and step % every == 0 and step < self.max_step):
            self.save_pretrained()

    def _auto_validate(self, val_dataloader: Any) -> dict[str, float] | None:
        """Evaluates when the completed step is due by the config or is the last one, and logs the result.

        Returns:
            What `validate` returned, by name, or None when no evaluation was due.
        """
        step = self.current_step + 1
        every = self.config.eval_step_interval
        if step != self.max_step and (not every or step % every):
            return None
        self._metrics = _named(self.validate(val_dataloader))
        columns = self._columns
        row = {"step": step, **self._metrics}
        self._put({key: row[key] for key in row if columns is None or key in columns})
        return self._metrics

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(error)

    def _own_optimizer(self, parameters: Any) -> Optimizer:
        self.optimizer = self._get_optimizer()
        return self.optimizer

    def _put(self, row: dict[str, Any]) -> None:
        stream = self._open().stream
        if stream is not None:
            stream.put(row)

    def _open(self) -> Session:
        """Returns the open session; the first call creates the run, one after its end goes on with it."""
        if self._session is None:
            if self._folder is None:
                session = Session.create(Path(self.root), self.config, type(self.model).__name__)
            else:
                session = Session.reopen(self._folder, self.current_step + 1)
            self._session, self._folder = session, session.folder
            try:
                session.describe(describe_model(self.model), self.config, self._series, {})
                if session.writes:
                    write_exports(session.folder, self.model, self.config, self.tokenizer)
                session.begin(self.max_step, self._columns)
            except BaseException as error:
                self._end(error)
                raise
            atexit.register(self._end)
        return self._session

    def _end(self, error: BaseException | None = None) -> None:
        atexit.unregister(self._end)
        session, self._session = self._session, None
        if session is not None:
            session.end(error)
            if not session.folder.exists():
                self._folder = None

    def _save_last(self) -> None:
        """Saves where a loop ended before the planned step, or between two saves."""
        step = self._open().step
        if 0 < step < self.max_step and step == self.current_step + 1:
            if not checkpoint_path(self.save_directory, step).exists():
                self.save_pretrained()


class _FollowSteps(lightning.Callback):
    """Keeps a trainer's ``current_step`` true while the engine trains."""

    def __init__(self, owner: Trainer) -> None:
        self.owner = owner

    def on_train_batch_end(self, trainer: lightning.Trainer, *arguments: Any) -> None:
        self.owner.current_step = trainer.global_step - 1


class _OwnEvaluation(StepEvaluate):
    """Evaluates with a trainer's own ``validate``."""

    def __init__(self, owner: Trainer, batches: Any, every: int, iters: int, compute: Any) -> None:
        super().__init__(batches, every, iters, compute)
        self.owner = owner

    def evaluate(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> dict[str, Any]:
        return _named(self.owner.validate(self.batches))


def _watched(train: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps a hand-written ``train``: running while it runs, then finished, stopped or crashed."""

    @functools.wraps(train)
    def watched(self: Trainer, *args: Any, **kwargs: Any) -> Any:
        if self._training:
            return train(self, *args, **kwargs)
        if self._resume:
            raise ConfigError(
                "resume= goes on with the engine's loop; a hand-written train must load its checkpoint itself."
            )
        self._training += 1
        try:
            self._open()
            result = train(self, *args, **kwargs)
            self._save_last()
        except BaseException as error:
            self._end(error)
            raise
        finally:
            self._training -= 1
        self._end()
        return result

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


def _named(result: Any) -> dict[str, float]:
    """Turns what a ``validate`` returned, a number or numbers by name, into log columns."""
    if result is None:
        return {}
    values = result if isinstance(result, Mapping) else {"val_loss": result}
    return {
        str(key): float(value)
        for key, value in values.items()
        if isinstance(value, float | int) or (isinstance(value, Tensor) and value.numel() == 1)
    }


def _state(scheduler: Any) -> dict[str, Any] | None:
    return scheduler.state_dict() if isinstance(scheduler, LRScheduler) else None

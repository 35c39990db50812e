"""`fit`: the composition of adapter, callbacks and Lightning's trainer into one training of one run."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import nn

from darkit.engine.adapter import Adapter
from darkit.engine.callbacks import ExportConfigs, LossGuard, StepCheckpoint, StepEvaluate, StepLog, StopOnInterrupt
from darkit.engine.checkpoint import load_weights, read_checkpoint
from darkit.engine.config import TrainerConfig, with_overrides
from darkit.engine.device import resolve_device, seed_generators
from darkit.engine.display import Display
from darkit.engine.exports import describe_model
from darkit.engine.fingerprint import describe_data
from darkit.engine.loaders import Loaders, make_loaders
from darkit.engine.loss import make_step
from darkit.engine.resume import Resume, find_resume
from darkit.engine.session import DEFAULT_SERIES, Session, refuse_existing
from darkit.engine.stream import Sink
from darkit.engine.tensorboard import TensorBoardSink
from darkit.errors import ConfigError, ModelError
from darkit.runs import Run, base, files

_LIGHTNINGS_SETTINGS = ("device", "device_num", "strategy", "precision")


def fit(
    model: nn.Module,
    data: Any,
    val_data: Any = None,
    *,
    name: str | None = None,
    config: TrainerConfig | None = None,
    loss: Callable[..., Any] | None = None,
    tokenizer: Any = None,
    optimizer: Any = None,
    scheduler: Any = None,
    log_fieldnames: Any = None,
    visual_series: Mapping[str, Sequence[str]] | None = None,
    callbacks: Sequence[lightning.Callback] = (),
    resume: bool | str | None = None,
    **overrides: Any,
) -> Run:
    """Trains a model and leaves a run.

    Args:
        model: Any module; it is trained in place.
        data: A Dataset (map-style or iterable), a list of samples, a tuple of tensors, a DataLoader, a
            LightningDataModule, or a dict with ``train`` and ``val``.
        val_data: Validation data, likewise, or None.
        name: The run's name; None makes a fresh one.
        config: The trainer's config; its ``device`` then says what was really used. Nothing else of it is changed, so
            that several runs may share one.
        loss: A callable of outputs and target, or of model and batch; `darkit.engine.loss` says what is done without.
        tokenizer: A `tokenizers.Tokenizer`, a transformers tokenizer or the path of a ``tokenizer.json``; exported.
        optimizer: A torch optimizer, a callable of the parameters, or a name as in the config; None takes the config's.
        scheduler: A torch schedule, a callable of the optimizer, or a name as in the config; None takes the config's.
        log_fieldnames: A dataclass whose fields are the log's only columns; None takes the default ones and whatever a
            step returns.
        visual_series: The curves to show: name -> [x column, y column].
        callbacks: Lightning callbacks; they come after the evaluation and before the log, and may add to ``outputs``.
        resume: True goes on with the run called ``name``; ``"NAME"`` or ``"NAME:CHECKPOINT"`` goes on with that run or,
            given another ``name``, starts a new run from its weights.
        **overrides: Fields of `TrainerConfig`.

    Returns:
        A handle on the run.

    Raises:
        DarkitError: Something that the user can mend; the subclass and its one sentence say what. A new run that has
            not completed a step then leaves nothing behind.
    """
    if not isinstance(model, nn.Module):
        raise ModelError(f"model must be a torch.nn.Module, not {type(model).__name__}.")
    given = TrainerConfig() if config is None else config
    if not isinstance(given, TrainerConfig):
        raise ConfigError(f"config must be a TrainerConfig, not {type(given).__name__}.")
    named = {"optimizer": optimizer, "scheduler": scheduler}
    overrides |= {key: value for key, value in named.items() if isinstance(value, str)}
    if name is not None:
        overrides["name"] = name
    own = with_overrides(copy.copy(given), overrides)
    given.device = resolve_device(own)
    return train_run(
        model,
        data,
        val_data,
        own,
        root=base(),
        loss=loss,
        tokenizer=tokenizer,
        optimizer=None if isinstance(optimizer, str) else optimizer,
        scheduler=None if isinstance(scheduler, str) else scheduler,
        columns=column_names(log_fieldnames),
        series=visual_series,
        callbacks=callbacks,
        resume=resume,
    )


def train_run(
    model: nn.Module,
    data: Any,
    val_data: Any,
    config: TrainerConfig,
    *,
    root: Path,
    loss: Callable[..., Any] | None = None,
    tokenizer: Any = None,
    optimizer: Any = None,
    scheduler: Any = None,
    columns: Sequence[str] | None = None,
    series: Mapping[str, Sequence[str]] | None = None,
    callbacks: Sequence[lightning.Callback] = (),
    resume: bool | str | None = None,
    evaluate: Callable[..., StepEvaluate] = StepEvaluate,
    session: Session | None = None,
    started: Callable[[Session], None] | None = None,
    composed: str = "",
) -> Run:
    """Trains a model with a checked config into a run below ``root``; `fit` says the rest.

    Beside what `fit` takes there are ``columns``, the log's only columns, and ``series``, the curves to show;
    ``evaluate`` makes the evaluation callback, as `StepEvaluate` does; ``session`` is the run to train into, when the
    caller has opened one, which it then also ends; ``started`` is told of the session once it is open; ``composed`` is
    the whole composed config as YAML, for ``config.yaml``.
    """
    found = find_resume(root, config, resume)
    if config.name is not None and session is None and not (found and found.same_run):
        refuse_existing(root, config.name)
    resolve_device(config)
    loaders = make_loaders(data, val_data, config)
    content = _load(model, found, config)
    around: AbstractContextManager[Session]
    if session is not None:
        around = nullcontext(session)
    elif found and found.same_run:
        around = Session.reopen(found.run.path, found.checkpoint.step)
    else:
        around = Session.create(root, config, type(model).__name__)
    with around as session:
        state = content if found and found.same_run else None
        compute = make_step(model, loss)
        adapter = Adapter(
            model, compute, config, order=loaders.order, optimizer=optimizer, scheduler=scheduler, resume=state
        )
        session.describe(describe_model(model), config, series or DEFAULT_SERIES, describe_data(loaders), composed)
        if found:
            found.set_aside_later()
        session.begin(config.max_step, columns, lambda: _sinks(session, config))
        if started is not None:
            started(session)
        evaluation = None
        if loaders.val is not None:
            evaluation = evaluate(loaders.val, config.eval_step_interval, config.eval_iters, compute)
        with _quiet_lightning():
            trainer = _trainer(session, config, _callbacks(session, model, config, tokenizer, evaluation, callbacks))
            seed_generators(config.seed)
            _enter(trainer, loaders, state)
            _run(trainer, adapter, loaders, config)
    return Run(session.folder)


class _Progress(lightning.Callback):
    """Keeps the session's step true."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def on_train_batch_end(self, trainer: lightning.Trainer, *arguments: Any) -> None:
        self.session.step = trainer.global_step


def column_names(log_fieldnames: Any) -> list[str] | None:
    """Returns the names of the fields of a dataclass, or None for None. Raises `ConfigError` for anything else."""
    if log_fieldnames is None:
        return None
    if not is_dataclass(log_fieldnames):
        raise ConfigError(f"log_fieldnames must be a dataclass, not {log_fieldnames!r}.")
    return [field.name for field in fields(log_fieldnames)]


def _load(model: nn.Module, found: Resume | None, config: TrainerConfig) -> dict[str, Any] | None:
    if found is None:
        return None
    content = read_checkpoint(found.checkpoint)
    load_weights(model, content)
    if found.same_run and found.checkpoint.step >= config.max_step:
        raise ConfigError(
            f"The run {found.run.name!r} is at step {found.checkpoint.step} already; to go on, max_step must be larger "
            f"than that, not {config.max_step}."
        )
    return content


def _sinks(session: Session, config: TrainerConfig) -> list[Sink]:
    sinks: list[Sink] = [Display(config.max_step, lambda: session.step)]
    if config.tensorboard and session.stream is None:  # who opened the session before has it already
        purge = session.step + 1 if session.step else None
        sinks.append(TensorBoardSink(session.folder / files.TENSORBOARD, purge))
    return sinks


def _trainer(session: Session, config: TrainerConfig, callbacks: list[lightning.Callback]) -> lightning.Trainer:
    try:
        return lightning.Trainer(
            accelerator=config.device,
            devices=config.device_num,
            strategy=config.strategy,
            precision=config.precision,  # type: ignore[arg-type]
            max_steps=config.max_step,
            max_epochs=-1,
            deterministic=config.deterministic or None,
            callbacks=callbacks,
            default_root_dir=session.folder,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            limit_val_batches=0,
            num_sanity_val_steps=0,
        )
    except (ValueError, TypeError, MisconfigurationException) as error:
        settings = ", ".join(f"{name}={getattr(config, name)!r}" for name in _LIGHTNINGS_SETTINGS)
        raise ConfigError(f"These settings do not go together ({settings}): {error}") from error


def _callbacks(
    session: Session,
    model: nn.Module,
    config: TrainerConfig,
    tokenizer: Any,
    evaluate: StepEvaluate | None,
    own: Sequence[lightning.Callback],
) -> list[lightning.Callback]:
    """Composes the callbacks in the order of a step: evaluate, the user's own, log, guard, save."""
    stream = session.stream
    guard = LossGuard(config.nan_policy, stream)

    def before_save(step: int) -> None:
        guard.check_weights(model, step)
        if stream is not None:
            stream.flush()

    return [
        *([ExportConfigs(session.folder, config, tokenizer)] if session.writes else []),
        _Progress(session),
        *([evaluate] if evaluate else []),
        *own,
        StepLog(stream, config.log_step_interval),
        guard,
        StepCheckpoint(session.folder, config.save_step_interval, run_id=session.run_id, before=before_save),
        StopOnInterrupt(),
    ]


def _enter(trainer: lightning.Trainer, loaders: Loaders, state: dict[str, Any] | None) -> None:
    """Gives every rank its share of the order, and puts counters and order where the checkpoint left them."""
    order = loaders.order
    if order is not None:
        order.rank, order.world = trainer.global_rank, trainer.world_size
    if state is None:
        return
    epoch, batches = state["position"]["epoch"], state["position"]["batches"]
    if order is not None:
        offset = batches * loaders.train.batch_size
        if offset >= len(order):
            epoch, offset = epoch + 1, 0
        order.start(epoch, offset)
    done = trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress.total
    done.ready = done.completed = state["current_step"]
    epochs: Any = trainer.fit_loop.epoch_progress
    for counted in (epochs.current, epochs.total):
        counted.ready = counted.started = counted.processed = counted.completed = epoch


def _run(trainer: lightning.Trainer, adapter: Adapter, loaders: Loaders, config: TrainerConfig) -> None:
    module = adapter.module
    module.train()
    if config.compile:
        module.compile()
    try:
        trainer.fit(adapter, loaders.train)
    except SystemExit as error:  # how Lightning ends after Ctrl-C
        if isinstance(error.__context__, KeyboardInterrupt):
            raise error.__context__ from None
        raise
    finally:
        if config.compile:
            module._compiled_call_impl = None


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Silences Lightning's adverts and advice for the time of a training, and undoes what it sets for the process.

    Its errors are raised as ever.
    """
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "lightning")]
    levels = [logger.level for logger in loggers]
    strict = torch.are_deterministic_algorithms_enabled()
    lenient = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\.")
            yield
    finally:
        torch.use_deterministic_algorithms(strict, warn_only=lenient)
        torch.backends.cudnn.benchmark = benchmark
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

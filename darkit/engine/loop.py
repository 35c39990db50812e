"""The training loop: Lightning's trainer with darkit's callbacks, resumed where a checkpoint left it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import nn

from darkit.engine.callbacks import (
    EarlyStop,
    EmaWeights,
    ExportConfigs,
    LossGuard,
    RequireMetric,
    SaveBest,
    SpikingReceipt,
    StepCheckpoint,
    StepEvaluate,
    StepLog,
    StopOnRequest,
)
from darkit.engine.callbacks.base import ComparingCallback, is_compared, log_values, over_processes
from darkit.engine.callbacks.spiking import receipt_of
from darkit.engine.checkpoints.state import of_rank, restore_callbacks
from darkit.engine.checkpoints.weights import bare
from darkit.engine.config import TrainerConfig
from darkit.engine.data.workers import may_follow_worker_death
from darkit.engine.description.describe import ModelDescription
from darkit.engine.lightning import REFUSALS, cause_of_exit, is_sigterm, leave_signals, start_from
from darkit.engine.log.progress import Display, announce
from darkit.engine.log.rows import Sink
from darkit.engine.log.tensorboard import TensorBoardSink
from darkit.engine.metrics.denominators import unobserved
from darkit.engine.metrics.gathering import restore_metrics
from darkit.engine.processes import Place
from darkit.engine.session import Session
from darkit.engine.spiking.neurons import find_neurons
from darkit.engine.steps.adapter import Adapter
from darkit.engine.steps.averages import Averages
from darkit.engine.steps.own_optimizer import refusing_steps
from darkit.engine.steps.sharding import is_known, make_strategy
from darkit.engine.stop import SignalGuard
from darkit.errors import ConfigError
from darkit.runs import files
from darkit.runs.retention import Retention

logger = logging.getLogger(__name__)
_MODES_MATTER = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
_LIGHTNINGS_SETTINGS = ("device", "device_num", "num_nodes", "strategy", "precision")


class _Restore(Callback):
    """Restore the states of the callbacks once all of them are set up, and then empty the checkpoint's content.

    When the training starts, model, optimizer and data have what they need of it, and a training may last for days.
    """

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        restore_callbacks(trainer, self.state)

    def on_train_start(self, *arguments: Any) -> None:
        self.state.clear()


class _Progress(Callback):
    """Update the session's step, and have the last step logged and saved before other callbacks get an error.

    Args:
        session: The session.
        savers: The callbacks that log, check and save, in this order; Lightning passes the error to them once more.
    """

    def __init__(self, session: Session, savers: Sequence[Callback]) -> None:
        self.session = session
        self.savers = savers

    def on_exception(self, *arguments: Any) -> None:
        for callback in self.savers:
            callback.on_exception(*arguments)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *arguments: Any) -> None:
        self.session.step = pl_module.steps
        self.session.signs += 1


class _StepSchedule(ComparingCallback):
    """Pass the values of a step to a schedule that needs a metric, before they are logged and saved."""

    def __init__(self, validates: bool, every: int) -> None:
        self.validates = validates
        self.every = every

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        super().on_train_start(trainer, pl_module)
        monitor = pl_module.schedule.monitor if pl_module.schedule is not None else None
        if monitor is not None and monitor.startswith("val_") and not self.validates:
            raise ConfigError(f"The schedule needs {monitor!r}, but the run has no validation data: give val_data=.")
        self._waits = monitor is not None

    def on_step(self, trainer: Trainer, pl_module: Any, outputs: Any, step: int) -> None:
        if self._waits:
            monitor = pl_module.schedule.monitor
            values: Mapping[str, Any] = log_values(trainer, outputs)
            if not monitor.startswith("val_") or is_compared(trainer, monitor, step, self.every):
                values = over_processes(trainer, pl_module, values, monitor)
            else:
                values = {}
            pl_module.schedule.after_values(step, values)


def retention_of(config: TrainerConfig) -> Retention:
    """Return which checkpoints a config keeps, including the best one if its weights are loaded at the end."""
    best = config.keep_best
    if config.load_best_at_end and config.keep_last is not None:
        best = max(1, best)
    every = config.save_step_interval if config.spike_policy != "none" else 0  # a stop must not change what is kept
    return Retention(config.keep_last, best, config.monitor, config.best_mode, config.keep_optimizer, every)


def make_sinks(session: Session, config: TrainerConfig) -> list[Sink]:
    """Return the sinks of logged rows besides the CSV file."""
    sinks: list[Sink] = [Display(lambda: session.max_step, lambda: session.step)]
    if config.tensorboard and session.stream is None:  # the caller that opened the session has added it already
        purge = session.step + 1 if session.step else None
        sinks.append(TensorBoardSink(session.folder / files.TENSORBOARD, purge))
    return sinks


def make_trainer(session: Session, config: TrainerConfig, callbacks: list[Callback], place: Place) -> Trainer:
    """Return Lightning's trainer.

    Raises:
        ConfigError: Lightning refuses the settings, or would start other processes than those of `place`.
    """
    try:
        trainer = Trainer(
            accelerator=config.device,
            devices=config.device_num,
            num_nodes=config.num_nodes,
            strategy=make_strategy(config, place.size),
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
            plugins=[place.environment],
        )
    except REFUSALS as error:
        settings = ", ".join(f"{name}={getattr(config, name)!r}" for name in _LIGHTNINGS_SETTINGS)
        raise ConfigError(f"Incompatible settings ({settings}): {error}") from error
    place.check(trainer)
    if not is_known(trainer.strategy):
        raise ConfigError(
            f"strategy={config.strategy!r} is not supported: its processes may each hold a part of the model in a form "
            "that darkit does not save. Use 'ddp', or 'fsdp'."
        )
    return trainer


def make_callbacks(
    session: Session,
    model: nn.Module,
    config: TrainerConfig,
    tokenizer: Any,
    evaluate: StepEvaluate | None,
    own: Sequence[Callback],
    state: dict[str, Any],
    description: ModelDescription | None = None,
) -> list[Callback]:
    """Compose the callbacks in the order of a step: evaluate, the user's own, log, guard, require, stop, save.

    ``state`` is the content of the checkpoint to resume from, or empty; it is emptied when the training starts.
    """
    stream = session.stream
    guard = LossGuard(config.nan_policy, stream, session.writer.wait if session.writer is not None else lambda: None)

    def before_save(step: int) -> None:
        guard.check_step(model, step)
        log.exchange()
        if stream is not None:
            stream.flush()

    schedule = _StepSchedule(evaluate is not None or may_add_metrics(own), config.eval_step_interval)
    averages = [EmaWeights(_averages(model, config, state))] if config.ema_decay else []
    watch = (config.monitor, config.best_mode, config.eval_step_interval)
    early = [EarlyStop(config.early_stop_patience, *watch)] if config.early_stop_patience else []
    log = StepLog(stream, config.log_step_interval)
    save = StepCheckpoint(
        session.folder,
        config.save_step_interval,
        writer=session.writer,
        before=before_save,
        check=partial(guard.check_copy, model),
    )
    best = [SaveBest(save, *watch)] if config.load_best_at_end else []
    wanted = []
    if config.keep_best:
        known = {"evaluates": evaluate is not None, "others": may_add_metrics(own)}
        wanted.append(RequireMetric(config.monitor, **known, every=config.eval_step_interval))
    return [
        *([ExportConfigs(session.folder, config, tokenizer, description)] if session.writes else []),
        _Progress(session, (*averages, schedule, *early, log, guard, *best, save)),
        *averages,
        *([evaluate] if evaluate else []),
        *own,
        *_receipts(model, config, own),
        schedule,
        *early,
        log,
        guard,
        *wanted,
        StopOnRequest(session.guard),
        *best,
        save,
        _Restore(state),
    ]


def may_add_metrics(callbacks: Sequence[Callback]) -> bool:
    """Return whether any callback that is not darkit's may add metrics to a step."""
    return any(not type(callback).__module__.startswith("darkit.") for callback in callbacks)


def _receipts(model: nn.Module, config: TrainerConfig, own: Sequence[Callback]) -> list[Callback]:
    """Return what measures a spiking model, unless there is one among the user's callbacks."""
    if not find_neurons(model) or any(isinstance(callback, SpikingReceipt) for callback in own):
        return []
    every = config.log_step_interval * -(-config.eval_step_interval // config.log_step_interval)
    return [receipt_of(config, every)]


def _averages(model: nn.Module, config: TrainerConfig, state: Mapping[str, Any]) -> Averages:
    """Return the averages of the weights, restored from a checkpoint that has them."""
    averages = Averages(config.ema_decay)
    if "raw_state_dict" in state:
        averages.start(bare(model), state)
    return averages


def restore(trainer: Trainer, adapter: Adapter, state: Mapping[str, Any]) -> None:
    """Give every process its share of the data, and restore data position and counters before ``trainer.fit``.

    ``state`` is the checkpoint's content, or empty for a new training.
    """
    feed = adapter.feed
    feed.share(trainer.global_rank, trainer.world_size)
    if not state:
        return
    mine = of_rank(state, trainer.global_rank, adapter.config.seed)
    epoch = taken = 0
    if "position" in mine:
        feed.resume(mine["position"], mine["rng"])
        epoch, taken = mine["position"]["epoch"], feed.batches
    else:
        logger.warning(
            "The checkpoint is of a hand-written loop and has no data position: the data starts from its beginning."
        )
    start_from(trainer, state["current_step"], epoch, taken)
    restore_metrics(adapter.module, mine.get("metrics") or {})
    if adapter.compute.states is not None:
        adapter.compute.states.restore(mine.get("neuron_states") or {})
    if state.get("precision"):
        trainer.precision_plugin.load_state_dict(state["precision"])


def begin_training(module: nn.Module) -> None:
    """Put a model that is in evaluation mode as a whole into training mode.

    Otherwise its parts stay as they are: a frozen normalisation or a disabled dropout is intended.
    """
    if not any(part.training for part in module.modules()):
        module.train()
        if any(isinstance(part, _MODES_MATTER) for part in module.modules()):
            announce(
                "The whole model was in evaluation mode and is trained in training mode. To keep parts of it in "
                "evaluation mode, call train() on the model and then eval() on those parts."
            )


def run_loop(
    trainer: Trainer, adapter: Adapter, config: TrainerConfig, guard: SignalGuard, *, few_shapes: bool = False
) -> None:
    """Train until the last step or a request to stop.

    The death of a data worker belongs to the stop when the signal went to the whole process group. With ``few_shapes``,
    each shape of a batch gets its own compiled kernel, independent of earlier batches.
    """
    module = adapter.module
    begin_training(module)
    if config.compile:
        module.compile(dynamic=False if few_shapes else None)
        if module._compiled_call_impl is not None:
            module._compiled_call_impl = unobserved(module._compiled_call_impl)
    leave_signals(trainer)
    try:
        with lightnings_exits(guard), refusing_steps(adapter):
            trainer.fit(adapter, adapter.feed)
    finally:
        if config.compile:
            module._compiled_call_impl = None


@contextmanager
def lightnings_exits(guard: SignalGuard) -> Iterator[None]:
    """Turn an exit by which Lightning ends ``fit`` back into what caused it, or into a requested stop.

    Args:
        guard: The guard with the request to stop.
    """
    try:
        yield
    except SystemExit as error:
        if (interrupt := cause_of_exit(error)) is not None:
            raise interrupt from None
        if not (is_sigterm(error) and guard.request.reason):  # it came before the first step
            raise
    except Exception as error:
        if not (may_follow_worker_death(error) and guard.is_asked_soon()):
            raise


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence Lightning's adverts and advice during a training, and restore the process-wide settings after it."""
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

"""`fit` of a LightningModule: Lightning's own loop, with everything that the module defines, inside a run."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch import callbacks as stock
from lightning.pytorch.loggers import Logger
from torch import nn

from darkit.engine.checkpoints.best import load_best
from darkit.engine.checkpoints.weights import bare, load_weights
from darkit.engine.config import TrainerConfig
from darkit.engine.description.describe import describe_model
from darkit.engine.description.exports import write_exports
from darkit.engine.device import resolve_device, seed_generators
from darkit.engine.fork import (
    adopt_checkpoints,
    changed_optimizer,
    deciding_callback,
    find_start,
    lineage_of,
    refuse_restored,
)
from darkit.engine.lightning import REFUSALS, leave_signals
from darkit.engine.log.progress import announce
from darkit.engine.log.rows import Sink
from darkit.engine.loop import lightnings_exits, make_sinks, quiet_lightning, retention_of
from darkit.engine.meeting import current
from darkit.engine.native.data import NativeData
from darkit.engine.native.logger import RowLogger
from darkit.engine.native.of_run import OfRun
from darkit.engine.native.plain import PlainModule, inner
from darkit.engine.native.recorder import refuse_other_loops, refuse_strategy
from darkit.engine.native.recording import Recording
from darkit.engine.native.settings import recorded_settings
from darkit.engine.native.sharded import splitting, strategy_for
from darkit.engine.native.state import other_processes
from darkit.engine.own_settings import own_settings
from darkit.engine.processes import find_place
from darkit.engine.resume import Resume, check_settings, warn_of_other_data
from darkit.engine.same_data import agree_on_data
from darkit.engine.session import DEFAULT_SERIES, Session
from darkit.engine.spiking.states import NeuronStates
from darkit.engine.together import all_went_well
from darkit.errors import ConfigError, ReproductionWarning, listing
from darkit.runs import Run
from darkit.runs.names import refuse_existing, run_path

ARGUMENTS = frozenset(
    {
        *("check_val_every_n_epoch", "detect_anomaly", "gradient_clip_algorithm", "inference_mode", "benchmark"),
        *("limit_train_batches", "limit_val_batches", "max_time", "min_epochs", "min_steps", "num_sanity_val_steps"),
        *("overfit_batches", "profiler", "reload_dataloaders_every_n_epochs", "sync_batchnorm", "val_check_interval"),
        *("use_distributed_sampler", "enable_autolog_hparams"),
    }
)
"""Arguments of `lightning.Trainer` that `fit` passes on for a LightningModule."""
_MODULES_OWN = ("lr", "optimizer", "fused", "weight_decay", "betas", "scheduler", "warmup_step", "loss", "metrics")
_CALLBACKS = {
    "ema_decay": "EMAWeightAveraging",
    "early_stop_patience": "EarlyStopping",
}
_PER_EPOCH = "eval_step_interval"
_OF_OUR_LOOP = (
    *("gradient_accumulation_steps", "global_batch_size", "ema_decay", "early_stop_patience", "spike_policy"),
    *("compile", "reset_state"),
)


def trains_itself(model: nn.Module) -> bool:
    """Return whether a model is a LightningModule with optimizers of its own, so that Lightning's loop trains it."""
    inner = bare(model)
    return isinstance(inner, lightning.LightningModule) and (
        "configure_optimizers" in vars(inner)
        or type(inner).configure_optimizers is not lightning.LightningModule.configure_optimizers
    )


def leave_to_module(model: nn.Module, config: TrainerConfig, usual: Mapping[str, Any]) -> set[str]:
    """Set what a LightningModule decides itself back to the defaults, where a config has values that nobody chose.

    Args:
        model: Any module; others than those that train themselves keep everything.
        config: The settings, changed in place.
        usual: The values that are nobody's choice, by setting; other values in the config are somebody's.

    Returns:
        The settings that were set back.
    """
    if not trains_itself(model):
        return set()
    default = TrainerConfig()
    found = {
        name
        for name in {*_MODULES_OWN, "gradient_clip"} & usual.keys()
        if _plain(getattr(config, name)) == _plain(usual[name])
    }
    for name in found:
        setattr(config, name, getattr(default, name))
    return found


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def refuse_settings(model: nn.Module, config: TrainerConfig, objects: Sequence[str]) -> None:
    """Refuse settings that a LightningModule decides itself.

    Args:
        model: The module.
        config: The settings; those that are not the defaults were given.
        objects: The names of further arguments that were given.

    Raises:
        ConfigError: One of them would be ignored.
    """
    name = type(bare(model)).__name__
    default = TrainerConfig()
    given = [
        *objects,
        *(field.name for field in fields(default) if getattr(config, field.name) != getattr(default, field.name)),
    ]
    ignored = [setting for setting in given if setting in _MODULES_OWN]
    if ignored:
        raise ConfigError(
            f"{name} is a LightningModule with its own configure_optimizers and steps, which decide "
            f"{listing(ignored)}: set them there."
        )
    for setting, callback in _CALLBACKS.items():
        if setting in given:
            raise ConfigError(f"{setting} is not for a LightningModule: give callbacks=[{callback}(...)].")
    if "global_batch_size" in given:
        raise ConfigError(
            "global_batch_size is not for a LightningModule, whose loop counts batches: give batch_size and "
            "gradient_accumulation_steps."
        )
    if "spike_policy" in given:
        raise ConfigError("spike_policy is not for a LightningModule, whose loop darkit does not rewind: leave it out.")
    if "compile" in given:
        raise ConfigError("compile=True is not for a LightningModule: give torch.compile(model).")
    if "reset_state" in given:
        raise ConfigError(
            "reset_state is not for a LightningModule, whose own code resets its neurons or not: leave it out."
        )


def refuse_beside(callback: str, config: TrainerConfig) -> None:
    """Refuse settings of darkit's own loop beside a callback that needs Lightning's. Raises `ConfigError`."""
    default = TrainerConfig()
    for setting in _OF_OUR_LOOP:
        if getattr(config, setting) != getattr(default, setting):
            raise ConfigError(
                f"{setting} is not possible beside the callback {callback}, for which Lightning's own loop trains: "
                "leave one of them out."
            )
    if config.scheduler != "constant" and config.max_epoch is not None and config.max_step == default.max_step:
        raise ConfigError(
            f"scheduler={config.scheduler!r} needs max_step beside the callback {callback}, for which Lightning's own "
            "loop counts the epochs: give the number of steps at which the schedule ends, and not "
            f"{default.max_step}, which stands for none."
        )


def train_native(
    model: nn.Module,
    data: Any,
    val_data: Any,
    config: TrainerConfig,
    *,
    root: Path,
    tokenizer: Any = None,
    columns: Sequence[str] | None = None,
    series: Mapping[str, Sequence[str]] | None = None,
    callbacks: Sequence[lightning.Callback] = (),
    loggers: Sequence[Logger] = (),
    arguments: Mapping[str, Any] | None = None,
    resume: bool | str | Resume | None = None,
    resume_overrides: bool = False,
    fork: str | None = None,
    composed: str = "",
) -> Run:
    """Train a LightningModule with Lightning's own loop into a run below ``root``.

    Args:
        model: The module, or what `torch.compile` makes of it.
        data: Training data: one or more DataLoaders in any form that Lightning takes, a LightningDataModule, what
            `darkit.fit` takes otherwise, or None if the module has a ``train_dataloader``.
        val_data: Validation data, likewise, or None.
        config: The trainer's config.
        root: The folder of the runs.
        tokenizer: A tokenizer to export.
        columns: The log's only columns, or None.
        series: The curves to show.
        callbacks: Further callbacks.
        loggers: Further loggers.
        arguments: Further arguments of `lightning.Trainer`; see `ARGUMENTS`.
        resume: As for `darkit.fit`; or the path of a ``.ckpt`` file that Lightning wrote.
        resume_overrides: As for `darkit.fit`.
        fork: As for `darkit.fit`.
        composed: The composed config as YAML, or empty.

    Raises:
        DarkitError: As for `darkit.fit`.
    """
    foreign = resume if isinstance(resume, str) and resume.endswith(".ckpt") else None
    if foreign is not None and not Path(foreign).is_file():
        raise ConfigError(f"There is no checkpoint {foreign}.")
    place = find_place(config)
    strategy = strategy_for(model, config, callbacks, place.size)
    if foreign is not None and fork:
        raise ConfigError(f"fork={fork!r} and resume={foreign!r} both say what to start from: give one of them.")
    found = resume if isinstance(resume, Resume) else find_start(root, config, None if foreign else resume, fork)
    same = found if found is not None and found.restores else None
    if config.name is not None and not place.rank and not (found and found.has_folder):
        refuse_existing(root, config.name)
    resolve_device(config)
    loaders = NativeData(data, val_data, config)
    by_lightning = bool((arguments or {}).get("use_distributed_sampler", True))
    agree_on_data(loaders.divided(by_lightning=by_lightning), current())
    described = describe_model(inner(model), loaders.sample)
    settings = _settings(model, config, callbacks, arguments or {})
    last = settings["max_steps"] if settings["max_steps"] > 0 else None
    changes = check_settings(same, config, described.values, tokenizer, resume_overrides, max_step=last) if same else {}
    state = same.content if same is not None else {}
    changed: set[str] = set()
    if not isinstance(model, PlainModule):
        refuse_restored(same, changes, allowed=resume_overrides)
    elif state and same is not None:
        changed = changed_optimizer(same, changes, config, callbacks)
    if state:
        refuse_other_loops(found.run.name, state)  # type: ignore[union-attr]
        if lost := other_processes(state, place.size):  # with resume_overrides
            warnings.warn(f"{lost}, so the resumed training is not an exact continuation.", ReproductionWarning, 2)
    elif found is not None and found.content:
        load_weights(inner(model), found.content)
        found.release()
    if same is not None and same.has_nothing_to_do(last):
        announce(f"Run {same.run.name!r} is complete at step {same.step}; nothing to do.")
        load_weights(inner(model), same.content)
        return same.run
    with _open(root, config, model, same, place.rank) as session:
        if session.writes and found is not None:
            if same is not None:
                same.set_aside_later()
            announce(found.describe(changes))
        if foreign is not None and session.writes:
            announce(
                f"Starting from {foreign}, which Lightning wrote: weights, optimizers, schedules and loops are "
                "restored; random generators, the place in the data and what was logged in that epoch are not in it."
            )
        states = NeuronStates(inner(model))
        if session.writes and states:
            announce(states.describe() if isinstance(model, PlainModule) else states.describe_untouched())
        shows_bar = any(isinstance(callback, stock.ProgressBar) for callback in callbacks)
        sinks = lambda: _sinks(session, config, shows_bar)  # noqa: E731
        session.begin(last, columns, sinks, retention_of(config), console=config.console)
        session.guard.install()
        recording = Recording(session, config, state=dict(state), adopt=loaders.adopted)
        recording.validates_last = isinstance(model, PlainModule)
        rows = RowLogger(lambda: Run(session.folder), lambda values, step: recording.log(trainer, values, step))
        honours = isinstance(model, PlainModule) and not deciding_callback(callbacks)
        own = own_settings(same, changes, session, allowed=resume_overrides, honours=honours)

        def started() -> None:
            facts = loaders.facts()
            others = warn_of_other_data(same.run, facts) if state and same is not None and session.writes else {}
            differing = {**changes, **others}
            if place.size > 1:  # Lightning's handler, installed since, communicates within whatever it interrupts
                session.guard.install()
            record = recorded_settings(config, settings, _unused(model, loaders, config, last))
            lineage = lineage_of(found, differing) if session.writes else {}
            session.describe(described, config, series or DEFAULT_SERIES, facts, composed, differing, lineage)
            if session.writes:
                adopt_checkpoints(found, session.folder, session.run_id, config)
                write_exports(session.folder, inner(model), record, tokenizer, described)
            if same is not None:
                same.release()

        try:
            with quiet_lightning(), place.applied(), lightnings_exits(session.guard):
                trainer = _trainer(
                    **(settings | {"strategy": strategy}),
                    callbacks=[*callbacks, OfRun(recording, state, started, own, changed)],
                    logger=[*loggers, rows],
                    default_root_dir=session.folder,
                    plugins=[place.environment],
                )
                place.check(trainer)
                refuse_strategy(trainer)
                leave_signals(trainer)
                seed_generators(config.seed + trainer.global_rank)
                with splitting(model, strategy, config.precision):
                    trainer.fit(model, **loaders.arguments(), ckpt_path=foreign, weights_only=True)  # type: ignore[arg-type]
                if isinstance(model, PlainModule):
                    states.reset()
                loads_best = config.load_best_at_end and all_went_well(trainer, session.guard.request, recording.wait)
            if loads_best:
                announce(load_best(Run(session.folder), inner(model), config, writes=session.writes))
        finally:
            recording.detach()
            if not session.forked:
                loaders.close()
    if session.writes:
        session.guard.request.end_process()
    return Run(session.folder)


def _open(root: Path, config: TrainerConfig, model: nn.Module, same: Resume | None, rank: int) -> Session:
    if same is not None and same.has_folder:
        return Session.reopen(run_path(root, config.name), same.step, rank=rank)
    return Session.create(root, config, type(inner(model)).__name__, rank, after=same.step if same is not None else 0)


def _settings(
    model: nn.Module, config: TrainerConfig, callbacks: Sequence[lightning.Callback], arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the arguments of `lightning.Trainer` that the settings mean."""
    default = TrainerConfig()
    settings: dict[str, Any] = {
        "accelerator": config.device,
        "devices": config.device_num,
        "num_nodes": config.num_nodes,
        "strategy": config.strategy,
        "precision": config.precision,
        "max_steps": config.max_step,
        "max_epochs": -1,
        "accumulate_grad_batches": config.gradient_accumulation_steps,
        "gradient_clip_val": config.gradient_clip or None,
        "deterministic": config.deterministic or None,
        "log_every_n_steps": config.log_step_interval,
        "enable_checkpointing": any(isinstance(callback, stock.Checkpoint) for callback in callbacks),
        "enable_progress_bar": any(isinstance(callback, stock.ProgressBar) for callback in callbacks),
        "enable_model_summary": any(isinstance(callback, stock.ModelSummary) for callback in callbacks),
    }
    if config.max_epoch is not None:
        settings["max_epochs"] = config.max_epoch
        if config.max_step == default.max_step:
            settings["max_steps"] = -1
    if config.eval_iters:
        settings["limit_val_batches"] = config.eval_iters
    if isinstance(model, PlainModule) and not config.eval_step_interval:
        settings |= {"check_val_every_n_epoch": 2**31}  # the last step is validated by itself
    elif isinstance(model, PlainModule) or config.eval_step_interval != default.eval_step_interval:
        doubled = [name for name in ("val_check_interval", "check_val_every_n_epoch") if name in arguments]
        if doubled:
            raise ConfigError(f"eval_step_interval and {doubled[0]} both say when to validate: give one of them.")
        settings |= _validations(config)
    return settings | dict(arguments)


def _validations(config: TrainerConfig) -> dict[str, Any]:
    """Return when Lightning validates, for ``eval_step_interval``: it counts batches, through all epochs."""
    if not config.eval_step_interval:
        raise ConfigError(
            "eval_step_interval=0 evaluates at the last step only, which Lightning's loop cannot: give a number of "
            "steps, or limit_val_batches=0 for no validation."
        )
    batches = config.eval_step_interval * config.gradient_accumulation_steps
    return {"val_check_interval": batches, "check_val_every_n_epoch": None}


def _trainer(**settings: Any) -> lightning.Trainer:
    try:
        return lightning.Trainer(**settings)
    except REFUSALS as error:
        raise ConfigError(f"Lightning refuses the settings: {error}") from error


def _sinks(session: Session, config: TrainerConfig, shows_bar: bool) -> list[Sink]:
    """Return the sinks of rows; darkit's display is not shown beside a bar of Lightning's."""
    sinks = make_sinks(session, config)
    return sinks[1:] if shows_bar else sinks


def _unused(model: nn.Module, loaders: NativeData, config: TrainerConfig, last: int | None) -> set[str]:
    """Return the settings that say nothing about this training."""
    unused = {"max_step"} if last is None else set()
    if loaders.loaders is None:
        unused |= {"batch_size", "num_workers"}
    if not isinstance(model, PlainModule):
        unused |= {*_MODULES_OWN, *_CALLBACKS, "compile", "reset_state"}
        default = TrainerConfig()
        unused |= {name for name in (_PER_EPOCH, "eval_iters") if getattr(config, name) == getattr(default, name)}
    return unused

"""`fit`: one training of one run, composed of adapter, callbacks and Lightning's trainer."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.loggers import Logger
from torch import nn

from darkit.engine.aliases import refuse_shadows
from darkit.engine.callbacks import EarlyStop, StepEvaluate
from darkit.engine.callbacks.early_stop import stopped_early
from darkit.engine.checkpoints.best import load_best, refuse_without_validation
from darkit.engine.checkpoints.weights import bare, load_weights
from darkit.engine.config import TrainerConfig, with_overrides
from darkit.engine.data.epochs import limit_steps
from darkit.engine.data.exactness import has_few_shapes, warn_of_inexactness
from darkit.engine.data.fingerprint import describe_data
from darkit.engine.data.fits import check_fits, refuse_uninitialized, small_batch
from darkit.engine.data.loaders import make_loaders
from darkit.engine.data.shards import ordered_datasets
from darkit.engine.data.validation import ValidationBatches
from darkit.engine.description.describe import config_values, describe_model
from darkit.engine.device import resolve_device, seed_generators
from darkit.engine.elastic import keep_steps, set_global_batch
from darkit.engine.foreign import needing_lightning, refuse_callbacks, refuse_module, with_data_module
from darkit.engine.fork import adopt_checkpoints, find_start, lineage_of, refuse_other_loop
from darkit.engine.log.loggers import LoggerSink, as_loggers
from darkit.engine.log.progress import announce
from darkit.engine.loop import (
    make_callbacks,
    make_sinks,
    make_trainer,
    may_add_metrics,
    quiet_lightning,
    restore,
    retention_of,
    run_loop,
)
from darkit.engine.meeting import current
from darkit.engine.metrics.gathering import Metrics
from darkit.engine.native.plain import PlainModule
from darkit.engine.native_training import ARGUMENTS, refuse_beside, refuse_settings, train_native, trains_itself
from darkit.engine.own_settings import own_settings
from darkit.engine.processes import find_place
from darkit.engine.resume import Resume, check_settings, warn_of_other_data
from darkit.engine.same_data import agree_on_data, prepare_once
from darkit.engine.series import column_names
from darkit.engine.session import DEFAULT_SERIES, Session
from darkit.engine.spikes import refuse_spike_policy, rewinding, spike_guard
from darkit.engine.steps.adapter import Adapter
from darkit.engine.steps.averages import averages_of, raw_weights
from darkit.engine.steps.counting import record_step
from darkit.engine.steps.loss import finds_own_loss, make_step
from darkit.engine.steps.objective import describe_objective
from darkit.engine.steps.sharding import SHARDED, ShardedAdapter, refuse_strategy
from darkit.engine.together import all_went_well, joined
from darkit.errors import ConfigError, ModelError
from darkit.runs import Run, base
from darkit.runs.configs import public_values
from darkit.runs.forks import keep
from darkit.runs.names import refuse_existing, run_path


def fit(
    model: nn.Module,
    data: Any = None,
    val_data: Any = None,
    *,
    name: str | None = None,
    project: str | None = None,
    config: TrainerConfig | None = None,
    loss: Callable[..., Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    tokenizer: Any = None,
    optimizer: Any = None,
    scheduler: Any = None,
    log_fieldnames: Any = None,
    visual_series: Mapping[str, Sequence[str]] | None = None,
    callbacks: Sequence[lightning.Callback] = (),
    logger: Any = None,
    resume: bool | str | None = None,
    resume_overrides: bool = False,
    fork: str | None = None,
    **overrides: Any,
) -> Run:
    """Train a model into a run.

    Args:
        model: Any module; it is trained in place. A LightningModule with its own ``configure_optimizers`` is trained by
            Lightning's own loop, with everything that it defines.
        data: A Dataset (map-style or iterable), a list of samples, a tensor or array, a tuple or dict of them, a
            DataLoader, a LightningDataModule, or a dict with ``train`` and ``val``; None for a LightningModule with a
            ``train_dataloader`` of its own.
        val_data: Validation data, likewise, or None.
        name: The run's name; None generates one.
        project: The project that it belongs to; see `TrainerConfig`.
        config: The trainer's config. Its ``device`` is set to the device in use; nothing else is changed, so several
            runs may share one.
        loss: A callable of outputs and target, or of model and batch; None uses the model's loss, see
            `darkit.engine.steps.loss`.
        metrics: Further values of every batch, by name: callables of outputs and target, or of model and batch, or
            torchmetrics objects, which an evaluation computes over all of its batches.
        tokenizer: A `tokenizers.Tokenizer`, a transformers tokenizer or the path of a ``tokenizer.json``; exported.
        optimizer: A torch optimizer, a callable of the parameters, or a name as in the config; None uses the config's.
        scheduler: A name as in the config, a torch schedule or a callable of the optimizer, all stepped after every
            step; or ``(schedule, "step")``, ``(schedule, "epoch")`` or Lightning's dict, which set the interval. A
            `ReduceLROnPlateau` is stepped with every new value of its metric. None uses the config's.
        log_fieldnames: A dataclass whose fields are the log's only columns; None means the default ones and whatever a
            step returns.
        visual_series: The curves to show: name -> [x column, y column].
        callbacks: Lightning callbacks; they come after the evaluation and before the log, and may add to ``outputs``.
            With one that needs Lightning's own loop, such as EarlyStopping, that loop trains the model.
        logger: A logger of Lightning's, or several, which gets every row beside the run's log.
        resume: True resumes the run called ``name``; ``"NAME"`` or ``"NAME:CHECKPOINT"`` resumes that run or, given
            another ``name``, starts a new run from its weights. ``"auto"`` resumes the run called ``name`` if it
            exists, and starts it otherwise; a complete run is returned with its weights in the model.
        resume_overrides: Whether a run may resume with other settings that change its mathematics.
        fork: ``"NAME"`` or ``"NAME:CHECKPOINT"``: start a new run that continues from everything in that checkpoint,
            with the settings given here. What it began from and what differs is recorded; a killed fork continues with
            ``resume="auto"`` too.
        **overrides: Fields of `TrainerConfig`; for such a LightningModule also arguments of `lightning.Trainer`, such
            as ``val_check_interval``.

    Returns:
        A handle on the run.

    Raises:
        DarkitError: A mistake that the user can fix; the subclass and its sentence say which. A new run that has not
            completed a step then leaves nothing behind.
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
    if project is not None:
        overrides["project"] = project
    arguments = {key: overrides.pop(key) for key in ARGUMENTS & overrides.keys()} if trains_itself(model) else {}
    own = with_overrides(copy.copy(given), overrides)
    given.device = resolve_device(own)
    return train_run(
        model,
        data,
        val_data,
        own,
        root=base(),
        loss=loss,
        metrics=metrics,
        tokenizer=tokenizer,
        optimizer=None if isinstance(optimizer, str) else optimizer,
        scheduler=None if isinstance(scheduler, str) else scheduler,
        columns=column_names(log_fieldnames),
        series=visual_series,
        callbacks=callbacks,
        resume=resume,
        resume_overrides=resume_overrides,
        fork=fork,
        arguments=arguments,
        loggers=as_loggers(logger),
    )


@joined
@with_data_module
@rewinding
def train_run(
    model: nn.Module,
    data: Any,
    val_data: Any,
    config: TrainerConfig,
    *,
    root: Path,
    loss: Callable[..., Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    tokenizer: Any = None,
    optimizer: Any = None,
    scheduler: Any = None,
    columns: Sequence[str] | None = None,
    series: Mapping[str, Sequence[str]] | None = None,
    callbacks: Sequence[lightning.Callback] = (),
    resume: bool | str | Resume | None = None,
    resume_overrides: bool = False,
    fork: str | None = None,
    evaluate: Callable[..., StepEvaluate] = StepEvaluate,
    session: Session | None = None,
    started: Callable[[Session], None] | None = None,
    composed: str = "",
    arguments: Mapping[str, Any] | None = None,
    loggers: Sequence[Logger] = (),
) -> Run:
    """Train a model with a checked config into a run below ``root``, as `fit` does.

    Further arguments: ``columns``, the log's only columns; ``series``, the curves to show; ``evaluate``, which makes
    the evaluation callback as `StepEvaluate` does; ``session``, a session that the caller has opened and will end;
    ``started``, called with the session once it is open; ``composed``, the whole composed config as YAML, for
    ``config.yaml``; ``arguments``, those of `lightning.Trainer` for a LightningModule; ``loggers``, which
    get every row too.
    """
    refuse_callbacks(callbacks)
    native = functools.partial(
        train_native,
        data=data,
        val_data=val_data,
        config=config,
        root=root,
        tokenizer=tokenizer,
        columns=columns,
        series=series,
        callbacks=callbacks,
        loggers=loggers,
        arguments=arguments,
        resume=resume,
        resume_overrides=resume_overrides,
        fork=fork,
        composed=composed,
    )
    names = needing_lightning(callbacks)
    if (names or trains_itself(model)) and started is not None:
        raise ConfigError(
            f"{type(bare(model)).__name__ if trains_itself(model) else names[0]} needs Lightning's own loop, which a "
            "darkit.core.Trainer does not have: use darkit.fit, or darkit.RunRecorder in a lightning.Trainer."
        )
    if trains_itself(model):
        own = {"loss": loss, "metrics": metrics, "optimizer": optimizer, "scheduler": scheduler}
        refuse_settings(model, config, [name for name, value in own.items() if value is not None])
        return native(model)
    refuse_module(model)
    refuse_shadows(config, [field.name for field in fields(TrainerConfig)])
    compute = make_step(model, loss, Metrics(metrics), reset_state=config.reset_state)
    if names:
        refuse_beside(names[0], config)
        return native(
            PlainModule(model, compute, config, optimizer=optimizer, scheduler=scheduler, values=config_values(model))
        )
    place = find_place(config)
    refuse_strategy(config, place.size, optimizer)
    resolve_device(config)
    refuse_spike_policy(config, place.size, callbacks, own_session=session is not None)
    found = resume if isinstance(resume, Resume) else find_start(root, config, resume, fork)
    refuse_other_loop(found)
    same = found if found is not None and found.restores else None
    if config.name is not None and session is None and not place.rank and not (found and found.has_folder):
        refuse_existing(root, config.name)
    refuse_uninitialized(model)
    loaders = make_loaders(data, val_data, config, functools.partial(prepare_once, place=place, meeting=current()))
    loaders.train.share(place.rank, place.size)
    agree_on_data(ordered_datasets(loaders), current())
    kept = keep_steps(same, config, loaders.train, model, place.size, allowed=resume_overrides)
    set_global_batch(config, loaders.train, place.size)
    limit_steps(config, loaders.train)
    refuse_without_validation(config, validates=loaders.val is not None or may_add_metrics(callbacks))
    described = describe_model(model, lambda: small_batch(loaders))
    check_fits(
        model, {**described.values, **config_values(model)}, loaders, direct=loss is None and not finds_own_loss(model)
    )
    changes = (
        check_settings(
            same,
            config,
            described.values,
            tokenizer,
            resume_overrides,
            max_step=config.max_step,
            keeps_steps=kept is not None,
        )
        if same
        else {}
    )
    if found is not None and found.content:
        if config.precision == "64-true" and same is not None:
            model.double()  # as Lightning will: going through float32 would lose half of every weight
        load_weights(model, found.content if same is None else raw_weights(found.content))
        if same is None:
            found.release()
    if same is not None and (complete := _why_complete(same, config)):
        loaders.close()
        announce(complete)
        load_weights(model, same.content)  # those used for prediction
        if config.load_best_at_end:
            announce(load_best(same.run, model, config, writes=False))
        return same.run
    with nullcontext(session) if session is not None else _open(root, config, model, same, place.rank) as session:
        if same is not None and session.writes:
            same.set_aside_later()
        if found is not None and session.writes:
            announce(found.describe(changes) + (kept.describe() if kept is not None else ""))
        state = same.content if same is not None else {}
        adapter = (ShardedAdapter if config.strategy == SHARDED else Adapter)(
            model,
            compute,
            config,
            feed=loaders.train,
            optimizer=optimizer,
            scheduler=scheduler,
            resume=state or None,
            own=own_settings(same, changes, session, allowed=resume_overrides, callbacks=callbacks),
            tell=functools.partial(record_step, session.folder, session.check) if session.writes else None,
        )
        facts = describe_data(loaders)
        if state and same is not None and session.writes:
            changes = {**changes, **warn_of_other_data(same.run, facts)}
        if session.writes:
            warn_of_inexactness(loaders, config)
            if compute.states is not None:
                announce(compute.states.describe())
        lineage = lineage_of(found, changes) if session.writes else {}
        given = {} if composed else describe_objective(loss, metrics, own_validation=evaluate is not StepEvaluate)
        session.describe(described, config, series or DEFAULT_SERIES, facts, composed, changes, lineage, given)
        if session.writes:
            adopt_checkpoints(found, session.folder, session.run_id, config)
        sinks = [LoggerSink(logger) for logger in loggers] if session.writes else []
        session.begin(
            config.max_step,
            columns,
            lambda: [*make_sinks(session, config), *sinks],
            retention_of(config),
            console=config.console,
        )
        for sink in sinks:
            sink.logger.log_hyperparams(public_values(config_values(model)) | public_values(config))
        session.guard.install()
        if started is not None:
            started(session)
        evaluation = None
        validation = ValidationBatches(loaders.val, session)
        if loaders.val is not None:
            evaluation = evaluate(validation, config.eval_step_interval, config.eval_iters, compute.evaluation)
        try:
            with quiet_lightning(), place.applied():
                further = [*callbacks, *spike_guard(session, config, adapter.feed)]
                composition = make_callbacks(session, model, config, tokenizer, evaluation, further, state, described)
                trainer = make_trainer(session, config, composition, place)
                seed_generators(config.seed + trainer.global_rank)
                restore(trainer, adapter, state)
                run_loop(trainer, adapter, config, session.guard, few_shapes=has_few_shapes(loaders))
                if compute.states is not None and config.reset_state:
                    compute.states.reset()
                written = session.writer.wait if session.writer is not None else None
                loads_best = config.load_best_at_end and all_went_well(trainer, session.guard.request, written)
            if adapter.data_ended:
                session.end_reason = f"The training data ended at step {session.step} of {config.max_step}."
            else:
                session.end_reason = next((part.reason for part in composition if isinstance(part, EarlyStop)), "")
            if session.end_reason and session.writes:
                announce(session.end_reason)
            if (averages := averages_of(trainer)) is not None:
                averages.copy_to_module()
            if loads_best:
                announce(load_best(Run(session.folder), model, config, writes=session.writes))
        finally:
            if session.forked:
                keep(loaders, validation)
            else:
                loaders.close()
                validation.close()
    if session.writes:
        session.guard.request.end_process()
    return Run(session.folder)


def _open(root: Path, config: TrainerConfig, model: nn.Module, same: Resume | None, rank: int) -> Session:
    """Open the resumed run, or create a new one."""
    if same is not None and same.has_folder:
        return Session.reopen(run_path(root, config.name), same.step, rank=rank, paused=same.paused)
    return Session.create(root, config, type(bare(model)).__name__, rank, after=same.step if same is not None else 0)


def _why_complete(same: Resume, config: TrainerConfig) -> str:
    """Return why a resumed run has nothing to do, or empty text.

    Raises:
        ConfigError: It was stopped early, and ``resume`` was not ``"auto"``.
    """
    if same.has_nothing_to_do(config.max_step):
        return f"Run {same.run.name!r} is complete at step {same.step}; nothing to do."
    early = stopped_early(same.content, config.early_stop_patience)
    if early and not same.automatic:
        raise ConfigError(
            f"Run {same.run.name!r} has ended. {early} To resume it, give a larger early_stop_patience, or 0."
        )
    return early and f"Run {same.run.name!r} has ended. {early}"

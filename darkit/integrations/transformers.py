"""`RunCallback`: a training of transformers' ``Trainer`` becomes a run of darkit with one line."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch

from darkit.core.active import ActiveRun, start_run
from darkit.core.loop_control import (
    complete_step,
    end_early,
    end_process,
    fail,
    make_up_for,
    update_facts,
    watch_signals,
)
from darkit.engine.processes import agree_to_stop, process_group
from darkit.engine.steps.parts import is_split
from darkit.engine.stop import SignalGuard, StopRequest
from darkit.errors import ConfigError, LogError, RunExistsError
from darkit.runs import Run, base, files, list_runs
from darkit.runs.checkpoints import checkpoint_steps
from darkit.runs.configs import public_values
from darkit.runs.names import check_project, run_path
from darkit.runs.notes import Evaluation, add_evaluation

try:
    from transformers import PreTrainedTokenizerBase, TrainerCallback
    from transformers.trainer_callback import ExportableState
except ImportError as error:
    raise ImportError("darkit.integrations.transformers needs transformers: pip install 'darkit[hf]'.") from error

logger = logging.getLogger(__name__)
_LOGGED = (int, float, str)
_AGREE_EVERY = 10  # steps, in several processes, where the question costs a collective


class RunCallback(TrainerCallback, ExportableState):
    """Makes a run of each ``Trainer.train()``: ``Trainer(..., callbacks=[RunCallback("my-run")])``.

    Metrics go into the log under the Trainer's names, the training arguments into ``config.json``; model and tokenizer
    are recorded, and whenever the Trainer saves, darkit saves the weights too. A signal or a request to stop ends the
    training after the current step, with both checkpoints. ``resume_from_checkpoint=`` continues the run that saved the
    checkpoint. Of several processes only the first writes.

    Evaluations after the training are appended to the run's notes; those before it belong to no run.

    Args:
        name: The run's name; None generates one, or takes that of the run that is resumed.
        project: The project that the run belongs to; None for none.
        config: Further settings to record beside the training arguments.
        save: Save the weights whenever the Trainer saves, and at the end. Weights that are distributed over processes
            (FSDP, DeepSpeed, tensor parallel) are never saved.
        keep_last: Number of latest checkpoints kept; None takes ``save_total_limit`` of the training arguments.
        keep_best: Number of best checkpoints kept in addition.
        monitor: The metric that decides which checkpoint is best.
        mode: ``min``, ``max``, or ``auto`` to go by the name of ``monitor``.
        tensorboard: Whether the log also goes to TensorBoard.

    Attributes:
        run: The open run during a training in the process that writes, else None.
        run_id: The id of the run of the last training.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        project: str | None = None,
        config: Mapping[str, Any] | None = None,
        save: bool = True,
        keep_last: int | None = None,
        keep_best: int = 0,
        monitor: str = "eval_loss",
        mode: str = "auto",
        tensorboard: bool = True,
    ) -> None:
        if config is not None and not isinstance(config, Mapping):
            raise ConfigError(f"config must be a dict, not {type(config).__name__}.")
        self.run: ActiveRun | None = None
        self.run_id: str | None = None
        self._name = name
        self._config = dict(config or {})
        self._save = save
        if project is not None:
            check_project(project)
        self._settings: dict[str, Any] = {
            "project": project,
            "keep_last": keep_last,
            "keep_best": keep_best,
            "monitor": monitor,
            "mode": mode,
            "tensorboard": tensorboard,
        }
        self._guard: SignalGuard | None = None
        self._last: tuple[Run, int] | None = None
        self._warned: set[str] = set()
        self._trials = 0

    def state(self) -> dict[str, Any]:
        """Return what the Trainer saves in its checkpoints."""
        args = {"name": self._name, "config": public_values(self._config), "save": self._save, **self._settings}
        return {"args": args, "attributes": {"run_id": self.run_id}}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start or resume the run."""
        if self.run is not None:  # an error ended the training before, and the program continued
            left = getattr(sys, "last_value", None) or RuntimeError("The training was left before its end.")
            fail(self.run, left)
            self.run = None
        if state.is_world_process_zero:
            self.run = self._start(args, state, kwargs.get("model"), kwargs.get("processing_class"))
            self.run_id = Run(self.run.path).info.get("id")
            self._last = None
            watch_signals(self.run)
        else:
            self._guard = SignalGuard(StopRequest())
            self._guard.install()

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **_: Any) -> None:
        """Log the Trainer's metrics; what a column cannot hold is named once and left out."""
        if self.run is None:
            return
        for name, value in (logs or {}).items():
            if name == "step":
                continue
            try:
                self.run.log({name: value}, step=state.global_step)
            except LogError as error:
                if name not in self._warned:
                    self._warned.add(name)
                    logger.warning("%r is not logged: %s", name, error)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        """Count the step, and stop the training if that was requested."""
        if self.run is not None:
            complete_step(self.run, state.global_step)
        if self._is_asked(state.global_step):
            control.should_training_stop = control.should_log = True
            control.should_save = control.should_save or args.save_strategy != "no"
        return control

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save the weights at the step at which the Trainer saved."""
        if self.run is not None:
            self.run.save(model=self._weights(args, kwargs.get("model")), step=state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End the run; if a signal stopped the training, also the process."""
        run, self.run = self.run, None
        try:
            if run is not None:
                self._finish(run, args, state, kwargs.get("model"))
        finally:
            if process_group()[1] > 1:
                torch.distributed.barrier()  # a launcher ends the others when one process has ended
        if run is not None:
            end_process(run)
        elif self._guard is not None:
            self._guard.uninstall()
            self._guard.request.end_process()

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
        """Append an evaluation after the training to the run's notes."""
        if self.run is None and self._last is not None and isinstance(metrics, Mapping):
            run, step = self._last
            numbers = {str(key): float(value) for key, value in metrics.items() if isinstance(value, int | float)}
            add_evaluation(run.path, Evaluation(time.time(), "Trainer.evaluate", f"iter-{step}-ckpt", numbers))

    def _start(self, args: Any, state: Any, model: Any, processor: Any) -> ActiveRun:
        config = args.to_dict()
        double = [name for name in self._config if name in config and self._config[name] != config[name]]
        if double:
            raise ConfigError(f"config has {double[0]!r}, which is a training argument with another value.")
        settings = dict(self._settings)
        if settings["keep_last"] is None:
            settings["keep_last"] = args.save_total_limit
        model = self._weights(args, model)
        name, resume = self._reference(state)
        if resume is not None and name is not None:
            kept = ({key: value for key, value in row.items() if type(value) in _LOGGED} for row in state.log_history)
            make_up_for(run_path(base(), name), state.global_step, model, [row for row in kept if "step" in row])
        tokenizer = getattr(processor, "tokenizer", processor)
        try:
            run = start_run(
                name,
                config=config | self._config,
                max_step=state.max_steps if resume is None or state.max_steps > state.global_step else None,
                model=model,
                tokenizer=tokenizer if isinstance(tokenizer, PreTrainedTokenizerBase) else None,
                resume=resume,
                **settings,
            )
        except RunExistsError as error:
            raise RunExistsError(
                f"The run {name!r} exists. Resume it with trainer.train(resume_from_checkpoint=...), or choose another "
                "name."
            ) from error
        update_facts(run, {"trainer": "transformers"})
        return run

    def _finish(self, run: ActiveRun, args: Any, state: Any, model: Any) -> None:
        holds_best = args.load_best_model_at_end and state.best_model_checkpoint is not None
        model = self._weights(args, model)
        if model is not None and not holds_best and state.global_step not in checkpoint_steps(run.path):
            run.save(model=model, step=state.global_step)
        self._last = Run(run.path), state.global_step
        if state.global_step < state.max_steps:
            end_early(run, f"The Trainer ended at step {state.global_step} of {state.max_steps}.")
        run.finish()

    def _reference(self, state: Any) -> tuple[str | None, str | None]:
        """Return the run's name, and ``NAME:CHECKPOINT`` if it is resumed."""
        name = self._name
        if state.is_hyper_param_search:
            self._trials += 1
            return (None if name is None else f"{name}-trial-{self._trials}"), None
        if not state.global_step:
            return name, None
        saved = self._saved(state)
        if name is None and saved is not None:
            name = next((run.name for run in list_runs() if run.info.get("id") == saved), None)
        folder = None if name is None else run_path(base(), name)
        if folder is None or not (folder / files.RUN).exists():
            return name, None  # a new run, whose first step is not 1
        if saved is None or Run(folder).info.get("id") != saved:
            raise ConfigError(
                f"The checkpoint of step {state.global_step} that the Trainer resumes from was not saved by the run "
                f"{name!r}. Choose another name."
            )
        return name, f"{name}:iter-{state.global_step}-ckpt"

    def _saved(self, state: Any) -> str | None:
        """Return the id of the run that saved the Trainer's checkpoint."""
        saved: Any = (state.stateful_callbacks or {}).get(type(self).__name__)
        for one in saved if isinstance(saved, list) else [saved]:
            with suppress(AttributeError, TypeError):
                if isinstance(found := one["attributes"]["run_id"], str):
                    return found
        return None

    def _weights(self, args: Any, model: Any) -> Any:
        """Return the model if its weights are to be saved and are whole in this process, else None."""
        if not self._save or model is None:
            return None
        kind = str(getattr(args.distributed_state, "distributed_type", ""))
        spread = any(name in kind for name in ("FSDP", "DEEPSPEED", "MEGATRON", "TP"))
        return None if spread or any(is_split(value) for value in model.parameters()) else model

    def _is_asked(self, step: int) -> bool:
        """Return whether a stop is requested: the same in all processes."""
        if process_group()[1] > 1:
            if step % _AGREE_EVERY:
                return False
            if self.run is None:
                return agree_to_stop(self._guard is not None and bool(self._guard.request.reason))
        return self.run is not None and self.run.should_stop

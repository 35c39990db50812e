"""``trainer_state.json`` of transformers' Trainer, in its output folder or in the checkpoints of one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darkit.errors import SourceError
from darkit.integrations.importers.imported import Folder, Imported, Source
from darkit.integrations.importers.reading import digest_files, is_file, modified, read_json
from darkit.integrations.importers.rows import Rows, flatten

_STATE = "trainer_state.json"
_MODEL = "config.json"
_CHECKPOINT = re.compile(r"checkpoint-\d{1,15}")
_SETTINGS = (
    *("max_steps", "num_train_epochs", "train_batch_size", "logging_steps", "eval_steps", "save_steps"),
    *("num_input_tokens_seen", "is_hyper_param_search", "trial_name"),
)
_BEST = ("best_metric", "best_global_step", "best_model_checkpoint", "total_flos")


@dataclass(frozen=True)
class TransformersSource(Source):
    """An output folder, or one checkpoint. The state with the highest step has the whole history."""

    @property
    def kind(self) -> str:
        return "transformers"

    def digest(self) -> tuple[str, int]:
        name, _ = self._latest()
        return digest_files(self.path, [name, *self._model_config(name)])

    def read(self) -> Imported:
        name, state = self._latest()
        rows, left_out = Rows(), 0
        for entry in state["log_history"]:
            if isinstance(entry, dict):
                values = {key: value for key, value in flatten(entry).items() if key != "step"}
                rows.add(entry.get("step"), values)
            else:
                left_out += 1
        problems = [f"{left_out:,} entries of the history are no rows and were left out."] if left_out else []
        found = Imported(
            rows=rows,
            config={key: state[key] for key in _SETTINGS if state.get(key) is not None},
            started=modified(self.path, _states(self.path), first=True),
            ended=modified(self.path, [name]),
            last_step=_step(state),
            max_step=state["max_steps"] if isinstance(state.get("max_steps"), int) else None,
            facts={"file": name} | {key: state[key] for key in _BEST if state.get(key) is not None},
            problems=problems,
        )
        found.state, found.reason = _end(state)
        for file in self._model_config(name):
            try:
                found.config = {**found.config, "model": read_json(self.path / file, 2**22)}
            except SourceError as error:
                problems.append(str(error))
        return found

    def _model_config(self, state: str) -> list[str]:
        """Return the config of a model of transformers beside the state, or in the last checkpoint; or nothing."""
        candidates = [str(Path(name).with_name(_MODEL)) for name in (state, *reversed(_states(self.path)))]
        return [name for name in candidates if is_file(self.path / name)][:1]

    def _latest(self) -> tuple[str, dict[str, Any]]:
        """Return the state with the highest step. Raises `SourceError` if none is readable."""
        found: tuple[int, str, dict[str, Any]] | None = None
        problem = f"{self.path} has no {_STATE}."
        for name in _states(self.path):
            try:
                state = read_json(self.path / name)
            except SourceError as error:
                problem = str(error)
                continue
            if isinstance(state.get("log_history"), list) and (found is None or _step(state) > found[0]):
                found = _step(state), name, state
        if found is None:
            raise SourceError(f"Nothing could be read. {problem}")
        return found[1:]


def find(folder: Folder) -> list[Source]:
    """Return the run of a folder that has a state, or checkpoints with one."""
    checkpoints = [name for name in folder.folders if _CHECKPOINT.fullmatch(name)]
    if not _states(folder.path):
        return []
    folder.folders = [name for name in folder.folders if name not in checkpoints]
    return [TransformersSource(folder.path, folder.name())]


def _states(folder: Path) -> list[str]:
    """Return the states of an output folder: its own first, then those of its checkpoints by their step."""
    try:
        names = [path.name for path in folder.iterdir() if _CHECKPOINT.fullmatch(path.name) and not path.is_symlink()]
    except OSError:
        names = []
    checkpoints = sorted(names, key=lambda name: int(name.rpartition("-")[2]))
    candidates = [_STATE, *(f"{name}/{_STATE}" for name in checkpoints)]
    return [name for name in candidates if is_file(folder / name)]


def _step(state: dict[str, Any]) -> int:
    step = state.get("global_step")
    return step if isinstance(step, int) else 0


def _end(state: dict[str, Any]) -> tuple[str, str]:
    """Return the run's state and the reason."""
    last, step = state.get("max_steps"), _step(state)
    if isinstance(last, int) and 0 < last <= step:
        return "finished", ""
    control = flatten(state).get("stateful_callbacks.TrainerControl.args.should_training_stop")
    if control is True:
        return "stopped", f"The Trainer was told to stop at step {step} of {last}, for example by early stopping."
    return (
        "unknown",
        f"The last state that the Trainer saved is of step {step} of {last}; what came after is not known.",
    )

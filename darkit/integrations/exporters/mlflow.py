"""A run as a store of MLflow: the SQLite database that its tools open by default, written by MLflow itself.

MLflow refuses a database whose schema is not the one of its version, so only it can write one that will be opened.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from darkit.errors import ConfigError
from darkit.integrations.exporters.tables import refuse_checkpoint, valid_text, without_media
from darkit.runs import Run
from darkit.runs.notes import read_notes
from darkit.runs.safe import finite_number

_DATABASE = "mlflow.db"
_EXPERIMENT = "darkit"
_STATES = {"finished": "FINISHED", "crashed": "FAILED", "stopped": "KILLED"}  # others count as not ended
_CLOCK = ("step", "time")
_METRICS, _PARAMS = 1_000, 100  # that MLflow takes at once
_LONGEST_PARAM = 6_000  # characters
_LONGEST_KEY = 250
_LONGEST_TAG = 5_000
_UNKNOWN = re.compile(r"[^\w. :/-]", re.ASCII)
_LARGEST_STEP = 2**53


def export_mlflow(run: Run, wanted: str | None, output: Path) -> str:
    """Write the log as metrics, the config as parameters, and the notes, with MLflow's own client.

    Raises:
        ConfigError: MLflow is not installed, the run has no rows, or a checkpoint was named.
    """
    refuse_checkpoint(run, wanted, "mlflow")
    log, details = run.log(), run.details
    if not log.height:
        raise ConfigError(f"The run {run.name!r} has not logged anything yet.")
    output.mkdir()
    with _quiet_mlflow() as mlflow:
        client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{output / _DATABASE}")
        experiment = client.create_experiment(_EXPERIMENT, artifact_location="mlflow-artifacts:/")
        began = round(1000 * run.created)
        made = client.create_run(experiment, start_time=began, tags=_tags(run), run_name=run.name)
        params, too_long = _params(run.config)
        metrics, texts = _metrics(log, began)
        for pairs in _parts(list(params.items()), _PARAMS):
            client.log_batch(made.info.run_id, params=[mlflow.entities.Param(*pair) for pair in pairs])
        for values in _parts(metrics, _METRICS):
            client.log_batch(made.info.run_id, metrics=[mlflow.entities.Metric(*one) for one in values])
        if details.state in _STATES:
            end = round(1000 * (details.heartbeat or run.created))
            client.set_terminated(made.info.run_id, _STATES[details.state], end_time=end)
    left_out = [f"{len(texts)} columns of text"] * bool(texts) + [f"{too_long} long parameters"] * bool(too_long)
    without = f" without {' and '.join(left_out)}" if left_out else ""
    return f"{len(metrics):,} metrics and {len(params):,} parameters of {run.name}{without}{without_media(run)}"


@contextmanager
def _quiet_mlflow() -> Iterator[Any]:
    """Import MLflow so that it reports nothing to anybody. Raises `ConfigError` if it is not installed."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        import mlflow
        import mlflow.entities
        import mlflow.exceptions
    except ImportError as error:
        raise ConfigError("The format mlflow needs the package mlflow. Install it: pip install mlflow") from error
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield mlflow
    except mlflow.exceptions.MlflowException as error:
        raise ConfigError(f"MLflow refuses the run: {error}") from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _parts(values: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]


def _tags(run: Run) -> dict[str, str]:
    notes = read_notes(run.path)
    tags: dict[str, str] = {}
    for tag in notes.tags:
        name, _, value = tag.partition("=")
        tags[_free(_key(name), tags)] = valid_text(value)
    git = run.info.get("git")
    commit = git.get("commit") if isinstance(git, Mapping) else None
    return {
        **tags,
        "darkit.run": run.name,
        "darkit.state": run.status,
        **({"mlflow.note.content": valid_text(notes.note)[:_LONGEST_TAG]} if notes.note else {}),
        **(
            {"mlflow.source.git.commit": valid_text(commit)[:_LONGEST_TAG]}
            if isinstance(commit, str) and commit
            else {}
        ),
    }


def _params(config: Mapping[str, Any]) -> tuple[dict[str, str], int]:
    """Return the config as texts by valid keys, and how many are too long for MLflow."""
    found: dict[str, str] = {}
    too_long = 0
    for name, value in _flat(config):
        text = valid_text(value) if isinstance(value, str) else str(value)
        if len(text) > _LONGEST_PARAM:
            too_long += 1
        else:
            found[_free(_key(name), found)] = text
    return found, too_long


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _metrics(log: Any, began: int) -> tuple[list[tuple[str, float, int, int]], list[str]]:
    """Return the metrics (key, value, milliseconds, step) and the columns that are texts."""
    keys: dict[str, str] = {}
    texts = []
    for column, kind in log.schema.items():
        if column in _CLOCK:
            continue
        if kind.is_numeric() or str(kind) == "Boolean":
            keys[column] = _free(_key(column), keys.values())
        else:
            texts.append(column)
    found = []
    for row in log.iter_rows(named=True):
        time, step = finite_number(row.get("time")), finite_number(row.get("step"))
        moment = began if time is None else round(1000 * time)
        whole = int(step) if step is not None and abs(step) < _LARGEST_STEP else 0
        found += [(key, float(row[column]), moment, whole) for column, key in keys.items() if row[column] is not None]
    return found, texts


def _key(name: str) -> str:
    """Return a name as MLflow takes it: its letters, and no path that leads elsewhere."""
    key = _UNKNOWN.sub("_", name)[:_LONGEST_KEY]
    parts = [part for part in key.split("/") if part not in ("", ".", "..")]
    return "/".join(parts) or "unnamed"


def _free(key: str, taken: Any) -> str:
    count, free = 1, key
    while free in taken:
        count += 1
        free = f"{key[: _LONGEST_KEY - 8]}-{count}"
    return free

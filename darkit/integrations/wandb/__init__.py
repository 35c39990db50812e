"""Calls shaped like W&B's, so that ``import darkit.integrations.wandb as wandb`` keeps an existing script working.

Nothing leaves the machine. What darkit cannot do raises one sentence. These have no effect: ``login``, ``setup``,
``require``, ``unwatch``, ``run.log_code`` (darkit records the code of every run), and the arguments ``entity``,
``dir``, ``force``, ``anonymous`` and ``save_code`` of `init`.
"""

from __future__ import annotations

import os
import re
import sys
import uuid
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from darkit.core.active import start_run
from darkit.core.loop_control import reopen
from darkit.engine.stop import is_interactive
from darkit.errors import ConfigError, DarkitError, RunExistsError, RunNotFoundError, UnsupportedError, listing
from darkit.integrations.wandb.metrics import Metric
from darkit.integrations.wandb.values import Audio, Histogram, Image, Table
from darkit.integrations.wandb.wandb_config import read_config
from darkit.integrations.wandb.wandb_run import Run
from darkit.runs import Run as Recorded
from darkit.runs import base, list_runs
from darkit.runs.names import LONGEST_NAME, fresh_name, is_name, run_path

__all__ = ["Audio", "Error", "Histogram", "Image", "Run", "Settings", "Table", "define_metric", "finish", "init", "log"]

Error = DarkitError
util = SimpleNamespace(generate_id=lambda length=8: uuid.uuid4().hex[:length])
_MODES = ("online", "offline", "shared", "dryrun", "run", "disabled")
_RESUMES = (None, False, "never", "allow", "must", "auto", True)
_WITHOUT_EFFECT = frozenset(("entity", "dir", "force", "anonymous", "save_code"))
_SETTINGS = (
    *("start_method", "silent", "quiet", "console", "code_dir", "save_code", "disable_git", "init_timeout"),
    *("_disable_stats", "x_disable_stats", "_service_wait", "x_service_wait", "_disable_meta", "x_disable_meta"),
)
_open: list[Run] = []  # the last one is wandb.run


class Settings:
    """``wandb.Settings(...)``: settings of W&B's own program, which have no effect here. Others are refused."""

    def __init__(self, **settings: Any) -> None:
        for name in settings:
            if name not in _SETTINGS:
                raise ConfigError(f"darkit.integrations.wandb does not support {name}= of wandb.Settings.")


def init(
    *positional: Any,
    project: str | None = None,
    name: str | None = None,
    id: str | None = None,
    config: Any = None,
    notes: str | None = None,
    tags: Sequence[str] | None = None,
    group: str | None = None,
    job_type: str | None = None,
    mode: str | None = None,
    resume: bool | str | None = None,
    reinit: bool | str | None = None,
    allow_val_change: bool | None = None,
    config_exclude_keys: Sequence[str] | None = None,
    config_include_keys: Sequence[str] | None = None,
    settings: Settings | None = None,
    **others: Any,
) -> Run:
    """Start a run.

    The variables ``WANDB_PROJECT``, ``WANDB_NAME``, ``WANDB_RUN_ID``, ``WANDB_RUN_GROUP``, ``WANDB_JOB_TYPE``,
    ``WANDB_NOTES``, ``WANDB_TAGS``, ``WANDB_RESUME`` and ``WANDB_MODE`` are used for what is not given.

    Args:
        *positional: Must be empty.
        project: Recorded, a tag of the run and, where it can be a folder's name, its project.
        name: The name. darkit's run has it too, without the characters that a folder's name cannot have, and with a
            number where it exists already.
        id: Names the run for ``resume``.
        config: A dict, a namespace or the path of a YAML file.
        notes: The note of the run.
        tags: Tags of the run.
        group: Recorded, and a tag of the run.
        job_type: Recorded, and a tag of the run.
        mode: ``disabled`` records nothing; any other mode of W&B records here.
        resume: ``allow``, ``auto`` or True continues the run with this ``id`` if it exists, after its last row;
            ``must`` refuses to start a new one, ``never`` and None refuse an id that exists.
        reinit: What becomes of an open run: ``return_previous`` (the default outside of a notebook) returns it,
            ``finish_previous`` or True ends it, ``create_new`` leaves it open.
        allow_val_change: Whether values of the config may change.
        config_exclude_keys: Names that are left out of the config.
        config_include_keys: The only names that are kept.
        settings: `Settings`, which have no effect.
        **others: ``entity``, ``dir``, ``force``, ``anonymous`` and ``save_code`` have no effect; others are refused.

    Raises:
        ConfigError: An argument is not supported.
        RunExistsError: The id exists and is not resumed.
        RunNotFoundError: ``resume="must"``, and no run has the id.
    """
    if positional:
        raise ConfigError("wandb.init() takes arguments by name only: their order differs between versions of W&B.")
    unsupported = [key for key, value in others.items() if key not in _WITHOUT_EFFECT and value not in (None, False)]
    if unsupported:
        raise ConfigError(f"darkit.integrations.wandb does not support {unsupported[0]}= of wandb.init().")
    previous = _previous(reinit)
    if previous is not None:
        return previous
    facts = {
        "id": id or os.environ.get("WANDB_RUN_ID"),
        "name": name or os.environ.get("WANDB_NAME"),
        "project": project or os.environ.get("WANDB_PROJECT"),
        "group": group or os.environ.get("WANDB_RUN_GROUP"),
        "job_type": job_type or os.environ.get("WANDB_JOB_TYPE"),
    }
    values = read_config(() if config is None else config)
    if config_include_keys is not None:
        values = {key: value for key, value in values.items() if key in config_include_keys}
    values = {key: value for key, value in values.items() if key not in (config_exclude_keys or ())}
    free = is_interactive() if allow_val_change is None else allow_val_change
    if _mode(mode) == "disabled":
        run = Run(None, facts | {"id": facts["id"] or util.generate_id()}, values, free=True)
    else:
        run = _start(facts, values, _resume(resume), free)
        labels = [one for one in (facts["project"], facts["group"], facts["job_type"]) if one]
        given = tags if tags is not None else [one for one in os.environ.get("WANDB_TAGS", "").split(",") if one]
        given = [given] if isinstance(given, str) else given
        try:
            run.annotate([*run.tags, *labels, *given], notes or os.environ.get("WANDB_NOTES"))
        except DarkitError as error:
            run.__exit__(type(error), error, error.__traceback__)  # removes a run in which nothing happened
            raise
    _open.append(run)
    return run


def log(data: Mapping[str, Any], step: int | None = None, commit: bool | None = None, sync: bool | None = None) -> None:
    """Log values to the current run; see `Run.log`."""
    _current("log").log(data, step, commit, sync)


def define_metric(name: str, *arguments: Any, **settings: Any) -> Metric:
    """Define a metric of the current run; see `Run.define_metric`."""
    return _current("define_metric").define_metric(name, *arguments, **settings)


def finish(exit_code: int | None = None, quiet: bool | None = None) -> None:
    """End the current run, if there is one; see `Run.finish`."""
    if _is_open():
        _open[-1].finish(exit_code, quiet)


def login(*arguments: Any, **settings: Any) -> bool:
    """Has no effect."""
    return True


def setup(*arguments: Any, **settings: Any) -> None:
    """Has no effect."""


def require(*arguments: Any, **settings: Any) -> None:
    """Has no effect."""


def unwatch(models: Any = None) -> None:
    """Has no effect: ``watch`` is not supported."""


def termlog(string: str = "", **settings: Any) -> None:
    """Print a line to standard error."""
    print(string, file=sys.stderr)


termwarn = termerror = termlog


def __getattr__(name: str) -> Any:
    if name == "run":
        return _open[-1] if _is_open() else None
    if name in ("config", "summary"):
        return getattr(_current(name), name)
    if name.startswith("__"):
        raise AttributeError(name)
    raise UnsupportedError(f"darkit.integrations.wandb does not support wandb.{name}.")


def _is_open() -> bool:
    while _open and _open[-1]._ended:
        _open.pop()
    return bool(_open)


def _current(what: str) -> Run:
    if not _is_open():
        raise ConfigError(f"Call wandb.init() before wandb.{what}.")
    return _open[-1]


def _previous(reinit: bool | str | None) -> Run | None:
    """Return the open run if it is the one to use; end it if ``reinit`` says so."""
    known = (None, True, False, "default", "return_previous", "finish_previous", "create_new")
    if reinit not in known:
        raise ConfigError(f"Unknown reinit={reinit!r}. Available: {listing([str(one) for one in known[3:]])}.")
    if not _is_open() or reinit == "create_new":
        return None
    if reinit in (True, "finish_previous") or (reinit in (None, "default") and is_interactive()):
        _open[-1].finish()
        return None
    return _open[-1]


def _mode(mode: str | None) -> str:
    found = mode or os.environ.get("WANDB_MODE") or "online"
    if found not in _MODES:
        raise ConfigError(f"Unknown mode {found!r}. Available: {listing(_MODES)}.")
    return "disabled" if os.environ.get("WANDB_DISABLED", "").lower() in ("1", "true") else found


def _resume(resume: bool | str | None) -> str:
    found = os.environ.get("WANDB_RESUME") if resume is None else resume
    if found not in _RESUMES:
        raise ConfigError(f"Unknown resume={found!r}. Available: {listing([str(one) for one in _RESUMES[2:6]])}.")
    return {True: "allow", "auto": "allow", False: "never", None: "never"}.get(found, str(found))


def _start(facts: Mapping[str, Any], values: Mapping[str, Any], resume: str, free: bool) -> Run:
    """Start a run, or continue the one with the id."""
    wanted = facts["id"]
    if resume != "never" and wanted is None:
        raise ConfigError("resume= needs id=, the id of the run to continue.")
    known = next((one for one in list_runs() if _wandb_of(one).get("id") == wanted), None) if wanted else None
    if known is None:
        if resume == "must":
            raise RunNotFoundError(f"No run has the id {wanted!r}, and resume='must' starts none.")
        project = facts["project"] if is_name(str(facts["project"] or "")) else None  # other rules hold for W&B's
        active = start_run(_free_name(facts), project=project, config=values)
        return Run(active, dict(facts) | {"id": wanted or util.generate_id()}, values, free=free)
    if resume == "never":
        raise RunExistsError(
            f"The run {known.name!r} has the id {wanted!r} already. Give resume='allow' to continue it, or another id."
        )
    before, summary = known.config, known.info.get("summary")
    active = reopen(known.name)
    kept = _wandb_of(known) | {key: value for key, value in facts.items() if value}
    run = Run(active, kept, before, free=free, resumed=True, summary=summary if isinstance(summary, dict) else {})
    run.config.update(values, allow_val_change=True)
    return run


def _wandb_of(run: Recorded) -> dict[str, Any]:
    found = run.info.get("wandb")
    return found if isinstance(found, dict) else {}


def _free_name(facts: Mapping[str, Any]) -> str:
    """Return a name for a new run that no run has."""
    given = facts["name"] or facts["id"]
    stem = re.sub(r"[/\\:\x00-\x1f]+", "-", str(given)).strip(" .")[: LONGEST_NAME - 10] if given else ""
    stem = stem if stem and is_name(stem) else fresh_name(str(facts["project"] or "run"))
    name, count = stem, 1
    while run_path(base(), name).exists():
        count += 1
        name = f"{stem}-{count}"
    return name

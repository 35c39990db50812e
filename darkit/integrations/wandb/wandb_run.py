"""A run of darkit behind the methods of a run of W&B."""

from __future__ import annotations

import atexit
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from darkit.core.active import ActiveRun
from darkit.core.loop_control import fail, is_writer, update_config, update_facts
from darkit.errors import ConfigError, UnsupportedError
from darkit.integrations.wandb.metrics import Metric, Metrics
from darkit.integrations.wandb.values import columns_of
from darkit.integrations.wandb.wandb_config import Config, Values
from darkit.runs.notes import read_notes, write_notes

logger = logging.getLogger(__name__)


class Run:
    """What ``wandb.init()`` returns.

    Rows follow W&B: without ``step=`` each `log` is a row, counted from 0; with it, or with ``commit=False``, values of
    several calls make one row. Values for an earlier step are dropped with a warning.

    Args:
        active: The open run of darkit; None for a disabled run, which records nothing.
        facts: ``id``, ``name``, ``project``, ``group`` and ``job_type``, as given to ``init``.
        config: The first values of the config.
        free: Whether values of the config may change.
        resumed: Whether an existing run continues.
        summary: The first values of the summary.

    Attributes:
        config: The config.
        summary: The last value of each metric, what `define_metric` asks for, and what is set.
        resumed: Whether an existing run continues.
        start_time: When it was opened, in Unix seconds.
        disabled: Whether it records nothing.
    """

    def __init__(
        self,
        active: ActiveRun | None,
        facts: Mapping[str, Any],
        config: Mapping[str, Any],
        *,
        free: bool,
        resumed: bool = False,
        summary: Mapping[str, Any] | None = None,
    ) -> None:
        self._active = active
        self._facts = dict(facts)
        self._step = active.step + 1 if active is not None and resumed else 0
        self._metrics = Metrics()
        self._axes: dict[str, list[str]] = {}
        self._ended = False
        self.config = Config(config, self._record_config, free=free)
        self.summary = Values(summary or {}, lambda _: None)
        self.resumed = resumed
        self.start_time = time.time()
        self.disabled = active is None
        if active is not None:
            update_facts(active, {"wandb": self._facts})
            atexit.register(self._write_summary)  # before darkit ends the run at the end of the program

    def __getattr__(self, name: str) -> Any:
        raise UnsupportedError(f"darkit.integrations.wandb does not support {name!r} of a run.")

    def __enter__(self) -> Self:
        if self._active is not None:
            self._active.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._close()
        return self._active.__exit__(kind, error, trace) if self._active is not None else False

    @property
    def id(self) -> str:
        """The id given to ``init``, or a generated one."""
        return str(self._facts["id"])

    @property
    def name(self) -> str:
        """The name given to ``init``, or that of darkit's run."""
        return str(self._facts.get("name") or (self._active.name if self._active is not None else "disabled"))

    @property
    def project(self) -> str:
        """The project given to ``init``."""
        return str(self._facts.get("project") or "uncategorized")

    @property
    def group(self) -> str:
        """The group given to ``init``, or empty."""
        return str(self._facts.get("group") or "")

    @property
    def job_type(self) -> str:
        """The job type given to ``init``, or empty."""
        return str(self._facts.get("job_type") or "")

    @property
    def entity(self) -> str:
        """Always empty: runs belong to no account."""
        return ""

    @property
    def url(self) -> None:
        """Always None; ``darkit start`` shows the run."""
        return

    @property
    def offline(self) -> bool:
        """Always true."""
        return True

    @property
    def dir(self) -> str:
        """A folder for the script's own files, in the run directory."""
        if self._active is None:
            raise ConfigError("A disabled run has no folder.")
        folder = self._active.path / "files"
        folder.mkdir(exist_ok=True)
        return str(folder)

    @property
    def path(self) -> Path:
        """The run directory."""
        if self._active is None:
            raise ConfigError("A disabled run has no folder.")
        return self._active.path

    @property
    def step(self) -> int:
        """The step that the next values without ``step=`` belong to."""
        return self._step

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags of the run, which can be set."""
        return read_notes(self._active.path).tags if self._active is not None else ()

    @tags.setter
    def tags(self, tags: Sequence[str]) -> None:
        self.annotate(tags=tags)

    @property
    def notes(self) -> str:
        """The note of the run, which can be set."""
        return read_notes(self._active.path).note if self._active is not None else ""

    @notes.setter
    def notes(self, note: str) -> None:
        self.annotate(note=note)

    def annotate(self, tags: Sequence[str] | None = None, note: str | None = None) -> None:
        """Write tags or the note. Raises `ConfigError` if one is too long."""
        if self._active is None or not is_writer(self._active):
            return
        known = read_notes(self._active.path)
        tags = known.tags if tags is None else (tags,) if isinstance(tags, str) else tuple(tags)
        changed = type(known)(tags, known.note if note is None else note, known.archived)
        write_notes(self._active.path, changed)

    def log(
        self, data: Mapping[str, Any], step: int | None = None, commit: bool | None = None, sync: bool | None = None
    ) -> None:
        """Log values.

        Args:
            data: Numbers, tensors, texts, media, and lists and dicts of them, by name.
            step: The step of the row, not smaller than before; None for the current one.
            commit: Whether the row is complete; by default if no step is given.
            sync: Has no effect, as in W&B.

        Raises:
            ConfigError: The run has ended.
            LogError: A value does not fit.
        """
        if self._ended:
            raise ConfigError(f"The run {self.name!r} has ended: nothing can be logged.")
        row = columns_of(data)
        if step is not None and step < self._step:
            logger.warning(
                "Values for step %s are dropped, as by W&B: the run is at step %s, and steps must not decrease.",
                step,
                self._step,
            )
            return
        if step is not None:
            self._step = step
        row = self._metrics.with_steps(row)
        if row and self._active is not None:
            self._active.log(row, step=self._step)
        self._summarize(row)
        if commit or (step is None and commit is None):
            self._step += 1

    def define_metric(
        self,
        name: str,
        step_metric: str | Metric | None = None,
        step_sync: bool | None = None,
        hidden: bool | None = None,
        summary: str | None = None,
        goal: str | None = None,
        overwrite: bool | None = None,
    ) -> Metric:
        """Define the x axis and the summary of a metric.

        Args:
            name: The metric, or a pattern with ``*`` at the end.
            step_metric: The metric on its x axis; the dashboard shows that curve first.
            step_sync: Whether rows without a value of ``step_metric`` get its last one; by default they do.
            hidden: Must not be true: every number is a curve.
            summary: ``min``, ``max``, ``mean``, ``best``, ``last``, ``first``, ``copy``, ``none``, or several of them.
            goal: ``minimize`` or ``maximize``, for ``best``.
            overwrite: Has no effect: the last definition counts.

        Raises:
            ConfigError: An argument is unknown.
        """
        if hidden:
            raise ConfigError("darkit.integrations.wandb does not support hidden= of define_metric().")
        return self._metrics.define(name, step_metric, step_sync, summary, goal)

    def finish(self, exit_code: int | None = None, quiet: bool | None = None) -> None:
        """End the run; with another ``exit_code`` than 0 as crashed. A second call does nothing."""
        if self._ended:
            return
        self._close()
        if self._active is not None and exit_code:
            fail(self._active, RuntimeError(f"finish(exit_code={exit_code})"))
        elif self._active is not None:
            self._active.finish()

    def log_code(self, *arguments: Any, **settings: Any) -> None:
        """Has no effect: darkit records the code of every run."""

    def mark_preempting(self) -> None:
        """Has no effect."""

    def unwatch(self, models: Any = None) -> None:
        """Has no effect: `watch` is not supported."""

    def _record_config(self, values: Mapping[str, Any]) -> None:
        if self._active is not None:
            update_config(self._active, values)

    def _summarize(self, row: Mapping[str, Any]) -> None:
        new: dict[str, Any] = {}
        for name, value in row.items():
            if isinstance(value, bool | int | float | str):
                known = self._metrics.summarize(self.summary, name, value)
                new |= {name: known} if known is not None else {}
        self.summary.update(new)
        axes = {name: axis for name, axis in self._metrics.axes(row).items() if self._axes.get(name) != axis}
        if axes and self._active is not None:
            self._axes |= axes
            update_facts(self._active, {}, axes)

    def _close(self) -> None:
        if not self._ended:
            self._write_summary()
            atexit.unregister(self._write_summary)
            self._ended = True

    def _write_summary(self) -> None:
        if self._active is not None:
            update_facts(self._active, {"summary": self.summary.as_dict()})

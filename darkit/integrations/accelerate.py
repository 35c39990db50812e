"""`RunTracker`: what a script logs with accelerate becomes a run of darkit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from darkit.core.active import ActiveRun, start_run
from darkit.core.loop_control import update_config, update_facts
from darkit.engine.log.media import Image, Table
from darkit.engine.processes import agree_to_stop, process_group
from darkit.errors import ConfigError

try:
    from accelerate.tracking import GeneralTracker
except ImportError as error:
    raise ImportError("darkit.integrations.accelerate needs accelerate: pip install accelerate.") from error


def should_stop(accelerator: Any) -> bool:
    """Return whether a stop of the run is requested. All processes must call it at the same step."""
    tracker = next((one for one in accelerator.trackers if isinstance(one, RunTracker)), None)
    if tracker is not None:
        return tracker.tracker.should_stop
    return process_group()[1] > 1 and agree_to_stop(False)


class RunTracker(GeneralTracker):  # type: ignore[misc]
    """A tracker for ``Accelerator(log_with=[RunTracker("my-run")])``.

    `init_trackers` starts the run and records its config, `accelerator.log` logs, and `end_training` ends the run.
    ``accelerator.get_tracker("darkit", unwrap=True)`` is the `ActiveRun`, with ``save`` and ``restore``. Only the main
    process has a run; `should_stop` asks for it in all of them.

    Args:
        name: The run's name; None generates one.
        **settings: As for `darkit.start_run`, such as ``project``, ``max_step``, ``model`` and ``resume``.
    """

    name = "darkit"
    requires_logging_directory = False
    main_process_only = True

    def __init__(self, name: str | None = None, **settings: Any) -> None:
        super().__init__()
        self._name = name
        self._settings = settings
        self._run: ActiveRun | None = None

    @property
    def tracker(self) -> ActiveRun:
        """The open run."""
        if self._run is None:
            raise ConfigError("The run is not open: call accelerator.init_trackers(...) first.")
        return self._run

    def start(self) -> None:
        """Start the run."""
        from accelerate.state import PartialState

        if self._run is None and PartialState().is_main_process:
            self._run = start_run(self._name, **self._settings)
            update_facts(self._run, {"trainer": "accelerate"})

    def store_init_configuration(self, values: Mapping[str, Any]) -> None:
        """Record the config."""
        if self._run is not None:
            update_config(self._run, values)

    def log(self, values: Mapping[str, Any], step: int | None = None, **settings: Any) -> None:
        """Log values; see `ActiveRun.log`. Raises `ConfigError` for settings of other trackers."""
        if settings:
            raise ConfigError(f"darkit's tracker has no setting {next(iter(settings))!r} for log().")
        if self._run is not None:
            self._run.log(values, step=step)

    def log_images(self, values: Mapping[str, Any], step: int | None = None, **settings: Any) -> None:
        """Log images by name: a list or an array of several becomes ``NAME/0``, ``NAME/1`` and so on."""
        images: dict[str, Any] = {}
        for name, value in values.items():
            several = isinstance(value, list | tuple) or getattr(value, "ndim", 0) == 4
            images |= {f"{name}/{number}": one for number, one in enumerate(value)} if several else {name: value}
        self.log({name: Image(one) for name, one in images.items()}, step, **settings)

    def log_table(
        self,
        table_name: str,
        columns: Sequence[str] | None = None,
        data: Sequence[Sequence[Any]] | None = None,
        dataframe: Any = None,
        step: int | None = None,
        **settings: Any,
    ) -> None:
        """Log a table: columns and rows, or a data frame."""
        self.log({table_name: Table(columns, data) if dataframe is None else Table(dataframe)}, step, **settings)

    def finish(self) -> None:
        """End the run."""
        if self._run is not None:
            self._run.finish()
            self._run = None

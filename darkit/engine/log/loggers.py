"""Loggers of Lightning's as sinks of a run's rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch.loggers import Logger

from darkit.errors import ConfigError


class LoggerSink:
    """Pass rows on to a logger, from the log's thread.

    Args:
        logger: The logger.
    """

    def __init__(self, logger: Logger) -> None:
        self.logger = logger

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Log the numbers of each row under its step."""
        for row in rows:
            values = {key: value for key, value in row.items() if isinstance(value, int | float) and key != "step"}
            self.logger.log_metrics(values, step=row.get("step"))
        if rows:
            self.logger.save()

    def close(self) -> None:
        """Have everything written."""
        self.logger.save()


def as_loggers(given: Any) -> list[Logger]:
    """Return a list of loggers: of none, one or several.

    Raises:
        ConfigError: One of them is not a logger.
    """
    found = list(given) if isinstance(given, list | tuple) else [] if given is None else [given]
    for logger in found:
        if not isinstance(logger, Logger):
            raise ConfigError(
                f"logger must be a logger of lightning.pytorch.loggers or a list of them, not {logger!r}."
            )
    return found

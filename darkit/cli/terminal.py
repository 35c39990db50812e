"""Output to a terminal, with control characters in texts written as escapes."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from rich.console import Console, ConsoleOptions
from rich.segment import Segment

from darkit.runs.inert import inert


class InertConsole(Console):
    """A console whose colours and layout are darkit's alone: control characters within texts are shown as escapes."""

    def render(self, renderable: Any, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(inert(segment.text, lines=True), segment.style)


def text_for_output(text: str) -> str:
    """Return a model's or a run's text for standard output: as it is for programs, inert for a terminal."""
    return inert(text, lines=True) if sys.stdout.isatty() else text


def print_traceback() -> None:
    """Print the traceback of the exception that is handled to standard error."""
    with suppress(BrokenPipeError):  # the exit code reports it too
        print(inert(traceback.format_exc().rstrip(), lines=True), file=sys.stderr, flush=True)


class _InertFormatter(logging.Formatter):
    """Format a record for a terminal: as `logging.Formatter` does, but inert."""

    def format(self, record: logging.LogRecord) -> str:
        return inert(super().format(record), lines=True)


def make_logging_inert() -> None:
    """Make what Python prints of log records, where a person set up no logging, inert."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_InertFormatter())

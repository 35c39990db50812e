"""A run's log as one table: a row per logged step, a column per value."""

from __future__ import annotations

from pathlib import Path

from darkit.errors import ConfigError
from darkit.runs import Run
from darkit.runs.media import read_media


def export_csv(run: Run, wanted: str | None, output: Path) -> str:
    """Write the log as CSV that any program reads: whole rows only, missing values empty.

    Raises:
        ConfigError: The run has no rows, or a checkpoint was named.
    """
    refuse_checkpoint(run, wanted, "csv")
    log = run.log()
    _refuse_empty(run, log.height)
    log.write_csv(output)
    return f"{log.height:,} rows of {log.width} columns of {run.name}{without_media(run)}"


def export_parquet(run: Run, wanted: str | None, output: Path) -> str:
    """Write the log as Parquet with typed columns.

    Raises:
        ConfigError: As `export_csv`.
    """
    refuse_checkpoint(run, wanted, "parquet")
    log = run.log()
    _refuse_empty(run, log.height)
    log.write_parquet(output)
    return f"{log.height:,} rows of {log.width} columns of {run.name}{without_media(run)}"


def refuse_checkpoint(run: Run, wanted: str | None, name: str) -> None:
    """Raise `ConfigError` if a checkpoint was named, which the formats of logs know nothing of."""
    if wanted is not None:
        raise ConfigError(f"The format {name} has the log of a run, not a checkpoint. Give {run.name} alone.")


def valid_text(text: str) -> str:
    """Return a text that UTF-8 can encode; JSON may hold half characters."""
    return text.encode("utf-8", "replace").decode()


def without_media(run: Run) -> str:
    """Say that media are not in the output, if the run has some."""
    count = len(read_media(run.path))
    return f", without its {count:,} media" if count else ""


def _refuse_empty(run: Run, rows: int) -> None:
    if not rows:
        raise ConfigError(f"The run {run.name!r} has not logged anything yet.")

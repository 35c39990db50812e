"""Runs as a ZIP file: logs and configs, and what of them could not be read."""

from __future__ import annotations

import gc
import io
import zipfile
from pathlib import Path

from darkit.dashboard.reading.bundle import LEFT_OUT, bundle
from darkit.dashboard.reading.cache import LogCache
from darkit.dashboard.reading.library import Library
from darkit.runs import files
from tests.dashboard.parts import make_run


def content(home: Path, *names: str) -> dict[str, bytes]:
    library = Library(home / "base", LogCache())
    with zipfile.ZipFile(io.BytesIO(b"".join(bundle([library.facts(name) for name in names])))) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_a_bundle_has_logs_and_configs_and_names_what_cannot_be_read(home: Path) -> None:
    for name in ("one", "two"):
        folder = make_run(home / "base", name, 5)
        (folder / files.COMPOSED_CONFIG).write_text("seed: 1\n")
        (folder / files.SYSTEM_LOG).write_text("time,step,cpu\n1,1,50\n")
    found = content(home, "one", "two")
    small = {files.RUN, files.MODEL_CONFIG, files.TRAINER_CONFIG, files.COMPOSED_CONFIG, files.STATUS}
    assert set(found) == {f"{run}/{name}" for run in ("one", "two") for name in (files.LOG, files.SYSTEM_LOG, *small)}
    assert found["two/config.yaml"] == b"seed: 1\n"
    (folder / files.LOG).unlink()
    (folder / files.LOG).symlink_to(home / "base" / "one" / files.LOG)
    found = content(home, "one", "two")
    assert f"two/{files.LOG}" not in found
    assert found[LEFT_OUT].decode().startswith(f"two/{files.LOG}: it is a link")


def test_the_file_of_a_bundle_that_nobody_reads_is_closed(home: Path) -> None:
    make_run(home / "base", "one", 5)
    bundle([Library(home / "base", LogCache()).facts("one")])
    gc.collect()  # a warning is an error

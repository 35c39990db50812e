"""A log that cannot be read or written: one sentence, and what was there stays."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from darkit.errors import StorageError
from darkit.runs.log import CsvLog, last_values, read_log
from tests.runs.parts import line_of, names_in, python


def test_a_log_that_cannot_be_read_or_written_is_one_sentence(tmp_path: Path) -> None:
    for refusing, said in (
        (read_log, "Cannot read the log"),
        (last_values, "Cannot read"),
        (CsvLog, "Cannot read"),
    ):
        with pytest.raises(StorageError, match=rf"^{said} .*: it is not a regular file\.$"):
            refusing(tmp_path)
    with pytest.raises(StorageError, match=r"^Cannot write .*: No such file or directory\.$"):
        CsvLog(tmp_path / "folder" / "log.csv")


def test_a_log_deleted_while_it_is_written_is_one_sentence(tmp_path: Path) -> None:
    log = CsvLog(tmp_path / "log.csv", ["step", "loss"])
    log.path.unlink()
    for rows in ([{"step": 1}], [{"step": 1, "new": 2}]):
        with pytest.raises(StorageError, match=r"^Cannot (read|write) the log .*: No such file or directory\.$"):
            log.append(rows)


def test_on_a_full_disk_the_log_is_as_long_as_before_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    script = """
        import resource, sys
        from pathlib import Path
        from darkit.errors import StorageError
        from darkit.runs.log import CsvLog
        log = CsvLog(Path(sys.argv[1]), ["step"])
        log.append([{"step": 1}])
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20, hard))  # the kernel writes what fits and refuses the rest
        try:
            log.append([{"step": step} for step in range(2, 100)])
        except StorageError as error:
            print(error.errno, error, flush=True)
        print(len(log.path.read_bytes()), flush=True)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        log.append([{"step": 2}])
        print("done", flush=True)
    """
    with python(script, path) as process:
        said = [line_of(process) for _ in range(3)]
    assert said == [f"{errno.EFBIG} Cannot write the log {path}: {os.strerror(errno.EFBIG)}.", "7", "done"]
    assert path.read_text() == "step\n1\n2\n"


def test_on_a_full_disk_a_new_column_leaves_the_old_log(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    CsvLog(path, ["step"]).append([{"step": 1}])
    script = """
        import resource, sys
        from pathlib import Path
        from darkit.errors import StorageError
        from darkit.runs.log import CsvLog
        log = CsvLog(Path(sys.argv[1]))
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
        try:
            log.append([{"a_long_name": 1}])
        except StorageError as error:
            print(error.errno, log.columns, flush=True)
    """
    with python(script, path) as process:
        assert line_of(process) == f"{errno.EFBIG} ['step']"
    assert path.read_text() == "step\n1\n"
    assert names_in(tmp_path) == ["log.csv"]

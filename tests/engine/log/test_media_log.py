"""Media on their way to the folder of their run: by the log's thread, in order, bounded, and once."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from darkit.engine.log.media import Encoded
from darkit.engine.log.media_log import MediaLog
from darkit.engine.log.rows import RowStream
from darkit.errors import LogError, MediaError, StorageError
from darkit.runs import media
from darkit.runs.log import CsvLog
from darkit.runs.media import MediaStore, read_media, read_medium


def text(content: str) -> Encoded:
    return Encoded("text", content.encode(), "txt", f"caption of {content}")


def test_media_are_written_by_the_log_s_thread_in_the_order_of_their_logging(tmp_path: Path) -> None:
    threads = []
    before = MediaStore.add

    def add(self: MediaStore, *arguments: Any, **others: Any) -> Any:
        threads.append(threading.current_thread().name)
        return before(self, *arguments, **others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MediaStore, "add", add)
        stream = RowStream(CsvLog(tmp_path / "train_log.csv"))
        for step in range(50):
            stream.put_media(step, {"a": text(f"a{step}"), "b": text("same")})
        while not threads:
            pass
        stream.close()
    assert threads[0] == "darkit-log"
    found = read_media(tmp_path)
    assert [(one.key, one.step) for one in found] == [(key, step) for step in range(50) for key in "ab"]
    assert read_medium(tmp_path, found[0]) == b"a0"
    assert found[0].caption == "caption of a0"
    assert len(list((tmp_path / "media").iterdir())) == 52  # equal content is stored once


def test_after_the_end_nothing_is_taken(tmp_path: Path) -> None:
    stream = RowStream(CsvLog(tmp_path / "train_log.csv"))
    stream.close()
    with pytest.raises(LogError, match="The log is closed"):
        stream.put_media(1, {"a": text("x")})


@pytest.mark.parametrize(("key", "step"), [("", 1), ("x" * 201, 1), ("a\nb", 1), ("a", -1)])
def test_what_cannot_be_recorded_is_refused_at_the_call_and_nothing_is_queued(
    key: str, step: int, tmp_path: Path
) -> None:
    log = MediaLog(tmp_path)
    with pytest.raises(MediaError):
        log.put(step, {"good": text("x"), key: text("y")})
    log.write()
    assert read_media(tmp_path) == []


def test_a_run_with_too_many_media_says_so_in_the_next_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "MOST", 2)
    stream = RowStream(CsvLog(tmp_path / "train_log.csv"))
    stream.put_media(1, {key: text(key) for key in "abc"})
    with pytest.raises(MediaError, match="Log media less often"):
        stream.flush()
    stream.close()
    assert [one.key for one in read_media(tmp_path)] == ["a", "b"]


def test_a_refusing_disk_loses_no_medium(tmp_path: Path) -> None:
    log = MediaLog(tmp_path)
    log.put(1, {"a": text("x"), "b": text("y")})
    (tmp_path / "media").write_text("in the way")
    with pytest.raises((StorageError, OSError)):
        log.write()
    (tmp_path / "media").unlink()
    log.write()
    assert [one.key for one in read_media(tmp_path)] == ["a", "b"]


def test_the_training_waits_when_too_much_is_queued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("darkit.engine.log.media_log._MOST_WAITING", 10)
    stream = RowStream(CsvLog(tmp_path / "train_log.csv"))
    stream.put_media(1, {"a": text("x" * 100)})
    assert [one.key for one in read_media(tmp_path)] == ["a"]
    stream.close()


def test_a_forked_child_writes_none(tmp_path: Path) -> None:
    stream = RowStream(CsvLog(tmp_path / "train_log.csv"))
    stream.put_media(1, {"a": text("x")})
    if not (child := os.fork()):
        stream.put_media(2, {"b": text("y")})
        stream.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    stream.close()
    assert [one.key for one in read_media(tmp_path)] == ["a"]

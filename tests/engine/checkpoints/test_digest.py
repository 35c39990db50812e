from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import threading
from pathlib import Path

import pytest

from darkit.engine.checkpoints import digest
from darkit.engine.checkpoints.digest import DigestedFile

PIECE = digest._PIECE


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("darkit-digest")]


def write(path: Path, pieces: list[bytes]) -> tuple[str, int]:
    with path.open("w+b") as file, DigestedFile(file) as digested:
        for piece in pieces:
            assert digested.write(piece) == len(piece)
        found = digested.finish()
    return found, digested.size


@pytest.mark.parametrize(
    "sizes",
    [[], [0], [1], [PIECE - 1], [PIECE], [PIECE + 1], [3, PIECE, 7], [1000] * 9000, [2**20] * 70],
    ids=["nothing", "empty", "byte", "less", "piece", "more", "mixed", "many small", "several synchronisations"],
)
def test_digest_is_that_of_the_bytes_on_the_disk(tmp_path: Path, sizes: list[int]) -> None:
    pieces = [os.urandom(size) for size in sizes]
    found, size = write(tmp_path / "file", pieces)
    content = (tmp_path / "file").read_bytes()
    assert content == b"".join(pieces)
    assert (found, size) == (hashlib.sha256(content).hexdigest(), len(content))


def test_threads_end_with_the_block_also_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), (tmp_path / "file").open("w+b") as file, DigestedFile(file) as digested:
        digested.write(bytes(2 * PIECE))
        assert threads()
        raise ZeroDivisionError
    assert not threads()


def test_a_small_file_starts_no_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **settings: object) -> None:
        raise AssertionError("a thread was started")

    monkeypatch.setattr(digest, "ThreadPoolExecutor", refuse)
    assert write(tmp_path / "file", [b"few"])[1] == 3


@pytest.mark.parametrize("count", [3, 20], ids=["at the end", "at the next write"])
def test_a_disk_error_in_a_thread_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pwrite", fail)
    with pytest.raises(OSError, match="Input/output"):
        write(tmp_path / "file", [bytes(2**22)] * count)
    assert not threads()


def test_a_file_that_loses_its_bytes_meanwhile_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "file").open("w+b") as file, DigestedFile(file) as digested:
        digested.write(b"some")
        original = os.fstat

        def cut(descriptor: int) -> os.stat_result:
            os.ftruncate(descriptor, 1)
            return original(descriptor)

        monkeypatch.setattr(os, "fstat", cut)
        with pytest.raises(OSError, match="Only 1 of 4 bytes"):
            digested.finish()


@pytest.mark.parametrize("refused", ["from the first write on", "in the middle of a block"])
def test_what_no_direct_write_takes_is_written_through_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    original, lengths = os.pwrite, list[int]()

    def pwrite(descriptor: int, data: memoryview, place: int) -> int:
        direct = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT
        if direct and (refused.startswith("from") or place % 4096):
            raise OSError(errno.EINVAL, "Invalid argument")
        lengths.append(len(data))
        return original(descriptor, data[:5000] if direct else data, place)

    monkeypatch.setattr(os, "pwrite", pwrite)
    content = os.urandom(5 * PIECE + 17)
    assert write(tmp_path / "file", [content])[0] == hashlib.sha256(content).hexdigest()
    assert (tmp_path / "file").read_bytes() == content
    assert lengths


def test_large_files_are_synchronised_once_and_displace_no_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synchronised: list[int] = []
    monkeypatch.setattr(os, "fsync", synchronised.append)
    direct: list[bool] = []
    original = os.pwrite

    def pwrite(descriptor: int, data: memoryview, place: int) -> int:
        direct.append(bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT))
        return original(descriptor, data, place)

    monkeypatch.setattr(os, "pwrite", pwrite)
    write(tmp_path / "file", [bytes(2**24)] * 5 + [b"rest"])
    assert synchronised == [], "whoever opened the file does that at its end"
    assert direct == [True] * 10 + [False]


def test_the_digest_is_complete_even_if_no_thread_can_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Ending(digest.ThreadPoolExecutor):
        def submit(self, *arguments: object, **settings: object) -> None:  # type: ignore[override]
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    monkeypatch.setattr(digest, "ThreadPoolExecutor", Ending)
    content = os.urandom(2 * PIECE)
    assert write(tmp_path / "file", [content])[0] == hashlib.sha256(content).hexdigest()

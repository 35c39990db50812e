from __future__ import annotations

import errno
import json
import logging
import math
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkit.errors import ConfigError, RunNotFoundError, StorageError
from darkit.runs import files
from tests.runs.parts import line_of, names_in, python, wait_until

texts = st.text(st.characters(), max_size=20)
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), texts, st.sampled_from(["NaN", '"Infinity', "\\"])),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=12,
)


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def as_json_has_it(value: Any) -> Any:
    """Return the value that JSON reads back: NaN is null, and a pair of surrogates is one character."""
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    if isinstance(value, list):
        return [as_json_has_it(item) for item in value]
    if isinstance(value, dict):
        return {as_json_has_it(key): as_json_has_it(item) for key, item in value.items()}
    return value


@given(json_values)
def test_json_is_valid_and_reads_back_equal(value: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.json")
        files.write_json(path, {"value": value})
        assert files.read_json(path) == {"value": as_json_has_it(value)}
        json.loads(path.read_bytes().decode("utf-8"), parse_constant=refuse)


def test_json_is_indented_and_not_escaped(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {"模型": "é", "lr": math.inf, "loss": math.nan, "note": "NaN or Infinity"})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == (
        '{\n  "模型": "é",\n  "lr": 1e999,\n  "loss": null,\n  "note": "NaN or Infinity"\n}\n'
    )


def test_json_of_a_command_line_that_is_not_utf8_stays_readable(tmp_path: Path) -> None:
    command = os.fsdecode(b"train --data=caf\xe9")
    files.write_json(tmp_path / "run.json", {"command": command})
    assert files.read_json(tmp_path / "run.json") == {"command": command}
    (tmp_path / "run.json").read_bytes().decode("utf-8")


def test_a_value_that_is_not_json_leaves_the_old_file(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {"old": 1})
    with pytest.raises(TypeError):
        files.write_json(tmp_path / "a.json", {"new": object()})
    assert files.read_json(tmp_path / "a.json") == {"old": 1}
    assert names_in(tmp_path) == ["a.json"]


def test_truncated_json_counts_as_empty(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"step": 12, "name": "模"})
    whole = path.read_bytes()
    for length in range(len(whole) - 1):
        path.write_bytes(whole[:length])
        assert files.read_json(path) == {}
    path.write_bytes(whole[:-1])
    assert files.read_json(path) == {"step": 12, "name": "模"}


@pytest.mark.parametrize(
    "content",
    [b"", b"[1, 2]", b"null", b"\xff\xfe\x00", b"[" * 100_000, b'{"a": ' * 100_000, b'{"a": ' + b"1" * 9999 + b"}"],
)
def test_a_file_without_a_json_object_counts_as_empty(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    assert files.read_json(tmp_path / "a.json") == {}


def test_a_missing_json_file_counts_as_empty_without_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    assert files.read_json(tmp_path / "a.json") == {}
    assert files.read_json(tmp_path / "file" / "a.json") == {}
    assert not caplog.records


def test_unreadable_json_counts_as_empty_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.json").symlink_to("a.json")
    with caplog.at_level(logging.WARNING):
        assert files.read_json(tmp_path / "a.json") == {}
    assert caplog.messages == [f"Cannot read {tmp_path / 'a.json'}: {os.strerror(errno.ELOOP)}."]


@pytest.mark.parametrize(
    "error", [ValueError("mine"), KeyboardInterrupt(), ConfigError("mine"), RunNotFoundError("mine")]
)
def test_an_error_during_a_write_leaves_the_old_file_and_is_raised_unchanged(
    tmp_path: Path, error: BaseException
) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def write() -> None:
        with files.open_atomically(path) as file:
            file.write(b"new")
            raise error

    with pytest.raises(type(error)) as caught:
        write()
    assert caught.value is error
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["a.bin"]


def test_a_new_file_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    with files.open_atomically(tmp_path / "a.bin") as file:
        file.write(b"new")
        file.flush()
        assert not (tmp_path / "a.bin").exists()
    assert (tmp_path / "a.bin").read_bytes() == b"new"
    assert names_in(tmp_path) == ["a.bin"]


def test_a_full_disk_is_a_storage_error_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    script = """
        import resource, sys
        from pathlib import Path
        from darkit.errors import StorageError
        from darkit.runs import files
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # no file may grow further: the kernel refuses
        try:
            files.write_text(Path(sys.argv[1]), "new" * 10_000)
        except StorageError as error:
            print(error.errno, error, flush=True)
    """
    with python(script, path) as process:
        said = line_of(process)
    assert said == f"{errno.EFBIG} Cannot write {path}: {os.strerror(errno.EFBIG)}."
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["a.txt"]


def test_a_target_that_cannot_be_replaced_leaves_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(StorageError, match=r"^Cannot write .*a\.txt: Is a directory\.$"):
        files.write_text(tmp_path / "a.txt", "new")
    assert names_in(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("where", ["missing", "file"])
def test_a_missing_folder_is_a_storage_error(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=rf"^Cannot write .*{where}/a\.txt: "):
        files.write_text(tmp_path / where / "a.txt", "new")


def test_a_writer_killed_during_a_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    script = """
        import sys
        from pathlib import Path
        from darkit.runs import files
        with files.open_atomically(Path(sys.argv[1])) as file:
            file.write(b"new" * 100_000)
            print("writing", flush=True)
            sys.stdin.readline()
    """
    with python(script, path) as process:
        assert line_of(process) == "writing"
        process.kill()
        process.wait()
    assert path.read_text() == "old"


def test_a_reader_always_sees_a_complete_file(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    script = """
        import sys
        from pathlib import Path
        from darkit.runs import files
        step = 0
        while True:
            step += 1
            files.write_json(Path(sys.argv[1]), {"step": step, "padding": "x" * (step * 997 % 20_000)})
    """
    with python(script, path):
        wait_until(path.exists)
        seen = set()

        def reads_more() -> bool:
            seen.add(files.read_json(path)["step"])
            return len(seen) > 50

        wait_until(reads_more)


def test_the_file_is_synchronised_before_its_rename_and_the_folder_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        held = Path(f"/proc/self/fd/{descriptor}").readlink()
        calls.append(("fsync", "folder" if held.is_dir() else f"file of {held.stat().st_size}"))
        real_fsync(descriptor)

    def replace(source: Path, target: Path) -> None:
        calls.append(("replace", target.name))
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    files.write_text(tmp_path / "a.txt", "12345")
    assert calls == [("fsync", "file of 5"), ("replace", "a.txt"), ("fsync", "folder")]


def test_a_file_system_that_cannot_synchronise_folders_is_no_error() -> None:
    folder = Path("/proc")
    descriptor = os.open(folder, os.O_RDONLY)
    with pytest.raises(OSError, match="Invalid argument"):
        os.fsync(descriptor)
    os.close(descriptor)
    files.sync_folder(folder)


def test_lone_surrogates_are_written_as_escapes(tmp_path: Path) -> None:
    files.write_text(tmp_path / "model.py", "x = '\udc80\ud800é'")
    assert (tmp_path / "model.py").read_text(encoding="utf-8") == "x = '\\udc80\\ud800é'"

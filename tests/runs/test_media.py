"""Media of a run: what is stored, what is refused, and what a hostile or torn index gives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkit.errors import MediaError, StorageError
from darkit.runs import media
from darkit.runs.media import MediaStore, read_media, read_medium


def add(store: MediaStore, key: str = "sample", step: int = 1, data: bytes = b"words", **more: str) -> media.Medium:
    return store.add("text", key, step, data, "txt", time=5.0, **more)


def test_what_is_added_is_read_again_in_order(tmp_path: Path) -> None:
    store = MediaStore(tmp_path)
    added = [add(store, step=step, data=f"{step}".encode(), caption="é\n<b>") for step in (1, 2, 3)]
    assert read_media(tmp_path) == added
    assert [read_medium(tmp_path, medium) for medium in added] == [b"1", b"2", b"3"]
    assert MediaStore(tmp_path).add("text", "sample", 4, b"4", "txt", time=6.0).step == 4
    assert len(read_media(tmp_path)) == 4


def test_equal_content_is_stored_once(tmp_path: Path) -> None:
    store = MediaStore(tmp_path)
    first, second = add(store, step=1), add(store, step=2)
    assert first.file == second.file
    assert len(list((tmp_path / "media").iterdir())) == 2  # with the index


def test_a_resumed_run_drops_later_media_and_files_that_only_they_name(tmp_path: Path) -> None:
    store = MediaStore(tmp_path)
    shared, later = add(store, step=1, data=b"shared"), add(store, step=9, data=b"later")
    add(store, step=8, data=b"shared")
    store.cut_after(7)
    assert read_media(tmp_path) == [shared]
    assert read_medium(tmp_path, shared) == b"shared"
    assert not (tmp_path / "media" / later.file).exists()
    add(store, step=8, data=b"later")
    assert [medium.step for medium in read_media(tmp_path)] == [1, 8]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"kind": "video"}, "'video'"),
        ({"ending": "exe"}, "'exe'"),
        ({"key": ""}, "1 to 200"),
        ({"key": "two\nlines"}, "one line"),
        ({"key": "x" * 201}, "1 to 200"),
        ({"step": -1}, "at least 0"),
        ({"step": True}, "at least 0"),
        ({"caption": "x" * 10_001}, "10001 characters"),
    ],
)
def test_values_that_do_not_fit_are_refused(tmp_path: Path, values: dict[str, object], said: str) -> None:
    given_values = {"kind": "text", "key": "k", "step": 1, "data": b"", "ending": "txt", "time": 0.0, **values}
    with pytest.raises(MediaError, match=said):
        MediaStore(tmp_path).add(**given_values)  # type: ignore[arg-type]
    assert not (tmp_path / "media").exists()


def test_sizes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "LARGEST", 10)
    monkeypatch.setattr(media, "LARGEST_RUN", 15)
    monkeypatch.setattr(media, "MOST", 3)
    store = MediaStore(tmp_path)
    with pytest.raises(MediaError, match="11 bytes"):
        add(store, data=b"x" * 11)
    add(store, data=b"x" * 10)
    with pytest.raises(MediaError, match="15 bytes"):
        add(store, data=b"y" * 10)
    add(store, step=2, data=b"x" * 10)
    add(store, step=3, data=b"x" * 10)
    with pytest.raises(MediaError, match="3 media"):
        add(store, step=4, data=b"x" * 10)
    assert len(read_media(tmp_path)) == 3


def test_a_torn_line_costs_itself_only(tmp_path: Path) -> None:
    store = MediaStore(tmp_path)
    first = add(store)
    with (tmp_path / "media" / "index.jsonl").open("ab") as file:
        file.write(b'{"kind": "te')
    second = add(store, step=2)
    assert read_media(tmp_path) == [first, second]


@pytest.mark.parametrize(
    "change",
    [
        {"file": "../../../etc/passwd"},
        {"file": "/etc/passwd"},
        {"file": "index.jsonl"},
        {"file": "a" * 64 + ".txt"},
        {"kind": "script"},
        {"step": "1"},
        {"step": -1},
        {"size": None},
        {"key": ["a"]},
        {"time": "now"},
        {"kind": "image"},
    ],
)
def test_a_hostile_line_is_left_out(tmp_path: Path, change: dict[str, object]) -> None:
    store = MediaStore(tmp_path)
    good = add(store)
    index = tmp_path / "media" / "index.jsonl"
    line = json.loads(index.read_text())
    index.write_text(index.read_text() + json.dumps(line | change) + "\n")
    assert read_media(tmp_path) == [good]


@given(st.binary(max_size=200))
def test_any_index_can_be_read(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "media").mkdir(exist_ok=True)
    (tmp_path / "media" / "index.jsonl").write_bytes(content)
    assert read_media(tmp_path) == []


def test_a_changed_file_or_a_link_is_not_returned(tmp_path: Path) -> None:
    store = MediaStore(tmp_path)
    medium = add(store)
    path = tmp_path / "media" / medium.file
    path.write_bytes(b"other")
    with pytest.raises(MediaError, match="has changed"):
        read_medium(tmp_path, medium)
    path.unlink()
    secret = tmp_path / "secret"
    secret.write_bytes(b"words")
    path.symlink_to(secret)
    with pytest.raises(MediaError, match="link"):
        read_medium(tmp_path, medium)
    path.unlink()
    with pytest.raises(MediaError, match="cannot be read"):
        read_medium(tmp_path, medium)


def test_a_linked_folder_is_not_written_through(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    run = tmp_path / "run"
    run.mkdir()
    (run / "media").symlink_to(elsewhere)
    with pytest.raises(StorageError, match="link"):
        add(MediaStore(run))
    assert not list(elsewhere.iterdir())
    add(MediaStore(tmp_path))
    (tmp_path / "media").rename(elsewhere / "media")
    (run / "media").unlink()
    (run / "media").symlink_to(elsewhere / "media")
    assert read_media(run) == []

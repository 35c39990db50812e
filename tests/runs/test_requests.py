"""A request to stop: left by a reader, found by the trainer, forgotten when it is honoured."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from darkit.errors import StorageError
from darkit.runs.requests import forget_stop, read_stop, request_stop
from tests.runs.parts import names_in


def test_a_request_says_who_asks_and_when_until_it_is_forgotten(tmp_path: Path) -> None:
    assert read_stop(tmp_path) is None
    before = time.time()
    request_stop(tmp_path, "darkit stop")
    request = read_stop(tmp_path)
    assert request is not None
    assert request["by"] == "darkit stop"
    assert before <= request["time"] <= time.time()
    assert names_in(tmp_path) == ["stop.json"]
    forget_stop(tmp_path)
    forget_stop(tmp_path)
    assert read_stop(tmp_path) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null"])
def test_a_file_of_another_content_is_a_request_too(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "stop.json").write_bytes(content)
    assert read_stop(tmp_path) == {}


def test_where_no_request_can_be_left_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "stop.json").mkdir()
    with pytest.raises(StorageError, match=r"Cannot write .*stop\.json"):
        request_stop(tmp_path, "x")

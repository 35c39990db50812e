"""Tokens on the disk come back as they were, from anywhere, in any process; what is damaged is refused."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies

from darkit.data.text.shards import ShardWriter, TokenStore, shard_name
from darkit.errors import DataError

ROWS = [[1, 2, 3], [], [4], [5, 6, 7, 8, 9, 10, 11]]
JOINED = [token for row in ROWS for token in row]


def store(folder: Path, rows: list[list[int]], vocabulary: int = 100, shard_tokens: int = 4) -> TokenStore:
    writer = ShardWriter(folder, "train", vocabulary, shard_tokens)
    for row in rows:
        writer.add([row], len(row))
    return TokenStore(folder, "train", writer.close(), vocabulary)


def test_documents_come_back_whole_across_files(tmp_path: Path) -> None:
    tokens = store(tmp_path, ROWS)
    assert (len(tokens), tokens.documents, tokens.facts.files) == (11, 4, 3)
    assert [tokens.document(index).tolist() for index in range(4)] == ROWS
    assert tokens.bounds.tolist() == [0, 3, 3, 4, 11]
    with pytest.raises(IndexError):
        tokens.document(4)


@pytest.mark.parametrize("shard_tokens", [1, 3, 4, 11, 100])
def test_every_stretch_is_as_in_one_row(tmp_path: Path, shard_tokens: int) -> None:
    tokens = store(tmp_path, ROWS, shard_tokens=shard_tokens)
    for first in range(12):
        for end in range(first, 12):
            assert tokens.tokens(first, end).tolist() == JOINED[first:end]


@pytest.mark.parametrize("shard_tokens", [1, 3, 4, 11, 100])
def test_windows_are_as_in_one_row(tmp_path: Path, shard_tokens: int) -> None:
    tokens = store(tmp_path, ROWS, shard_tokens=shard_tokens)
    for size in (1, 3, 4, 11):
        firsts = [*range(12 - size), 0]
        found = tokens.windows(firsts, size)
        assert found.dtype == numpy.int64
        assert found.tolist() == [JOINED[first : first + size] for first in firsts]


@pytest.mark.parametrize(("vocabulary", "dtype"), [(2**16, "uint16"), (2**16 + 1, "uint32")])
def test_an_id_is_as_large_as_the_vocabulary_needs(tmp_path: Path, vocabulary: int, dtype: str) -> None:
    tokens = store(tmp_path, [[0, vocabulary - 1]], vocabulary)
    assert (tokens.facts.dtype, tokens.tokens(0, 2).dtype) == (dtype, dtype)
    assert tokens.document(0).tolist() == [0, vocabulary - 1]


def test_a_copy_in_another_process_reads_the_same_and_carries_no_tokens(tmp_path: Path) -> None:
    tokens = store(tmp_path, [list(range(90)) * 100], shard_tokens=1000)
    tokens.tokens(0, 5)
    carried = pickle.dumps(tokens)
    assert len(carried) < 2000
    assert pickle.loads(carried).tokens(8990, 9000).tolist() == tokens.tokens(8990, 9000).tolist()


def test_tokens_are_counted(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, "train", 5)
    writer.add([[1, 1, 4], [1]], 7)
    assert writer.counts.tolist() == [0, 3, 0, 0, 1]
    assert writer.close().characters == 7


@pytest.mark.parametrize("name", [shard_name("train", 0), shard_name("train", 2), "train.index"])
def test_a_file_that_is_cut_or_missing_is_refused(tmp_path: Path, name: str) -> None:
    tokens = store(tmp_path, ROWS)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=rf"{name} has \d+ bytes instead of"):
        TokenStore(tmp_path, "train", tokens.facts, 100)
    path.unlink()
    with pytest.raises(DataError, match=rf"{name} is missing"):
        TokenStore(tmp_path, "train", tokens.facts, 100)


@given(
    st.lists(numpy_strategies.arrays(numpy.int64, st.integers(0, 20), elements=st.integers(0, 99)), max_size=12),
    st.integers(1, 30),
)
def test_any_documents_come_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[numpy.ndarray], size: int
) -> None:
    tokens = store(tmp_path_factory.mktemp("shards"), [row.tolist() for row in rows], shard_tokens=size)
    assert [tokens.document(index).tolist() for index in range(tokens.documents)] == [row.tolist() for row in rows]

"""A checkpoint file against its manifest, or against its own CRCs, without torch and with bounded memory."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darkit.runs import files
from darkit.runs.checkpoints import Checkpoint, checkpoint_path, list_checkpoints, manifest_path
from darkit.runs.verify import find_archive_problem, find_problem
from tests.runs.parts import PEAK, python

CONTENT = b"weights " * 50


def archive(path: Path, compression: int = zipfile.ZIP_STORED, content: bytes = CONTENT) -> Path:
    with zipfile.ZipFile(path, "w", compression) as made:
        made.writestr("archive/data.pkl", content)
        made.writestr("archive/data/0", content)
    return path


def save(folder: Path, manifest: bool = True) -> Path:
    path = archive(checkpoint_path(folder, 1))
    if manifest:
        data = path.read_bytes()
        facts = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        files.write_json(manifest_path(path), facts)
    return path


def found(folder: Path) -> Checkpoint:
    (checkpoint,) = list_checkpoints(folder)
    return checkpoint


@pytest.mark.parametrize("manifest", [True, False])
def test_a_whole_file_has_no_problem(tmp_path: Path, manifest: bool) -> None:
    save(tmp_path, manifest)
    assert find_problem(found(tmp_path)) == ""


def test_an_entry_that_swallows_the_next_one_in_the_directory_is_noticed(tmp_path: Path) -> None:
    path = save(tmp_path, manifest=False)
    data = bytearray(path.read_bytes())
    place = data.index(b"PK\1\2") + 33  # the high byte of the length of the comment on the first entry
    data[place] ^= 1
    path.write_bytes(data)
    with zipfile.ZipFile(path) as read:
        assert len(read.namelist()) == 1
    assert find_problem(found(tmp_path)) == "its directory does not list all of its entries"


@settings(max_examples=200)
@given(data=st.data(), manifest=st.booleans())
def test_every_flipped_byte_and_every_cut_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, data: Any, manifest: bool
) -> None:
    folder = tmp_path_factory.mktemp("run")
    path = save(folder, manifest)
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        path.write_bytes(whole[:place])
    else:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ data.draw(st.integers(1, 255))]) + whole[place + 1 :])
    problem = find_problem(found(folder))
    if manifest:
        assert problem
    elif not problem:  # what no CRC covers, such as a date: the content is what it was
        with zipfile.ZipFile(path) as read:
            assert [read.read(name) for name in read.namelist()] == [CONTENT] * 2


def test_each_damage_has_its_sentence(tmp_path: Path) -> None:
    path = save(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert find_problem(found(tmp_path)) == f"it has {len(whole) - 1} bytes where its manifest says {len(whole)}"
    path.write_bytes(whole.replace(b"weights", b"weighty", 1))
    assert find_problem(found(tmp_path)) == "its sha256 is not the one in its manifest"
    manifest_path(path).unlink()
    assert find_problem(found(tmp_path)) == "its entry 'archive/data.pkl' does not have its CRC"
    path.write_bytes(b"no archive at all")
    assert find_problem(found(tmp_path)) == "it is not an archive as torch.save makes it (File is not a zip file)"
    checkpoint = found(tmp_path)
    path.unlink()
    assert find_problem(checkpoint) == "it is gone"
    path.mkdir()
    assert find_problem(checkpoint) == "it cannot be read (Is a directory)"


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_compressed_archive_is_refused_before_it_is_read_even_if_it_is_broken(
    tmp_path: Path, compression: int
) -> None:
    path = archive(tmp_path / "a.pth", compression, bytes(3_000_000))
    assert find_archive_problem(path, read=True) == "it is compressed, which torch.save never does"
    data = bytearray(path.read_bytes())
    data[60:70] = bytes(10)
    path.write_bytes(data)
    assert find_archive_problem(path, read=True) == "it is compressed, which torch.save never does"


def test_entries_that_are_larger_than_the_file_are_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.pth")
    data = path.read_bytes()
    size = len(CONTENT).to_bytes(4, "little")
    path.write_bytes(data.replace(size + size, (1_000_000).to_bytes(4, "little") * 2))
    assert find_archive_problem(path, read=True) == "it unpacks to more than its own size"


def test_an_entry_that_one_flipped_bit_made_a_folder_is_noticed_without_a_manifest(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.pth")
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\1\2")
    data[entry + 38] ^= 0x10
    path.write_bytes(data)
    said = "it has a folder as an entry, which torch would read as whatever is in memory"
    assert find_archive_problem(path, read=True) == find_archive_problem(path) == said


def test_a_bomb_is_refused_in_little_memory(tmp_path: Path) -> None:
    path = checkpoint_path(tmp_path, 1)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made, made.open("a", "w", force_zip64=True) as entry:
        for _ in range(40):
            entry.write(bytes(10_000_000))
    script = """
        import sys
        from pathlib import Path
        from darkit.runs.checkpoints import list_checkpoints
        from darkit.runs.verify import find_problem
        peak()
        before = peak()
        print(find_problem(list_checkpoints(Path(sys.argv[1]))[0]))
        print(peak() - before)
        print("torch" in sys.modules)
    """
    with python(PEAK + dedent(script), tmp_path) as process:
        said, grown, torch = process.communicate()[0].splitlines()
    assert said == "it is compressed, which torch.save never does"
    assert int(grown) < 20_000_000
    assert torch == "False"


def test_a_file_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    path = save(tmp_path)
    checkpoint = found(tmp_path)
    path.unlink()
    path.symlink_to(path.name)
    assert find_problem(checkpoint) == "it cannot be read (it is a link (Too many levels of symbolic links))"

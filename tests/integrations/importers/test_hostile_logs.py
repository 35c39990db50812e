"""Logs are untrusted: whatever bytes stand in them, the outcome is a run or one sentence."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import zlib
from pathlib import Path

import pytest
from torch.utils.tensorboard import SummaryWriter

from darkit.errors import DarkitError
from darkit.integrations.importers import rows
from darkit.integrations.importers.known import KnownRuns
from darkit.integrations.importers.recognise import find_sources
from darkit.integrations.importers.rows import Rows
from darkit.integrations.importers.wire import Message
from darkit.integrations.importers.writer import import_source
from darkit.runs import base, list_runs
from darkit.runs.log import LONGEST_HEADER
from tests.integrations.importers.parts import imported, only_run, points

REPLACED = {b"1": b"9" * 30, b"0": b"-1e999", b'"': b"", b":": b"::", b"step": b"st\x00p", b"[": b"{", b"2": b"NaN"}


def field(number: int, data: bytes | int) -> bytes:
    """Encodes one field of a message of protobuf."""
    if isinstance(data, int):
        return varint(number << 3) + varint(data)
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(value: int) -> bytes:
    found = b""
    while value > 0x7F:
        found += bytes([value & 0x7F | 0x80])
        value >>= 7
    return found + bytes([value])


def wandb_file(*records: bytes) -> bytes:
    """Frames records as W&B does; they must fit into one block."""
    framed = [
        zlib.crc32(record, zlib.crc32(b"\1")).to_bytes(4, "little") + len(record).to_bytes(2, "little") + b"\1" + record
        for record in records
    ]
    return b":W&B\xe1\xbe\0" + b"".join(framed)


def history(step: int, **values: object) -> bytes:
    pairs = {"_step": step, "_timestamp": 1000.0 + step, **values}
    items = [field(1, field(1, key.encode()) + field(16, json.dumps(value).encode())) for key, value in pairs.items()]
    return field(2, b"".join(items))


def write_logs(folder: Path) -> None:
    """Writes a small log of each kind."""
    with SummaryWriter(str(folder / "events")) as writer:
        for step in range(5):
            writer.add_scalar("loss", 1.0, step)
        writer.add_text("note", "text", 1)
        writer.add_hparams({"lr": 0.1}, {"best": 1.0}, run_name=".")
    for name in ("wandb/offline-run-x", "csv", "out/checkpoint-5", "mlruns/0/r/metrics", "mlruns/0/r/params"):
        (folder / name).mkdir(parents=True)
    run = field(17, field(1, b"id") + field(8, b"name") + field(10, b"tag"))
    media = {"_type": "image-file", "path": "media/x.png"}
    records = (
        run,
        *(history(step, loss=1.0 / (step + 1), nested={"a": step}) for step in range(5)),
        history(6, x=media),
    )
    (folder / "wandb/offline-run-x/run-id.wandb").write_bytes(wandb_file(*records, field(18, field(1, 0))))
    (folder / "csv/metrics.csv").write_text("epoch,step,loss\n0,1,0.5\n0,2,0.25\n")
    (folder / "csv/hparams.yaml").write_text("lr: 0.1\ndeep: {a: [1, 2]}\n")
    state = {
        "global_step": 5,
        "max_steps": 10,
        "log_history": [{"step": 1, "loss": 1.0}, {"step": 5, "eval_loss": 2.0}],
    }
    (folder / "out/checkpoint-5/trainer_state.json").write_text(json.dumps(state))
    (folder / "mlruns/0/meta.yaml").write_text("experiment_id: '0'\nartifact_location: x\nname: y\n")
    (folder / "mlruns/0/r/meta.yaml").write_text("run_id: r\nrun_name: n\nstatus: 3\nstart_time: 1000\n")
    (folder / "mlruns/0/r/metrics/loss").write_text("1000 1.0 0\n2000 0.5 1\n")
    (folder / "mlruns/0/r/params/lr").write_text("0.1")
    with sqlite3.connect(folder / "track.db") as connection:
        connection.execute("CREATE TABLE metrics (timestamp TEXT, run_name TEXT, step INTEGER, metrics TEXT)")
        found = [("2025-01-01T00:00:00", "r", step, json.dumps({"loss": step, "x": {"y": 1}})) for step in range(30)]
        connection.executemany("INSERT INTO metrics VALUES (?, ?, ?, ?)", found)
    connection.close()


def spoil(data: bytes, chance: random.Random) -> bytes:
    """Returns other bytes: some changed, cut off, put in, replaced by odd words, or all of them."""
    content = bytearray(data)
    kind = chance.randrange(5)
    place = chance.randrange(len(content))
    if kind == 0:
        for _ in range(chance.randint(1, 8)):
            content[chance.randrange(len(content))] = chance.randrange(256)
    elif kind == 1:
        del content[place:]
    elif kind == 2:
        content[place : place + chance.randint(0, 40)] = chance.randbytes(chance.randint(0, 40))
    elif kind == 3:
        for old, new in REPLACED.items():
            if chance.random() < 0.4:
                content = bytearray(bytes(content).replace(old, new, chance.randint(1, 5)))
    else:
        return chance.randbytes(chance.randint(0, 200))
    return bytes(content)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("logs")
    write_logs(folder)
    return folder


def test_the_logs_are_whole_before_they_are_spoiled(written: Path) -> None:
    outcomes = imported(written)
    kinds = sorted(run.origin["kind"] for run in list_runs())
    assert kinds == ["lightning", "mlflow", "tensorboard", "trackio", "transformers", "wandb"]
    said = [problem for outcome in outcomes for problem in outcome.problems]
    assert [problem for problem in said if "kinds" not in problem] == [said[-1]]  # the image that is not there
    assert "1 media could not be read" in said[-1]


@pytest.mark.parametrize("seed", range(60))
def test_spoiled_logs_make_a_run_or_a_sentence(seed: int, written: Path, tmp_path: Path) -> None:
    chance = random.Random(seed)
    folder = Path(shutil.copytree(written, tmp_path / "logs"))
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            path.write_bytes(spoil(path.read_bytes(), chance))
    try:
        sources = find_sources(folder).sources
    except DarkitError:
        return
    known = KnownRuns(base())
    for source in sources:
        try:
            import_source(source, base(), known)
        except DarkitError as error:
            assert str(error).endswith((".", ")"))  # noqa: PT017 - a sentence
    for run in list_runs():
        assert run.log().columns[:1] in (["step"], [])
        assert run.details.state in ("finished", "stopped", "crashed", "unknown")


@pytest.mark.parametrize("data", [b"\x0a\xff\xff\xff\xff\x0f", b"\xff" * 20, b"\x0b", b"\x0f", b"\x09abc", b"\x08"])
def test_broken_messages_are_value_errors(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        Message(data)


def test_numbers_and_columns_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MOST_VALUES", 10)
    monkeypatch.setattr(rows, "MOST_COLUMNS", 4)
    found = Rows()
    for step in range(5):
        found.add(step, {f"name {index}": 10**400 for index in range(5)})
    found.add(2**60, {"name 0": 1})
    found.add(1.5, {"name 0": 1})
    found.add(True, {"name 0": 1})
    assert sum(len(row) - 1 for row in found) == 10
    assert sorted(found.left_out.values()) == [3, 5, 10]
    assert next(iter(found))["name 0"] == float("inf")


def test_the_header_and_the_table_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Rows()
    found.add(1, {f"{index} {'名' * 150}": 1.0 for index in range(4000)})
    assert len(next(found.blocks())) < LONGEST_HEADER
    assert "have names beyond" in next(iter(found.left_out))
    monkeypatch.setattr(rows, "MOST_CELLS", 12)
    found = Rows()
    for step in range(3):
        found.add(step, {"a": 1, "b": 2, "c": 3, "d": 4})
    assert found.columns() == ["step", "a", "b", "c"]
    assert found.problems() == ["Of 5 columns of 3 rows, the first 4 are kept."]
    assert b"".join(found.blocks()).splitlines()[:2] == [b"step,a,b,c", b"0,1,2,3"]


def test_a_long_or_steering_name_is_a_column_of_its_own() -> None:
    found = Rows()
    names = ["x" * 300, "x" * 299 + "y", "a\nb", "a\x1bb", "", "step", "time", "logged_step"]
    found.add(0, dict.fromkeys(names, 1.0))
    columns = found.columns()
    assert len(set(columns)) == len(names) + 1
    assert all(column.isprintable() and 0 < len(column) <= 200 for column in columns)


def test_rows_of_one_step_are_joined_and_repeated_values_are_kept() -> None:
    found = Rows()
    found.add(5, {"epoch": 1, "loss": 1.0}, 10.0)
    found.add(3, {"loss": 0.0})
    found.add(5, {"epoch": 1, "val": 2.0}, 9.0)
    found.add(5, {"loss": 3.0})
    found.add(5, {"val": 4.0})
    found.add(5, {"epoch": 2, "other": 5.0})
    assert list(found) == [
        {"step": 3, "loss": 0.0},
        {"step": 5, "epoch": 1, "loss": 1.0, "time": 9.0, "val": 2.0},
        {"step": 5, "loss": 3.0, "val": 4.0, "epoch": 2, "other": 5.0},
    ]
    found.drop_from(5, ["loss", "unknown"])
    assert [row.get("loss") for row in found] == [0.0, None, None]
    found.drop_from(4)
    assert len(found) == 1


def test_a_wandb_record_over_several_blocks_is_one(tmp_path: Path) -> None:
    record = history(1, text="x" * 60_000, **{f"value {index}": index for index in range(2000)})
    assert len(record) > 2 * 32768
    parts: list[bytes] = []
    position, left = 7, record
    while left:
        room = 32768 - position % 32768 - 7
        part, left = left[:room], left[room:]
        kind = bytes([2 if not parts else 3 if left else 4])
        checksum = zlib.crc32(part, zlib.crc32(kind)).to_bytes(4, "little")
        parts.append(checksum + len(part).to_bytes(2, "little") + kind + part)
        position += 7 + len(part)
    (tmp_path / "x.wandb").write_bytes(wandb_file() + b"".join(parts))
    imported(tmp_path / "x.wandb")
    assert points(only_run())["value 1999"] == [(1, 1999)]

from __future__ import annotations

import math
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy
import polars
import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkit.errors import LogError
from darkit.runs.log import DEFAULT_COLUMNS, CsvLog, last_values, read_log
from tests.runs.parts import names_in, python, wait_until

NASTY = ['a,b"c"', '"', "#", " x ", "", "\x00", "\x85\u2028", "模\t型", "é, \\n", "'", "nan?", "a;b"]
words = st.one_of(st.sampled_from(NASTY), st.text(max_size=8)).filter(lambda text: not {"\r", "\n"} & set(text))
kinds = {
    polars.Int64: st.integers(-(2**63), 2**63 - 1),
    polars.Float64: st.floats(),
    polars.Boolean: st.booleans(),
    polars.String: words,
}


@st.composite
def tables(draw: st.DrawFn) -> tuple[dict[str, polars.DataType], list[dict[str, Any]]]:
    """Columns with their type, and rows that may lack any of them."""
    name = st.one_of(st.sampled_from(['loss,"x"', "a b", "模型", "#"]), st.text("abc/_.", min_size=1, max_size=4))
    types = draw(st.dictionaries(name, st.sampled_from(list(kinds)), min_size=1, max_size=4))
    rows = st.fixed_dictionaries({}, optional={column: st.none() | kinds[kind] for column, kind in types.items()})
    return types, draw(st.lists(rows, max_size=8))


def same(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, float) and math.isnan(wanted):
        return isinstance(found, float) and math.isnan(found)
    if isinstance(wanted, float):
        return isinstance(found, float) and found == wanted and math.copysign(1, found) == math.copysign(1, wanted)
    return type(found) is type(wanted) and found == wanted


@given(tables(), st.data())
def test_what_is_written_reads_back_equal(
    table: tuple[dict[str, polars.DataType], list[dict[str, Any]]], data: st.DataObject
) -> None:
    types, rows = table
    rows = [*rows, {column: "no number" for column, kind in types.items() if kind == polars.String}]
    known = data.draw(st.lists(st.sampled_from(sorted(types)), min_size=1, unique=True))
    cut = data.draw(st.integers(0, len(rows)))
    with tempfile.TemporaryDirectory() as folder:
        log = CsvLog(Path(folder, "log.csv"), known)
        log.append(rows[:cut])  # columns that are not known yet come in the middle
        CsvLog(log.path).append(rows[cut:])
        frame = read_log(log.path)
        assert frame.columns[: len(known)] == known
        assert frame.height == len(rows)
        for column in frame.columns:
            wanted = [row.get(column) for row in rows]
            found = frame[column].to_list()
            assert all(map(same, found, wanted)), (found, wanted)
            if any(value is not None for value in wanted):
                assert frame[column].dtype == types[column]


@pytest.fixture
def log(tmp_path: Path) -> CsvLog:
    return CsvLog(tmp_path / "log.csv", ["step", "loss"])


def test_a_new_log_has_the_usual_columns_and_no_rows(tmp_path: Path) -> None:
    CsvLog(tmp_path / "log.csv")
    assert (tmp_path / "log.csv").read_text() == "step,epoch,time,lr,train_loss,val_loss\n"
    frame = read_log(tmp_path / "log.csv")
    assert frame.schema == dict.fromkeys(DEFAULT_COLUMNS, polars.Float64)
    assert frame.height == 0


def test_the_file_is_plain_csv(log: CsvLog) -> None:
    log.append([{"step": 1, "loss": 0.1}, {"step": 2}, {"step": 3, "loss": math.nan, "note": 'say "hi",\nbye'}])
    assert log.path.read_text() == 'step,loss,note\n1,0.1,\n2,,\n3,NaN,"say ""hi"", bye"\n'


@pytest.mark.parametrize("breaks", ["\n", "\r", "\r\n"])
def test_a_line_break_within_text_becomes_a_space_so_that_a_record_is_one_line(log: CsvLog, breaks: str) -> None:
    log.append([{"step": 1, "note": f"a{breaks}b"}, {"step": 2, "note": f"{breaks}c"}])
    assert read_log(log.path)["note"].to_list() == ["a b", " c"]
    assert last_values(log.path) == {"step": "2", "note": " c"}


def test_numbers_of_numpy_are_numbers(log: CsvLog) -> None:
    row = {"step": numpy.int64(3), "loss": numpy.float64(0.1), "half": numpy.float32(0.5), "flag": numpy.bool_(True)}
    log.append([row, {"step": numpy.array(4)}])
    frame = read_log(log.path)
    assert frame.rows() == [(3, 0.1, 0.5, True), (4, None, None, None)]


def test_text_that_utf8_cannot_hold_becomes_an_escape(log: CsvLog) -> None:
    log.append([{"step": 1, "note": "caf\udce9 \ud800"}])
    assert read_log(log.path)["note"].to_list() == ["caf\\udce9 \\ud800"]


def test_new_columns_keep_the_old_rows_as_they_are(log: CsvLog) -> None:
    log.append([{"step": 1, "loss": 0.5, "note": "1,2"}])
    log.append([{"step": 2, "acc": 0.25, "new": True}])
    assert log.path.read_text() == 'step,loss,note,acc,new\n1,0.5,"1,2",,\n2,,,0.25,true\n'
    assert log.columns == ["step", "loss", "note", "acc", "new"]
    assert names_in(log.path.parent) == ["log.csv"]


def test_fixed_columns_refuse_another_by_name_and_nothing_is_written(tmp_path: Path) -> None:
    log = CsvLog(tmp_path / "log.csv", ["step", "train_loss"], fixed=True)
    log.append([{"step": 1, "train_loss": 2.0}])
    for refusing in (log.check, lambda row: log.append([{"step": 2}, row])):
        with pytest.raises(LogError) as caught:
            refusing({"step": 2, "trian_loss": 1.0})
        wanted = "The log has no column 'trian_loss'. Did you mean 'train_loss'? Available: train_loss, step."
        assert str(caught.value) == wanted
    assert log.path.read_text() == "step,train_loss\n1,2.0\n"


@pytest.mark.parametrize("name", ["", "a\nb", "a\rb", "\udc80", 3, None])
def test_what_cannot_name_a_column_is_refused(log: CsvLog, tmp_path: Path, name: Any) -> None:
    for refusing in (
        lambda: log.check({name: 1}),
        lambda: log.append([{"step": 1, name: 1}]),
        lambda: CsvLog(tmp_path / "new.csv", ["step", name]),
    ):
        with pytest.raises(LogError, match="must be printable text on one line, not "):
            refusing()
    assert log.path.read_text() == "step,loss\n"
    assert names_in(tmp_path) == ["log.csv"]


def test_columns_named_twice_are_there_once(tmp_path: Path) -> None:
    assert CsvLog(tmp_path / "log.csv", ["step", "loss", "step"]).columns == ["step", "loss"]


def test_a_continued_log_goes_on_with_its_own_columns(log: CsvLog) -> None:
    log.append([{"step": 1, "loss": 0.5}])
    again = CsvLog(log.path, ["other"])
    again.append([{"step": 2}])
    assert log.path.read_text() == "step,loss\n1,0.5\n2,\n"


def test_a_continued_log_gets_the_fixed_columns_that_it_lacks(log: CsvLog) -> None:
    log.append([{"step": 1, "loss": 0.5}])
    CsvLog(log.path, ["step", "acc"], fixed=True).append([{"step": 2, "acc": 1.0}])
    assert log.path.read_text() == "step,loss,acc\n1,0.5,\n2,,1.0\n"


def test_a_reader_sees_only_whole_lines_wherever_the_file_ends(log: CsvLog) -> None:
    log.append([{"step": step, "loss": step / 8, "note": 'é, "x"' if step % 2 else None} for step in range(12)])
    whole = log.path.read_bytes()
    frame = read_log(log.path)
    for length in range(len(whole) + 1):
        log.path.write_bytes(whole[:length])
        rows = max(0, whole[:length].count(b"\n") - 1)
        found = read_log(log.path)
        assert found.height == rows
        assert found["step"].to_list() == list(range(rows)) if found.width else rows == 0
        assert last_values(log.path).get("step") == (str(rows - 1) if rows else None)
        if rows > 1:
            assert found.equals(frame.head(rows))


def test_a_torn_last_line_is_cut_before_the_log_goes_on_wherever_it_was_torn(log: CsvLog) -> None:
    log.append([{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25, "note": "é"}])
    whole = log.path.read_bytes()
    for length in range(whole.index(b"\n") + 1, len(whole)):
        log.path.write_bytes(whole[:length])
        CsvLog(log.path).append([{"step": 9}])
        kept = whole[: whole.rindex(b"\n", 0, length) + 1]
        assert log.path.read_bytes() == kept + b"9,,\n"


def test_a_torn_header_is_written_anew(log: CsvLog) -> None:
    log.path.write_text("step,lo")
    CsvLog(log.path, ["step", "loss"]).append([{"step": 1}])
    assert log.path.read_text() == "step,loss\n1,\n"


def test_a_long_torn_line_is_cut(log: CsvLog) -> None:
    log.append([{"step": 1, "loss": 0.5}])
    with log.path.open("ab") as file:
        file.write(b"\x00" * 200_000)  # what a machine that went down leaves on some file systems
    assert read_log(log.path).rows() == [(1, 0.5)]
    CsvLog(log.path)
    assert log.path.read_text() == "step,loss\n1,0.5\n"


def test_rows_of_later_steps_are_cut_and_the_others_kept_to_the_byte(log: CsvLog) -> None:
    log.append([{"step": 1, "loss": 0.1}, {"loss": 0.2}, {"step": 2.0}, {"step": 10}, {"step": 3, "note": "a,b"}])
    log.append([{"step": 11, "note": "²"}, {"step": "²"}, {"step": math.nan}])
    log.cut_after(3)
    assert log.path.read_text() == 'step,loss,note\n1,0.1,\n,0.2,\n2.0,,\n3,,"a,b"\n"²",,\nNaN,,\n'
    log.append([{"step": 4}])
    assert log.path.read_text().endswith("NaN,,\n4,,\n")
    assert names_in(log.path.parent) == ["log.csv"]


def test_steps_are_cut_in_whatever_column_they_are(tmp_path: Path) -> None:
    log = CsvLog(tmp_path / "log.csv", ["note", "step"])
    log.append([{"note": "a,7", "step": 1}, {"note": None, "step": 2}, {"note": "a,1", "step": 3}])
    log.cut_after(2)
    assert log.path.read_text() == 'note,step\n"a,7",1\n,2\n'


def test_a_log_without_steps_is_not_cut(tmp_path: Path) -> None:
    log = CsvLog(tmp_path / "log.csv", ["loss"])
    log.append([{"loss": 9}])
    log.cut_after(0)
    assert log.path.read_text() == "loss\n9\n"


def test_nothing_to_cut_leaves_the_file_alone(log: CsvLog) -> None:
    log.append([{"step": 1}, {"step": 2}])
    before = log.path.stat()
    log.cut_after(2)
    assert (log.path.stat().st_ino, log.path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize(
    ("values", "wanted", "kind"),
    [
        ([1, 2.5], [1.0, 2.5], polars.Float64),
        ([1, math.nan, math.inf, -math.inf], [1.0, math.nan, math.inf, -math.inf], polars.Float64),
        ([1, 2**70], [1.0, 2.0**70], polars.Float64),
        ([1, "x"], ["1", "x"], polars.String),
        ([True, 2], ["true", "2"], polars.String),
        ([1.5, True, "x"], ["1.5", "true", "x"], polars.String),
        ([None, True, False], [None, True, False], polars.Boolean),
        ([None, 3], [None, 3], polars.Int64),
        ([None, None], [None, None], polars.Float64),
    ],
)
@pytest.mark.parametrize("early", [0, 3000])
def test_a_column_has_the_type_that_holds_all_of_its_values_however_late_they_come(
    tmp_path: Path, values: list[Any], wanted: list[Any], kind: polars.DataType, early: int
) -> None:
    log = CsvLog(tmp_path / "log.csv", ["x", "step"])
    log.append([{"x": values[0], "step": 1}] * early + [{"x": value, "step": 1} for value in values])
    column = read_log(log.path)["x"]
    assert column.dtype == kind
    assert all(map(same, column.to_list(), wanted[:1] * early + wanted))


def test_a_log_of_another_program_reads_too(log: CsvLog) -> None:
    log.path.write_bytes(b'\xef\xbb\xbfstep,loss,note\r\n1,nan,a b\r\n2,0.5\r\n\r\n3,+1e-3,"x"\r\n4,.5,\r\n')
    frame = read_log(log.path)
    assert frame.columns == ["step", "loss", "note"]
    assert frame["step"].to_list() == [1, 2, None, 3, 4]
    assert all(map(same, frame["loss"].to_list(), [math.nan, 0.5, None, 0.001, 0.5]))
    assert frame["note"].to_list() == ["a b", None, None, "x", None]
    assert last_values(log.path) == {"step": "4", "loss": ".5", "note": "x"}
    CsvLog(log.path).append([{"step": 5, "acc": 1}])
    assert read_log(log.path)["acc"].to_list() == [None] * 5 + [1]


def test_garbled_lines_are_left_out_with_a_warning_and_the_others_stand(
    log: CsvLog, caplog: pytest.LogCaptureFixture
) -> None:
    log.append([{"step": 1, "loss": 0.5}])
    with log.path.open("ab") as file:
        file.write(b'2,"0.25\n3,1,0.5,7\n4,x"y"\n')
    log.append([{"step": 5, "loss": 0.25}])
    assert read_log(log.path).rows() == [(1, 0.5), (5, 0.25)]
    assert caplog.messages == [f"Left out 3 garbled lines of {log.path}."]


def test_reading_continuing_and_cutting_survive_any_garbage(tmp_path: Path) -> None:
    chance = random.Random(0)
    log = CsvLog(tmp_path / "log.csv", ["step", "loss"])
    log.append([{"step": step, "loss": step / 8, "note": 'a, "b"'} for step in range(5)])
    whole = log.path.read_bytes()
    for _ in range(150):
        garbled = bytearray(whole)
        for _ in range(chance.randrange(1, 6)):
            garbled[chance.randrange(len(garbled))] = chance.choice(b'"",\n\r\x00\xff1a')
        if chance.random() < 0.3:
            garbled += chance.randbytes(50) + b"\n"
        log.path.write_bytes(garbled)
        assert read_log(log.path).height <= garbled.count(b"\n")
        last_values(log.path)
        again = CsvLog(log.path)
        again.append([{"step": 77, "fresh": 0.5}])
        again.cut_after(80)
        assert {"step": "77", "fresh": "0.5"}.items() <= last_values(log.path).items()
        assert read_log(log.path)["fresh"].to_list()[-1] == 0.5


@pytest.mark.parametrize(
    "content", [b"\n", b"\n\n1,2\n", b"\r\n", b"\x00\xff\n\xff\n", b'"\n1\n', b",,\n1,2,3\n", b"a,a\n1,2\n"]
)
def test_a_header_that_is_none_is_no_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(content)
    read_log(path)
    last_values(path)
    CsvLog(path).append([{"step": 3}])
    assert read_log(path)["step"].to_list()[-1] == 3


def test_a_log_that_is_not_there_or_empty_is_an_empty_frame(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").touch()
    for path in (tmp_path / "missing.csv", tmp_path / "empty.csv", tmp_path / "empty.csv" / "log.csv"):
        assert read_log(path).shape == (0, 0)
        assert last_values(path) == {}


def test_a_reader_beside_a_writer_sees_rows_in_order_and_nothing_torn(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    script = """
        import sys
        from pathlib import Path
        from darkit.runs.log import CsvLog
        log = CsvLog(Path(sys.argv[1]))
        for step in range(1, 10**9):
            log.append([{"step": step, "train_loss": step / 8, **({f"new_{step}": 1} if step in (50, 150) else {})}])
    """
    with python(script, path):
        wait_until(path.exists)
        heights = set()

        def reads_on() -> bool:
            frame = read_log(path)
            assert frame["step"].to_list() == list(range(1, frame.height + 1))
            assert frame["train_loss"].to_list() == [step / 8 for step in range(1, frame.height + 1)]
            heights.add(frame.height)
            return len(heights) > 10 and "new_150" in frame.columns

        wait_until(reads_on)


def test_the_last_values_are_found_at_the_end_of_a_long_log(log: CsvLog) -> None:
    log.append([{"step": step, "loss": 0.1, "note": "x, \x0b\x1c y"} for step in range(20_000)])
    assert last_values(log.path) == {"step": "19999", "loss": "0.1", "note": "x, \x0b\x1c y"}
    log.append([{"step": 20_000, "note": "x" * 140_000}])
    assert last_values(log.path) == {}, "longer than the part that is looked at"


def test_the_last_value_of_a_column_counts_though_later_rows_have_none(log: CsvLog) -> None:
    log.append([{"step": 1, "loss": 0.5, "val_loss": 0.75}, {"step": 2, "val_loss": 0.25, "never": None}])
    log.append([{"step": step, "loss": step / 8} for step in range(3, 1000)])
    with log.path.open("ab") as file:
        file.write(b'9,"9\n9,9,9,9,9,9,9\n')
    assert last_values(log.path) == {"step": "999", "loss": "124.875", "val_loss": "0.25"}

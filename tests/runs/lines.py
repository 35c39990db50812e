"""Lines of a log that nobody expects, and what they mean, said another way than the reader does."""

from __future__ import annotations

from hypothesis import strategies as st

HEADERS = (
    b"step,loss,note",
    b"a",
    b"step,loss",
    b'"a,b",c',
    b"1,2",
    b"\xef\xbb\xbfstep,loss,note\r",
    b"a,a",
    b",x",
    b"",
)
_SPECIAL = [
    *("", "NaN", "nan", "-inf", "Infinity", "1e5", " 2", "2 ", "\t2"),
    *("true", "false", "1_0", "0x1", ".5", "5.", "+1", "-0"),
    *('"3"', '"a,b"', '"a""b"', '""', '"true"'),
    *('"unclosed', 'a"b', '"a"b', '"x"\r', "\0", "1\0", "x\r", "1\r\r", "\ufeff1"),
    *("9" * 400, "9" * 5000 + ".5e-4990", "step", "loss", "note", "٣", "1\xa0"),
    *("9223372036854775807", "9223372036854775808", "-9223372036854775808", "007", "1e400", "1e-400"),
]  # fmt: skip
fields = st.one_of(
    st.floats().map(repr),
    st.integers().map(str),
    st.sampled_from(_SPECIAL),
    st.text(max_size=8).filter(lambda text: "\n" not in text),
)
_lines = st.one_of(
    st.lists(fields, min_size=1, max_size=5).map(",".join).map(lambda text: text.encode("utf-8", "replace")),
    st.sampled_from([*HEADERS, b"step,loss,note,,", b"step,", b"step,7,", b"\xff,1", b"1,2,", b"\r", b",,"]),
    st.binary(max_size=12).map(lambda line: line.replace(b"\n", b"")),
)
logs = st.lists(_lines, max_size=12).map(lambda found: b"".join(line + b"\n" for line in found))
headers = st.sampled_from(HEADERS)

Field = tuple[str, bool] | None  # its text and whether it was quoted; None where it is missing


def expected(data: bytes, header: bytes) -> tuple[list[list[Field]], int]:
    """Return the rows of whole lines below a header, and how many lines are no rows."""
    names = [field[0] if field else "" for field in split(header.removeprefix(b"\xef\xbb\xbf")) or []]
    rows: list[list[Field]] = []
    lines = data.split(b"\n")[:-1]
    for line in lines:
        row = split(line)
        if row is None or len(row) > len(names) or _repeats(row, names):
            continue
        rows.append(row + [None] * (len(names) - len(row)))
    return rows, len(lines) - len(rows)


def split(line: bytes) -> list[Field] | None:
    """Split a line, character by character; None if its quotes do not enclose whole fields."""
    text = line.decode("utf-8", "replace").rstrip("\r\n").replace("\r", " ") + ","
    found: list[Field] = []
    place = 0
    while place < len(text):
        quoted, value = text[place] == '"', ""
        place += quoted
        while text[place : place + 1] not in (("", '"') if quoted else ("", '"', ",")) or (
            quoted and text[place : place + 2] == '""'
        ):
            value += text[place]
            place += 2 if text[place] == '"' else 1
        place += quoted
        if text[place : place + 1] != ",":
            return None
        place += 1
        found.append((value, quoted) if value or quoted else None)
    return found


def number(field: Field) -> float | None:
    """Return the number that a field is, or None."""
    if field is None or field[1]:
        return None
    text = field[0].strip(" ")
    if not text.isascii() or "_" in text or any(letter.isspace() for letter in text):
        return None
    try:
        return float(text)
    except ValueError:
        return None


def typed(column: list[Field]) -> tuple[str, list[object]]:
    """Return the type of a column and its values."""
    present = [field for field in column if field is not None]
    numbers = [number(field) for field in column]
    if present and all(field in (("true", False), ("false", False)) for field in present):
        return "Boolean", [field and field[0] == "true" for field in column]
    if any(value is None for field, value in zip(column, numbers, strict=True) if field is not None):
        return "String", [field and field[0] for field in column]
    if present and all(_is_integer(field[0]) for field in present):
        return "Int64", [field and int(field[0]) for field in column]
    return "Float64", list(numbers)


def _is_integer(text: str) -> bool:
    digits = text.strip(" ").lstrip("+-")
    return digits.isdigit() and len(digits) < 400 and -(2**63) <= int(text) < 2**63


def _repeats(row: list[Field], names: list[str]) -> bool:
    first = names[0] if names else ""
    if not first or '"' in first or "," in first or number((first, False)) is not None:
        return False
    while row and row[-1] is None:
        row = row[:-1]
    return bool(row) and all(field == (name, False) for field, name in zip(row, names, strict=False))

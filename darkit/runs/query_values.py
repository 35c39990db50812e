"""What the values of a query mean: numbers, times, durations, texts and patterns."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from math import inf, isclose, isnan, nan
from time import thread_time

from darkit.errors import QueryError
from darkit.runs.query_words import Value

TEXT, LIST, NUMBER, MOMENT, DURATION = "text", "list", "number", "moment", "duration"
KINDS = {
    **dict.fromkeys(("name", "state", "project", "model", "device", "group", "note", "reason", "problem"), TEXT),
    **dict.fromkeys(("step", "max_step", "progress", "rate", "diverged"), NUMBER),
    "tags": LIST,
    "started": MOMENT,
    "duration": DURATION,
    "eta": DURATION,
}
_NUMBER = re.compile(r"([+-]?(?:\d+(?:_\d+)*(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)([kM]?)")
_DIGITS = re.compile(r"[+-]?[0-9]+(?:_[0-9]+)*")
_MOST_DIGITS = 1_000  # characters of a text that is read as a whole number
_TIMES = {"": 1.0, "k": 1e3, "M": 1e6}
_WORDS = {"nan": nan, "inf": inf, "+inf": inf, "-inf": -inf, "infinity": inf}
_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"(?P<minute>T[0-9]{2}:[0-9]{2}(?P<second>:[0-9]{2}(?P<exact>\.[0-9]+)?)?(Z|[+-][0-9]{2}:[0-9]{2})?)?"
)
_AMOUNT = re.compile(r"(?:\d+(?:\.\d+)?(?:s|min|m|h|d|w))+")
_PIECE = re.compile(r"(\d+(?:\.\d+)?)(s|min|m|h|d|w)")
_SECONDS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_LONGEST_PATTERN = 200  # characters
_LONGEST_TEXT = 256  # characters of a text that a pattern is looked for in
_MOST_REPEATED = 3  # repetitions in a pattern: each multiplies the time that it can take
_MOST_WAYS = 256  # to read a text: an optional part doubles them, a group multiplies them by its alternatives
_MOST_WORK = 2**16  # ways, times 32 for each repetition
_SLOW, _PATIENCE = 0.01, 3.0  # seconds: of a text for which a pattern is slow, and of all such texts together
_GROUP = re.compile(r"\((?!\?)|\(\?(?::|=|!|<=|<!|P<)")  # the groups that a pattern may have


@dataclass(frozen=True)
class Wanted:
    """A value that is asked for.

    Attributes:
        text: As it is written.
        number: The number that it is, or None.
        whole: The whole number that it is, exactly, or None.
        low: Where it begins: a number itself, the begin of a day.
        high: Where it ends; equal to `low` for a number.
        glob: Whether ``*`` stands for any text.
    """

    text: str
    number: float | None = None
    low: float = nan
    high: float = nan
    glob: bool = False
    whole: int | None = None

    @classmethod
    def of(cls, value: Value, kind: str | None, sign: str, now: datetime) -> Wanted:
        """Read a value.

        Args:
            value: The value.
            kind: The kind of the field, or None for a metric or a config key.
            sign: The sign before it.
            now: The time of the reader; without a time zone, that of this machine.

        Raises:
            QueryError: It cannot be what the field or the sign needs.
        """
        text = value.text
        if kind == MOMENT:
            low, high = _moment(value, now)
            return cls(text, None, low, high)
        if kind == DURATION:
            seconds = _duration(text)
            if seconds is None:
                raise QueryError(f"{text!r} is no duration; write 90, 30min or 1h30min.", value.start, value.end)
            return cls(text, seconds, seconds, seconds, whole=whole_of(seconds))
        number = None if value.quoted else number_of(text)
        if number is None and (kind == NUMBER or sign in ("<", "<=", ">", ">=")):
            raise QueryError(f"A number must follow {sign}, not {text!r}.", value.start, value.end)
        known = nan if number is None else number
        whole = None if number is None else whole_of(text if _DIGITS.fullmatch(text) else number)
        return cls(text, number, known, known, glob="*" in text and not value.quoted, whole=whole)

    def is_number(self, value: float | str) -> bool:
        """Return whether a number, or the text of one, is the one that is asked for.

        Whole numbers, such as seeds, are compared exactly, others to a part in 1e9.
        """
        if self.number is None:
            return False
        whole = whole_of(value)
        if whole is not None and self.whole is not None:
            return whole == self.whole
        try:
            number = float(value)
        except (ValueError, OverflowError):
            return False
        return (isnan(number) and isnan(self.number)) or isclose(number, self.number, rel_tol=1e-9)

    def matches(self, text: str) -> bool:
        """Return whether a text is the one that is asked for, whatever the case of its letters."""
        there, wanted = text.casefold(), self.text.casefold()
        if self.glob:
            return fnmatchcase(there, _plain_glob(wanted))
        return there == wanted or (there, wanted) == ("null", "none")


def _plain_glob(text: str) -> str:
    """Return a pattern of fnmatch in which only ``*`` is special."""
    return text.replace("[", "[[]").replace("?", "[?]")


def number_of(text: str) -> float | None:
    """Return the number that a text is, or None: ``3e-4``, ``1_000``, ``10k``, ``nan``."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    found = _NUMBER.fullmatch(text)
    return float(found[1].replace("_", "")) * _TIMES[found[2]] if found else None


def whole_of(value: float | str) -> int | None:
    """Return the whole number that a value, or its text, is exactly, or None."""
    if isinstance(value, str):
        return int(value) if len(value) <= _MOST_DIGITS and _DIGITS.fullmatch(value) else None
    if isinstance(value, int):
        return value
    return int(value) if value.is_integer() and abs(value) < 2**53 else None


def _duration(text: str) -> float | None:
    if _AMOUNT.fullmatch(text):
        return sum(float(amount) * _SECONDS[unit] for amount, unit in _PIECE.findall(text))
    return number_of(text)


def _moment(value: Value, now: datetime) -> tuple[float, float]:
    """Return begin and end of the time that is meant: a day, a moment, or as long ago as a duration says."""
    text = value.text.lower()
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    days = {"today": 0, "yesterday": 1}
    if text == "now":
        return now.timestamp(), now.timestamp()
    try:
        if text in days:
            return _day(today - timedelta(days=days[text]))
        if _AMOUNT.fullmatch(text):
            ago = now.timestamp() - (_duration(text) or 0.0)
            return ago, ago
        written = _TIME.fullmatch(text.upper())
        if written is None:
            raise ValueError
        found = datetime.fromisoformat(written[0])
        found = found if found.tzinfo else found.replace(tzinfo=now.tzinfo)
        if not written["minute"]:
            return _day(found)
        span = 0 if written["exact"] else 1 if written["second"] else 60
        return found.timestamp(), (found + timedelta(seconds=span)).timestamp()
    except (ValueError, OverflowError):
        raise QueryError(
            f"{value.text!r} is no time; write today, yesterday, 2026-11-28, 2026-11-28T14:30 or, for the last two "
            "days, 2d.",
            value.start,
            value.end,
        ) from None


def _day(start: datetime) -> tuple[float, float]:
    return start.timestamp(), (start + timedelta(days=1)).timestamp()


def pattern_of(value: Value) -> Callable[[str], bool]:
    """Compile a pattern into a function that looks for it in a text; it raises `QueryError` when it has taken too long.

    Raises:
        QueryError: It is no pattern, or one that can take very long: repeated groups with repetitions or alternatives
            in them, references to groups, many repetitions.
    """
    text = value.text
    if len(text) > _LONGEST_PATTERN:
        raise QueryError(f"A pattern has at most {_LONGEST_PATTERN} characters.", value.start, value.end)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of a [ in a set
            compiled = re.compile(re.escape(text) if value.quoted else text, re.IGNORECASE)
    except (re.error, OverflowError, RecursionError) as error:
        said = getattr(error, "msg", str(error))
        raise QueryError(f"The pattern cannot be read: {said}.", value.start, value.end) from None
    if not value.quoted and _is_slow(text):
        raise QueryError(
            "This pattern could take very long: repeat no group that has repetitions or alternatives in it, and use "
            f"at most {_MOST_REPEATED} repetitions, few optional parts and alternatives, and neither references nor "
            "flags.",
            value.start,
            value.end,
        )
    spent = 0.0

    def found(searched: str) -> bool:
        nonlocal spent
        if spent > _PATIENCE:
            raise QueryError(
                f"The search for this pattern was ended after {_PATIENCE:g} seconds; write one with fewer repetitions.",
                value.start,
                value.end,
            )
        began = thread_time()
        matched = compiled.search(searched[:_LONGEST_TEXT]) is not None
        took = thread_time() - began
        spent += took if took > _SLOW else 0.0
        return matched

    return found


def _is_slow(pattern: str) -> bool:
    """Return whether a pattern may take more than polynomial time of a low degree; some that would not are refused."""
    groups: list[bool] = [False]  # of each open group: whether it has a repetition or alternatives
    choices = [1]  # of each open group: how many alternatives it has
    closed = lazy = False  # whether a group with such, or a sign after which ? means something else, has just ended
    repeated, ways, place = 0, 1, 0
    while place < len(pattern):
        letter = pattern[place]
        ended, closed = closed, False
        after, lazy = lazy, False
        length = 1
        if letter == "\\":
            if pattern[place + 1 : place + 2].isdigit():
                return True
            length = 2
        elif letter == "[":
            length = _end_of_set(pattern, place) + 1 - place
        elif letter == "(":
            group = _GROUP.match(pattern, place)
            if group is None:
                return True
            groups.append(False)
            choices.append(1)
            length = len(group[0])
        elif letter == ")":
            closed = groups.pop() if len(groups) > 1 else False
            ways *= choices.pop() if len(choices) > 1 else 1
            groups[-1] = groups[-1] or closed
        elif letter == "|":
            groups[-1] = True
            choices[-1] += 1
        elif letter in "*+{":
            if ended:
                return True
            repeated += 1
            groups[-1] = True
            lazy = letter in "*+"
        elif letter == "?":
            ways *= 1 if after else 2
            groups[-1] = True
            closed = ended
            lazy = not after
        place += length
    return repeated > _MOST_REPEATED or ways > _MOST_WAYS or ways * 32**repeated > _MOST_WORK


def _end_of_set(pattern: str, place: int) -> int:
    """Return the place of the bracket that closes a set of characters."""
    place += 1
    if pattern.startswith("^", place):
        place += 1
    if pattern.startswith("]", place):
        place += 1
    while place < len(pattern) and pattern[place] != "]":
        place += 2 if pattern[place] == "\\" else 1
    return place

"""The words of a query: terms, ``or``, ``not`` and parentheses, each with its place in the text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from darkit.errors import QueryError

END = "end"
_WORD = re.compile(r'[^\s()"]+')
_FIELD = re.compile(
    r'((?:(?:config|last|best):)?(?:"[^"]*"|[^\s()"=<>!~:,]+))'
    r"(?:(!=|<=|>=|==|!~|=|<|>|~|:)|\s+(!=|<=|>=|==|=|<|>)(?![=<>!~])"
    r"|\s+(!~|~|:)(?=\s))"  # but ~/data and :word after a space are texts that are looked for
)
_VALUE = re.compile(r'[^\s()",]+')
_QUOTED = re.compile(r'"((?:[^"]|"")*)"(?!")')  # two quotation marks stand for one
_PATTERN = re.compile(r"/((?:\\.|[^/\\])*)/")
_SPACE = re.compile(r"\s*")
_JOINS = ("or", "and", "not")
_PREFIX = re.compile(r"-(?=[^\s])")


@dataclass(frozen=True)
class Value:
    """A value in a query: its text, whether it is a pattern between slashes or quoted text, and its place."""

    text: str
    start: int
    end: int
    pattern: bool = False
    quoted: bool = False


@dataclass(frozen=True)
class Term:
    """One condition.

    Attributes:
        field: The name before the sign; empty for a word that is looked for everywhere.
        sign: The sign between them, or empty.
        values: The values, of which any may hold.
        start: Where it begins in the text.
        end: Where it ends.
        length: The characters of its name as it is written.
    """

    field: str
    sign: str
    values: Sequence[Value]
    start: int
    end: int
    length: int = 0


@dataclass(frozen=True)
class Token:
    """A word of a query: its kind, which is ``term`` or the word itself, and its place."""

    kind: str
    start: int
    end: int
    term: Term = Term("", "", (), 0, 0)


def tokens(text: str) -> Iterator[Token]:
    """Return the words of a query, and endless ends after them. Raises `QueryError`."""
    place = _skip(text, 0)
    while place < len(text):
        token = _token(text, place)
        yield token
        place = _skip(text, token.end)
    while True:
        yield Token(END, len(text), len(text))


def _skip(text: str, place: int) -> int:
    space = _SPACE.match(text, place)
    return space.end() if space else place


def _token(text: str, place: int) -> Token:
    if text[place] in "()":
        return Token(text[place], place, place + 1)
    if _PREFIX.match(text, place):
        return Token("not", place, place + 1)
    if text[place] == "/":
        value = _pattern(text, place)
        return Token("term", place, value.end, Term("", "", [value], place, value.end))
    named = _FIELD.match(text, place)
    if named and not (named[1].lower() in _JOINS and text[named.end(1)].isspace()):
        return _condition(text, named)
    if text[place] == '"':
        value = _quoted(text, place)
        return Token("term", place, value.end, Term("", "", [value], place, value.end))
    found = _WORD.match(text, place)
    end = found.end() if found else place + 1
    word = text[place:end]
    if word.lower() in _JOINS:
        return Token(word.lower(), place, end)
    if word[0] in "=<>!~:" and len(word) < 3:
        raise QueryError(f"A name must stand before {word}.", place, end)
    return Token("term", place, end, Term("", "", [Value(word, place, end)], place, end))


def _condition(text: str, named: re.Match[str]) -> Token:
    field = named[1].replace('"', "")
    written = named[2] or named[3] or named[4]
    sign = "=" if written == "==" else written
    values = [_value(text, _start_of_value(text, named), sign, named)]
    while text.startswith(",", values[-1].end):
        values.append(_value(text, values[-1].end + 1, sign, named))
    end = values[-1].end
    return Token("term", named.start(), end, Term(field, sign, values, named.start(), end, len(named[1])))


def _start_of_value(text: str, named: re.Match[str]) -> int:
    """Return where the value after a sign begins: behind spaces too, unless the next word or condition is there."""
    place = _skip(text, named.end())
    word, condition = _WORD.match(text, place), _FIELD.match(text, place)
    if word is None:
        return place if text.startswith('"', place) and condition is None else named.end()
    if word[0].lower() in _JOINS or word[0][0] in "=<>!~:":
        return named.end()
    is_next = condition is not None and not condition[1][0].isdigit()  # a time has colons too
    return named.end() if is_next else place


def _value(text: str, place: int, sign: str, named: re.Match[str]) -> Value:
    if text.startswith('"', place):
        return _quoted(text, place)
    if "~" in sign and text.startswith("/", place):
        return _pattern(text, place)
    found = _VALUE.match(text, place)
    if found is None:
        raise QueryError(f"A value is missing after {text[named.start() : place]}", named.start(), place)
    return Value(found[0], place, found.end(), pattern="~" in sign)


def _quoted(text: str, place: int) -> Value:
    found = _QUOTED.match(text, place)
    if found is None:
        raise QueryError("The quotation mark is not closed.", place, len(text))
    return Value(found[1].replace('""', '"'), place, found.end(), quoted=True)


def _pattern(text: str, place: int) -> Value:
    found = _PATTERN.match(text, place)
    if found is None:
        raise QueryError("The pattern is not closed: a second / is missing.", place, len(text))
    return Value(found[1], place, found.end(), pattern=True)

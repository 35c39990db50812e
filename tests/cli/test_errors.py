"""How the command line speaks of what went wrong."""

from __future__ import annotations

import runpy
import warnings
from pathlib import Path

import pytest

from darkit.cli.errors import print_error, show_warnings
from darkit.errors import ConfigError


def said(error: BaseException, capsys: pytest.CaptureFixture[str]) -> list[str]:
    capsys.readouterr()
    print_error(error)
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()


def test_an_error_is_one_line_whatever_it_holds(capsys: pytest.CaptureFixture[str]) -> None:
    text = "a [bold]b[/] \n  c " + "long " * 60 + ":smile:"
    assert said(ConfigError(text), capsys) == ["Error: a [bold]b[/] c " + "long " * 60 + ":smile:"]


def test_notes_come_after_it(capsys: pytest.CaptureFixture[str]) -> None:
    error = ConfigError("no")
    error.add_note("The log could not be completed either.")
    assert said(error, capsys) == ["Error: no", "The log could not be completed either."]


def test_the_place_in_the_users_code_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "mine.py").write_text("import json\n\n\ndef read():\n    json.loads('x')\n\n\nread()\n")

    def run() -> ConfigError:
        try:
            try:
                runpy.run_path(str(tmp_path / "deep" / "mine.py"))
            except ValueError as error:
                raise ConfigError("It cannot be read.") from error
        except ConfigError as error:
            return error
        raise AssertionError

    monkeypatch.chdir(tmp_path)
    assert said(run(), capsys) == ["Error: It cannot be read. (deep/mine.py, line 5)"]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert said(run(), capsys) == ["Error: It cannot be read."]


def test_a_warning_is_a_sentence_without_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        show_warnings()
        warnings.warn("the [cpu] is used", UserWarning, stacklevel=1)
    assert capsys.readouterr().err == "Warning: the [cpu] is used\n"

"""The command and its help."""

from __future__ import annotations

import argparse
import io
import re
import sys

import pytest

import darkit
from darkit.cli.main import _parser, main
from tests.cli.parts import done


def subcommands() -> dict[str, argparse.ArgumentParser]:
    parser = _parser()
    (action,) = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(action.choices)


def test_without_a_word_it_prints_what_one_can_do(capsys: pytest.CaptureFixture[str]) -> None:
    out = done(capsys)
    for name in subcommands():
        assert re.search(rf"^ +{name}( |$)", out, re.MULTILINE), name
    assert "darkit train " in out.partition("examples:")[2]
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == out


@pytest.mark.parametrize(
    "name", [name for name in subcommands() if name not in ("train", "sweep")]
)  # they have their own
def test_the_help_of_each_command_ends_with_examples_of_it(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    examples = capsys.readouterr().out.partition("examples:\n")[2]
    assert re.search(rf"^  .*darkit {name}\b", examples, re.MULTILINE)
    parser = subcommands()[name]
    for line in examples.splitlines():
        command = re.match(rf"  (?:.*\| )?darkit {name}((?: (?:\"[^\"]*\"|[^\s\"]+))*)", line)
        if command:
            parser.parse_args([word.strip('"') for word in re.findall(r'"[^"]*"|\S+', command[1])])


def test_the_help_of_train_shows_examples_choices_and_settings(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", "--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert out.index("examples:\n  darkit train") < out.index("Choices (group=option):") < out.index("Settings:")
    assert "model: csnn, gpt, lstm, mlp, mymodel, nirgraph, snn, spikebert, spikegpt, srnn" in out
    assert "  max_step: 400" in out


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"darkit {darkit.__version__}\n"


@pytest.mark.parametrize("words", [["nope"], ["show"], ["predict", "x"], ["runs", "--nope"], ["train", "--nope"]])
def test_words_that_are_no_command_end_with_exit_code_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "error: " in err


def test_ctrl_c_ends_a_command_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], trained: object
) -> None:
    class Waiting(io.StringIO):
        def read(self, size: int | None = -1) -> str:
            raise KeyboardInterrupt

    monkeypatch.setenv("DARWIN_KIT_HOME", str(trained).removesuffix("base"))
    monkeypatch.setattr(sys, "stdin", Waiting())
    assert main(["predict", "text", "-"]) == 130
    assert capsys.readouterr().err == ""

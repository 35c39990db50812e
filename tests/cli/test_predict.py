"""``darkit predict``: text is streamed, numbers go in and out as JSON, and what does not fit is one sentence."""

from __future__ import annotations

import io
import json
import shlex
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
import torch

from darkit.cli.main import main
from darkit.core import Predicter
from darkit.runs import files, load
from darkit.runs.example import example_input
from tests.cli.parts import NUMBERS, done, refused

ROW = "[[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]]"


def test_text_goes_on_from_the_prompt_and_a_seed_makes_it_the_same_again(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("predict", "text", "The import statement", "--max-new-tokens", "20", "--seed", "3")
    first = done(capsys, *words)
    assert first.startswith("The import statement")
    assert len(first) > len("The import statement\n")
    assert first.endswith("\n")
    assert done(capsys, *words) == first
    assert done(capsys, *words[:-1], "4") != first
    assert done(capsys, *words, "--temperature", "0") == done(capsys, *words[:-1], "9", "--top-k", "1")


def test_a_checkpoint_behind_the_name_is_the_one_that_predicts(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoints = ("", ":iter-4-ckpt", ":2", ":latest")
    rows = [json.loads(done(capsys, "predict", f"numbers{name}", ROW)) for name in checkpoints]
    assert rows[0] == rows[1] == rows[3] != rows[2]


def test_the_text_is_written_piece_by_piece(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Screen(io.StringIO):
        shown: list[str] = []  # noqa: RUF012 - one screen

        def flush(self) -> None:
            self.shown.append(self.getvalue())

    monkeypatch.setattr(sys, "stdout", Screen())
    assert main(["predict", "text", "The", "--max-new-tokens", "12", "--seed", "0"]) == 0
    grown = sorted(set(map(len, Screen.shown)))
    assert grown[0] == len("The")
    assert len(grown) > 4


def test_on_a_terminal_what_would_steer_it_is_written_as_escapes(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def steering(text: str) -> set[str]:
        return {one for one in text if unicodedata.category(one) == "Cc"} - {"\n", "\t"}

    words = ("predict", "text", "The", "--temperature", "50", "--seed", "0")
    raw = done(capsys, *words)
    assert len(steering(raw)) > 5, "a model that knows nothing says every byte"
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdout", screen)
    assert main(words) == 0
    assert steering(screen.getvalue()) == set()
    assert screen.getvalue() == "".join(repr(one)[1:-1] if one in steering(raw) else one for one in raw)


def test_a_dash_reads_standard_input_without_its_last_line_end(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--max-new-tokens", "5", "--seed", "1")
    wanted = done(capsys, "predict", "text", "two\nlines", *options)
    monkeypatch.setattr(sys, "stdin", io.StringIO("two\nlines\n"))
    assert done(capsys, "predict", "text", "-", *options) == wanted
    monkeypatch.setattr(sys, "stdin", io.StringIO(ROW))
    assert json.loads(done(capsys, "predict", "numbers", "-")) == json.loads(done(capsys, "predict", "numbers", ROW))


def test_whole_numbers_are_taken_as_floats_by_a_model_of_floats(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(done(capsys, "predict", "numbers", ROW))
    wanted = Predicter.from_pretrained("numbers", "cpu").predict(torch.arange(1.0, 13.0).reshape(1, 12))
    assert found == wanted.tolist()
    assert json.loads(done(capsys, "predict", "numbers", f'{{"x": {ROW}}}')) == found


def test_whole_numbers_stay_so_for_a_model_of_tokens(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "text" / "tokenizer.json").unlink()
    logits = json.loads(done(capsys, "predict", "text", "[[1, 2, 3]]"))
    assert (len(logits), len(logits[0]), len(logits[0][0])) == (1, 3, 300)
    info = json.loads((runs / "text" / "run.json").read_text())
    del info["data"]["sample"], info["data"]["sample_parts"]  # data of which nothing is known
    (runs / "text" / "run.json").write_text(json.dumps(info))
    assert json.loads(done(capsys, "predict", "text", "[[1, 2, 3]]")) == logits


def test_the_example_that_is_given_for_a_run_works(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("numbers", "text"):
        (given,) = shlex.split(example_input(load(name).path, load(name).info))
        done(capsys, "predict", name, given)


@pytest.mark.parametrize("given", ["hello", "null", '{"x": "y"}', '"text"', "", "[[1e999999999999]", "{}x"])
def test_what_is_no_numbers_is_answered_with_an_example_that_fits(
    given: str, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, "predict", "numbers", given)
    assert said.startswith("The run 'numbers' has no tokenizer: its model takes numbers as JSON, such as \"[[0.5, 0.5,")


def test_numbers_that_do_not_fit_the_model_are_its_own_error_after_their_shape(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, "predict", "numbers", "[[1, 2, 3]]")
    assert said.startswith("The model failed on float32[1, 3]: RuntimeError: mat1 and mat2")
    said = refused(capsys, "predict", "numbers", '{"y": [[1, 2, 3]]}')
    assert said.startswith("The model failed on {y: float32[1, 3]}: TypeError: ")


def test_what_is_not_there_is_said_with_what_there_is(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "predict", "numbrs", ROW)
    assert said.startswith("There is no run 'numbrs'")
    assert said.index("numbers") < said.rindex("text")
    said = refused(capsys, "predict", "numbers:iter-3-ckpt", ROW)
    assert "iter-3-ckpt" in said
    assert "iter-2-ckpt" in said
    assert refused(capsys, "predict", "../numbers", ROW).startswith("The run name '../numbers'")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--device", "tpu"), "device must be one of auto, cpu, cuda, mps, not 'tpu'."),
        (("--max-new-tokens", "0"), "max_new_tokens must be at least 1, not 0."),
        (("--temperature", "-1"), "temperature must be finite and at least 0, not -1.0."),
        (("--top-k", "0"), "top_k must be at least 1, not 0."),
    ],
)
def test_a_setting_out_of_its_range_is_refused_before_anything_is_printed(
    words: tuple[str, ...], said: str, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused(capsys, "predict", "text", "The", *words)


def test_a_prompt_that_is_no_text_is_refused(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "predict", "text", "a\udcff").startswith("INPUT must be text in UTF-8")


def test_a_run_without_a_recorded_config_names_the_way_to_predict_in_python(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    info = load("numbers").info
    files.write_json(runs / "numbers" / files.RUN, {**info, "model": {**info["model"], "config_kind": "none"}})
    assert main(["predict", "numbers", "[[1]]"]) == 2
    error, note = capsys.readouterr().err.splitlines()
    assert "no recorded config of MyModel" in error
    assert note == "In Python: darkit.core.Predicter.from_pretrained(NAME, model=MODEL)."


def test_a_model_whose_code_is_elsewhere_is_found_from_its_folder(
    python: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "elsewhere_model.py").write_text("import torch\nclass Wide(torch.nn.Linear):\n    pass\n")
    (folder / "configs" / "model").mkdir(parents=True)
    config = "_target_: elsewhere_model.Wide\nin_features: 12\nout_features: 12\n"
    (folder / "configs" / "model" / "wide.yaml").write_text(config)
    monkeypatch.chdir(folder)
    done(capsys, *NUMBERS, "model=wide", "data=regression", "name=wide")
    wanted = done(capsys, "predict", "wide", ROW)
    code = f"import sys; from darkit.cli.main import main; sys.exit(main(['predict', 'wide', {ROW!r}]))"
    for where, expected in ((folder, 0), (tmp_path, 2)):
        result = subprocess.run([python, "-c", code], cwd=where, capture_output=True, text=True, check=False)
        assert result.returncode == expected, result.stderr
        if expected == 0:
            assert result.stdout == wanted
        else:
            error, hint = result.stderr.splitlines()
            assert error.startswith("Error: The class 'elsewhere_model.Wide' of run 'wide' cannot be found")
            assert "in the folder of the code" in hint

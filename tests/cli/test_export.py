"""``darkit export``: weights alone, for torch and for others."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from darkit.cli.export import FORMATS
from darkit.cli.main import main
from tests.cli.parts import done, names, refused


@pytest.fixture
def here(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def weights(runs: Path, step: int) -> dict[str, torch.Tensor]:
    path = runs / "numbers" / f"iter-{step}-ckpt.pth"
    state: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return state


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_the_latest_weights_go_into_a_file_of_the_runs_name(
    runs: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = done(capsys, "export", "numbers")
    expected = weights(runs, 4)
    assert out == f"Wrote {len(expected)} tensors of numbers:iter-4-ckpt to numbers.safetensors.\n"
    assert equal(load_file(here / "numbers.safetensors"), expected)
    with safe_open(here / "numbers.safetensors", "pt") as file:
        facts = file.metadata()
    assert facts["step"] == "4"
    assert facts["format"] == "pt"
    assert facts["model_class"]
    assert names(here) == {"numbers.safetensors"}


@pytest.mark.parametrize("reference", ["numbers:iter-2-ckpt", "numbers:2"])
def test_a_checkpoint_can_be_named_and_torch_reads_its_format(
    runs: Path, here: Path, capsys: pytest.CaptureFixture[str], reference: str
) -> None:
    done(capsys, "export", reference, "--format", "torch")
    assert equal(torch.load(here / "numbers.pth", weights_only=True), weights(runs, 2))


def test_tied_weights_are_written_out_each(runs: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = runs / "numbers" / "iter-4-ckpt.pth"
    shared = torch.arange(3.0)
    torch.save({"state_dict": {"a": shared, "b": shared, "c": shared[1:]}}, path)
    path.with_suffix(".json").unlink()
    done(capsys, "export", "numbers:4")
    read = load_file(here / "numbers.safetensors")
    assert {key: value.tolist() for key, value in read.items()} == {"a": [0, 1, 2], "b": [0, 1, 2], "c": [1, 2]}


def test_a_file_that_is_there_is_kept_unless_forced(runs: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "own.st").write_text("mine")
    said = refused(capsys, "export", "numbers", "--output", "own.st")
    assert said == "own.st already exists. Choose another --output, or --force."
    assert (here / "own.st").read_text() == "mine"
    done(capsys, "export", "numbers", "--output", "own.st", "--force")
    assert equal(load_file(here / "own.st"), weights(runs, 4))


def test_what_cannot_be_exported_is_refused_and_leaves_nothing(
    runs: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "has no checkpoint 'iter-9-ckpt'" in refused(capsys, "export", "numbers:iter-9-ckpt")
    assert "There is no run 'nope'" in refused(capsys, "export", "nope")
    assert (
        refused(capsys, "export", "numbers", "--output", "no/x.st") == "The folder no does not exist. Create it first."
    )
    path = runs / "numbers" / "iter-4-ckpt.pth"
    torch.save({"state_dict": {"a": torch.ones(1), "m._extra_state": {"n": 1}}}, path)
    path.with_suffix(".json").unlink()
    said = refused(capsys, "export", "numbers:4")
    assert said == "safetensors stores tensors only, and 'm._extra_state' is not a tensor. Use --format torch."
    path.write_bytes(b"x")
    assert "is damaged" in refused(capsys, "export", "numbers:4")
    assert names(here) == set()


def test_a_folder_follows_the_rules_of_files(runs: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "export", "numbers", "--format", "hf")
    assert said.startswith("The model of run 'numbers' is a ")
    assert said.endswith("Use --format safetensors, onnx or torch-export.")
    assert names(here) == set()
    (here / "numbers").mkdir()
    (here / "numbers" / "mine").touch()
    assert "already exists" in refused(capsys, "export", "numbers", "--format", "hf")
    assert "did not export" in refused(capsys, "export", "numbers", "--format", "hf", "--force")
    assert names(here / "numbers") == {"mine"}


def test_every_format_is_in_the_help_and_has_its_function(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["export", "--help"])
    shown = capsys.readouterr().out
    for name, one in FORMATS.items():
        assert f"  {name:<14}{one.help}\n" in shown
        assert callable(getattr(import_module(one.module), one.function))

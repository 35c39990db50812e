"""What commands import: names, not times; each of these takes tenths of a second or seconds."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from darkit.cli import loading

TRAIN = ["model=mymodel", "trainer.max_step=1", "name=small", "trainer.device=cpu"]
ROW = json.dumps([[0.5] * 12])
READING = {"torch", "lightning", "hydra", "dash", "transformers", "tensorboard", "scipy", "sympy", "torchmetrics"}
PREDICTING = {  # beyond torch itself
    *("lightning", "torchmetrics", "transformers", "tensorboard", "scipy", "sympy", "dash", "optuna"),
    *("torch._dynamo", "torch.distributed.tensor", "torch.distributed.checkpoint", "torch.distributed.fsdp"),
}
DATA = {"lightning", "torchmetrics", "transformers", "scipy", "sympy", "torch._dynamo", "pandas", "hydra", "datasets"}
TRAINING = {  # scipy, matplotlib, sympy, transformers and torch._dynamo come with Lightning
    "pandas",
    "tensorboard",
    "dash",
    "optuna",
    "datasets",
    "mlflow",
    "wandb",
    "fsspec.implementations.sftp",
    "darkit.dashboard",
}
BEYOND = {  # other packages that a training imports besides those that torch and Lightning import
    *("antlr4", "attr", "hydra", "hydra_plugins", "omegaconf", "platformdirs", "polars", "psutil"),
}
OWN_MODULES = 240  # at most; each takes a fifth of a millisecond, and brings others
UNUSED = {  # our own, for what this training does not do
    *("darkit.engine.checkpoints.sharded", "darkit.engine.checkpoints.sharded_reader", "torch.distributed.checkpoint"),
    *("darkit.core", "darkit.sweep.scheduler", "darkit.prediction", "darkit.integrations", "darkit.data.text"),
}


def child(script: str, home: Path) -> dict[str, list[str]]:
    """Run a script that prints JSON last, as its own process."""
    environment = {**os.environ, "DARWIN_KIT_HOME": str(home)}
    command = [sys.executable, "-c", dedent(script)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=home, check=False)
    assert result.returncode == 0, result.stderr
    found: dict[str, list[str]] = json.loads(result.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def trained(home: Path) -> set[str]:
    """The modules of a process that trained one step by a command."""
    script = f"""
        import json, sys
        from darkit.cli.main import main
        sys.argv[1:] = ["train", *{TRAIN!r}]
        assert main() == 0
        print(json.dumps(sorted(sys.modules)))
    """
    return set(child(script, home))


@pytest.fixture(scope="module")
def imported(home: Path, trained: set[str]) -> dict[str, set[str]]:
    """The modules after each of these commands, one after the other in one process."""
    commands = [
        *(["runs"], ["show", "small"], ["runs", "--json"], ["stop", "small"], ["start", "--help"]),
        *(["data", "prepare", "texts.txt", "--documents", "line"], ["data", "show"]),
        *(["predict", "small", ROW], ["export", "small", "--format", "torch", "--out", "small.pt"], ["eval", "small"]),
    ]
    (home / "texts.txt").write_text("\n\n".join(f"A text of number {number} and some words." for number in range(500)))
    script = f"""
        import json, sys
        from darkit.cli.main import main
        found = {{}}
        for words in {commands!r}:
            try:
                assert main(words) == 0 or words[0] == "stop", words  # which finds nothing that runs
            except SystemExit:
                pass  # from --help
            found[" ".join(words[:2]) if words[0] == "data" else words[0]] = sorted(sys.modules)
        print(json.dumps(found))
    """
    return {name: set(modules) for name, modules in child(script, home).items()}


@pytest.mark.few(1)
@pytest.mark.parametrize("command", ["runs", "show", "stop", "start"])
def test_commands_that_read_runs_import_neither_torch_nor_lightning(
    imported: dict[str, set[str]], command: str
) -> None:
    assert imported[command] & READING == set()


@pytest.mark.parametrize("command", ["data prepare", "data show"])
def test_preparing_text_imports_neither_lightning_nor_what_it_brings(
    imported: dict[str, set[str]], command: str
) -> None:
    assert imported[command] & DATA == set()


def test_an_evaluation_imports_what_a_training_imports_at_most(imported: dict[str, set[str]]) -> None:
    assert imported["eval"] & TRAINING == set()


@pytest.mark.parametrize("command", ["predict", "export"])
def test_a_prediction_and_an_export_import_little_beyond_torch(imported: dict[str, set[str]], command: str) -> None:
    assert "torch" in imported[command]
    assert imported[command] & PREDICTING == set()


def test_a_training_imports_only_what_it_uses(trained: set[str]) -> None:
    assert "lightning" in trained
    assert trained & (TRAINING | UNUSED) == set()


def test_a_training_imports_few_packages_beyond_lightnings_and_few_modules_of_our_own(
    trained: set[str], home: Path
) -> None:
    lightnings = child("import json, sys, torch, lightning; print(json.dumps(sorted(sys.modules)))", home)
    names = {name.partition(".")[0] for name in trained}
    others = names - {name.partition(".")[0] for name in lightnings} - sys.stdlib_module_names - {"darkit"}
    assert {name for name in others if not name.startswith("_")} <= BEYOND
    assert len([name for name in trained if name.startswith("darkit.")]) <= OWN_MODULES


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(loading._state, "own", True)
    yield
    gc.unfreeze()


def test_what_a_command_imports_is_left_out_of_later_collections(own: None) -> None:
    gc.unfreeze()
    with loading.loading():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() > 1000


def test_the_collector_runs_again_after_an_import_that_fails(own: None) -> None:
    with pytest.raises(ImportError), loading.loading():
        import darkit.nothing  # noqa: F401
    assert gc.isenabled()


@pytest.mark.parametrize("own_process", [True, False])
def test_a_collector_that_someone_else_rules_is_left_alone(monkeypatch: pytest.MonkeyPatch, own_process: bool) -> None:
    monkeypatch.setitem(loading._state, "own", own_process)
    before = gc.get_freeze_count()
    if own_process:
        gc.disable()
    try:
        with loading.loading():
            assert gc.isenabled() is not own_process
        assert gc.isenabled() is not own_process
        assert gc.get_freeze_count() == before
    finally:
        gc.enable()

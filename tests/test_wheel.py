"""What is built: the wheel has everything once and runs from an empty folder; the source distribution builds it."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    return build(ROOT, "--wheel", tmp_path_factory.mktemp("wheel"))


def build(source: Path, kind: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "build", kind, "--no-isolation", "--outdir", str(folder), str(source)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    (built,) = folder.iterdir()
    return built


def contents(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def below(folder: str) -> set[str]:
    """Return the files that git knows below a folder of the checkout."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", folder]
    return set(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines())


def test_the_wheel_holds_every_file_once(wheel: Path) -> None:
    found = contents(wheel)
    assert [name for name, count in Counter(found).items() if count > 1] == []
    wanted = {name for name in below("darkit") if (ROOT / name).is_file()}
    wanted |= {f"darkit/{name}" for name in below("configs") | below("examples")}
    assert wanted >= {
        "darkit/py.typed",
        "darkit/configs/train.yaml",
        "darkit/configs/model/mymodel.yaml",
        "darkit/examples/mymodel.py",
        "darkit/cli/template/README.md",
        "darkit/cli/template/pytest.ini",
        "darkit/cli/template/configs/model/mine.yaml",
        "darkit/cli/template/tests/test_model.py",
    }
    assert {name for name in found if ".dist-info/" not in name} == wanted


def test_the_wheel_holds_real_files_and_the_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for item in archive.infolist():
            assert (item.external_attr >> 16) & 0o170000 in (0, 0o100000), f"{item.filename} is no plain file"
        found = archive.namelist()
        example = archive.read("darkit/examples/mymodel.py")
        metadata = archive.read(next(name for name in found if name.endswith("/METADATA"))).decode()
        entry_points = archive.read(next(name for name in found if name.endswith("/entry_points.txt"))).decode()
    assert example == (ROOT / "examples" / "mymodel.py").read_bytes()
    assert any(name.endswith("/licenses/LICENSE") for name in found)
    assert "License-Expression: Apache-2.0" in metadata
    assert "Requires-Python: >=3.11" in metadata
    assert "darkit = darkit.cli.main:main" in entry_points
    assert "DarwinKit = darkit.cli.main:main" in entry_points


def test_the_source_distribution_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    archive = build(ROOT, "--sdist", tmp_path / "sdist")
    with tarfile.open(archive) as file:
        file.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    for name in ("README.md", "LICENSE", "Makefile", "constraints.txt", "configs/train.yaml", "tests/test_wheel.py"):
        assert (source / name).is_file(), name
    again = build(source, "--wheel", tmp_path / "wheel")
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(again) as other:
        assert sorted(one.namelist()) == sorted(other.namelist())
        same = [name for name in one.namelist() if not name.endswith("/RECORD")]
        assert all(one.read(name) == other.read(name) for name in same)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` of a fresh environment: darkit from the wheel, what it needs from the one that runs the tests."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    binaries = folder / "bin"
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    here = sysconfig.get_path("purelib")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", f"--python={binaries / 'python'}"]
    subprocess.run([*command, "install", "--no-deps", str(wheel)], check=True)
    (site / "dependencies.pth").write_text(here + "\n")  # a plain folder: its own .pth files are not read
    return binaries


def run(command: list[str], folder: Path, home: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    result = subprocess.run(
        command,
        cwd=folder,
        env=environment | {"DARWIN_KIT_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_installed_from_the_wheel_it_trains_and_predicts_from_an_empty_folder(
    installed: Path, tmp_path: Path, home: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    where = run([str(installed / "python"), "-c", "import darkit; print(darkit.__file__)"], empty, home)
    assert Path(where.strip()).is_relative_to(installed.parent), "and not from the checkout"
    out = run([str(installed / "python"), "-m", "darkit.cli.train", "trainer.max_step=20", "name=text"], empty, home)
    assert out.startswith("text: finished at step 20 of 20\n")
    assert "unigram model" in out
    out = run([str(installed / "darkit"), "train", "model=mymodel", "trainer.max_step=20", "name=own"], empty, home)
    assert f"{installed / 'darkit'} predict own" in out
    row = f"[{list(range(12))}]"
    assert run([str(installed / "DarwinKit"), "predict", "own", row], empty, home).startswith("[[")
    run([str(installed / "darkit"), "new", "project"], empty, home)
    assert (empty / "project" / "tests" / "test_model.py").is_file()
    assert [path.name for path in empty.iterdir()] == ["project"]

from __future__ import annotations

import subprocess
from pathlib import Path

from darkit.runs.usage import KINDS, measure, run_folders, size_of


def test_every_byte_is_counted_once_by_kind_and_no_link_is_followed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for name, size in {
        "iter-4-ckpt.pth": 1000,
        "iter-4-ckpt.json": 10,
        "iter-8-ckpt/rank0.distcp": 500,
        "train_log.csv": 20,
        "system_log.csv": 3,
        "console.log": 7,
        "tensorboard/events": 40,
        "media/images/one.png": 50,
        "run.json": 60,
        "tokenizer/vocab.txt": 5,
    }.items():
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_bytes(b"x" * size)
    (run / "link").symlink_to(run / "iter-4-ckpt.pth")
    (run / "loop").symlink_to(run)
    usage = measure(run)
    assert usage.kinds == {"checkpoints": 1510, "log": 30, "tensorboard": 40, "media": 50, "rest": 65}
    assert tuple(usage.kinds) == KINDS
    assert usage.total == size_of(run) == 1695


def test_folders_deeper_than_the_stack_are_measured(tmp_path: Path) -> None:
    folder = run = tmp_path / "run"
    folder.mkdir()
    for _ in range(1100):
        folder = folder / "d"
        folder.mkdir()
    (folder / "f").write_bytes(b"xyz")
    assert measure(run).total == 3
    subprocess.run(["rm", "-rf", run], check=True)  # pytest's own cleaning is recursive


def test_what_is_no_run_but_takes_space_is_listed_and_hidden_folders_and_links_are_not(tmp_path: Path) -> None:
    for name in ("a", "half-made", ".trash"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert sorted(path.name for path in run_folders(tmp_path)) == ["a", "half-made"]
    assert run_folders(tmp_path / "missing") == []

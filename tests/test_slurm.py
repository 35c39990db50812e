"""The script for SLURM: a shell takes it, its command composes, and the page shows it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.children import LIMIT, Zygote

SCRIPT = Path(__file__).parents[1] / "examples" / "slurm.sbatch"


def test_the_page_shows_the_script() -> None:
    page = SCRIPT.parents[1] / "docs" / "processes.md"
    assert f"```sh\n{SCRIPT.read_text(encoding='utf-8')}```" in page.read_text(encoding="utf-8")


def test_the_script_is_valid_and_its_command_composes(zygote: Zygote, tmp_path: Path) -> None:
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)
    srun = tmp_path / "srun"
    srun.write_text('#!/bin/sh\nshift\nexec "$@" --cfg job\n')
    srun.chmod(0o755)
    variables = {"PATH": f"{tmp_path}:{zygote.commands}:{os.environ['PATH']}", "SLURM_SUBMIT_DIR": str(tmp_path)}
    variables["SLURM_JOB_ID"] = "4711"  # without a name the run is called after it
    done = subprocess.run(
        ["bash", "-eu", str(SCRIPT), "trainer.seed=3"],
        cwd=tmp_path,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert {"resume: auto", "max_step: 100000", "precision: bf16-mixed", "seed: 3"} <= set(lines)

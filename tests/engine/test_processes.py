"""Which process of a training this is: decided by its settings and the real process group."""

from __future__ import annotations

import os
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from lightning.fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning.pytorch.utilities import rank_zero_only

from darkit.engine.config import TrainerConfig
from darkit.engine.processes import find_place, own_rank
from darkit.engine.session import Session
from darkit.errors import ConfigError, RunExistsError
from darkit.runs import Run, base
from tests.engine.parts import made, run_names, train, xy

LEFTOVERS: dict[str, dict[str, str]] = {
    "rank": {"RANK": "1"},
    "local": {"LOCAL_RANK": "1"},
    "slurm": {
        "SLURM_PROCID": "3",
        "SLURM_NTASKS": "4",
        "SLURM_LOCALID": "3",
        "SLURM_NODEID": "0",
        "SLURM_JOB_ID": "77",
    },
    "per node": {"SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_JOB_NAME": "train"},
    "lsf": {"JSM_NAMESPACE_RANK": "1", "JSM_NAMESPACE_SIZE": "2", "JSM_NAMESPACE_LOCAL_RANK": "1", "LSB_JOBID": "1"},
    "by hand": {"LOCAL_RANK": "1", "RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "1"},
    "nonsense": {"LOCAL_RANK": "first", "RANK": "-1", "WORLD_SIZE": "", "NODE_RANK": "2", "GROUP_RANK": "1"},
    "torchrun's id alone": {"TORCHELASTIC_RUN_ID": "none"},
    "a training's": {"DARKIT_LAUNCHER": "1", "LOCAL_RANK": "1", "DARKIT_RUN_NAME": "other"},
}


@pytest.fixture(autouse=True)
def stale_rank() -> Iterator[None]:
    """As if Lightning had been imported under ``RANK=1``."""
    rank_zero_only.rank = 1  # type: ignore[attr-defined]
    yield
    rank_zero_only.rank = 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("left", LEFTOVERS.values(), ids=LEFTOVERS)
def test_with_one_device_this_is_the_only_process_whatever_variables_say(
    left: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in left.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    run = train(made(), xy(), name="a", max_step=2)
    assert {key: os.environ.get(key) for key in before} == before
    assert (run.status, [checkpoint.step for checkpoint in run.checkpoints()]) == ("finished", [2])
    with pytest.raises(RunExistsError):
        train(made(), xy(), name="a", max_step=2)
    assert train(made(), xy(), resume="a", max_step=3).log()["step"].to_list() == [1, 2, 3]
    assert rank_zero_only.rank == 1  # type: ignore[attr-defined]


def test_a_strategy_for_several_devices_on_one_is_not_misled_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("MASTER_ADDR", "203.0.113.1")  # nobody answers there
    place = find_place(TrainerConfig(strategy="ddp"))
    assert (place.rank, place.size, place.environment.local_rank()) == (0, 1, 0)
    assert place.environment.main_address == "127.0.0.1"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, (0, 2, "here")),
        ({"RANK": "1"}, (0, 2, "here")),
        ({"LOCAL_RANK": "0"}, (0, 2, "here")),
        ({"LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1"}, (0, 2, "here")),
        ({"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, (0, 2, "here")),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_JOB_NAME": "bash"}, (0, 2, "here")),
        ({"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_PROCID": "1"}, (1, 2, "outside")),
        ({"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}, (1, 2, "outside")),
        ({"LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}, (1, 2, "outside")),
        ({"LOCAL_RANK": "1", "DARKIT_LAUNCHER": str(os.getppid())}, (1, 2, "here")),
        ({"LOCAL_RANK": "1", "DARKIT_LAUNCHER": "1234567"}, (0, 2, "here")),
    ],
)
def test_with_several_devices_launchers_count_where_they_really_started_as_many(
    variables: dict[str, str], expected: tuple[int, int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    place = find_place(TrainerConfig(name="a", device_num=2))
    assert (place.rank, place.size, place.started) == expected
    kinds = {"TORCHELASTIC_RUN_ID": TorchElasticEnvironment, "SLURM_NTASKS_PER_NODE": SLURMEnvironment}
    assert all(isinstance(place.environment, kind) for name, kind in kinds.items() if name in variables)


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "3"}, "torchrun started 3 processes, but device_num is 2"),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, "SLURM started 4 processes, but device_num is 2"),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "0"}, "the variables of SLURM do not give the rank of this process"),
    ],
)
def test_another_number_of_processes_than_devices_is_refused(
    variables: dict[str, str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=sentence):
        train(made(), xy(), name="a", device_num=2)
    assert run_names() == []


def test_processes_that_something_else_started_need_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="need a name= for their run"):
        train(made(), xy(), device_num=2)


@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork"])
def test_copies_of_this_process_are_refused_and_leave_nothing(strategy: str) -> None:
    with pytest.raises(ConfigError, match="use strategy='ddp' in a script"):
        train(made(), xy(), name="a", device_num=2, strategy=strategy)
    assert run_names() == []


def test_a_process_that_is_not_the_first_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    run = train(made(), xy(), name="a", max_step=2)
    before = {path.name: path.read_bytes() for path in run.path.iterdir() if path.is_file()}
    monkeypatch.setenv("DARKIT_LAUNCHER", str(os.getppid()))
    monkeypatch.setenv("LOCAL_RANK", "1")
    config = TrainerConfig(name="a")
    assert own_rank(config) == 1
    with Session.create(base(), config, "MLP", own_rank(config)) as session:
        assert not session.writes
        session.begin(10)
        session.step = 10
    assert {path.name: path.read_bytes() for path in Run(run.path).path.iterdir() if path.is_file()} == before


def test_one_device_under_a_strategy_for_several_trains_and_then_several_are_refused(python: str, home: Path) -> None:
    program = """
        import darkit
        from tests.engine.parts import made, train, xy
        print(train(made(), xy(), name="a", max_step=2, strategy="ddp").status)
        try:
            train(made(), xy(), name="b", max_step=2, device_num=2, strategy="ddp")
        except darkit.errors.ConfigError as error:
            print(error)
        print([run.name for run in darkit.runs()])
    """
    left = {"LOCAL_RANK": "1", "RANK": "1", "MASTER_ADDR": "203.0.113.1", "MASTER_PORT": "9", "WORLD_SIZE": "4"}
    done = subprocess.run(
        [python, "-c", textwrap.dedent(program)],
        env=os.environ | left | {"DARWIN_KIT_HOME": str(home)},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    said = done.stdout.splitlines()
    assert said[0] == "finished", done.stderr
    assert said[1].startswith("This process belongs to a process group of 1 already")
    assert said[2] == "['a']"

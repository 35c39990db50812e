"""Which process of a training this is: decided by its settings and the real process group."""

from __future__ import annotations

import os
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from lightning.pytorch.demos.boring_classes import BoringModel
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


WORLD = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "GROUP_RANK": "0"}
TORCHRUN = WORLD | {"TORCHELASTIC_RUN_ID": "x", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29"}


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
    assert place.environment.creates_processes_externally == (place.started == "outside" or place.rank > 0)


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "3"}, "torchrun started 3 processes, but device_num is 2"),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, "SLURM started 4 processes, but device_num is 2"),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "2"}, "but the variables give this one the rank 2"),
        (
            TORCHRUN | {"WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"},
            "torchrun started 8 processes on 2 nodes, but device_num is 2 and num_nodes",
        ),
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


STEP = {"SLURM_STEP_ID": "0", "SLURM_JOB_ID": "4711", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}
LAUNCHED: dict[str, tuple[dict[str, str], tuple[int, ...], str]] = {
    "torchrun": (TORCHRUN, (1, 2, 1, 0), "10.0.0.1:29"),
    "torchrun on two nodes": (
        TORCHRUN | {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "1"},
        (3, 2, 2, 1),
        "10.0.0.1:29",
    ),
    "srun": (STEP, (1, 2, 1, 0), "127.0.0.1:19711"),
    "srun in a job of more tasks": (STEP | {"SLURM_NTASKS": "8"}, (1, 2, 1, 0), "127.0.0.1:19711"),
    "srun on two nodes": (
        STEP
        | {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "2", "SLURM_LOCALID": "0", "SLURM_NODEID": "1"}
        | {"SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NODELIST": "node[07-08]"},
        (2, 2, 2, 1),
        "node07:19711",
    ),
    "srun in a shell of salloc": (STEP | {"SLURM_JOB_NAME": "interactive"}, (1, 2, 1, 0), "127.0.0.1:19711"),
    "the second step": (STEP | {"SLURM_STEP_ID": "1"}, (1, 2, 1, 0), "127.0.0.1:19812"),
    "submitit": (
        {"SUBMITIT_EXECUTOR": "local", "SUBMITIT_LOCAL_NTASKS": "2", "SUBMITIT_LOCAL_GLOBALID": "1"}
        | {"SUBMITIT_LOCAL_JOB_ID": "123456", "SUBMITIT_LOCAL_LOCALID": "1"},
        (1, 2, 1, 0),
        "127.0.0.1:18456",
    ),
}


@pytest.mark.parametrize(("variables", "expected", "meet"), LAUNCHED.values(), ids=LAUNCHED)
def test_what_a_launcher_started_is_taken_when_the_numbers_are_left_out(
    variables: dict[str, str], expected: tuple[int, ...], meet: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    config = TrainerConfig()
    place = find_place(config)
    found = place.environment
    assert (place.rank, config.device_num, config.num_nodes, found.node_rank()) == expected
    assert (place.started, f"{found.main_address}:{found.main_port}") == ("outside", meet)
    given = TrainerConfig(device_num=config.device_num, num_nodes=config.num_nodes)
    assert find_place(given).rank == place.rank
    with pytest.raises(ConfigError, match=r"started \d processes.*, but device_num is 3"):
        find_place(TrainerConfig(device_num=3))


@pytest.mark.parametrize(
    "variables",
    [
        {"SLURM_STEP_ID": "4294967291", "SLURM_PROCID": "0", "SLURM_NTASKS": "4"},  # the batch script itself
        {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"},  # a shell of salloc
        STEP | {"SLURM_JOB_NAME": "bash", "SLURM_PTY_PORT": "40123"},  # a shell of srun --pty
        {"SLURM_STEP_ID": "4294967290", "SLURM_STEP_NUM_TASKS": "4", "SLURM_JOB_NAME": "interactive"},  # of salloc
        STEP | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},
    ],
)
def test_slurm_variables_without_several_tasks_of_srun_leave_one_process(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert find_place(TrainerConfig()).size == 1


def test_unequal_nodes_and_nodes_without_a_launcher_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="no launcher has started a process on each node"):
        find_place(TrainerConfig(num_nodes=2))
    for name, value in (STEP | {"SLURM_STEP_NUM_TASKS": "3", "SLURM_STEP_NUM_NODES": "2"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="every node needs the same number"):
        find_place(TrainerConfig())


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork", "ddp_notebook", "ddp_fork_find_unused_parameters_true"])
def test_copies_of_this_process_are_refused_and_leave_nothing(strategy: str, devices: int) -> None:
    for module in (made(), BoringModel()):
        with pytest.raises(ConfigError, match="use strategy='ddp' in a script"):
            train(module, xy(), name="a", device_num=devices, strategy=strategy)
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

"""The rank of this process in a training, from its settings and the real process group instead of stray variables.

A shell, a cluster or a finished training leaves variables such as ``RANK``, ``LOCAL_RANK`` or ``SLURM_PROCID`` behind.
A process that relied on them would write into a run directory whose lock it does not hold, or write nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning import Trainer
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.lsf import LSFEnvironment
from lightning.fabric.plugins.environments.mpi import MPIEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from darkit.engine.config import TrainerConfig
from darkit.engine.lightning import copies_process, free_port, lightnings_rank, set_lightnings_rank
from darkit.errors import ConfigError

_LAUNCHER = "DARKIT_LAUNCHER"  # the process that starts the others: its children belong to its training
_SET_BY_LIGHTNING = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE", _LAUNCHER)
_lost_partners = False


class _Fixed(LightningEnvironment):
    """One node on which every process has a known rank, whatever the variables are.

    Args:
        rank: The rank of this process.
        external: Whether the other processes exist already; otherwise Lightning starts them.
    """

    def __init__(self, rank: int, *, external: bool) -> None:
        super().__init__()
        self._rank = rank
        self._external = external

    @property
    def creates_processes_externally(self) -> bool:
        return self._external

    @property
    def main_address(self) -> str:
        return super().main_address if self._external else "127.0.0.1"

    @property
    def main_port(self) -> int:
        if not self._external and self._main_port == -1:
            self._main_port = free_port()
        return super().main_port

    def local_rank(self) -> int:
        return self._rank

    def node_rank(self) -> int:
        return 0

    def teardown(self) -> None:
        """Leave the variables alone; `Place.applied` restores them."""


@dataclass(frozen=True)
class Place:
    """The place of this process in a training.

    Attributes:
        rank: The rank of this process; only rank 0 writes.
        size: The number of processes.
        environment: How Lightning finds the others.
        started: ``here`` when Lightning starts the others from the first process, ``outside`` when something else
            did, such as torchrun.
    """

    rank: int = 0
    size: int = 1
    environment: ClusterEnvironment = field(default_factory=lambda: _Fixed(0, external=False))
    started: str = "here"

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Set the variables that Lightning reads for a block, and restore them after it."""
        before = {name: os.environ.get(name) for name in _SET_BY_LIGHTNING}
        rank = lightnings_rank()
        set_lightnings_rank(self.rank)
        if self.size > 1 and self.started == "here":
            os.environ["LOCAL_RANK"], os.environ["NODE_RANK"] = str(self.rank), "0"
            if not self.rank:
                os.environ[_LAUNCHER] = str(os.getpid())
        try:
            yield
        finally:
            set_lightnings_rank(rank)
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value

    def check(self, trainer: Trainer) -> None:
        """Raise `ConfigError` if a trainer would run in other processes."""
        if copies_process(trainer):
            raise ConfigError(
                "Training on several devices with copies of this process is not supported (strategies *_spawn, *_fork "
                "and *_notebook, and 'auto' in a notebook): use strategy='ddp' in a script."
            )
        if (trainer.global_rank, trainer.world_size) != (self.rank if self.size > 1 else 0, self.size):
            raise ConfigError(
                f"Lightning would train in process {trainer.global_rank} of {trainer.world_size}, but this is process "
                f"{self.rank} of {self.size}."
            )


def find_place(config: TrainerConfig) -> Place:
    """Return the place of this process in a training, before anything is written.

    With ``device_num=1`` it is the only process, whatever the variables are. With several devices it belongs to the
    live process group, or was started by the training's first process or by a launcher (torchrun, srun, jsrun, MPI, or
    a person with ``LOCAL_RANK``, ``WORLD_SIZE``, ``MASTER_ADDR`` and ``MASTER_PORT``), or else it is the first, which
    starts the others.

    Raises:
        ConfigError: The number of processes that a launcher started is not ``device_num``.
        SystemExit: The process was started for another device of an earlier training in the same script, and this
            training has one device, on which the script's first process trains.
    """
    wanted = config.device_num
    size = _number("WORLD_SIZE")
    elastic = TorchElasticEnvironment.detect() and size > 0
    if elastic and size != wanted:
        raise ConfigError(
            f"torchrun started {size} processes, but device_num is {wanted}: set device_num={size}, or start one "
            "process without torchrun."
        )
    rank, size = process_group()
    if wanted == 1:
        if size > 1 and not elastic:
            _leave_partners(rank)
        return Place(own_rank(config))
    if _has_group():
        if size != wanted or _lost_partners:
            what = "its other processes have ended" if _lost_partners else f"device_num is {wanted}"
            raise ConfigError(
                f"This process belongs to a process group of {size} already, from an earlier training or its own code, "
                f"and {what}: put this training into a separate script."
            )
        return Place(rank, size, _Fixed(rank, external=True), "outside" if elastic else "here")
    return _find_among_several(config, wanted, elastic)


def _find_among_several(config: TrainerConfig, wanted: int, elastic: bool) -> Place:
    if elastic:
        return _outside(config, wanted, TorchElasticEnvironment())
    if started_by_launcher():
        rank = _number("LOCAL_RANK")
        return Place(rank, wanted, _Fixed(rank, external=True))
    for kind in (SLURMEnvironment, LSFEnvironment, MPIEnvironment):
        if kind.detect() and (found := _from_cluster(config, wanted, kind)):
            return found
    by_hand = all(name in os.environ for name in ("LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"))
    if by_hand and _number("WORLD_SIZE") == wanted:
        return _outside(config, wanted, _Fixed(_number("LOCAL_RANK"), external=True), _number("LOCAL_RANK"))
    return Place(0, wanted)


def _from_cluster(config: TrainerConfig, wanted: int, kind: type[ClusterEnvironment]) -> Place | None:
    """Return the place that a cluster's launcher assigned; None if it started one process, which starts the others."""
    started = _number("SLURM_NTASKS") if kind is SLURMEnvironment else wanted
    if started == 1:
        return None
    name = kind.__name__.removesuffix("Environment")
    if started == wanted:
        try:
            environment: Any = kind()
            started = environment.world_size()
            if started == wanted:
                return _outside(config, wanted, environment)
        except (RuntimeError, ValueError, KeyError) as error:
            raise ConfigError(
                f"device_num is {wanted}, but the variables of {name} do not give the rank of this process: {error}"
            ) from error
    raise ConfigError(
        f"{name} started {started} processes, but device_num is {wanted}: start one for each device, or unset its "
        "variables (SLURM_NTASKS and others)."
    )


def _outside(config: TrainerConfig, size: int, environment: ClusterEnvironment, rank: int | None = None) -> Place:
    rank = environment.global_rank() if rank is None else rank
    if config.name is None:
        raise ConfigError("Processes started by a launcher need a name= for their run, the same in each.")
    if not 0 <= rank < size:
        raise ConfigError(f"The rank must be 0 to {size - 1} for device_num={size}, not {rank}.")
    return Place(rank, size, environment, "outside")


def _leave_partners(rank: int) -> None:
    """End a process that was started for another device; in the first one, record that the others have ended."""
    global _lost_partners
    if rank and started_by_launcher():
        sys.exit(0)
    if rank:
        raise ConfigError(
            f"This is process {rank} of a live process group, but device_num is 1: train in process 0 only, or on as "
            "many devices as there are processes."
        )
    _lost_partners = True


def own_rank(config: TrainerConfig) -> int:
    """Return the rank of this process in a training or a hand-written loop; only rank 0 writes.

    Raises:
        ConfigError: As `find_place`, with several devices.
    """
    if config.device_num > 1:
        return find_place(config).rank
    return process_group()[0] or (_number("LOCAL_RANK") if started_by_launcher() else 0)


def loop_place() -> tuple[int, int]:
    """Return the rank of this process in a loop that is not darkit's, and the number of its processes.

    It is that of the live process group or, before the group is made, what torchrun (or a launcher that sets all
    variables of ``init_process_group``) says.
    """
    rank, size = process_group()
    if size > 1:
        return rank, size
    by_hand = all(name in os.environ for name in ("MASTER_ADDR", "MASTER_PORT"))
    rank, size = _number("RANK"), _number("WORLD_SIZE")
    if (TorchElasticEnvironment.detect() or by_hand) and 0 <= rank < size:
        return rank, size
    return (_number("LOCAL_RANK"), 2) if started_by_launcher() else (0, 1)


def agree_to_stop(asked: bool) -> bool:
    """Return whether any process of the group is asked to stop. All processes must call it."""
    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    found = torch.tensor(int(asked), device=device)
    torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX)
    return bool(found.item())


def process_group() -> tuple[int, int]:
    """Return the rank in the live process group and its size; 0 and 1 without one."""
    return (torch.distributed.get_rank(), torch.distributed.get_world_size()) if _has_group() else (0, 1)


def _has_group() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def started_by_launcher() -> bool:
    """Return whether a training on several devices started this process and is its parent."""
    return os.environ.get(_LAUNCHER) == str(os.getppid()) and _number("LOCAL_RANK") > 0


def _number(name: str) -> int:
    """Return a variable as a number, or -1."""
    try:
        return int(os.environ[name])
    except (KeyError, ValueError):
        return -1

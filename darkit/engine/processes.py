"""The processes of a training, from its settings, launchers and the real process group instead of stray variables.

A shell, a cluster or a finished training leaves variables such as ``RANK``, ``LOCAL_RANK`` or ``SLURM_PROCID`` behind.
A process that relied on them would write into a run directory whose lock it does not hold, or write nothing.
"""

from __future__ import annotations

import copy
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from lightning import Trainer
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.lsf import LSFEnvironment
from lightning.fabric.plugins.environments.mpi import MPIEnvironment

from darkit.engine.config import TrainerConfig
from darkit.engine.launchers import Launched, find_launched, number, slurm_launched
from darkit.engine.lightning import call_at, copies_process, lightnings_rank, own_children, set_lightnings_rank
from darkit.engine.meeting import Meeting, current
from darkit.errors import ConfigError, ProcessFailedError

_LAUNCHER = "DARKIT_LAUNCHER"  # the process that starts the others: its children belong to its training
TRAINING = "DARKITTRAINING"  # the number of that training among those of its script
_SEED = "PL_GLOBAL_SEED"  # of lightning.seed_everything; strategies for several processes would give it to each
_SET_BY_LIGHTNING = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE", _LAUNCHER, TRAINING, _SEED)
_COPIES = re.compile(r"_(spawn|fork|notebook)(_|$)")
_lost_partners = False
_joined: Place | None = None


class FixedEnvironment(LightningEnvironment):
    """An environment in which every process has a known rank, whatever the variables are.

    Args:
        rank: The rank of this process on its node.
        external: Whether the other processes exist already; otherwise Lightning starts them.
        node: The number of its node.
        address: The host on which the processes meet, and ``port`` the port there; for processes of Lightning's, those
            in the variables that it sets.
    """

    def __init__(self, rank: int, *, external: bool, node: int = 0, address: str = "", port: int = 0) -> None:
        super().__init__()
        self._rank, self._node = rank, node
        self._external = external
        self._address, self._port = address, port

    @property
    def creates_processes_externally(self) -> bool:
        return self._external

    @property
    def main_address(self) -> str:
        return self._address or (super().main_address if self._external else "127.0.0.1")

    @property
    def main_port(self) -> int:
        return self._port or super().main_port

    def local_rank(self) -> int:
        return self._rank

    def node_rank(self) -> int:
        return self._node

    def teardown(self) -> None:
        """Leave the variables alone; `Place.applied` restores them."""

    def meet_at(self, port: int) -> None:
        """Set the port at which the processes meet."""
        self._port = port


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
    environment: ClusterEnvironment = field(default_factory=lambda: FixedEnvironment(0, external=False))
    started: str = "here"

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Set the variables that Lightning reads for a block, and restore them after it.

        Raises:
            ProcessFailedError: The block failed because another process did.
        """
        before = {name: os.environ.get(name) for name in _SET_BY_LIGHTNING}
        rank = lightnings_rank()
        set_lightnings_rank(self.rank)
        meeting = current()
        if self.size > 1:
            os.environ.pop(_SEED, None)
        if self.size > 1 and self.started == "here":
            os.environ["LOCAL_RANK"], os.environ["NODE_RANK"] = str(self.rank), "0"
            if not self.rank and meeting is not None:
                os.environ[_LAUNCHER], os.environ[TRAINING] = str(os.getpid()), str(meeting.number)
        try:
            yield
            if meeting is not None:
                meeting.release()
        except Exception as error:
            cause = error if meeting is None else meeting.explain(error)
            if cause is error:
                raise
            raise cause from None
        finally:
            set_lightnings_rank(rank)
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value

    def check(self, trainer: Trainer) -> None:
        """Check that a trainer runs in these processes, and have it wait until all of them are ready.

        Raises:
            ConfigError: It would run in others.
        """
        if copies_process(trainer):
            raise ConfigError(_no_copies("'auto' in a notebook"))
        if (trainer.global_rank, trainer.world_size) != (self.rank if self.size > 1 else 0, self.size):
            raise ConfigError(
                f"Lightning would train in process {trainer.global_rank} of {trainer.world_size}, but this is process "
                f"{self.rank} of {self.size}."
            )
        meeting = current()
        if meeting is not None and not has_group():
            call_at(trainer.strategy, "setup_environment", lambda: self._gather(trainer, meeting), before=True)

    def _gather(self, trainer: Trainer, meeting: Meeting) -> None:
        """Wait for the others where a signal is heard: torch, which connects them next, hears none."""
        children = own_children(trainer) if self.started == "here" and not self.rank else []

        def look() -> None:
            for rank, child in enumerate(children, 1):
                if child.poll() is not None:
                    raise ProcessFailedError(
                        f"Process {rank} of {self.size} ended with exit code {child.returncode} before the training "
                        "began. Its own output says why."
                    )

        meeting.arrive("ready", look=look)


def _no_copies(strategy: str) -> str:
    return (
        f"Training with copies of this process is not supported (strategies *_spawn, *_fork and *_notebook, and 'auto' "
        f"in a notebook; here {strategy}): use strategy='ddp' in a script."
    )


def find_place(config: TrainerConfig) -> Place:
    """Return the place of this process in a training, before anything is written.

    torchrun, srun and submitit say how many processes there are, on how many nodes; ``device_num`` and ``num_nodes``
    are set in the config where they have their default. Otherwise, with one device, it is the only process, whatever
    the variables are. With several it belongs to the live process group, or was started by the training's first process
    or by something else that set all variables (MPI, jsrun, or a person with ``LOCAL_RANK``, ``WORLD_SIZE``,
    ``MASTER_ADDR`` and ``MASTER_PORT``), or else it is the first, which starts the others.

    Raises:
        ConfigError: The number of processes that a launcher started is not that of the settings, or the strategy
            copies processes.
        SystemExit: The process was started for another device of an earlier training in the same script, and this
            training has one device, on which the script's first process trains.
    """
    if _joined is not None:
        return _joined
    if _COPIES.search(config.strategy):
        raise ConfigError(_no_copies(f"strategy={config.strategy!r}"))
    launched = find_launched()
    if launched is not None:
        _take_numbers(config, launched)
    wanted = config.device_num * config.num_nodes
    rank, size = process_group()
    if wanted == 1:
        if size > 1:
            _leave_partners(rank)
        return Place(own_rank(config))
    if has_group() or _lost_partners:
        if size != wanted or _lost_partners:
            what = "its other processes have ended" if _lost_partners else f"the settings say {wanted}"
            raise ConfigError(
                f"This process belongs to a process group of {size} already, from an earlier training or its own code, "
                f"and {what}: put this training into a separate script."
            )
        node, local = divmod(rank, config.device_num)
        return Place(rank, size, FixedEnvironment(local, external=True, node=node), "outside" if launched else "here")
    if launched is not None and launched.size > 1:
        return _outside(launched)
    return _find_among_several(config, wanted)


def _take_numbers(config: TrainerConfig, launched: Launched) -> None:
    """Take the launcher's numbers where the config has the default. Raises `ConfigError` if it has others."""
    if launched.size == 1 and launched.by != "torchrun":  # one task, which may start a process for each device
        return
    given = config.device_num, config.num_nodes
    found = launched.per_node, launched.nodes
    if any(mine not in (1, its) for mine, its in zip(given, found, strict=True)):
        nodes = f" and num_nodes is {given[1]}" if given[1] != 1 or found[1] != 1 else ""
        right = f"device_num={found[0]}" + (f" (devices per node) and num_nodes={found[1]}" if nodes else "")
        raise ConfigError(
            f"{launched.describe()}, but device_num is {given[0]}{nodes}: set {right}, or leave them out to take what "
            "the launcher says."
        )
    config.device_num, config.num_nodes = found


def _find_among_several(config: TrainerConfig, wanted: int) -> Place:
    if started_by_launcher():
        rank = number("LOCAL_RANK")
        return Place(rank, wanted, FixedEnvironment(rank, external=True))
    slurm = slurm_launched()
    if slurm is not None and slurm.size > 1:
        _take_numbers(config, slurm)
        return _outside(slurm)
    for kind in (LSFEnvironment, MPIEnvironment):
        if kind.detect() and (found := _from_cluster(wanted, kind)):
            return found
    by_hand = all(name in os.environ for name in ("LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"))
    if by_hand and number("WORLD_SIZE") == wanted:
        return _by_hand(config)
    if config.num_nodes > 1:
        raise ConfigError(
            f"num_nodes is {config.num_nodes}, but no launcher has started a process on each node: start the training "
            "with torchrun --nnodes, or with srun in a SLURM job."
        )
    return Place(0, wanted)


def _outside(launched: Launched) -> Place:
    environment = FixedEnvironment(
        launched.local_rank, external=True, node=launched.node_rank, address=launched.address, port=launched.port
    )
    return Place(launched.rank, launched.size, environment, "outside")


def _by_hand(config: TrainerConfig) -> Place:
    local, wanted = number("LOCAL_RANK"), config.device_num * config.num_nodes
    node = max(0, number("NODE_RANK")) if config.num_nodes > 1 else 0
    rank = node * config.device_num + local
    if not (0 <= local < config.device_num and rank < wanted):
        raise ConfigError(f"The rank must be 0 to {wanted - 1} for device_num={config.device_num}, not {rank}.")
    address, port = os.environ["MASTER_ADDR"], number("MASTER_PORT")
    return Place(rank, wanted, FixedEnvironment(local, external=True, node=node, address=address, port=port), "outside")


def _from_cluster(wanted: int, kind: type[ClusterEnvironment]) -> Place | None:
    """Return the place that jsrun or MPI assigned; None if it started one process, which starts the others."""
    name = kind.__name__.removesuffix("Environment")
    try:
        environment = kind()
        started, rank = environment.world_size(), environment.global_rank()
    except (RuntimeError, ValueError, KeyError) as error:
        raise ConfigError(
            f"device_num is {wanted}, but the variables of {name} do not give the rank of this process: {error}"
        ) from error
    if started == 1:
        return None
    if started != wanted:
        raise ConfigError(
            f"{name} started {started} processes, but the settings say {wanted}: start one for each device."
        )
    return Place(rank, wanted, environment, "outside")


def _leave_partners(rank: int) -> None:
    """End a process that was started for another device; in the first one, record that the others have ended."""
    if rank and started_by_launcher():
        sys.exit(0)
    if rank:
        raise ConfigError(
            f"This is process {rank} of a live process group, but device_num is 1: train in process 0 only, or on as "
            "many devices as there are processes."
        )
    lose_partners()


@contextmanager
def joined_at(place: Place) -> Iterator[None]:
    """Have `find_place` return a place for a block, in which this process has met the others."""
    global _joined
    _joined = place
    try:
        yield
    finally:
        _joined = None


def lose_partners() -> None:
    """Note that the other processes have ended, or are elsewhere in their script."""
    global _lost_partners
    _lost_partners = True


def own_rank(config: TrainerConfig) -> int:
    """Return the rank of this process in a training or a hand-written loop; only rank 0 writes.

    Raises:
        ConfigError: As `find_place`, with several devices.
    """
    if config.device_num * config.num_nodes > 1:
        return find_place(copy.copy(config)).rank
    launched = find_launched()
    started = launched.rank if launched is not None else number("LOCAL_RANK") if started_by_launcher() else 0
    return process_group()[0] or started


def loop_place() -> tuple[int, int]:
    """Return the rank of this process in a loop that is not darkit's, and the number of its processes.

    It is that of the live process group or, before the group is made, what a launcher says (or whoever sets all
    variables of ``init_process_group``).
    """
    rank, size = process_group()
    if size > 1:
        return rank, size
    launched = find_launched()
    if launched is not None and launched.size > 1:
        return launched.rank, launched.size
    by_hand = all(name in os.environ for name in ("MASTER_ADDR", "MASTER_PORT"))
    rank, size = number("RANK"), number("WORLD_SIZE")
    if by_hand and 0 <= rank < size:
        return rank, size
    return (number("LOCAL_RANK"), 2) if started_by_launcher() else (0, 1)


def agree_to_stop(asked: bool) -> bool:
    """Return whether any process of the group is asked to stop. All processes must call it."""
    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    found = torch.tensor(int(asked), device=device)
    torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX)
    return bool(found.item())


def process_group() -> tuple[int, int]:
    """Return the rank in the live process group and its size; 0 and 1 without one."""
    return (torch.distributed.get_rank(), torch.distributed.get_world_size()) if has_group() else (0, 1)


def has_group() -> bool:
    """Return whether this process belongs to a process group."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def started_by_launcher() -> bool:
    """Return whether a training on several devices started this process and is its parent."""
    return os.environ.get(_LAUNCHER) == str(os.getppid()) and number("LOCAL_RANK") > 0

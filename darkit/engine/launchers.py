"""What started the processes of a training, by the variables of torchrun, srun and submitit. Imports no torch."""

from __future__ import annotations

import os
from dataclasses import dataclass

from darkit.errors import ConfigError

_BATCH_STEP = 4_294_967_280  # SLURM numbers the steps of batch scripts and the like from here
_INTERACTIVE = ("bash", "sh", "zsh", "interactive")  # SLURM's names of jobs in which a person types
_LOCAL = "127.0.0.1"


@dataclass(frozen=True)
class Launched:
    """The processes that a launcher has started, and this one among them.

    Attributes:
        by: The launcher's name, for messages.
        local_rank: The number of this process on its node.
        node_rank: The number of its node.
        per_node: The number of processes on each node.
        nodes: The number of nodes.
        address: The host on which all processes meet, and ``port`` the port there.
    """

    by: str
    local_rank: int
    node_rank: int
    per_node: int
    nodes: int
    address: str
    port: int

    @property
    def size(self) -> int:
        """The number of processes."""
        return self.per_node * self.nodes

    @property
    def rank(self) -> int:
        """The rank of this process among all."""
        return self.node_rank * self.per_node + self.local_rank

    def describe(self) -> str:
        """Return how many processes were started, such as ``torchrun started 4 processes on 2 nodes``."""
        many = f"{self.size} processes" if self.size != 1 else "1 process"
        return f"{self.by} started {many}" + (f" on {self.nodes} nodes" if self.nodes > 1 else "")


def find_launched() -> Launched | None:
    """Return what torchrun, srun or submitit's local executor has certainly started; None without one of them.

    Raises:
        ConfigError: The nodes do not have the same number of processes.
    """
    if is_torchrun():
        size = number("WORLD_SIZE")
        per_node = _positive("LOCAL_WORLD_SIZE", size)
        rank = max(0, number("RANK"))
        return _launched("torchrun", size, size // per_node, rank, number("LOCAL_RANK"), number("GROUP_RANK"))
    if _is_slurm_step():
        return slurm_launched()
    if os.environ.get("SUBMITIT_EXECUTOR") == "local" and number("SUBMITIT_LOCAL_NTASKS") > 0:
        variables = ("NTASKS", "JOB_NUM_NODES", "GLOBALID", "LOCALID", "NODEID")
        size, nodes, rank, local, node = (number(f"SUBMITIT_LOCAL_{name}") for name in variables)
        return _launched("submitit", size, max(1, nodes), rank, local, node)
    return None


def is_torchrun() -> bool:
    """Return whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ and number("WORLD_SIZE") > 0


def slurm_launched() -> Launched | None:
    """Return what srun has started, if there are variables of SLURM and no person types in this process."""
    size = _positive("SLURM_STEP_NUM_TASKS", number("SLURM_NTASKS"))
    # an srun inside of an interactive job is a step like any other, unless it has started the shell itself
    is_step = _is_slurm_step() and number("SLURM_STEP_NUM_TASKS") > 1 and "SLURM_PTY_PORT" not in os.environ
    if size < 1 or (os.environ.get("SLURM_JOB_NAME") in _INTERACTIVE and not is_step):
        return None
    nodes = _positive("SLURM_STEP_NUM_NODES", _positive("SLURM_NNODES", 1))
    rank = number("SLURM_PROCID")
    return _launched("SLURM", size, nodes, rank, number("SLURM_LOCALID"), number("SLURM_NODEID"))


def _is_slurm_step() -> bool:
    """Return whether srun started this process: a batch script or a shell has other variables of the same job."""
    return 0 <= number("SLURM_STEP_ID") < _BATCH_STEP and number("SLURM_PROCID") >= 0


def _launched(by: str, size: int, nodes: int, rank: int, local: int, node: int) -> Launched:
    if size % nodes:
        raise ConfigError(
            f"{by} started {size} processes on {nodes} nodes: every node needs the same number, one for each device."
        )
    per_node = size // nodes
    if not 0 <= rank < size:
        raise ConfigError(f"{by} started {size} processes, but the variables give this one the rank {rank}.")
    local = local if 0 <= local < per_node else rank % per_node
    node = node if 0 <= node < nodes else rank // per_node
    return Launched(by, local, node, per_node, nodes, *_meeting_point(by, nodes))


def _meeting_point(by: str, nodes: int) -> tuple[str, int]:
    """Return host and port at which the processes meet: those of the launcher, or made from the job's number."""
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

    host, port = os.environ.get("MASTER_ADDR", ""), number("MASTER_PORT")
    if by == "torchrun":
        return host or _LOCAL, port
    variable = "SLURM_STEP_NODELIST" if "SLURM_STEP_NODELIST" in os.environ else "SLURM_JOB_NODELIST"
    if not host:
        names = os.environ.get(variable, os.environ.get("SLURM_NODELIST", ""))
        host = SLURMEnvironment.resolve_root_node_address(names) if nodes > 1 and names else _LOCAL
    if port < 1:
        job = os.environ.get("SLURM_JOB_ID", "") if by == "SLURM" else os.environ.get("SUBMITIT_LOCAL_JOB_ID", "")
        digits = int("".join(character for character in job if character.isdigit()) or 0)
        port = 15_000 + (digits + 101 * max(0, number("SLURM_STEP_ID"))) % 10_000
    return host, port


def slurm_job() -> str | None:
    """Return the number of the SLURM job, which stays the same when it is requeued; None if a person types in it."""
    job = os.environ.get("SLURM_JOB_ID", "")
    if not job.isdigit() or os.environ.get("SLURM_JOB_NAME") in _INTERACTIVE:
        return None
    array = os.environ.get("SLURM_ARRAY_JOB_ID", ""), os.environ.get("SLURM_ARRAY_TASK_ID", "")
    return "_".join(array) if all(part.isdigit() for part in array) else job


def has_lasting_name() -> bool:
    """Return whether a run without a name gets one that is the same after a restart."""
    return slurm_job() is not None or (is_torchrun() and uses_agents_store())


def uses_agents_store() -> bool:
    """Return whether torchrun itself holds the store at which the processes meet; it then survives a restart."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def number(name: str) -> int:
    """Return a variable as a number, or -1."""
    try:
        return int(os.environ[name])
    except (KeyError, ValueError):
        return -1


def _positive(name: str, default: int) -> int:
    found = number(name)
    return found if found > 0 else default

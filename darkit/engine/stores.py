"""The store of torch's at which the processes of a training meet."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

from torch import distributed
from torch.distributed import DistError
from torch.distributed.distributed_c10d import _get_default_store

from darkit.engine.launchers import is_torchrun, number, slurm_job, uses_agents_store
from darkit.errors import ConfigError, ProcessFailedError

Store = Any  # torch.distributed.Store, which has no complete type
_ANSWER = timedelta(seconds=10)  # within which the server answers
_GROUPS = "default_pg/"  # torch's prefix of what the processes of a group tell each other
_named = 0  # runs of this process that were named after their launch
_open: dict[int, Store] = {}  # by port: the server ends with its last reference


def open_store(
    address: str, port: int, rank: int, patience: float, is_alone: Callable[[], bool] = lambda: False
) -> tuple[Store, int, bool]:
    """Connect to the store, whose server is in the first process unless torchrun has it.

    The process group, which meets at the same place later, shares the server.

    Args:
        address: The host of the server.
        port: Its port; 0 takes a free one.
        rank: The rank of this process.
        patience: Seconds to wait for the server. Unlike torch's own waiting this one hears signals.
        is_alone: Returns whether the first process is known to be gone.

    Returns:
        The store, its port, and whether the server is in this process.

    Raises:
        ConfigError: The port is in use.
        ProcessFailedError: There is no server.
    """
    hosts = rank == 0 and not uses_agents_store()
    if not hosts and port < 1:
        raise ConfigError(
            f"The launcher says that the processes meet at port {port} of {address}, which is none: give torchrun "
            "--standalone, or a free port as --master-port."
        )
    if not hosts:
        _wait_for_server(address, port, patience, is_alone)
    try:
        store: Store = distributed.TCPStore(  # type: ignore[attr-defined]
            address, port, is_master=hosts, timeout=_ANSWER, wait_for_workers=False, multi_tenant=True
        )
    except DistError as error:
        if not hosts:
            raise ProcessFailedError(f"The first process does not answer at {address}:{port}.") from error
        raise ConfigError(
            f"Port {port} of {address}, at which the processes of the training meet, cannot be used: set MASTER_PORT "
            f"to a free port. ({str(error).splitlines()[0]})"
        ) from error
    _open[store.port] = store
    return store, store.port, hosts


def clear_groups(store: Store) -> None:
    """Remove the process groups that an earlier attempt left in torchrun's store; only before one is made in this.

    torchrun keeps one store through its restarts, and torch would connect to the addresses of processes that are gone.
    """
    for key in store.list_keys():
        if key.startswith(_GROUPS):
            store.delete_key(key)


def store_of_group() -> Store:
    """Return the store of the live process group."""
    store: Store = _get_default_store()
    return store


def share(store: Store, *prefix: object) -> Store:
    """Return a part of a store for one training, with a connection of its own."""
    return distributed.PrefixStore("/".join(["darkit", *map(str, prefix)]), store.clone())  # type: ignore[attr-defined]


def launch_name() -> str | None:
    """Return a name for the next run that is the same after a requeue by SLURM or a restart by torchrun, or None."""
    global _named
    launch = slurm_job()
    if launch is not None:
        launch = f"slurm-{launch}"
    elif is_torchrun() and uses_agents_store():
        launch = f"torchrun-{_torchrun_time()}"
    if launch is None:
        return None
    _named += 1
    return launch if _named == 1 else f"{launch}-{_named}"


def _torchrun_time() -> str:
    """Return the time at which torchrun started, the same in all its processes and after a restart of them."""
    address, port = os.environ["MASTER_ADDR"], number("MASTER_PORT")
    store = distributed.TCPStore(address, port, is_master=False, timeout=_ANSWER)  # type: ignore[attr-defined]
    return str(store.compare_set("darkit/launch", "", time.strftime("%Y%m%d-%H%M%S")).decode())


def _wait_for_server(address: str, port: int, patience: float, is_alone: Callable[[], bool]) -> None:
    deadline = time.monotonic() + patience
    while True:
        with suppress(OSError), socket.create_connection((address, port), timeout=5):
            return
        if is_alone():
            raise ProcessFailedError("The first process of the training is gone.")
        if time.monotonic() > deadline:
            raise ProcessFailedError(
                f"The first process of the training did not answer at {address}:{port} within {patience:g} s. Was it "
                "started, with the same MASTER_ADDR and MASTER_PORT, and can this machine reach it?"
            )
        time.sleep(0.1)

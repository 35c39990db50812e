"""The processes of one training together: they meet before it begins, and the failure of one ends all."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from lightning import Trainer

from darkit.engine.config import TrainerConfig
from darkit.engine.launchers import find_launched, number, uses_agents_store
from darkit.engine.log.progress import speaking
from darkit.engine.meeting import PATIENCE, Meeting, current, set_current
from darkit.engine.processes import (
    TRAINING,
    FixedEnvironment,
    Place,
    agree_to_stop,
    find_place,
    has_group,
    joined_at,
    loop_place,
    lose_partners,
    started_by_launcher,
)
from darkit.engine.stop import StopRequest, StopTraining
from darkit.engine.stores import Store, clear_groups, open_store, share, store_of_group
from darkit.runs.configs import public_values

_OWN = ("name", "device")  # settings in which the processes of a training may differ
_trainings = 0


@contextmanager
def together(config: TrainerConfig) -> Iterator[Place]:
    """Join the other processes of a training for a block; an error of one ends all.

    A block within another one belongs to the same training.

    Raises:
        ProcessFailedError: Another process failed, or did not come.
        ConfigError: As `find_place`; or the settings of the processes differ.
    """
    if current() is not None:
        yield find_place(config)
        return
    place = find_place(config)
    if place.size == 1:
        yield place
        return
    meeting = _meet(place)
    set_current(meeting)
    with speaking(place.rank == 0), joined_at(place):
        try:
            if place.started == "outside":
                meeting.arrive("come", patience=PATIENCE)
            settings = {key: value for key, value in public_values(config).items() if key not in _OWN}
            meeting.agree_on("settings", settings, "settings")
            yield place
        except StopTraining as stop:  # it was asked to while it waited for the others: nothing had begun
            meeting.report(stop)
            for request in stop.args if place.rank == 0 else ():  # it has the job requeued
                request.end_process()
            raise SystemExit(1) from None
        except BaseException as error:
            meeting.report(error)
            if has_group():
                lose_partners()
            raise
        finally:
            set_current(None)
            meeting.leave()


P = ParamSpec("P")
R = TypeVar("R")


def joined(train: Callable[P, R]) -> Callable[P, R]:
    """Wrap a function whose fourth argument is the config of a training, which may have several processes."""

    @functools.wraps(train)
    def trained(*args: P.args, **kwargs: P.kwargs) -> R:
        config: Any = args[3]
        with together(config):
            return train(*args, **kwargs)

    return trained


def meet_in_loop(*, watch: bool = False) -> Meeting | None:
    """Meet the other processes of a loop that is not darkit's; None if there are none, or nothing says where.

    Args:
        watch: Whether this process is to be ended when it is blocked by the failure of another one.
    """
    rank, size = loop_place()
    if size == 1 or current() is not None:
        return None
    if has_group():
        return _start(store_of_group(), rank, size, hosts=not rank, watch=watch)
    launched = find_launched()
    if launched is None:
        return None
    store, _, hosts = open_store(launched.address, launched.port, rank, PATIENCE)
    return _start(store, rank, size, hosts=hosts, watch=watch)


def all_went_well(trainer: Trainer, request: StopRequest, written: Callable[[], None] | None) -> bool:
    """Return whether no process of a training that has ended was asked to stop; then all is on the disk.

    All processes must call it: a request may have come to one of them after the last step.

    Args:
        trainer: The trainer.
        request: The request to stop this process.
        written: Waits until everything that this process writes is on the disk, or None if it writes nothing.
    """
    asked, several = bool(request.reason), trainer.world_size > 1
    if agree_to_stop(asked) if several else asked:
        request.ask("Stopped with another process of this training.")
        return False
    if written is not None:
        written()
    trainer.strategy.barrier()
    return True


@contextmanager
def meeting_of_loop(*, watch: bool = False) -> Iterator[Meeting | None]:
    """Meet the other processes of a loop while a block opens its run, whose session then has the meeting.

    A hand-written loop has its own collectives, with their own limits of time: no process of it is ended. ``watch`` is
    as for `meet_in_loop`.
    """
    meeting = meet_in_loop(watch=watch)
    set_current(meeting if meeting is not None else current())
    try:
        yield meeting
    except BaseException as error:
        if meeting is not None:
            meeting.report(error)
            meeting.leave()
        raise
    finally:
        if meeting is not None:
            set_current(None)


def _meet(place: Place) -> Meeting:
    """Return the meeting of a training whose processes exist, or will be started by this one."""
    environment = place.environment
    if has_group():
        store, hosts = store_of_group(), not place.rank
    else:
        own = place.started == "here" and not place.rank
        address, port = environment.main_address, 0 if own else environment.main_port
        is_child = started_by_launcher()
        store, port, hosts = open_store(
            address, port, place.rank, PATIENCE, lambda: is_child and not started_by_launcher()
        )
        if not place.rank and uses_agents_store():
            clear_groups(store)  # before this process says that it is here: the others wait for that
        if own and isinstance(environment, FixedEnvironment):
            environment.meet_at(port)
    return _start(store, place.rank, place.size, hosts=hosts)


def _start(store: Store, rank: int, size: int, *, hosts: bool, watch: bool = True) -> Meeting:
    global _trainings
    started = number(TRAINING) if _trainings == 0 and started_by_launcher() else 0
    _trainings = max(started, _trainings + 1)
    part = share(store, max(0, number("TORCHELASTIC_RESTART_COUNT")), _trainings)
    meeting = Meeting(part, rank, size, number=_trainings, hosts=hosts)
    meeting.start(watch=watch)
    return meeting

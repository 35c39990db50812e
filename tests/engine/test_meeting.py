"""What two processes of a training agree on before it, with a real store, and how one watches the other."""

from __future__ import annotations

from datetime import timedelta

import pytest
from torch.distributed import HashStore, TCPStore

from darkit.engine import meeting
from darkit.engine.config import TrainerConfig
from darkit.engine.meeting import Meeting, agree_on_run
from darkit.engine.stores import clear_groups
from darkit.errors import ConfigError, ProcessFailedError

ELSEWHERE = "otherhost another-boot 4242 1.0"  # a process of another machine, where its id means something else


@pytest.fixture
def two() -> list[Meeting]:
    """The meetings of process 0 and 1, which nothing watches."""
    patience = timedelta(seconds=20)
    server = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=patience)
    client = TCPStore("127.0.0.1", server.port, is_master=False, timeout=patience)
    found = [Meeting(store, rank, 2) for rank, store in enumerate((server, client))]
    for one in found:
        one.start(watch=False)
    return found


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"seed": 2, "lr": 0.1}, "need the same settings, but seed is 1 in process 0 and 2 in process 1"),
        ({"seed": 1}, "need the same settings, but lr is 0.1 in process 0 and None in process 1"),
    ],
    ids=["another", "missing"],
)
def test_settings_that_differ_between_processes_are_refused_by_name(
    other: dict[str, float], said: str, two: list[Meeting]
) -> None:
    same = {"seed": 1, "lr": 0.1}
    two[0].agree_on("settings", same, "settings")
    two[1].agree_on("settings", dict(reversed(same.items())), "settings")
    with pytest.raises(ConfigError, match=said):
        two[1].agree_on("settings", other, "settings")


def test_a_process_that_finds_the_run_at_another_step_is_refused(
    two: list[Meeting], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meeting, "_current", two[0])
    agree_on_run(TrainerConfig(name="run"), 6)
    monkeypatch.setattr(meeting, "_current", two[1])
    said = "Process 0 trains the run 'run' from step 6, but process 1 finds 'run' at step 4: .* need the same"
    with pytest.raises(ConfigError, match=said):
        agree_on_run(TrainerConfig(name="run"), 4)


def test_a_process_without_a_name_takes_that_of_the_first_and_agrees_once(
    two: list[Meeting], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meeting, "_current", two[0])
    agree_on_run(TrainerConfig(name="run"), 6)
    config = TrainerConfig()
    monkeypatch.setattr(meeting, "_current", two[1])
    agree_on_run(config, 6)
    assert config.name == "run"
    agree_on_run(TrainerConfig(name="another"), 0)  # the training has begun


def test_a_process_on_another_machine_is_dead_after_a_long_silence_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert meeting.SILENCE * meeting.LOOK >= 60, "a process that holds the GIL for long is not dead"
    monkeypatch.setattr(meeting, "LOOK", 0.002)
    monkeypatch.setattr(meeting, "SILENCE", 20)
    store = HashStore()
    store.set("here/1", ELSEWHERE)
    here = Meeting(store, 0, 2)
    for beat in range(3):  # silent for almost too long, again and again
        store.set("beat/1", f"{ELSEWHERE} {beat}")
        for _ in range(20):
            here._look(counts=True)
        here.raise_failure()
    here.release()
    here.start()
    with pytest.raises(
        ProcessFailedError, match=r"^Process 1 of 2 gave no sign of life for 0.04 s \(pid 4242 on other"
    ):
        here.arrive("end", patience=30)
    here.leave()


def test_a_restart_forgets_the_addresses_of_the_first_attempt_and_nothing_else() -> None:
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    for key in ("default_pg/0//cpu//0/0", "default_pg/0//cpu//0/1", "darkit/launch", "torchelastic/role"):
        store.set(key, "value")
    clear_groups(store)
    assert sorted(key for key in store.list_keys() if "/" in key) == ["darkit/launch", "torchelastic/role"]

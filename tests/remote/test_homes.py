"""Homes that are only read: their states, their copies in the background, and what a copied status tells."""

from __future__ import annotations

import importlib.util
import json
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import pytest

from darkit.cli.main import main
from darkit.cli.start import chosen_homes
from darkit.errors import ConfigError
from darkit.remote import homes as module
from darkit.remote.address import parse_addresses
from darkit.remote.homes import Copy, Homes
from darkit.remote.store import Item, Store
from darkit.runs import files, status
from darkit.runs.status import Watcher
from tests.remote.parts import BreakingStore, make_run, snapshot
from tests.runs.parts import wait_until


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    make_run(tmp_path / "there", "one")
    return tmp_path / "there"


def address_of(folder: Path) -> str:
    return f"box=ssh://box{folder}"


def test_a_home_in_a_folder_is_read_in_place_and_what_happens_to_it_is_told(there: Path) -> None:
    before = snapshot(there)
    homes = Homes([f"lab={there}"])
    assert homes.roots[0].path == there / "base"
    assert (homes.roots[0].label, homes.roots[0].writable, homes.roots[0].seen) == ("lab", False, None)
    (state,) = homes.states()
    assert (state.failing, state.problem) == (None, "")
    assert snapshot(there) == before
    there.rename(there.with_name("unplugged"))
    (lost,) = homes.states()
    assert lost.failing is not None
    assert lost.seen == state.seen
    assert lost.problem == "No such file or directory"
    assert homes.states()[0].failing == lost.failing
    there.with_name("unplugged").rename(there)
    assert homes.states()[0].failing is None


def test_a_thread_copies_fails_waits_longer_each_time_and_goes_on(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reached = [True]

    def connecting(address: Any) -> Store:
        if not reached[0]:
            raise ConnectionRefusedError(111, "Connection refused")
        return BreakingStore()

    pauses: list[float] = []
    homes = Homes([address_of(there)], connecting=connecting, period=0.01)
    wait = homes._copies[0]._ended.wait
    monkeypatch.setattr(homes._copies[0]._ended, "wait", lambda pause: (pauses.append(pause), wait(0.01))[1])
    homes.start()
    wait_until(lambda: (homes.roots[0].path / "one" / files.RUN).exists())
    wait_until(lambda: homes.states()[0].seen is not None)
    reached[0] = False
    homes._copies[0].disconnect()
    wait_until(lambda: len(pauses) > 8 and pauses[-1] > 10 * pauses[0])
    (state,) = homes.states()
    assert state.problem == "Connection refused"
    assert state.failing is not None
    assert state.seen is not None
    assert max(pauses) <= 300
    reached[0] = True
    wait_until(lambda: homes.states()[0].failing is None)
    homes.close()


def test_a_disk_that_hangs_is_told_while_the_last_state_is_shown(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs, go_on = threading.Event(), threading.Event()

    class Hanging(BreakingStore):
        def list(self, path: str) -> list[Item]:
            if hangs.is_set():
                assert go_on.wait(60)
            return super().list(path)

    monkeypatch.setattr(module, "PATIENCE", 0.05)
    homes = Homes([f"file://{there}"], connecting=lambda _: Hanging(), period=0.01)
    homes.start()
    wait_until(lambda: homes.states()[0].seen is not None)
    hangs.set()
    wait_until(lambda: homes.states()[0].problem == "No answer")
    assert homes.states()[0].failing is not None
    assert (homes.roots[0].path / "one" / files.RUN).exists()
    go_on.set()
    hangs.clear()
    wait_until(lambda: homes.states()[0].failing is None)
    homes.close()


def test_of_two_readers_one_copies_and_the_other_reads_its_copy_and_takes_over(there: Path) -> None:
    (address,) = parse_addresses([address_of(there)])
    stores = [BreakingStore(), BreakingStore()]
    first, second = (Copy(address, lambda _, store=store: store, 5.0) for store in stores)
    assert first.attempt()
    assert second.attempt()
    assert stores[1].calls == []
    assert second.state == first.state
    assert second.seen(second.mirror.base / "one") == pytest.approx(time.monotonic(), abs=60)
    first._lock.release()
    assert second.attempt()
    assert stores[1].calls != []


def test_a_copied_run_is_judged_by_its_heartbeat_and_only_while_the_connection_lives(
    there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "SILENCE", 30.0)
    run = there / "base" / "one"
    here = status.socket.gethostname()  # a machine there may have the name of this one
    files.write_json(run / files.STATUS, {"state": "running", "host": here, "heartbeat": 1.0, "step": 3})
    watcher = Watcher()
    assert watcher.read_copy(run, None).state == "running"
    assert watcher.read_copy(run, 100.0).state == "running"
    assert watcher.read_copy(run, 100.0).state == "running"  # it cannot be reached, for however long
    assert watcher.read_copy(run, 129.0).state == "running"
    silent = watcher.read_copy(run, 131.0)
    assert (silent.state, silent.step) == ("crashed", 3)
    assert silent.reason.endswith("sent no heartbeat for 31 s.")
    files.write_json(run / files.STATUS, {"state": "running", "host": here, "heartbeat": 2.0, "step": 3})
    assert watcher.read_copy(run, 900.0).state == "running"
    (run / files.STATUS).unlink()
    assert watcher.read_copy(run, 901.0).reason == "The run has no readable status.json."


def test_without_its_package_a_home_elsewhere_is_refused_with_what_to_install(
    there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for text, package in ((address_of(there), "sshfs"), ("s3://bucket/darkit", "s3fs")):
        with pytest.raises(ConfigError, match=f"needs the package {package}: pip install 'darkit\\[remote\\]'"):
            Homes([text])


def test_copies_are_the_users_own(there: Path) -> None:
    (address,) = parse_addresses([address_of(there)])
    assert Copy(address, lambda _: BreakingStore(), 5.0).attempt()
    (folder,) = module.cache_folder().iterdir()
    assert folder.stat().st_mode & 0o077 == 0


def test_the_runs_of_another_home_are_listed_once_and_an_old_copy_is_said(
    there: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = status.socket.gethostname()
    files.write_json(there / "base" / "one" / files.STATUS, {"state": "running", "host": here, "step": 3})
    before = snapshot(there)
    assert main(["runs", "--home", str(there)]) == 0
    shown = capsys.readouterr().out
    assert "crashed" in shown  # its lock is free, which can be seen in a folder of this machine
    assert shown.endswith(f"in {there / 'base'}\n")
    monkeypatch.setattr(module, "connect", lambda _: BreakingStore())
    assert main(["runs", "--home", address_of(there)]) == 0
    shown = capsys.readouterr().out
    assert "running" in shown
    assert shown.endswith(f"in ssh://box{there}\n")

    def refuse(address: Any) -> Store:
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(module, "connect", refuse)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main(["runs", "--home", address_of(there), "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)[0]["state"] == "running"
    assert "is not reachable: Connection refused. It is shown as it was" in err
    assert main(["runs", "--home", "ssh://other/darkit"]) == 2
    assert "The home ssh://other/darkit cannot be read: Connection refused." in capsys.readouterr().err
    assert snapshot(there) == before


def test_a_copied_run_whose_heartbeat_is_old_is_listed_as_crashed_but_not_for_a_lost_connection(
    there: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def listed() -> tuple[str, str]:
        assert main(["runs", "--home", address_of(there), "--json"]) == 0
        (row,) = json.loads(capsys.readouterr().out)
        return row["state"], row["reason"]

    def beat(ago: float) -> None:
        values = {"state": "running", "host": "box", "step": 3, "heartbeat": time.time() - ago}
        files.write_json(there / "base" / "one" / files.STATUS, values)

    monkeypatch.setattr(module, "connect", lambda _: BreakingStore())
    beat(60)  # the clocks may differ
    assert listed() == ("running", "")
    (state,) = module.cache_folder().glob("*/state.json")
    beat(11 * 86_400)
    assert listed() == ("crashed", "The process on box sent no heartbeat for 11 days.")
    beat(3_600 * 5)
    assert listed()[1].endswith("for 5 hours.")
    values = files.read_json(state)
    files.write_json(state, {**values, "seen": values["seen"] - 3_600 * 5})

    def refuse(address: Any) -> Store:
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(module, "connect", refuse)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert listed() == ("running", "")  # it was alive when the home was last read


@pytest.mark.parametrize("text", ["", " "])
def test_an_empty_home_is_refused(text: str, there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "--home", text]) == 2
    assert "A home is empty" in capsys.readouterr().err
    for given in ([text], [str(there), text]):
        with pytest.raises(ConfigError, match="A home is empty"):
            chosen_homes(given)


def test_a_port_that_is_no_number_is_refused_in_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["start", "--port", "abc"])
    error = capsys.readouterr().err
    assert "a port is a number from 0 to 65535, not 'abc'" in error
    assert "_port" not in error

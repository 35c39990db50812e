"""A home by SSH, from a real SFTP server: keys, known hosts, and a connection that breaks in the middle of a file."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from darkit.remote import mirror, store
from darkit.remote.address import parse_addresses
from darkit.remote.homes import Copy, Homes
from darkit.remote.store import connect
from darkit.runs import Run, files, list_runs
from tests.remote.parts import SshServer, make_run, snapshot, ssh_server
from tests.runs.parts import wait_until


@pytest.fixture
def there(tmp_path: Path) -> Path:
    folder = tmp_path / "there"
    make_run(folder / "darkit", "one", rows=20_000)
    return folder


@pytest.fixture
def server(there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshServer]:
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.setattr(mirror, "_BLOCK", 50_000)
    with ssh_server(there, tmp_path / "me" / ".ssh") as started:
        yield started


@contextmanager
def copied(text: str) -> Iterator[Copy]:
    (address,) = parse_addresses([text])
    copy = Copy(address, connect, 5.0)
    try:
        yield copy
    finally:
        copy.disconnect()


@contextmanager
def box(server: SshServer) -> Iterator[Copy]:
    with copied(f"box=ssh://me@127.0.0.1:{server.port}/darkit") as copy:
        yield copy


def test_a_home_is_copied_by_ssh_and_not_written_to_and_goes_on_after_a_break(server: SshServer, there: Path) -> None:
    before = snapshot(there)
    one = there / "darkit" / "base" / "one"
    with box(server) as copy:
        server.breaks = lambda served: served > 100_000
        assert not copy.attempt()
        assert copy.state.failing is not None
        assert copy.state.seen is None
        assert copy.state.problem
        assert list_runs(root=copy.mirror.base) == []  # it is not half there
        server.breaks = lambda served: False
        assert copy.attempt(), copy.state.problem
        assert snapshot(there) == before
        (run,) = list_runs(root=copy.mirror.base)
        assert (run.status, len(run.log())) == ("finished", 20_000)
        assert copy.state.failing is None

        files.write_json(one / files.STATUS, {"state": "running", "host": "box"})
        with (one / files.LOG).open("a") as file:
            file.writelines(f"{step},0.5\n" for step in range(20_001, 60_001))
        server.served, server.breaks = 0, lambda served: served > 200_000
        assert not copy.attempt()
        shown = len(run.log())
        assert 20_000 < shown < 60_000  # what came before the break, in whole rows
        assert run.log()["step"].to_list() == list(range(1, shown + 1))
        assert run.status == "running"
        server.served, server.breaks = 0, lambda served: False
        assert copy.attempt(), copy.state.problem
        assert len(run.log()) == 60_000
        assert server.served < (one / files.LOG).stat().st_size  # the rows before the break were not read again


def test_the_users_ssh_config_gives_a_name_to_a_machine(server: SshServer, tmp_path: Path) -> None:
    config = f"Host gpu\n  HostName 127.0.0.1\n  Port {server.port}\n  User me\n"
    (tmp_path / "me" / ".ssh" / "config").write_text(config)
    with copied("ssh://gpu/darkit") as copy:
        assert copy.attempt(), copy.state.problem
        assert [run.name for run in list_runs(root=copy.mirror.base)] == ["one"]


def test_a_machine_whose_key_is_not_known_is_refused(server: SshServer, tmp_path: Path) -> None:
    (tmp_path / "me" / ".ssh" / "known_hosts").write_text("")
    with box(server) as copy:
        assert not copy.attempt()
    sentence = "The key of 127.0.0.1 is not in ~/.ssh/known_hosts. Connect once with: ssh 127.0.0.1"
    assert copy.state.problem == sentence
    assert server.served == 0


def test_a_missing_home_a_wrong_key_and_a_closed_port_are_told_in_a_sentence(server: SshServer, tmp_path: Path) -> None:
    with copied(f"ssh://127.0.0.1:{server.port}/elsewhere") as missing:
        assert not missing.attempt()
        assert missing.state.problem.endswith("/elsewhere has no folder 'base': it is not a darkit home")
    with copied(f"ssh://127.0.0.1:{free_port()}/darkit") as closed:
        assert not closed.attempt()
        assert "Connect call failed" in closed.state.problem
    (tmp_path / "me" / ".ssh" / "id_ed25519").unlink()
    with box(server) as refused:
        assert not refused.attempt()
        assert "Permission denied" in refused.state.problem


def test_a_run_that_must_not_be_read_hides_no_other_and_a_silent_machine_is_not_waited_for(
    server: SshServer, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(there / "darkit", "secret")
    with box(server) as copy:
        server.forbidden = "secret/run.json"
        assert copy.attempt()
        assert [run.name for run in list_runs(root=copy.mirror.base)] == ["one"]
        assert copy.state.problem == "Left out: secret, which must not be read"
        monkeypatch.setattr(store, "PATIENCE", 0.5)
        server.silent = True
        copy.disconnect()
        assert not copy.attempt()
        assert copy.state.problem == "No answer within 0.5 s"


def test_a_connection_whose_files_do_not_come_in_time_is_closed(
    server: SshServer, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "PATIENCE", 1e-6)
    with box(server) as copy:
        assert not copy.attempt()
    wait_until(lambda: len(server.connections) == 1 and server.connections[0].is_closed())


def test_after_a_restart_the_last_state_is_shown_with_its_age(server: SshServer, there: Path) -> None:
    with box(server) as copy:
        assert copy.attempt()
    homes = Homes([f"box=ssh://me@127.0.0.1:{server.port}/darkit"])
    (state,) = homes.states()
    assert (state.label, state.seen, state.failing) == ("box", copy.state.seen, None)
    assert Run(homes.roots[0].path / "one").status == "finished"
    assert homes.roots[0].writable is False


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])

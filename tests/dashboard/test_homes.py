"""Homes elsewhere on the page: their runs, whether they can be reached, and that nothing is written to them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from darkit.cli.main import main
from darkit.cli.start import chosen_homes
from darkit.dashboard.server import serve as server
from darkit.errors import ConfigError
from darkit.remote.address import Address
from darkit.remote.homes import Homes
from darkit.remote.store import Store
from tests.dashboard.conftest import Served, served
from tests.dashboard.parts import make_run
from tests.dashboard.server.test_serve import darkit
from tests.dashboard.test_start import ask
from tests.remote.parts import BreakingStore, snapshot, ssh_server
from tests.runs.parts import wait_until

Open = Callable[..., Page]


def test_a_home_elsewhere_is_shown_as_it_was_when_it_cannot_be_reached_and_is_never_written_to(
    tmp_path: Path, open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    make_run(tmp_path / "own" / "base", "mine", 20)
    make_run(tmp_path / "box" / "base", "theirs", 40, state="running")
    lab = make_run(tmp_path / "lab" / "base", "local", 30)
    (lab / "tokenizer.json").write_text("{}")
    before = snapshot(tmp_path / "box"), snapshot(tmp_path / "lab")
    gone = [False]

    def connecting(address: Address) -> Store:
        if gone[0]:
            raise ConnectionRefusedError(111, "Connection <b>refused</b>")
        return BreakingStore()

    homes = Homes([f"ssh://box{tmp_path}/box", str(tmp_path / "lab")], connecting=connecting, period=0.05)
    copy = homes._copies[0]
    assert copy.attempt()
    with served(tmp_path / "own" / "base", homes=homes) as one:
        page = open_page(one.address + "/")
        for name in ("mine", "box/theirs", "lab/local"):
            expect(page.locator(f'.ag-row[row-id="{name}"]').first).to_be_visible()
        expect(page.locator("#homes")).to_be_hidden()
        page.locator('.ag-row[row-id="box/theirs"] input[type=checkbox]').click()
        for name in ("Archive", "Delete"):
            expect(page.get_by_role("button", name=name, exact=True)).to_be_disabled()
        expect(page.get_by_role("button", name="Compare 1")).to_be_enabled()
        gone[0] = True
        copy.disconnect()
        assert not copy.attempt()
        page.goto(one.address + "/run/box/theirs")
        expect(page.locator("#homes")).to_contain_text("box: not reachable since")
        expect(page.locator("#homes")).to_contain_text("Connection <b>refused</b>. Its runs are shown as they were")
        expect(page.locator("#stop")).to_be_disabled()
        expect(page.locator("#run-progress")).to_contain_text("40 / 40")
        for address in ("box/theirs", "lab/local"):
            status, answer = ask(one, "POST", "/api/predict", {"name": address, "prompt": "x"})
            label = address.partition("/")[0]
            assert status == 400
            sentence = f"The run '{address}' cannot be changed here: the home '{label}' is only read."
            assert json.loads(answer)["error"] == sentence
        gone[0] = False
        assert copy.attempt()
        page.reload()
        expect(page.locator("#run-progress")).to_be_visible()
        expect(page.locator("#homes")).to_be_hidden()
        page.close()  # it asks again and again
    assert (snapshot(tmp_path / "box"), snapshot(tmp_path / "lab")) == before
    copy.disconnect()


def test_the_first_home_is_the_readers_own_unless_it_is_elsewhere_or_labelled(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert chosen_homes([]) == (home, [])
    assert chosen_homes(["a", "b", "x=c", "ssh://h/p"]) == (
        tmp_path / "a",
        [str(tmp_path / "b"), f"x={tmp_path / 'c'}", "ssh://h/p"],
    )
    assert chosen_homes(["ssh://h/p"]) == (home, ["ssh://h/p"])
    assert chosen_homes(["x=a"]) == (home, [f"x={tmp_path / 'a'}"])


def test_a_wrong_home_and_a_server_that_shows_other_homes_are_refused_before_anything_is_made(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["start", "--home", str(home), "--home", "ftp://host/path"]) == 2
    assert "Homes cannot be read from ftp://" in capsys.readouterr().err
    assert not home.exists()
    (tmp_path / "lab").mkdir()
    place = server.Place("http://127.0.0.1:9/", "key", "", (str(tmp_path / "other"),))
    lock = server.ServerLock(home)
    assert lock.acquire()
    with lock:
        lock.publish(place)
        assert main(["start", "--home", str(home), "--home", str(tmp_path / "lab")]) == 2
        said = capsys.readouterr().err
        assert f"is running at http://127.0.0.1:9/ and shows {tmp_path / 'other'}. End it with" in said
        assert main(["start", "--home", str(home)]) == 0
        assert capsys.readouterr().out == "http://127.0.0.1:9/\n"


def test_a_server_in_the_background_copies_a_home_by_ssh_and_reads_one_in_place(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    make_run(tmp_path / "there" / "darkit" / "base", "theirs", 40)
    make_run(tmp_path / "lab" / "base", "local", 30)
    before = snapshot(tmp_path / "there"), snapshot(tmp_path / "lab")
    with ssh_server(tmp_path / "there", tmp_path / "me" / ".ssh") as there:
        words = ["--home", f"box=ssh://me@127.0.0.1:{there.port}/darkit", "--home", str(tmp_path / "lab")]
        started = darkit("start", "--daemon", "--port", "0", "--home", str(home), *words)
        assert started.returncode == 0, started.stderr
        try:
            address = started.stdout.strip()
            one = Served(home / "base", address.rstrip("/"), int(address.rstrip("/").rpartition(":")[2]))

            def names() -> set[str]:
                return {row["name"] for row in json.loads(ask(one, "POST", "/api/runs", {})[1])["rows"]}

            wait_until(lambda: names() == {"box/theirs", "lab/local"}, 60)
            states = json.loads(ask(one, "POST", "/api/homes", {})[1])["homes"]
            assert {state["label"]: state["problem"] for state in states} == {"lab": "", "box": ""}
        finally:
            assert darkit("stop-server", "--home", str(home)).returncode == 0
    assert (snapshot(tmp_path / "there"), snapshot(tmp_path / "lab")) == before


def test_labels_that_are_given_twice_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Two homes have the label 'x'"):
        Homes([f"x={tmp_path}", "x=ssh://host/path"])

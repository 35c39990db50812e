"""The questions that scripts and agents ask below ``/api/v1``: answers, their description, and who may ask."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from darkit.runs import files
from darkit.runs.notes import Notes, write_notes
from tests.dashboard.conftest import Served, served
from tests.dashboard.parts import add_columns, loss_at, make_run

NOTE = "good " * 100 + "end"


@pytest.fixture(scope="module")
def home_of_agents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("home") / "base"
    for seed in range(3):
        make_run(root, f"mlp-{seed}", 500, seed=seed, lr=10.0**-seed, losses={77: float("nan")} if seed == 1 else None)
    make_run(root, "gone-wrong", 5, seed=9, state="crashed", reason="ValueError: \ud800", traceback="Traceback\n")
    folder = root / "mlp-0"
    add_columns(folder, {f"firing_rate_{index}": lambda step: step / 10 for index in range(20)})
    write_notes(folder, Notes(("paper",), NOTE))
    write_notes(root / "mlp-2", Notes(archived=True))
    (folder / files.CONSOLE).write_text("one\ntwo\nthree\n")
    (folder / files.MODEL_CONFIG).write_text('{"width": 8, "limit": Infinity, "nested": {"p": NaN}}')
    (folder / "iter-200-ckpt.pth").write_bytes(b"x" * 20)
    with served(root) as one:
        yield one


def get(address: str, path: str, code: int = 200, headers: dict[str, str] | None = None, **query: Any) -> Any:
    """Ask, and return the answer; it must be strict JSON."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    url = f"{address}/api/v1/{path}?{urllib.parse.urlencode(query, doseq=True)}"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        answer = opener.open(urllib.request.Request(url, headers=headers or {}), timeout=30)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        said = answer.read()
    assert answer.status == code, said
    return json.loads(said, parse_constant=refuse) if said[:1] in (b"{", b"[") else said.decode()


def test_runs_are_listed_by_the_query_language_newest_first(home_of_agents: Served) -> None:
    said = get(home_of_agents.address, "runs")
    assert (said["total"], [run["name"] for run in said["runs"]]) == (3, ["gone-wrong", "mlp-1", "mlp-0"])
    assert get(home_of_agents.address, "runs", archived=True)["total"] == 4
    assert [run["name"] for run in get(home_of_agents.address, "runs", limit=1, offset=2)["runs"]] == ["mlp-0"]
    found = get(home_of_agents.address, "runs", query="tag:paper lr=1")["runs"]
    assert [run["name"] for run in found] == ["mlp-0"]
    (run,) = found
    assert run["metrics"]["train_loss"]["last"] == loss_at(500, 500, 0)
    assert run["metrics"]["firing_rate_19"] == {"last": 50.0, "best": None}
    assert run["config"]["model.limit"] == "inf"
    assert run["config"]["model.nested.p"] == "nan"
    assert "Did you mean" in get(home_of_agents.address, "runs", 400, query="trainloss<3")["error"]
    assert "limit" in get(home_of_agents.address, "runs", 400, limit=5000)["error"]


def test_one_run_is_told_with_its_files(home_of_agents: Served) -> None:
    run = get(home_of_agents.address, "run", name="mlp-0")
    assert run["rows"] == 500
    assert run["columns"][:2] == ["step", "epoch"]
    assert run["series"]["val_loss"] == ["step", "val_loss"]
    assert [one["name"] for one in run["checkpoints"]] == ["iter-200-ckpt"]
    assert run["info"]["git"]["commit"] == "0" * 40
    assert (run["tags"], run["note"]) == (["paper"], NOTE)
    (listed,) = get(home_of_agents.address, "runs", query="tag:paper")["runs"]
    assert listed["note"] == NOTE[:300]
    wrong = get(home_of_agents.address, "run", name="gone-wrong")
    assert (wrong["state"], wrong["reason"], wrong["traceback"]) == ("crashed", "ValueError: ?", "Traceback\n")
    assert get(home_of_agents.address, "console", name="mlp-0", lines=2) == {"text": "two\nthree"}
    assert "No run is named 'nobody'" in get(home_of_agents.address, "run", 404, name="nobody")["error"]
    assert "error" in get(home_of_agents.address, "run", 400, name="../elsewhere")
    assert "name" in get(home_of_agents.address, "run", 400)["error"]


def test_curves_are_few_points_with_every_peak_and_rows_are_all_there(home_of_agents: Served) -> None:
    (curve,) = get(home_of_agents.address, "curves", name="mlp-1", metric="train_loss", points=50)
    assert curve["points"] == 499
    assert 40 < len(curve["x"]) <= 50
    assert (curve["odd_x"], curve["odd_y"]) == ([77.0], ["NaN"])
    assert max(curve["y"]) == max(loss_at(step, 500, 1) for step in range(1, 501))
    (part,) = get(home_of_agents.address, "curves", name="mlp-0", metric="train_loss", low=100, high=109)
    assert part["x"] == [float(step) for step in range(99, 111)], "one more point on each side"
    said = get(
        home_of_agents.address, "log", name="mlp-1", column=["step", "train_loss", "val_loss"], first=75, count=3
    )
    assert said["rows"] == 500
    assert said["columns"]["step"] == [76.0, 77.0, 78.0]
    assert said["columns"]["train_loss"] == [loss_at(76, 500, 1), "NaN", loss_at(78, 500, 1)]
    assert said["columns"]["val_loss"] == [None, None, None]
    assert "Did you mean" in get(home_of_agents.address, "curves", 400, name="mlp-1", metric="train_los")["error"]
    assert "Did you mean" in get(home_of_agents.address, "log", 400, name="mlp-1", column="stepp")["error"]
    beyond = get(home_of_agents.address, "log", name="mlp-0", first=10_000)
    assert set(map(tuple, beyond["columns"].values())) == {()}


def test_the_description_names_every_question_and_all_of_them_only_ask(home_of_agents: Served) -> None:
    said = get(home_of_agents.address, "openapi.json")
    assert set(said["paths"]) == {"/runs", "/run", "/curves", "/log", "/console"}
    assert all(set(path) == {"get"} for path in said["paths"].values())
    assert said["servers"] == [{"url": "/api/v1"}]
    for path in said["paths"].values():
        assert path["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        assert path["get"]["summary"]


def test_who_may_ask_is_who_may_open_the_pages(home_of_agents: Served) -> None:
    address = home_of_agents.address
    assert get(address, "runs", 400, {"Host": "evil.example"}) == "Unknown host name."
    assert "refused" in get(address, "runs", 403, {"Sec-Fetch-Site": "cross-site"})
    assert "refused" in get(address, "runs", 403, {"Origin": "http://evil.example"})


def test_a_server_for_others_wants_its_token(home: Path) -> None:
    make_run(home / "base", "one", 5)
    with served(home / "base", token="secret") as one:
        assert "token" in get(one.address, "runs", 401)
        assert "token" in get(one.address, "runs", 401, {"Authorization": "Bearer other"})
        assert get(one.address, "runs", headers={"Authorization": "Bearer secret"})["total"] == 1

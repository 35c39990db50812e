"""Every route and every callback of the server over run directories in which one thing after the other is hostile."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from darkit.runs import files, media
from darkit.runs.graph import Graph, Node, write_graph
from tests.cli.hostile import (
    KINDS,
    PLANTED,
    SECRET,
    STRUCTURED,
    VALUES,
    make_outside,
    paths_of,
    read_structure,
    replace_file,
    watched,
    with_value,
    write_structure,
)
from tests.dashboard.conftest import Served, served
from tests.dashboard.parts import make_run
from tests.dashboard.server.test_security import ask

ROUTES = ("charts", "news", "parallel", "scatter", "csv", "page", "media")
INDEX = f"{files.MEDIA}/{media.INDEX}"
NAMES = (
    *STRUCTURED[:5],
    files.LOG,
    files.SYSTEM_LOG,
    files.MODEL_SOURCE,
    files.TOKENIZER,
    files.LOCK,
    files.CONSOLE,
    files.GRAPH,
    INDEX,
    "iter-5-ckpt.json",
)
DELETES = "delete-now"
TEXT = f"{hashlib.sha256(b'words').hexdigest()}.txt"


class Hostile:
    """A served root, the names of what is hostile in it, a folder that is none of its business, and a canary."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root = folder, folder / "home" / "base"
        self.outside = make_outside(folder / "outside")
        self.made = folder / "canary"
        (folder / f"{PLANTED}.py").write_text(f"from pathlib import Path\nPath({str(self.made)!r}).touch()\n")
        self.names: list[str] = []

    def new(self) -> Path:
        """Make a run that is sound so far."""
        self.names.append(f"h{len(self.names)}")
        folder = make_run(self.root, self.names[-1], 30, reason="why", traceback="Traceback")
        note = {"tags": ["a"], "note": "b", "evaluations": [{"time": 1, "data": "c", "metrics": {"loss": 1}}]}
        write_structure(folder / files.NOTES, note)
        write_structure(folder / files.COMPOSED_CONFIG, {"overrides": ["a=b"], "data": {"_target_": "x"}})
        (folder / "iter-5-ckpt.pth").write_bytes(b"1")
        write_structure(folder / "iter-5-ckpt.json", {"size": 1, "sha256": "0" * 64, "metrics": {"a": 1}})
        write_graph(folder, Graph([Node("", "M", 1, False, 1, [(1,)], [(1,)])]))
        media.MediaStore(folder).add("text", "t", 1, b"words", "txt", time=1)
        return folder


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hostile:
    monkeypatch.setenv("CANARY_SECRET", SECRET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return Hostile(tmp_path)


def requests(one: Served, names: list[str], name: str) -> Iterator[tuple[str, str, object]]:
    """Yield method, path and body of whatever pages ask about runs."""
    view: dict[str, Any] = {"view": {}, "runs": names}
    yield "POST", "/api/runs", {"since": 0, "columns": ["model.width", "trainer.lr"]}
    for route in ROUTES:
        yield (
            "POST",
            f"/api/{route}",
            {
                **view,
                "cursors": {},
                "keys": ["model.width"],
                "key": "model.width",
                "metric": "a",
                "chart": "train_loss",
            },
        )
    yield "POST", "/api/charts", {"view": {"source": "system"}, "runs": names}
    yield "POST", "/api/medium", {"run": name, "file": TEXT}
    for route in ("distribution", "console", "colour"):
        yield "POST", f"/api/{route}", {"run": name, "key": "t", "colour": 1}
    yield "GET", f"/run/{name}", None
    address = f"{one.address}/compare?" + "&".join(f"run={quote(other)}" for other in names)
    for href in (f"{one.address}/", f"{one.address}/run/{name}", address):
        values = {"url.href": href, "changed.data": {"name": name}, "selection.data": [name], "tag-old.value": "a"}
        values |= {"tag-new.value": "z", "delete-name.value": name, "own-tags.value": ["t"], "own-note.value": "n"}
        values |= {"notes-shown.data": {"tags": [], "notes": {name: ""}}}
        for callback in json.loads(ask(one, "GET", "/_dash-dependencies")[2]):
            inputs = callback["inputs"]
            last = inputs[0]["id"] == DELETES and href != address
            if callback.get("clientside_function") is None and not last:
                yield "POST", "/_dash-update-component", _call(callback, values)


def _call(callback: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Make the request of a callback as the page's scripts do."""

    def filled(parts: list[dict[str, str]]) -> list[dict[str, Any]]:
        return [{**part, "value": values.get(f"{part['id']}.{part['property']}", _usual(part))} for part in parts]

    output = callback["output"]
    several = output.removeprefix("..").removesuffix("..").split("...")
    outputs = [dict(zip(("id", "property"), one.rsplit(".", 1), strict=True)) for one in several]
    return {
        "output": output,
        "outputs": outputs if output.startswith("..") else outputs[0],
        "inputs": filled(callback["inputs"]),
        "state": filled(callback["state"]),
        "changedPropIds": [f"{one['id']}.{one['property']}" for one in callback["inputs"][:1]],
    }


def _usual(part: dict[str, str]) -> Any:
    return {"n_clicks": 1, "checked": True, "data-language": "en"}.get(part["property"])


def walk(hostile: Hostile, every: int) -> None:
    """Ask everything about all runs, and about each ``every``-th by itself."""
    before = {path: path.read_bytes() for path in hostile.outside.iterdir() if path.is_file()}
    with served(hostile.root) as one:
        for name in hostile.names[::every]:
            with watched(hostile.folder, hostile.outside) as watch:
                for method, path, body in requests(one, hostile.names[:50], name):
                    status, _, content = ask(one, method, path, body=body)
                    about = f"{method} {path} {str(body)[:300]} of {name}: {status} {content[:300]!r}"
                    assert status in (200, 204, 400, 404), about
                    assert SECRET.encode() not in content, about
            assert not watch.trips, (name, watch.trips)
    assert not hostile.made.exists()
    assert {path: path.read_bytes() for path in hostile.outside.iterdir() if path.is_file()} == before
    assert not list((hostile.outside / "folder").iterdir())


def test_no_route_believes_a_field(hostile: Hostile) -> None:
    kinds = list(VALUES)
    number = 0
    for file in STRUCTURED:
        pattern = hostile.new()
        content = read_structure(pattern / file)
        for path in list(paths_of(content))[::3]:
            write_structure(
                hostile.new() / file, with_value(content, path, VALUES[kinds[number % len(kinds)]](hostile.outside))
            )
            number += 1
    walk(hostile, every=max(1, len(hostile.names) // 6))


def test_no_route_follows_waits_for_or_reads_without_end(hostile: Hostile) -> None:
    for number, name in enumerate(NAMES):
        for kind in KINDS[number % 3 :: 3]:
            replace_file(hostile.new(), name, kind, hostile.outside)
    walk(hostile, every=max(1, len(hostile.names) // 6))


@pytest.mark.soak
@pytest.mark.parametrize("name", NAMES)
def test_every_route_over_every_kind_of_every_file(hostile: Hostile, name: str) -> None:
    for kind in KINDS:
        replace_file(hostile.new(), name, kind, hostile.outside)
    walk(hostile, every=1)


@pytest.mark.soak
def test_the_prompt_runs_nothing_of_a_run(hostile: Hostile) -> None:
    folder = hostile.new()
    info = files.read_json(folder / files.RUN)
    touch = ["touch", str(hostile.made)]
    for model in (
        {"class": "subprocess.Popen", "config_kind": "arguments"},
        {"class": "torch.nn.Linear", "config_kind": "pydantic", "config_class": "subprocess.Popen"},
        {"class": "torch.nn.Linear", "config_kind": "transformers", "config_class": "subprocess.Popen"},
        {"class": "os.system", "config_kind": "dict"},
    ):
        write_structure(folder / files.RUN, {**info, "model": model})
        write_structure(folder / files.MODEL_CONFIG, {"args": touch})
        with served(hostile.root) as one:
            content = ask(one, "POST", "/api/predict", body={"name": folder.name, "prompt": "x"})[2]
        assert b"[Error: " in content
        assert not hostile.made.exists()

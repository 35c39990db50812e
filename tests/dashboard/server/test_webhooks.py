"""Webhooks: a real server gets what each service expects, again after a failure, and only at addresses of the home."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from darkit.dashboard.reading.cache import LogCache
from darkit.dashboard.reading.events import Event, Events
from darkit.dashboard.reading.library import Library
from darkit.dashboard.server import serve, webhooks
from darkit.dashboard.server.webhooks import Notifier, Webhook, message, read_webhooks
from darkit.errors import ConfigError
from darkit.runs import files
from tests.dashboard.parts import make_run

EVENT = Event(3, "crashed", "gpt", 1200, 5000, "ValueError: <boom> & <at user_id=all>", 5.0, {"loss": 0.25, "x": "NaN"})


@dataclass
class Receiver:
    """A server that answers with these codes and bodies, the last one for ever, and keeps what it got."""

    address: str
    answers: list[tuple[int, str]]
    got: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    def wait(self, count: int) -> list[dict[str, Any]]:
        deadline = time.monotonic() + 60
        while len(self.got) < count:
            assert time.monotonic() < deadline, self.got
            time.sleep(0.01)
        return [json.loads(body) for _, _, body in self.got]


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            one.got.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            code, said = one.answers.pop(0) if len(one.answers) > 1 else one.answers[0]
            if not code:
                self.wfile.write(said.encode())
                self.close_connection = True
                return
            self.send_response(code)
            if code == 302:
                self.send_header("location", f"{one.address}/elsewhere")
            self.end_headers()
            self.wfile.write(said.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    one = Receiver(f"http://127.0.0.1:{server.server_address[1]}", [(200, "ok")])
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield one
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def notify(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Watch a home with a run that is running, and return its folder."""
    monkeypatch.setattr(webhooks, "PERIOD", 0.05)
    monkeypatch.setattr(webhooks, "WAITS", (0.0, 0.05, 0.05))
    started: list[Notifier] = []

    def start(*targets: Webhook) -> Path:
        folder = make_run(home / "base", "gpt", 30, state="running", max_step=50)
        notifier = Notifier(targets, lambda run: f"http://box:8000/run/{run}")
        started.append(notifier)
        events = Events(Library(home / "base", LogCache()))
        events.look()
        notifier.start(events)
        return folder

    yield start
    for notifier in started:
        notifier.close()


def crash(folder: Path, reason: str = "ValueError: boom") -> None:
    values = files.read_json(folder / files.STATUS)
    files.write_json(folder / files.STATUS, {**values, "state": "crashed", "reason": reason})


def test_a_crash_reaches_every_webhook_that_asks_for_it_and_no_other(
    receiver: Receiver, notify: Callable[..., Path]
) -> None:
    url = receiver.address
    folder = notify(
        Webhook("json", f"{url}/all", secret="s"),
        Webhook("slack", f"{url}/crashes", on=("crashed",)),
        Webhook("json", f"{url}/ends", on=("finished",)),
    )
    crash(folder)
    receiver.wait(2)
    time.sleep(0.3)
    got = {path: (headers, json.loads(body), body) for path, headers, body in receiver.got}
    assert set(got) == {"/all", "/crashes"}
    headers, said, body = got["/all"]
    assert (said["kind"], said["run"], said["step"], said["max_step"]) == ("crashed", "gpt", 30, 50)
    assert said["reason"] == "ValueError: boom"
    assert said["link"] == "http://box:8000/run/gpt"
    assert headers["x-darkit-signature"] == "sha256=" + hmac.new(b"s", body, hashlib.sha256).hexdigest()
    text = got["/crashes"][1]["text"]
    assert text.startswith("gpt crashed at step 30 / 50\nValueError: boom\n")
    assert text.endswith("http://box:8000/run/gpt")


@pytest.mark.parametrize("state", ["crashed", "stalled"])
def test_a_run_that_diverges_and_ends_is_told_once_in_a_kind_that_was_asked_for(
    receiver: Receiver, notify: Callable[..., Path], state: str
) -> None:
    url = receiver.address
    folder = notify(Webhook("json", f"{url}/all"), Webhook("json", f"{url}/ends", on=(state, "finished")))
    values = files.read_json(folder / files.STATUS)
    files.write_json(folder / files.STATUS, {**values, "state": state, "diverged": 25, "reason": "The loss is NaN."})
    receiver.wait(2)
    time.sleep(0.3)
    said = {
        path: (one["kind"], one["step"]) for path, one in ((path, json.loads(body)) for path, _, body in receiver.got)
    }
    assert len(receiver.got) == 2
    assert said == {"/all": ("diverged", 25), "/ends": (state, 30)}


@pytest.mark.parametrize(
    ("kind", "answers", "count"),
    [
        ("json", [(500, ""), (429, ""), (200, "")], 3),
        ("feishu", [(200, '{"code": 11232, "msg": "too many"}'), (200, '{"code": 0}')], 2),
        ("dingtalk", [(200, "?"), (200, '{"errcode": 0}')], 2),
        ("json", [(0, "no HTTP at all\r\n\r\n"), (200, "")], 2),
        ("json", [(404, "")], 1),
        ("json", [(302, "")], 1),
        ("json", [(503, "")], 3),
    ],
)
def test_a_failed_message_is_sent_again_only_if_that_may_help(
    receiver: Receiver,
    notify: Callable[..., Path],
    kind: str,
    answers: list[tuple[int, str]],
    count: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    receiver.answers = answers
    folder = notify(Webhook(kind, f"{receiver.address}/secret-path"))
    crash(folder)
    receiver.wait(count)
    time.sleep(0.4)
    assert len(receiver.got) == count
    assert {path for path, _, _ in receiver.got} == {"/secret-path"}
    failed = answers[-1][0] != 200
    assert ("127.0.0.1: the message about gpt was not sent" in caplog.text) is failed
    assert "secret-path" not in caplog.text


def test_a_webhook_that_does_not_answer_holds_up_neither_the_others_nor_the_end(
    receiver: Receiver, notify: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "WAITS", (0.0, 60.0))
    dead = "http://127.0.0.1:9/"  # the port discard, where nobody listens
    folder = notify(Webhook("json", dead), Webhook("json", receiver.address))
    crash(folder)
    receiver.wait(1)  # and the fixture ends both at once


def test_each_service_gets_its_own_format_and_signature_and_texts_of_runs_call_nobody() -> None:
    def sent(kind: str, secret: str = "", language: str = "en") -> tuple[str, dict[str, Any], dict[str, str]]:
        url, body, headers = message(Webhook(kind, "https://x/y?a=1", secret, language=language), EVENT, now=1000.5)
        return url, json.loads(body), headers

    words = "gpt crashed at step 1,200 / 5,000"
    assert sent("slack")[1] == {
        "text": f"{words}\nValueError: &lt;boom&gt; &amp; &lt;at user_id=all&gt;\nloss 0.25, x NaN"
    }
    _, feishu, _ = sent("feishu", "key", "zh")
    assert feishu["content"]["text"].startswith(
        "gpt 已崩溃，第 1,200 / 5,000 步\nValueError: ‹boom› & ‹at user_id=all›"
    )
    signed = hmac.new(b"1000\nkey", b"", hashlib.sha256).digest()
    assert (feishu["timestamp"], feishu["sign"]) == ("1000", base64.b64encode(signed).decode())
    url, dingtalk, _ = sent("dingtalk", "key")
    signed = hmac.new(b"key", b"1000500\nkey", hashlib.sha256).digest()
    query = parse_qs(urlsplit(url).query)
    assert query == {"a": ["1"], "timestamp": ["1000500"], "sign": [base64.b64encode(signed).decode()]}
    assert dingtalk["msgtype"] == "text"
    assert dingtalk["at"] == {"isAtAll": False}
    assert sent("json")[1]["metrics"] == {"loss": 0.25, "x": "NaN"}


def put(home: Path, content: object, mode: int = 0o600) -> Path:
    home.mkdir(parents=True, exist_ok=True)
    path = home / "webhooks.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    path.chmod(mode)
    return path


def test_addresses_come_from_a_file_that_only_its_owner_can_read(home: Path) -> None:
    assert read_webhooks(home) == []
    path = put(home, {"webhooks": [{"kind": "slack", "url": "https://hooks/x", "on": ["crashed"]}]})
    assert read_webhooks(home) == [Webhook("slack", "https://hooks/x", on=("crashed",))]
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_webhooks(home)
    path.unlink()
    path.symlink_to(home / "elsewhere")
    with pytest.raises(ConfigError, match="link"):
        read_webhooks(home)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not valid JSON"),
        ({"hooks": []}, '"webhooks"'),
        ({"webhooks": ["x"]}, "kind and url"),
        ({"webhooks": [{"kind": "slak", "url": "https://x"}]}, "unknown kind 'slak'. Did you mean 'slack'"),
        ({"webhooks": [{"kind": "json", "url": "file:///etc/passwd"}]}, "http or https"),
        ({"webhooks": [{"kind": "json", "url": "https://[x"}]}, "http or https"),
        ({"webhooks": [{"kind": "json", "url": "https://x/a b"}]}, "without spaces"),
        ({"webhooks": [{"kind": "json", "url": "https://me:secret@x/"}]}, "user or password"),
        ({"webhooks": [{"kind": [], "url": "https://x"}]}, "unknown kind []"),
        ({"webhooks": [{"kind": "json", "url": "https://x", "language": []}]}, "language one of"),
        ({"webhooks": [{"kind": "json", "url": "https://x", "ur": 1}]}, "unknown key 'ur'"),
        ({"webhooks": [{"kind": "json", "url": "https://x", "on": ["end"]}]}, "on must be a list of some of finished"),
        ({"webhooks": [{"kind": "json", "url": "https://x", "secret": 5}]}, "secret must be a string"),
    ],
)
def test_a_wrong_file_keeps_the_dashboard_from_starting(home: Path, content: object, said: str) -> None:
    put(home, content)
    with pytest.raises(ConfigError) as refused:
        serve.serve(home, "127.0.0.1", 0, lambda address: pytest.fail("it must not start"))
    assert said in str(refused.value)


def test_the_server_of_a_home_sends_from_its_own_process(home: Path, receiver: Receiver) -> None:
    folder = make_run(home / "base", "gpt", 30, state="running")
    put(home, {"webhooks": [{"kind": "json", "url": receiver.address}]})
    address = serve.start_in_background(home, port=0)
    try:
        headers = {"content-type": "application/json", "origin": address.rstrip("/")}
        asked = urllib.request.Request(f"{address}api/events", b"{}", headers)
        with urllib.request.urlopen(asked, timeout=30) as answer:  # which is a look, and its first one
            assert json.load(answer) == {"last": 0, "events": []}
        crash(folder)
        (said,) = receiver.wait(1)
        assert said["run"] == "gpt"
        assert said["link"] == "", "others cannot open a page on this machine"
    finally:
        serve.stop(home)

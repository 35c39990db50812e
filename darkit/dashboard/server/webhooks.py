"""Messages to Slack, Feishu, DingTalk or any address when a run ends, crashes, stalls or diverges.

The addresses are in ``webhooks.json`` in the darkit home, which only its owner may read and write: neither a run nor a
request can name one. The server's own threads look at the runs and send; no training waits for them.

The formats are those of Slack's incoming webhooks, of Feishu's custom bots and of DingTalk's custom robots, each with
their signatures.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import logging
import os
import queue
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from darkit.dashboard.reading.events import DIVERGED, KINDS, Event, Events
from darkit.dashboard.server.place import WEBHOOKS
from darkit.dashboard.texts import LANGUAGES, text
from darkit.errors import ConfigError, nearest
from darkit.runs.inert import inert, valid_json
from darkit.runs.numbers import number_text
from darkit.runs.safe import UnreadableError, read_object

PERIOD = 5.0  # seconds between two looks at the runs
WAITS = (0.0, 2.0, 10.0, 60.0, 300.0)  # seconds before each attempt to send a message
_PATIENCE = 10.0  # seconds for an answer
_LONGEST_ANSWER = 2**16  # bytes
_MOST_WAITING = 100  # messages of one webhook
_LONGEST_WAIT = 600.0  # seconds that an answer may ask to wait
_KEYS = ("kind", "url", "secret", "on", "language")
_TRANSIENT = (408, 425, 429)  # and all of 500 and more
logger = logging.getLogger(__name__)

Request = tuple[str, bytes, dict[str, str]]  # an address, a body and further headers


@dataclass(frozen=True)
class Webhook:
    """An address that gets messages.

    Attributes:
        kind: Its format: ``slack``, ``feishu``, ``dingtalk`` or ``json``.
        url: The address.
        secret: Signs messages; empty for none.
        on: The events of which messages are sent.
        language: The language of the messages.
    """

    kind: str
    url: str
    secret: str = ""
    on: tuple[str, ...] = KINDS
    language: str = "en"

    @property
    def host(self) -> str:
        """The name of the address's machine; the rest of the address is a secret."""
        return urllib.parse.urlsplit(self.url).hostname or ""


def read_webhooks(home: Path) -> list[Webhook]:
    """Read the webhooks of a home; none without the file.

    Raises:
        ConfigError: The file is wrong, or others may read or change it.
    """
    path = home / WEBHOOKS
    try:
        values = read_object(path)
        state = path.stat()
    except FileNotFoundError:
        return []
    except UnreadableError as error:
        raise ConfigError(f"{path} cannot be read: {error.reason}.") from error
    if hasattr(os, "geteuid") and (state.st_uid != os.geteuid() or state.st_mode & 0o077):
        raise ConfigError(f"{path} has secrets, and others may read or change it: chmod 600 {path}")
    found = values.get("webhooks")
    if set(values) != {"webhooks"} or not isinstance(found, list):
        raise ConfigError(f'{path} must be {{"webhooks": [...]}}, a list of objects with kind and url.')
    return [_webhook(path, value) for value in found]


def _webhook(path: Path, value: object) -> Webhook:
    if not isinstance(value, dict) or not {"kind", "url"} <= value.keys():
        raise ConfigError(f"{path}: a webhook must be an object with kind and url.")
    for key in value:
        if key not in _KEYS:
            raise ConfigError(f"{path}: unknown key {key!r}. {nearest(key, _KEYS)}.")
    kind, url, events = value["kind"], value["url"], value.get("on", list(KINDS))
    if not isinstance(kind, str) or kind not in _FORMATS:
        raise ConfigError(f"{path}: unknown kind {kind!r}. {nearest(str(kind), _FORMATS)}.")
    if not isinstance(url, str) or not _is_address(url):
        raise ConfigError(
            f"{path}: the url of a webhook must be an http or https address of ASCII without spaces, user or password."
        )
    if not isinstance(events, list) or not events or not set(map(str, events)) <= set(KINDS):
        raise ConfigError(f"{path}: on must be a list of some of {', '.join(KINDS)}, not {events!r}.")
    secret, language = value.get("secret", ""), value.get("language", "en")
    if not isinstance(secret, str) or not isinstance(language, str) or language not in LANGUAGES:
        raise ConfigError(f"{path}: secret must be a string, and language one of {', '.join(LANGUAGES)}.")
    return Webhook(kind, url, secret, tuple(events), language)


def _is_address(url: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(url)
        plain = url.isascii() and url.isprintable() and " " not in url and "@" not in parts.netloc
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and plain
    except ValueError:
        return False


class Notifier:
    """Sends a message to each webhook when something happens to a run, from threads of its own.

    Args:
        webhooks: The addresses.
        link: Returns the address of a run's page, or empty text.
    """

    def __init__(self, webhooks: Sequence[Webhook], link: Callable[[str], str] = lambda run: "") -> None:
        self._outboxes = [_Outbox(webhook, link) for webhook in webhooks]
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, events: Events) -> None:
        """Begin to look at the runs; without webhooks nothing is done."""
        if self._outboxes and self._thread is None:
            for outbox in self._outboxes:
                outbox.start()
            self._thread = threading.Thread(target=self._work, args=(events,), name="darkit-notifier", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End the threads; what was not sent is lost."""
        self._ended.set()
        for outbox in self._outboxes:
            outbox.close()
        if self._thread is not None:
            self._thread.join()

    def _work(self, events: Events) -> None:
        last: int | None = None
        while True:
            try:
                events.look()
                last, new = events.since(last)
            except Exception:  # of one look; the next may find the folder again
                logger.exception("The runs could not be looked at.")
                new = []
            for event in new:
                for outbox in self._outboxes:
                    outbox.put(event)
            if self._ended.wait(PERIOD):
                return


class _Outbox:
    """The messages that wait for one webhook, and the thread that sends them in order."""

    def __init__(self, webhook: Webhook, link: Callable[[str], str]) -> None:
        self._webhook = webhook
        self._link = link
        self._waiting: queue.Queue[Event | None] = queue.Queue(_MOST_WAITING)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"darkit-{webhook.kind}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        while True:  # room for the end
            try:
                self._waiting.put_nowait(None)
                break
            except queue.Full:
                self._waiting.get_nowait()
        if self._thread.is_alive():
            self._thread.join(_PATIENCE)

    def put(self, event: Event) -> None:
        if event.kind not in self._webhook.on:
            if event.also not in self._webhook.on:
                return
            event = replace(event, kind=event.also, step=event.reached)
        try:
            self._waiting.put_nowait(event)
        except queue.Full:
            logger.error("%s: a message was dropped, since %d wait already.", self._webhook.host, _MOST_WAITING)

    def _work(self) -> None:
        while (event := self._waiting.get()) is not None and not self._ended.is_set():
            self._deliver(event)

    def _deliver(self, event: Event) -> None:
        problem, longer = "", 0.0
        for wait in WAITS:
            if self._ended.wait(max(wait, longer)):
                return
            problem, again, longer = send(message(self._webhook, event, self._link(event.run)), self._webhook.kind)
            if not problem or not again:
                break
        if problem:
            logger.error("%s: the message about %s was not sent: %s", self._webhook.host, inert(event.run), problem)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Refuse to send a message to another address than the one in the file."""

    def redirect_request(self, *_: Any) -> None:
        return None


def send(request: Request, kind: str) -> tuple[str, bool, float]:
    """Send a message once.

    Returns:
        What went wrong, or empty; whether it may work later; and how many seconds the answer asks to wait.
    """
    url, body, headers = request
    headers = {"content-type": "application/json; charset=utf-8", "user-agent": "darkit", **headers}
    try:
        asked = urllib.request.Request(url, body, headers, method="POST")  # noqa: S310 - checked when read
        with urllib.request.build_opener(_NoRedirects).open(asked, timeout=_PATIENCE) as answer:
            said = answer.read(_LONGEST_ANSWER)
    except urllib.error.HTTPError as error:
        with error:
            again = error.code >= 500 or error.code in _TRANSIENT
            return f"it answered with {error.code}", again, _asked_to_wait(error.headers.get("retry-after", ""))
    except (OSError, ValueError) as error:
        return inert(getattr(error, "reason", error)), True, 0.0
    except http.client.HTTPException:  # what it says may repeat the address
        return "its answer is not HTTP", True, 0.0
    return _refusal(said, kind)


def _asked_to_wait(header: str) -> float:
    return min(_LONGEST_WAIT, float(header)) if header.isascii() and header.isdecimal() else 0.0


def _refusal(said: bytes, kind: str) -> tuple[str, bool, float]:
    """Read an answer with code 200: Feishu and DingTalk say within it that they refused a message."""
    name = {"feishu": "code", "dingtalk": "errcode"}.get(kind)
    if name is None:
        return "", False, 0.0
    try:
        values = json.loads(said)
        code = values.get(name, values.get("StatusCode", 0))
    except (ValueError, AttributeError, RecursionError):
        return "its answer cannot be read", True, 0.0
    if code == 0:
        return "", False, 0.0
    return inert(f"it refused the message: {str(values.get('msg') or values.get('errmsg') or code)[:200]}"), True, 0.0


def message(webhook: Webhook, event: Event, link: str = "", now: float | None = None) -> Request:
    """Return the request that sends an event to a webhook.

    Args:
        webhook: The webhook.
        event: The event.
        link: The address of the run's page, or empty.
        now: Unix seconds, for the signature; by default the time.
    """
    return _FORMATS[webhook.kind](webhook, event, link, time.time() if now is None else now)


def sentence(event: Event, language: str) -> str:
    """Return one sentence about an event, with the reason and the last values of the run in lines of their own."""
    step = f"{event.step:,}" + (f" / {event.max_step:,}" if event.max_step and event.kind != DIVERGED else "")
    said = text(language, f"event_{event.kind}", name=event.run, step=step)
    values = ", ".join(
        f"{name} {number_text(value) if isinstance(value, int | float) else value}"
        for name, value in event.metrics.items()
    )
    return inert("\n".join(line for line in (said, event.reason, values) if line), lines=True)


def _json(values: Mapping[str, Any]) -> bytes:
    return valid_json(json.dumps(values, ensure_ascii=False)).encode("utf-8", "replace")


def _with_link(said: str, link: str) -> str:
    return f"{said}\n{link}" if link else said


def _slack(webhook: Webhook, event: Event, link: str, now: float) -> Request:
    said = sentence(event, webhook.language)
    for sign, name in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):  # the only signs of its markup
        said = said.replace(sign, name)
    return webhook.url, _json({"text": _with_link(said, link)}), {}


def _feishu(webhook: Webhook, event: Event, link: str, now: float) -> Request:
    said = sentence(event, webhook.language).replace("<", "‹").replace(">", "›")  # <at ...> would call people
    values: dict[str, Any] = {"msg_type": "text", "content": {"text": _with_link(said, link)}}
    if webhook.secret:
        moment = str(int(now))
        signed = hmac.new(f"{moment}\n{webhook.secret}".encode(), b"", hashlib.sha256).digest()
        values = {"timestamp": moment, "sign": base64.b64encode(signed).decode(), **values}
    return webhook.url, _json(values), {}


def _dingtalk(webhook: Webhook, event: Event, link: str, now: float) -> Request:
    said = _with_link(sentence(event, webhook.language), link)
    url = webhook.url
    if webhook.secret:
        moment = str(int(now * 1000))
        signed = hmac.new(webhook.secret.encode(), f"{moment}\n{webhook.secret}".encode(), hashlib.sha256).digest()
        query = urllib.parse.urlencode({"timestamp": moment, "sign": base64.b64encode(signed).decode()})
        url += ("&" if urllib.parse.urlsplit(url).query else "?") + query
    return url, _json({"msgtype": "text", "text": {"content": said}, "at": {"isAtAll": False}}), {}


def _plain(webhook: Webhook, event: Event, link: str, now: float) -> Request:
    body = _json({**asdict(event), "text": sentence(event, webhook.language), "link": link})
    if not webhook.secret:
        return webhook.url, body, {}
    signed = hmac.new(webhook.secret.encode(), body, hashlib.sha256).hexdigest()
    return webhook.url, body, {"x-darkit-signature": f"sha256={signed}"}


_FORMATS: Mapping[str, Callable[[Webhook, Event, str, float], Request]] = {
    "slack": _slack,
    "feishu": _feishu,
    "dingtalk": _dingtalk,
    "json": _plain,
}

"""Copies of a run in which one thing is hostile, and a watch that trips on what no run directory may bring about."""

from __future__ import annotations

import copy
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

SECRET = "s3cret-of-the-machine"
PLANTED = "planted_canary"
LONGEST = 30  # seconds of one command
_STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "pty.spawn", "pickle.find_class")
_CONNECTS = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")
_CHANGES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.truncate", "os.chmod", "os.symlink", "os.link")
_ALLOWED_PROGRAMS = {"git", "/sbin/ldconfig", "uname", "ldconfig", "lscpu"}
_SINKS = ("/dev/null", "/dev/tty")
_watch: Watch | None = None


class Watch:
    """What may not happen while a command runs over hostile runs.

    Args:
        inside: The only folder that may be written to.
        outside: A folder of which nothing may be read or changed.
    """

    def __init__(self, inside: Path, outside: Path) -> None:
        self.inside = os.path.realpath(inside)
        self.outside = os.path.realpath(outside)
        self.trips: list[str] = []

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(args[0], str | bytes):
            self._look_at_open(os.fsdecode(args[0]), args[1], args[2])
        elif event in _STARTS and not (event == "subprocess.Popen" and str(args[0]) in _ALLOWED_PROGRAMS):
            self.trips.append(f"{event} {args[:2]!r}"[:300])
        elif event in _CONNECTS and not _is_here(args):
            self.trips.append(f"{event} {args[1:]!r}"[:300])
        elif event in _CHANGES and isinstance(args[0], str | bytes):
            path = _place(os.fsdecode(args[0]), follow=False)
            if _within(path, self.outside):
                self.trips.append(f"{event} {path}")
        elif event == "import" and str(args[0]).startswith(PLANTED):
            self.trips.append(f"import {args[0]}")

    def _look_at_open(self, name: str, mode: str | None, flags: int) -> None:
        path = _place(name, follow=not flags & os.O_NOFOLLOW)
        writes = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) or bool(set(mode or "") & set("wax+"))
        if _within(path, self.outside) or path in ("/dev/zero", "/etc/passwd"):
            self.trips.append(f"open {path}")
        elif writes and not _within(path, self.inside) and not path.startswith(_SINKS) and "__pycache__" not in path:
            self.trips.append(f"write {path}")


def _is_here(args: tuple[Any, ...]) -> bool:
    """Return whether an address is this machine's own: a test asks a server of its own there."""
    return any(part == "127.0.0.1" or (isinstance(part, tuple) and part[0] == "127.0.0.1") for part in args)


def _place(name: str, *, follow: bool) -> str:
    if follow:
        return os.path.realpath(name)
    return os.path.join(os.path.realpath(os.path.dirname(name) or "."), os.path.basename(name))  # noqa: PTH118, PTH119, PTH120


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + os.sep)


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if _watch is not None:
        _watch(event, args)


sys.addaudithook(_hook)


@contextmanager
def watched(inside: Path, outside: Path) -> Iterator[Watch]:
    """Watch the block; whatever is tripped is in ``trips``. A block that takes too long is broken off."""
    global _watch

    def give_up(*_: object) -> None:
        raise TimeoutError(f"no answer in {LONGEST} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(LONGEST)
    watch = _watch = Watch(inside, outside)
    try:
        yield watch
    finally:
        _watch = None
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def make_outside(folder: Path) -> Path:
    """Make a folder that is none of a run's business: a secret, a table, a text, a model's files, a config."""
    folder.mkdir()
    (folder / "secret.txt").write_text(f"{SECRET}\n" * 50)
    (folder / "secret.json").write_text(json.dumps({"state": SECRET, "class": SECRET, "tags": [SECRET]}))
    (folder / "folder").mkdir()
    return folder


STEERING = "\x1b]0;evil\x07\x1b[2J\x9b31m\u202e\u200b\rspoof\nspoof"
VALUES: dict[str, Callable[[Path], Any]] = {
    "steering": lambda outside: STEERING,
    "steering key": lambda outside: {STEERING: STEERING},
    "target": lambda outside: {"_target_": f"{PLANTED}.make"},
    "call": lambda outside: {"_target_": "subprocess.Popen", "args": ["touch", str(outside / "made")]},
    "name": lambda outside: f"{PLANTED}.make",
    "program": lambda outside: "subprocess.Popen",
    "override": lambda outside: f"loss={{_target_:{PLANTED}.make}}",
    "environment": lambda outside: "${oc.env:CANARY_SECRET}",
    "decoded": lambda outside: "${oc.decode:${oc.env:CANARY_SECRET}}",
    "path": lambda outside: str(outside / "secret.txt"),
    "upwards": lambda outside: "../../../outside/secret.txt",
    "hub": lambda outside: "hf:owner/name",
    "huge": lambda outside: 10**400,
    "infinite": lambda outside: float("-inf"),
    "not a number": lambda outside: float("nan"),
    "negative": lambda outside: -1,
    "true": lambda outside: True,
    "nothing": lambda outside: None,
    "text": lambda outside: "x",
    "empty": lambda outside: "",
    "half": lambda outside: "\ud800",
    "long": lambda outside: "x" * 100_000,
    "list": lambda outside: [["x"], {"a": None}],
    "deep": lambda outside: _deep(300),
}


def _deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def paths_of(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to every value within a value from JSON or YAML, and to itself; of long lists only the first."""
    yield before
    items = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, item in items:
        yield from paths_of(item, (*before, key))


def with_value(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return content with another value at a place."""
    if not path:
        return value
    changed = copy.deepcopy(content)
    place = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return changed


def write_structure(path: Path, content: Any) -> None:
    """Write content as the file's ending says."""
    if path.suffix == ".yaml":
        try:
            path.write_text(yaml.safe_dump(content), encoding="utf-8", errors="replace")
        except RecursionError:
            path.write_text("a: " + "[" * 300 + "]" * 300)
        return
    path.write_text(json.dumps(content))


def read_structure(path: Path) -> Any:
    """Read a file of JSON or YAML."""
    text = path.read_text()
    return yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)


def as_link(path: Path, outside: Path) -> None:
    path.symlink_to(outside / ("secret.json" if path.suffix == ".json" else "secret.txt"))


def as_linked_folder(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "folder")


def as_new_link(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "made")


def as_device(path: Path, outside: Path) -> None:
    path.symlink_to("/dev/zero")


def as_pipe(path: Path, outside: Path) -> None:
    os.mkfifo(path)


def as_socket(path: Path, outside: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the address of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(path.name)
    finally:
        os.chdir(here)


def as_folder(path: Path, outside: Path) -> None:
    path.mkdir()


def as_sparse(path: Path, outside: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**41)


def as_garbage(path: Path, outside: Path) -> None:
    path.write_bytes(STEERING.encode("utf-8", "surrogatepass") * 50 + bytes(range(256)))


def as_empty(path: Path, outside: Path) -> None:
    path.write_bytes(b"")


def as_columns(path: Path, outside: Path) -> None:
    path.write_text("step" + ",x" * 400_000 + "\n1" + ",1" * 400_000 + "\n")


def as_one_line(path: Path, outside: Path) -> None:
    path.write_bytes(b'{"a": "' + b"x" * 3_000_000)


def as_steering_table(path: Path, outside: Path) -> None:
    name = STEERING.replace("\n", " ")
    path.write_text(f'step,"{name}",train_loss,val_loss\n1,"{name}","{name}",2\n2,1e999,3,x\n', newline="")


KINDS: tuple[Callable[[Path, Path], None], ...] = (
    as_link,
    as_linked_folder,
    as_new_link,
    as_device,
    as_pipe,
    as_socket,
    as_folder,
    as_sparse,
    as_garbage,
    as_empty,
    as_columns,
    as_one_line,
    as_steering_table,
)
STRUCTURED = ("run.json", "config.json", "trainer_config.json", "status.json", "notes.json", "config.yaml")
NAMES = (
    *STRUCTURED,
    "environment.json",
    "train_log.csv",
    "system_log.csv",
    "model.py",
    "tokenizer.json",
    "tokenizer",
    "tensorboard",
    "stop.json",
    ".lock",
)


def replace_file(folder: Path, name: str, kind: Callable[[Path, Path], None], outside: Path) -> None:
    """Put something else in the place of a file or folder of a run."""
    path = folder / name
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    kind(path, outside)

"""Homes elsewhere for tests: a folder that can break, and a real SFTP server on this machine."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncssh

from darkit.remote.store import FolderStore, Item
from darkit.runs import files


def make_run(home: Path, name: str, rows: int = 3, **status: Any) -> Path:
    """Make a run of a few files in a home."""
    folder = home / "base" / name
    folder.mkdir(parents=True)
    files.write_json(folder / files.RUN, {"id": name, "name": name, "created": 1.0})
    files.write_json(folder / files.MODEL_CONFIG, {"width": 3})
    files.write_json(folder / files.STATUS, {"state": "finished", "step": rows, "heartbeat": 5.0, **status})
    (folder / files.LOG).write_text("step,train_loss\n" + "".join(f"{step},0.{step}\n" for step in range(1, rows + 1)))
    (folder / "iter-3-ckpt.pth").write_bytes(b"x" * 1000)
    return folder


def snapshot(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return what a write anywhere below a folder would change."""
    found = {}
    for path in (folder, *folder.rglob("*")):
        state = path.lstat()
        found[str(path)] = (state.st_ino, state.st_mode, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
    return found


class BreakingStore(FolderStore):
    """A folder of this machine as a store, which breaks after so many bytes, and keeps what was asked."""

    def __init__(self, breaks_after: int | None = None) -> None:
        self.left = breaks_after
        self.calls: list[str] = []

    def list(self, path: str) -> list[Item]:
        self.calls.append(f"list {Path(path).name}")
        return super().list(path)

    def read(self, path: str, start: int, count: int) -> bytes:
        self.calls.append(f"read {Path(path).name}")
        data = super().read(path, start, count)
        if self.left is not None:
            self.left -= len(data)
            if self.left < 0:
                raise ConnectionResetError("Connection lost")
        return data


@dataclass
class SshServer:
    """An SFTP server.

    Attributes:
        port: Its port.
        breaks: Called with the bytes served so far; the connection ends where it is true.
        served: The bytes served so far.
        forbidden: Part of the paths that must not be read.
        silent: Whether it answers no more.
        connections: All that were made to it.
    """

    port: int
    breaks: Callable[[int], bool]
    served: int = 0
    forbidden: str = "\0"
    silent: bool = False
    connections: list[asyncssh.SSHServerConnection] = field(default_factory=list)


@contextmanager
def ssh_server(folder: Path, dot_ssh: Path, port: int = 0) -> Iterator[SshServer]:
    """Serve a folder by SFTP; a user whose ``~/.ssh`` is the given one may enter and knows the server."""
    dot_ssh.mkdir(parents=True, exist_ok=True)
    key, host_key = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    key.write_private_key(dot_ssh / "id_ed25519")
    (dot_ssh / "id_ed25519").chmod(0o600)
    key.write_public_key(dot_ssh.parent / "authorized")
    shown = SshServer(0, lambda served: False)

    class Files(asyncssh.SFTPServer):
        def __init__(self, channel: Any) -> None:
            super().__init__(channel, chroot=os.fsencode(folder))
            self._connection = channel.get_connection()

        async def open(self, path: bytes, pflags: int, attrs: asyncssh.SFTPAttrs) -> Any:
            if shown.silent:
                await ended.wait()
            if shown.forbidden.encode() in path:
                raise asyncssh.SFTPPermissionDenied("Permission denied")
            return super().open(path, pflags, attrs)

        def read(self, file_obj: object, offset: int, size: int) -> Any:
            data = super().read(file_obj, offset, size)
            shown.served += len(data) if isinstance(data, bytes) else 0
            if shown.breaks(shown.served):
                self._connection.abort()
                raise asyncssh.SFTPConnectionLost("broken off")
            return data

    class Server(asyncssh.SSHServer):
        def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
            shown.connections.append(conn)

    loop, ready, ended = asyncio.new_event_loop(), threading.Event(), asyncio.Event()

    async def work() -> None:
        server = await asyncssh.listen(
            "127.0.0.1",
            port,
            server_factory=Server,
            server_host_keys=[host_key],
            authorized_client_keys=str(dot_ssh.parent / "authorized"),
            sftp_factory=Files,
        )
        shown.port = server.get_port()
        ready.set()
        await ended.wait()
        server.close()
        await server.wait_closed()
        for connection in shown.connections:  # also of a client that gave up in the middle of its greeting
            connection.abort()
            await connection.wait_closed()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:  # it ends what connections leave
            runner.run(work())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(60)
    public = host_key.export_public_key().decode().strip()
    (dot_ssh / "known_hosts").write_text(f"[127.0.0.1]:{shown.port} {public}\n")
    yield shown
    loop.call_soon_threadsafe(ended.set)
    thread.join(10)

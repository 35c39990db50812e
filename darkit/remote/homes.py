"""Several homes for one reader: its own, and others that are only read. Homes elsewhere are copied by threads."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout
from platformdirs import user_cache_path

from darkit.errors import DarkitError, StorageError
from darkit.remote.address import Address, local_base, parse_addresses
from darkit.remote.mirror import Mirror
from darkit.remote.store import PATIENCE, Store, check_installed, connect, reason_of
from darkit.runs import files
from darkit.runs.roots import Root
from darkit.runs.safe import finite_number

logger = logging.getLogger(__name__)
PERIOD = 5.0  # seconds between two passes
_LONGEST_PAUSE = 300.0  # seconds between two attempts to connect
_STATE = "state.json"


@dataclass(frozen=True)
class HomeState:
    """How up to date the copy of a home is.

    Attributes:
        label: The label of the home.
        address: Where it is.
        seen: When it was last read completely, in Unix seconds, or None.
        failing: Since when it cannot be read, in Unix seconds, or None while it can.
        problem: Why it cannot be read, or what of it is left out; or empty.
    """

    label: str
    address: str
    seen: float | None = None
    failing: float | None = None
    problem: str = ""


class Homes:
    """The homes that a reader shows besides its own. `start` begins to copy those elsewhere.

    Args:
        texts: Their addresses, see `darkit.remote.address.parse_addresses`.
        connecting: Connects to a home elsewhere.
        period: Seconds between two passes.

    Raises:
        ConfigError: An address is wrong, or a package is missing.
    """

    def __init__(
        self, texts: Sequence[str], *, connecting: Callable[[Address], Store] = connect, period: float = PERIOD
    ) -> None:
        self._local: list[Folder] = []
        self._copies: list[Copy] = []
        self.roots: list[Root] = []
        for address in parse_addresses(texts):
            if address.kind == "local":
                self._local.append(Folder(address))
                self.roots.append(Root(local_base(address), address.label, writable=False))
                continue
            check_installed(address)
            copy = Copy(address, connecting, period)
            self._copies.append(copy)
            self.roots.append(Root(copy.mirror.base, address.label, writable=False, seen=copy.seen))

    def start(self) -> None:
        """Begin to copy homes elsewhere."""
        for copy in self._copies:
            copy.start()

    def close(self) -> None:
        """End copying, without waiting for an answer from elsewhere."""
        for copy in self._copies:
            copy.close()

    def states(self) -> list[HomeState]:
        """Return how up to date each home is."""
        return [*(home.state for home in self._local), *(copy.state for copy in self._copies)]


class Copy:
    """The copy of one home, in the user's cache directory, and the thread that keeps it up to date.

    Of several dashboards with the same home one copies, and the others read.
    """

    def __init__(self, address: Address, connecting: Callable[[Address], Store], period: float) -> None:
        place = f"{address.kind}://{address.user}@{address.host}:{address.port or ''}/{address.path}"
        digest = hashlib.sha256(place.encode()).hexdigest()[:16]
        self._folder = cache_folder() / digest
        self._address, self._connecting, self._period = address, connecting, period
        self.mirror = Mirror(self._folder, address.path)
        self._known = HomeState(address.label, address.text)
        self._asked: float | None = None  # since when an answer is waited for
        self._read_state()
        self._ended = threading.Event()
        self._store: Store | None = None
        self._lock = FileLock(self._folder / ".lock", thread_local=False)

    @property
    def state(self) -> HomeState:
        """How up to date the copy is. A home that does not answer for long, as a disk may, counts as lost."""
        asked = self._asked
        if asked is None or time.time() - asked < PATIENCE or self._known.failing is not None:
            return self._known
        return replace(self._known, failing=asked, problem="No answer")

    def start(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._work, name=f"darkit-copy-{self._address.label}", daemon=True).start()

    def close(self) -> None:
        """Let the thread end."""
        self._ended.set()

    def seen(self, run: Path) -> float | None:
        """Return when the copy of a run was last up to date, on the monotonic clock, or None."""
        if self._lock.is_locked:
            return self.mirror.seen(run)
        return None if self.state.seen is None else time.monotonic() - (time.time() - self.state.seen)

    def _work(self) -> None:
        pause = self._period
        try:
            while not self._ended.is_set():
                well = self.attempt()
                pause = self._period if well else min(2 * pause, _LONGEST_PAUSE)
                self._ended.wait(pause)
        finally:
            self.release()

    def attempt(self) -> bool:
        """Copy what is new, or record why the home cannot be read; return whether it could be read."""
        try:
            if not self._may_write():
                self._read_state()
                return True
            if self._store is None:
                with self._waiting():
                    self._store = self._connecting(self._address)
            self.mirror.bring_up_to_date(self._store, self._waiting)
        except Exception as error:  # the store is other people's code; what it raises is shown
            self.disconnect()
            failing = self._known.failing or time.time()
            logger.info("The home %s cannot be read.", self._address.text, exc_info=True)
            problem = str(error) if isinstance(error, DarkitError) else reason_of(error, self._address)
            self._known = replace(self._known, failing=failing, problem=problem)
            self._write_state()
            return False
        self._known = replace(self._known, seen=time.time(), failing=None, problem=self.mirror.problem)
        self._write_state()
        return True

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        self._asked = time.time()
        try:
            yield
        finally:
            self._asked = None

    def release(self) -> None:
        """Close the connection, and let another reader copy."""
        self.disconnect()
        self._lock.release()

    def disconnect(self) -> None:
        """Close the connection; the next attempt makes a new one."""
        store, self._store = self._store, None
        if store is not None:
            store.close()

    def _may_write(self) -> bool:
        """Return whether this process copies the home; the first one does."""
        if not self._lock.is_locked:
            with files.storage_errors(f"write into {self._folder}"):
                self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                with suppress(Timeout):
                    self._lock.acquire(timeout=0)
        return self._lock.is_locked

    def _read_state(self) -> None:
        values = files.read_json(self._folder / _STATE)
        problem = values.get("problem")
        self._known = replace(
            self._known,
            seen=finite_number(values.get("seen")),
            failing=finite_number(values.get("failing")),
            problem=problem if isinstance(problem, str) else "",
        )

    def _write_state(self) -> None:
        values = {key: value for key, value in asdict(self._known).items() if key not in ("label", "address")}
        with suppress(StorageError):  # what is shown does not depend on it
            files.write_json(self._folder / _STATE, values)


def look_once(text: str) -> tuple[Path, HomeState, bool]:
    """Bring the copy of a home up to date once, if it is elsewhere.

    Returns:
        The folder of its runs, how up to date that is, and whether it is a copy.

    Raises:
        ConfigError: The address is wrong, or a package is missing.
        StorageError: The home cannot be read, and was never read before.
    """
    (address,) = parse_addresses([text])
    if address.kind == "local":
        return local_base(address), Folder(address).state, False
    check_installed(address)
    copy = Copy(address, connect, PERIOD)
    try:
        copy.attempt()
    finally:
        copy.release()
    if copy.state.seen is None:
        raise StorageError(f"The home {address.text} cannot be read: {copy.state.problem}.")
    return copy.mirror.base, copy.state, True


def cache_folder() -> Path:
    """Return where copies of homes are: in the user's cache directory."""
    return user_cache_path("darkit", appauthor=False) / "homes"


class Folder:
    """A home on this machine, perhaps on a disk that comes and goes."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._seen: float | None = None
        self._failing: float | None = None

    @property
    def state(self) -> HomeState:
        """Whether the folder can be read. A home without runs has no ``base`` yet."""
        problem = ""
        try:
            os.scandir(self._address.path).close()
            with suppress(FileNotFoundError):
                os.scandir(local_base(self._address)).close()
        except OSError as error:
            problem = error.strerror or str(error)
            self._failing = self._failing or time.time()
        else:
            self._seen, self._failing = time.time(), None
        return HomeState(self._address.label, self._address.text, self._seen, self._failing, problem)

"""The dashboard's page in a cell of a notebook."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import quote, urlsplit

from darkit.dashboard.server.serve import start_in_background
from darkit.errors import ConfigError, ServerError
from darkit.runs import Run, base, files, home, load

_MOST_SERVERS = 20  # Jupyter servers of this person

# Where the browser reaches the dashboard only it knows: through jupyter-server-proxy if there is one, otherwise at its
# own address, which may be framed by the Jupyter servers that were running when it was started.
_SCRIPT = """
(async () => {
  const {id, address, frames, height, rest} = %s;
  const place = document.getElementById(id);
  const config = document.getElementById("jupyter-config-data");
  const base = config ? JSON.parse(config.textContent).baseUrl : document.body.dataset.baseUrl;
  let found = "";
  if (base) {
    const proxied = new URL(`${base}proxy/${new URL(address).port}/`, location.href).href;
    const answer = await fetch(`${proxied}assets/icon.svg`).catch(() => null);
    if (answer && answer.ok && !answer.redirected) found = proxied;
  }
  const link = place.querySelector("a");
  if (!found && frames.includes(location.origin)) found = address;
  if (!found) return;
  const frame = document.createElement("iframe");
  Object.assign(frame, {src: found + rest, title: "darkit", height});
  frame.style.cssText = "width:100%%;border:1px solid rgba(128,128,128,.4);border-radius:6px";
  link.href = found + rest;
  place.prepend(frame);
})();
"""


@dataclass(frozen=True)
class DashboardCell:
    """The dashboard as a notebook shows it.

    Attributes:
        address: The address of the server on this machine, with its token where it needs one.
        frames: The origins of the pages that may show it as a part of theirs.
        height: Its height, in pixels.
        rest: The rest of its address, after that of the server.
    """

    address: str
    frames: tuple[str, ...]
    height: int
    rest: str

    def __repr__(self) -> str:
        return f"The dashboard is at {self.link}"

    @property
    def link(self) -> str:
        """The address of the page."""
        return self.address.partition("?")[0] + self._rest_with_token

    @property
    def _rest_with_token(self) -> str:
        token = self.address.partition("?")[2]
        return self.rest + (f"{'&' if '?' in self.rest else '?'}{token}" if token else "")

    def _repr_html_(self) -> str:
        id = f"darkit-{secrets.token_hex(8)}"
        address = self.address.partition("?")[0]
        values = {"id": id, **self.__dict__, "address": address, "rest": self._rest_with_token}
        script = _SCRIPT % json.dumps(values).replace("<", "\\u003c")
        link = f'<a href="{escape(self.link)}" target="_blank" rel="noopener">{escape(repr(self))}</a>'
        return f'<div id="{id}">{link}</div><script>{script}</script>'


def show(run: str | Run | Sequence[str | Run] | None = None, *, height: int = 800) -> DashboardCell:
    """Show the dashboard in a notebook: the runs, one run, or several compared.

    The server of the home is started in the background unless it is running; `darkit stop-server` ends it. The cell
    shows its page through jupyter-server-proxy where the Jupyter server has it, and otherwise directly, if the browser
    is on this machine; elsewhere it shows the address.

    Args:
        run: A run, or the runs to compare; by default all runs.
        height: The height of the page, in pixels.

    Raises:
        RunNotFoundError: A run does not exist.
        ConfigError: The height is not positive, or a run is of another home, which this home's dashboard does not show.
        ServerError: The dashboard does not start.
    """
    if isinstance(height, bool) or not isinstance(height, int) or height < 1:
        raise ConfigError(f"height must be a number of pixels of at least 1, not {height!r}.")
    given = [] if run is None else [run] if isinstance(run, str | Run) else list(run)
    for one in given:
        if isinstance(one, Run) and one.path.parent != base():
            raise ConfigError(f"The run {one.path} is not in {base()}, which the dashboard shows. Set DARWIN_KIT_HOME.")
    names = [one.name if isinstance(one, Run) else load(one).name for one in given]
    rest = ""
    if isinstance(run, str | Run):
        rest = f"run/{quote(names[0])}"
    elif names:
        rest = "compare?" + "&".join(f"run={quote(name)}" for name in names)
    frames = _notebooks()
    try:
        address = _started(frames)
    except ServerError:  # it is running, and may not be framed by all of these
        frames, address = (), _started(())
    return DashboardCell(address, frames, height, rest)


def _started(frames: Sequence[str]) -> str:
    """Return the address of the home's server; it is started at its usual port or, if that is taken, at another one."""
    try:
        return start_in_background(home(), frames=frames)
    except ServerError as error:
        if "Choose another with --port" not in str(error):
            raise
        return start_in_background(home(), port=0, frames=frames)


def _notebooks() -> tuple[str, ...]:
    """Return the origins of the Jupyter servers of this person on this machine, by each name of the machine itself."""
    try:
        from jupyter_core.paths import jupyter_runtime_dir
    except ImportError:
        return ()
    found: list[str] = []
    for path in sorted(Path(jupyter_runtime_dir()).glob("jpserver-*.json"))[:_MOST_SERVERS]:
        url = files.read_json(path).get("url")
        parts = urlsplit(url if isinstance(url, str) else "")
        if parts.scheme in ("http", "https") and parts.hostname in ("localhost", "127.0.0.1") and parts.port:
            found += [f"{parts.scheme}://{name}:{parts.port}" for name in ("localhost", "127.0.0.1")]
    return tuple(dict.fromkeys(found))

"""By which names and below which path the server is reached."""

from __future__ import annotations

import pytest
from starlette.datastructures import Headers

from darkit.dashboard.server.access import Access, make_access
from darkit.errors import ConfigError


def below(access: Access, path: str, *, prefix: str | None = None, client: str = "127.0.0.1") -> tuple[str, bytes]:
    headers = Headers({"x-forwarded-prefix": prefix} if prefix is not None else {})
    scope = access.below({"path": path, "raw_path": path.encode(), "client": (client, 1)}, headers)
    return scope["path"], scope["raw_path"]


def test_the_prefix_of_a_proxy_is_taken_away_where_it_is_there() -> None:
    fixed = make_access(base_path="darkit/")
    assert fixed.base_path == "/darkit"
    assert below(fixed, "/darkit/run/a%2Fb") == ("/run/a/b", b"/run/a%2Fb")
    assert below(fixed, "/darkit") == ("/", b"/")
    assert below(fixed, "/run/a") == ("/run/a", b"/run/a")
    assert below(fixed, "/darkitten") == ("/darkitten", b"/darkitten")
    assert below(Access(), "/hub/compare", prefix="/hub/") == ("/compare", b"/compare")


@pytest.mark.parametrize(
    ("prefix", "client"),
    [("/hub", "192.0.2.1"), ("hub", "127.0.0.1"), ("/hub/../x", "::1"), ("//evil", "127.0.0.1"), ("/a b", "127.0.0.1")],
)
def test_a_prefix_from_another_machine_or_of_another_form_is_ignored(prefix: str, client: str) -> None:
    assert below(Access(), "/hub/compare", prefix=prefix, client=client)[0] == "/hub/compare"


def test_names_and_paths_are_checked() -> None:
    assert make_access(["Hub.Example.org", "[::1]", "10.0.0.7"]).hosts == ("hub.example.org", "::1", "10.0.0.7")
    for wrong in ("a b", "http://x", "x:80", "", "*", "x/y"):
        with pytest.raises(ConfigError, match="--allow-host"):
            make_access([wrong])
    for wrong in ("/a/../b", "/a?b", '/"x', "/a b"):
        with pytest.raises(ConfigError, match="--base-path"):
            make_access(base_path=wrong)

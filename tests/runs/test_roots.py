"""Several folders of runs: labels, addresses, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from darkit.errors import ConfigError, NameInvalidError, RunNotFoundError
from darkit.runs.roots import Root, address_of, check_roots, find_root, is_address, split_address

ROOTS = (Root(Path("/a")), Root(Path("/b"), "box", writable=False))


def test_an_address_leads_to_one_folder_only() -> None:
    assert find_root(ROOTS, "one") == (ROOTS[0], Path("/a/one"))
    assert find_root(ROOTS, "box/one") == (ROOTS[1], Path("/b/one"))
    assert find_root(ROOTS, "one@box") == (ROOTS[0], Path("/a/one@box"))
    assert split_address(address_of("box", "one")) == ("box", "one")
    assert address_of("", "one") == "one"


@pytest.mark.parametrize(
    "address", ["", "/", "/one", "box/", "box/one/two", "box/..", "../one", "a:b", ".x/y", 5, None]
)
def test_what_is_no_address_is_refused(address: object) -> None:
    with pytest.raises(NameInvalidError):
        find_root(ROOTS, address)
    assert not isinstance(address, str) or not is_address(address)


def test_an_unknown_label_is_refused_with_those_available() -> None:
    with pytest.raises(RunNotFoundError, match=r"No home is labelled 'bx'\..*box"):
        find_root(ROOTS, "bx/one")


@pytest.mark.parametrize(
    "labels", [[], ["box"], ["", ""], ["", "box", "box"], [""] + [str(number) for number in range(100)]]
)
def test_roots_whose_addresses_would_be_ambiguous_are_refused(labels: list[str]) -> None:
    with pytest.raises(ConfigError):
        check_roots([Root(Path("/x"), label) for label in labels])


@pytest.mark.parametrize("label", ["a/b", ".hidden", "a:b", "\n", "x" * 101])
def test_a_label_is_checked_as_names_are(label: str) -> None:
    with pytest.raises(ConfigError, match="cannot be the label of a home"):
        Root(Path("/x"), label)

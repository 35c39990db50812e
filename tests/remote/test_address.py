from __future__ import annotations

from pathlib import Path

import pytest

from darkit.errors import ConfigError
from darkit.remote.address import Address, parse_addresses


def one(text: str) -> Address:
    (address,) = parse_addresses([text])
    return address


def test_an_address_tells_the_machine_the_user_the_port_and_the_folder(tmp_path: Path) -> None:
    assert one("ssh://gpu/home/me/darkit") == Address(
        "ssh://gpu/home/me/darkit", "gpu", "ssh", "/home/me/darkit", "gpu"
    )
    address = one("box=sftp://me@10.0.0.5:2222/~/my%20runs/")
    assert (address.label, address.kind, address.path) == ("box", "ssh", "my runs")
    assert (address.host, address.user, address.port) == ("10.0.0.5", "me", 2222)
    assert (one("s3://bucket/a/b/").label, one("s3://bucket/a/b/").path) == ("bucket", "bucket/a/b")
    assert one("file:///mnt/lab/darkit/") == Address("file:///mnt/lab/darkit/", "darkit", "file", "/mnt/lab/darkit")
    (tmp_path / "lab").mkdir()
    assert one(str(tmp_path / "lab")) == Address(str(tmp_path / "lab"), "lab", "local", str(tmp_path / "lab"))


def test_equal_labels_get_numbers_unless_they_were_given() -> None:
    places = ("ssh://gpu/a", "ssh://gpu/b", "gpu-2=ssh://other/c")
    assert [address.label for address in parse_addresses(places)] == ["gpu", "gpu-3", "gpu-2"]
    with pytest.raises(ConfigError, match="Two homes have the label 'x'"):
        parse_addresses(["x=ssh://gpu/a", "x=ssh://gpu/b"])
    with pytest.raises(ConfigError, match="given twice"):
        parse_addresses(["ssh://gpu/a", "x=ssh://gpu/a/"])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("http://host/path", "cannot be read from http://"),
        ("ssh://host", "lacks the folder"),
        ("s3://bucket/", "lacks the folder"),
        ("ssh://me:secret@host/path", "ssh://me:...@host/path has a password"),
        ("ssh://me:secret@host:abc/path", "'ssh://me:...@host:abc/path' is not an address"),
        ("ssh://me:secret/more@host/path", "is not an address"),
        ("ssh://me:1#secret@host/path", "has a query or a fragment"),
        ("ssh://me:secret@[host/path", "is not an address"),
        ("", "A home is empty"),
        ("ssh://host:port/path", "is not an address"),
        ("ssh:///path", "is not an address"),
        ("file://path", "is not an address"),
        ("file://host/path", "is not an address"),
        ("ssh://host/a%1bb", "is not an address"),
        ("s3://bucket/a?x=1", "has a query"),
        ("host:path", "is not a folder"),
        ("/no/such/folder", "is not a folder"),
        (".x=ssh://host/path", "cannot be the label"),
    ],
)
def test_what_is_no_address_is_refused_in_a_sentence_without_its_password(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_addresses([text])
    assert sentence in str(refused.value)
    assert "secret" not in str(refused.value)
    assert "\x1b" not in str(refused.value)

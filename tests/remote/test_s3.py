"""A home in a bucket, from a local server that speaks S3."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from moto.server import ThreadedMotoServer

from darkit.remote import mirror
from darkit.remote.address import parse_addresses
from darkit.remote.homes import Copy
from darkit.remote.store import connect
from darkit.runs import files, list_runs
from tests.remote.parts import make_run


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A bucket that holds a home, as boto sees it."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    reset = urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST")
    urllib.request.urlopen(reset, timeout=60).close()  # what other tests stored
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(mirror, "_REST", 0.0)
    import boto3

    client = boto3.client("s3")
    client.create_bucket(Bucket="lab")
    upload(client, make_run(tmp_path / "home", "one", rows=50))
    yield client
    server.stop()


def upload(client: Any, folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            client.upload_file(str(path), "lab", f"darkit/base/{folder.name}/{path.relative_to(folder)}")


def test_a_home_in_a_bucket_is_copied_and_follows_what_changes_there(bucket: Any, tmp_path: Path) -> None:
    (address,) = parse_addresses(["s3://lab/darkit"])
    copy = Copy(address, connect, 5.0)
    assert copy.attempt(), copy.state.problem
    (run,) = list_runs(root=copy.mirror.base)
    assert (run.name, run.status, len(run.log())) == ("one", "finished", 50)
    assert not list(run.path.glob("iter-*"))

    there = tmp_path / "home" / "base" / "one"
    with (there / files.LOG).open("a") as file:
        file.write("51,0.1\n52,0")
    (there / files.MODEL_CONFIG).write_text("{}")
    upload(bucket, there)
    upload(bucket, make_run(tmp_path / "home", "two"))
    assert copy.attempt(), copy.state.problem
    assert (len(run.log()), run.config) == (51, {})
    assert {found.name for found in list_runs(root=copy.mirror.base)} == {"one", "two"}
    keys = [found["Key"] for found in bucket.list_objects_v2(Bucket="lab", Prefix="darkit/base/one/")["Contents"]]
    for key in keys:
        bucket.delete_object(Bucket="lab", Key=key)
    assert copy.attempt(), copy.state.problem
    assert [found.name for found in list_runs(root=copy.mirror.base)] == ["two"]


def test_a_missing_bucket_and_a_server_that_is_gone_are_told_and_the_copy_stays(
    bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (missing, address) = parse_addresses(["s3://other/darkit", "s3://lab/darkit"])
    copy = Copy(missing, connect, 5.0)
    assert not copy.attempt()
    assert copy.state.problem
    there = Copy(address, connect, 5.0)
    assert there.attempt(), there.state.problem
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    there._store = None  # it connects again
    assert not there.attempt()
    assert "127.0.0.1:9" in there.state.problem
    assert there.state.seen is not None
    assert [run.name for run in list_runs(root=there.mirror.base)] == ["one"]

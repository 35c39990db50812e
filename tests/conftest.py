"""What all tests share: a home of their own, and a warm process whose children run what needs a process of its own."""

from __future__ import annotations

import compileall
import gc
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.children import CHECKOUT, Zygote

gc.disable()  # nothing that the collection of the tests makes is garbage, and searching it takes a quarter of its time

# The machine may be busy: how long an example takes says nothing about the code.
settings.register_profile(
    "darkit", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
settings.load_profile("darkit")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two test processes share two cores


def pytest_configure(config: pytest.Config) -> None:
    """Compile darkit once, since a process that may not keep byte code (PYTHONDONTWRITEBYTECODE) compiles all of it."""
    if not hasattr(config, "workerinput"):
        compileall.compile_dir(CHECKOUT / "darkit", quiet=2, rx=re.compile("template"))


def pytest_collection_finish() -> None:
    """Leave out of every later search for garbage what lives as long as the process."""
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A darkit home that nobody else uses; no test may touch the person's own."""
    folder = tmp_path / "home"
    monkeypatch.setenv("DARWIN_KIT_HOME", str(folder))
    monkeypatch.delenv("DSPIKE_HOME", raising=False)
    monkeypatch.delenv("DARKIT_RUN_NAME", raising=False)
    return folder


@pytest.fixture(autouse=True)
def nothing_compiled() -> Iterator[None]:
    """No test knows what another one has compiled in this process; what has been is not counted."""
    yield
    if (dynamo := sys.modules.get("torch._dynamo.utils")) is not None:
        dynamo.counters.clear()


@pytest.fixture(scope="session")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    """What starts processes that need not load torch and lightning again."""
    with Zygote(tmp_path_factory.mktemp("zygote")) as started:
        yield started


@pytest.fixture(scope="session")
def python(zygote: Zygote) -> str:
    """Stands for ``sys.executable`` in a command, where the start of the interpreter is not what is tested."""
    return zygote.python

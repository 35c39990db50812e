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


@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Name a failure when it happens: a suite that is cut off does not come to its summary."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        said = getattr(report.longrepr, "reprcrash", None) or str(report.longrepr)[-500:]
        print(f"\n{report.nodeid} ({report.when}): {said}", file=sys.__stdout__, flush=True)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave all but ``few(n)`` evenly spread cases of a test to ``make soak``; cases that are named are all run."""
    tests: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("few") is not None:
            tests.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for cases in tests.values():
        count = cases[0].get_closest_marker("few").args[0]  # type: ignore[union-attr]
        kept = {round(place * (len(cases) - 1) / max(1, count - 1)) for place in range(count)}
        for place, case in enumerate(cases):
            if place not in kept:
                case.add_marker(pytest.mark.soak)


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

"""System metrics, logged despite failures of the disk or a driver."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from darkit.engine.log import system
from darkit.engine.log.system import COLUMNS, SystemLog
from darkit.runs import files
from darkit.runs.log import read_log
from tests.engine.parts import made, train, xy


def test_a_row_has_step_processor_memory_and_disk(tmp_path: Path) -> None:
    before = time.time()
    SystemLog(tmp_path, lambda: 7)()
    table = read_log(tmp_path / files.SYSTEM_LOG)
    assert tuple(table.columns[:5]) == COLUMNS
    (row,) = table.to_dicts()
    assert row["step"] == 7
    assert before <= row["time"] <= time.time()
    assert 0 < row["memory"] < 100
    assert row["disk_free"] > 0


def test_the_first_use_of_the_processor_is_measured_whichever_thread_asks(tmp_path: Path) -> None:
    log = SystemLog(tmp_path, lambda: 7)
    found: list[dict[str, Any]] = []

    def work() -> None:
        while not found or found[-1]["cpu"] is None:  # busy until there is something to measure
            found.append(log.sample())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert 0 < found[-1]["cpu"] <= 100


def test_rows_are_at_least_an_interval_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = SystemLog(tmp_path, lambda: 1)
    for _ in range(5):
        log()
    assert read_log(tmp_path / files.SYSTEM_LOG).height == 1
    monkeypatch.setattr(system, "INTERVAL", 0.0)
    log._next = 0
    for _ in range(3):
        log()
    assert read_log(tmp_path / files.SYSTEM_LOG).height == 4


def test_a_row_that_cannot_be_written_is_reported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    monkeypatch.setattr(system, "INTERVAL", 0.0)
    log = SystemLog(folder, lambda: 1)
    log()
    (folder / files.SYSTEM_LOG).unlink()
    (folder / files.SYSTEM_LOG).mkdir()
    with caplog.at_level(logging.WARNING):
        log()
        log()
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("System metrics could not be logged: ")


def test_a_folder_that_is_gone_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    log = SystemLog(folder, lambda: 1)
    shutil.rmtree(folder)
    with caplog.at_level(logging.WARNING):
        log()
    assert caplog.messages[0].startswith("System metrics could not be logged: ")


class FakeDriver(SimpleNamespace):
    """A stand-in for NVIDIA's library; the second card does not report its power."""

    class NVMLError(Exception):
        """As theirs."""

    NVML_TEMPERATURE_GPU = 0

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetUtilizationRates(self, card: int) -> Any:
        return SimpleNamespace(gpu=50 + card)

    def nvmlDeviceGetMemoryInfo(self, card: int) -> Any:
        return SimpleNamespace(used=1000)

    def nvmlDeviceGetPowerUsage(self, card: int) -> int:
        if card:
            raise self.NVMLError
        return 250_000

    def nvmlDeviceGetTemperature(self, card: int, kind: int) -> int:
        return 40


def test_every_card_has_columns_for_its_readings(tmp_path: Path) -> None:
    log = SystemLog(tmp_path, lambda: 1)
    log._nvml = FakeDriver()  # type: ignore[assignment]
    log()
    (row,) = read_log(tmp_path / files.SYSTEM_LOG).to_dicts()
    told = {key: value for key, value in row.items() if key.startswith("gpu")}
    assert told == {
        "gpu0_use": 50,
        "gpu0_memory": 1000,
        "gpu0_power": 250,
        "gpu0_temperature": 40,
        "gpu1_use": 51,
        "gpu1_memory": 1000,
        "gpu1_temperature": 40,
    }


def test_a_resumed_run_continues_its_log(monkeypatch: pytest.MonkeyPatch) -> None:
    from darkit.runs import status

    monkeypatch.setattr(status, "LOOK", 0.001)
    for step in (20, 40):
        run = train(made(), xy(), name="run", resume="auto", max_step=step)
        steps = read_log(run.path / files.SYSTEM_LOG)["step"].to_list()
        assert len(steps) == step // 20

"""The log of what a training does to its machine."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest

from darkit.engine import system
from darkit.engine.system import COLUMNS, SystemLog
from darkit.runs.log import read_log


def test_a_row_tells_time_step_and_the_machines_use(tmp_path: Path) -> None:
    before = time.time()
    SystemLog(tmp_path, lambda: 7)()
    (row,) = read_log(tmp_path / "system_log.csv").to_dicts()
    assert list(row)[: len(COLUMNS)] == list(COLUMNS)
    assert before <= row["time"] <= time.time()
    assert row["step"] == 7
    assert 0 <= row["cpu"] <= 100
    assert 0 < row["memory"] < 100
    free = psutil.disk_usage(str(tmp_path)).free
    assert abs(row["disk_free"] - free) < 0.1 * free


def test_a_row_comes_every_ten_seconds_however_often_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(system.time, "monotonic", lambda: now[0])
    log = SystemLog(tmp_path, lambda: 0)
    for moment in (100.0, 101.0, 109.9, 110.0, 119.0, 150.0, 151.0):
        now[0] = moment
        log()
    assert read_log(tmp_path / "system_log.csv").height == 3


def test_a_resumed_run_appends_to_what_is_there(tmp_path: Path) -> None:
    for step in (1, 2):
        SystemLog(tmp_path, lambda step=step: step)()  # type: ignore[misc]
    assert read_log(tmp_path / "system_log.csv")["step"].to_list() == [1, 2]


def test_a_row_that_cannot_be_written_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(system, "INTERVAL", 0.0)
    log = SystemLog(tmp_path, lambda: 0)
    (tmp_path / "system_log.csv").unlink()
    with caplog.at_level(logging.WARNING):
        log()
        log()
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("The machine's use could not be logged: Cannot write the log ")


class Broken(Exception):
    """What the driver's library raises."""


class Driver(ModuleType):
    """Stands for NVIDIA's library where there is no such card: two cards, of which one tells no power."""

    NVMLError = Broken
    NVML_TEMPERATURE_GPU = 0

    def __init__(self, works: bool = True) -> None:
        super().__init__("pynvml")
        self.works = works

    def nvmlInit(self) -> None:  # noqa: N802 - its name
        if not self.works:
            raise Broken

    def __getattr__(self, name: str) -> Any:
        readings = {
            "nvmlDeviceGetCount": lambda: 2,
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetUtilizationRates": lambda card: type("Use", (), {"gpu": 10 + card}),
            "nvmlDeviceGetMemoryInfo": lambda card: type("Memory", (), {"used": 1000 + card}),
            "nvmlDeviceGetTemperature": lambda card, kind: 50 + card,
            "nvmlDeviceGetPowerUsage": self._power,
        }
        if name not in readings:
            raise AttributeError(name)
        return readings[name]

    def _power(self, card: int) -> int:
        if card == 1:
            raise Broken
        return 250_000


def test_accelerators_have_columns_of_their_own_and_what_one_does_not_tell_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Driver())
    SystemLog(tmp_path, lambda: 0)()
    (row,) = read_log(tmp_path / "system_log.csv").to_dicts()
    assert {key: value for key, value in row.items() if key.startswith("gpu")} == {
        "gpu0_use": 10,
        "gpu0_memory": 1000,
        "gpu0_power": 250.0,
        "gpu0_temperature": 50,
        "gpu1_use": 11,
        "gpu1_memory": 1001,
        "gpu1_temperature": 51,
    }


def test_a_library_without_a_driver_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Driver(works=False))
    assert set(SystemLog(tmp_path, lambda: 0).sample()) == set(COLUMNS)

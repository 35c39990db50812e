"""System metrics: `system_log.csv`, a row every ten seconds."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil

from darkit.runs import files
from darkit.runs.log import CsvLog

logger = logging.getLogger(__name__)
INTERVAL = 10.0  # seconds
_SHORTEST = 0.1  # seconds of all cores together over which their use is measured
COLUMNS = ("time", "step", "cpu", "memory", "disk_free")


class SystemLog:
    """Sample the machine when called, at most every ten seconds.

    The columns: ``time`` (Unix seconds), ``step``, ``cpu`` (percent of all cores together; empty in a sample that comes
    too early to measure it), ``memory`` (percent of the machine's), ``disk_free`` (bytes on the run's disk) and, for
    each NVIDIA accelerator, ``gpu<i>_use`` (percent), ``gpu<i>_memory`` (bytes), ``gpu<i>_power`` (watts) and
    ``gpu<i>_temperature`` (degrees Celsius). Accelerators need ``nvidia-ml-py``.

    Args:
        folder: The run directory.
        progress: Returns the last completed step.
    """

    def __init__(self, folder: Path, progress: Callable[[], int]) -> None:
        self._folder = folder
        self._progress = progress
        self._log = CsvLog(folder / files.SYSTEM_LOG, COLUMNS)
        self._nvml = _open_nvml()
        self._next = time.monotonic()
        self._warned = False
        self._cpu = _cpu_seconds()

    def __call__(self) -> None:
        """Write a sample if it is time; a failure is logged once and the row skipped."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + INTERVAL
        try:
            self._log.append([self.sample()])
        except (OSError, psutil.Error) as error:
            if not self._warned:
                self._warned = True
                logger.warning("System metrics could not be logged: %s", error)

    def sample(self) -> dict[str, Any]:
        """Return a row."""
        row: dict[str, Any] = {
            "time": time.time(),
            "step": self._progress(),
            "cpu": self._cpu_percent(),
            "memory": psutil.virtual_memory().percent,
            "disk_free": psutil.disk_usage(str(self._folder)).free,
        }
        if self._nvml is not None:
            row |= _sample_accelerators(self._nvml)
        return row

    def _cpu_percent(self) -> float | None:
        """Return the use of all cores since the last sample, or None if that was too short ago to measure it.

        `psutil.cpu_percent` remembers the last call of each thread, so the first one of a thread is 0.
        """
        busy, total = _cpu_seconds()
        passed = total - self._cpu[1]
        if passed < _SHORTEST:
            return None
        used = busy - self._cpu[0]
        self._cpu = busy, total
        return round(min(100.0, max(0.0, 100 * used / passed)), 1)


def _cpu_seconds() -> tuple[float, float]:
    """Return the seconds that all cores together were busy, and all seconds, since the machine started."""
    times = psutil.cpu_times()
    guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)  # they count as user time too
    total = sum(times) - guests
    return total - times.idle - getattr(times, "iowait", 0.0), total


def _open_nvml() -> ModuleType | None:
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # no driver on this machine
        return None
    return pynvml  # type: ignore[no-any-return]


def _sample_accelerators(nvml: Any) -> dict[str, float]:
    row: dict[str, float] = {}
    for index in range(nvml.nvmlDeviceGetCount()):
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        readings: tuple[tuple[str, Callable[[Any], float]], ...] = (
            ("use", lambda card: nvml.nvmlDeviceGetUtilizationRates(card).gpu),
            ("memory", lambda card: nvml.nvmlDeviceGetMemoryInfo(card).used),
            ("power", lambda card: nvml.nvmlDeviceGetPowerUsage(card) / 1000),
            ("temperature", lambda card: nvml.nvmlDeviceGetTemperature(card, nvml.NVML_TEMPERATURE_GPU)),
        )
        for name, read in readings:
            with suppress(nvml.NVMLError):  # not every card supports every reading
                row[f"gpu{index}_{name}"] = read(handle)
    return row

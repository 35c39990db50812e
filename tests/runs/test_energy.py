"""Energy from sampled power."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from darkit.runs import files
from darkit.runs.energy import energy_of


def test_the_power_of_each_card_is_integrated_without_the_time_in_which_the_run_was_stopped(tmp_path: Path) -> None:
    times = [100.0, 110.0, 120.5, 5000.0, 5010.0]
    powers = {"gpu0": [100.0, 300.0, 200.0, 50.0, 70.0], "gpu1": [10.0, 10.0, 20.0, 20.0, None]}
    rows = [
        f"{time},{row},{powers['gpu0'][row]},{'' if powers['gpu1'][row] is None else powers['gpu1'][row]}"
        for row, time in enumerate(times)
    ]
    (tmp_path / files.SYSTEM_LOG).write_text("\n".join(["time,step,gpu0_power,gpu1_power", *rows, ""]))
    energy = energy_of(tmp_path)
    assert energy is not None
    first = np.trapezoid(powers["gpu0"][:3], times[:3]) + np.trapezoid(powers["gpu0"][3:], times[3:])
    second = np.trapezoid(powers["gpu1"][:3], times[:3])
    assert energy.watt_hours == pytest.approx({"gpu0": first / 3600, "gpu1": second / 3600}, rel=1e-12)
    assert energy.seconds == 30.5
    assert str(energy).startswith("1.523 Wh in 30 s (gpu0 1.451 Wh, gpu1 0.07153 Wh)")


@pytest.mark.parametrize("text", ["", "time,step\n1,2\n", "time,gpu0_power\n1,5\n", "time,gpu0_power\nx,5\ny,6\n"])
def test_without_samples_of_power_there_is_none(tmp_path: Path, text: str) -> None:
    assert energy_of(tmp_path) is None
    (tmp_path / files.SYSTEM_LOG).write_text(text)
    assert energy_of(tmp_path) is None


def test_a_reading_that_is_no_number_does_not_count(tmp_path: Path) -> None:
    rows = ["100,36", "110,36", "120,nan", "130,inf", "140,36", "150,36"]
    (tmp_path / files.SYSTEM_LOG).write_text("\n".join(["time,gpu0_power", *rows, ""]))
    energy = energy_of(tmp_path)
    assert energy is not None
    assert energy.watt_hours == pytest.approx({"gpu0": 0.2})

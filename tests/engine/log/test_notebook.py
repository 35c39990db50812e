"""Progress in a notebook: one updated cell output, from a real kernel."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jupyter_client.manager import KernelManager

from darkit.engine.log import progress as display
from darkit.engine.log.notebook import Curve, chart, in_notebook

CELL = """
import torch, darkit
from tests.engine.parts import made, xy, train
train(made(), xy(), xy(), max_step=40, log_step_interval=1, eval_step_interval=10, name="shown")
"""


@pytest.fixture
def cell(home: Path) -> Iterator[list[dict[str, Any]]]:
    """The messages of a kernel while it ran the cell."""
    environment = {**os.environ, "DARWIN_KIT_HOME": str(home), "PYTHONPATH": ".", "OMP_NUM_THREADS": "1"}
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(env=environment)
    client = manager.blocking_client()
    client.start_channels()
    sent: list[dict[str, Any]] = []
    try:
        client.wait_for_ready(timeout=120)
        client.execute_interactive(CELL, timeout=120, output_hook=sent.append)
        yield sent
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore")
def test_a_cell_shows_one_output_with_bar_and_chart_that_is_replaced_until_the_end(
    cell: list[dict[str, Any]],
) -> None:
    failed = [message["content"] for message in cell if message["msg_type"] == "error"]
    assert not failed
    shown = [message for message in cell if message["msg_type"] == "display_data"]
    changed = [message for message in cell if message["msg_type"] == "update_display_data"]
    assert len(shown) == 1
    assert changed
    names = {message["content"]["transient"]["display_id"] for message in shown + changed}
    assert len(names) == 1
    assert shown[0]["content"]["data"]["text/plain"].startswith("step 0/40")
    last = changed[-1]["content"]["data"]
    assert re.match(r"step 40/40  train_loss \S+  val_loss \S+", last["text/plain"])
    assert last["text/html"].count("<polyline") == 2
    assert "width:100.0%" in last["text/html"]
    written = "".join(message["content"]["text"] for message in cell if message["msg_type"] == "stream")
    assert "step " not in written


def test_other_processes_are_not_notebooks() -> None:
    assert not in_notebook()


@given(st.lists(st.tuples(st.integers(0, 10**9), st.floats(width=64)), max_size=2000))
def test_a_curve_stays_short_and_a_chart_holds_numbers_only(points: list[tuple[int, float]]) -> None:
    curve = Curve()
    for step, value in points:
        curve.add(step, value)
    assert len(curve.points) <= 400
    drawn = chart({"train_loss": curve})
    assert "nan" not in drawn
    assert "inf" not in drawn
    assert bool(drawn) == (len(curve.points) > 1)


def test_an_output_that_cannot_be_updated_is_given_up_and_lines_are_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    class Gone:
        def __init__(self, max_step: int) -> None: ...

        def add(self, step: object, values: object) -> None: ...

        def show(self, step: int, parts: object) -> None:
            raise RuntimeError("nobody is connected")

    monkeypatch.setattr(display, "in_notebook", lambda: True)
    monkeypatch.setattr(display, "NotebookView", Gone)
    shown = display.Display(10, lambda: 4)
    shown.write([{"step": 4, "train_loss": 0.5}])
    shown.close()
    assert "nobody is connected" in caplog.text
    assert capsys.readouterr().err.startswith("step 4/10  train_loss 0.5")

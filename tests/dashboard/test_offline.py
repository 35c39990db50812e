"""Charts without a server: the figure of `darkit.compare`, and the page of ``darkit report``."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import plotly.io
import pytest
from playwright.sync_api import Page, expect
from plotly.graph_objects import Figure

import darkit
from darkit.dashboard.offline import report
from darkit.dashboard.view import View
from darkit.errors import ConfigError, RunNotFoundError
from darkit.runs.notes import Notes, write_notes
from tests.cli.parts import done
from tests.dashboard.parts import add_columns, loss_at, make_run


@pytest.fixture
def runs(home: Path) -> Path:
    for seed, lr in enumerate((0.1, 0.1, 0.01)):
        make_run(home / "base", f"run-{seed}", 500, seed=seed, lr=lr, losses={77: float("nan")} if seed == 0 else None)
    return home / "base"


def curve(figure: Figure, name: str, axis: str, kind: str = "raw") -> Any:
    (found,) = [
        trace
        for trace in figure.data
        if trace.name == name and trace.yaxis == axis and (trace.meta or {}).get("kind") == kind
    ]
    return found


def test_a_figure_has_the_values_of_each_run_one_chart_per_metric_and_one_legend(runs: Path) -> None:
    figure = darkit.compare(["run-0", darkit.load("run-2")])
    titles = [said.text for said in figure.layout.annotations]
    assert titles == ["<b>val_loss</b>", "<b>train_loss</b>", "<b>lr</b>"]
    drawn = curve(figure, "run-2", "y3")
    assert np.asarray(drawn.x).tolist() == list(range(1, 501))
    assert np.asarray(drawn.y).tolist() == [loss_at(step, 500, 2) for step in range(1, 501)]
    assert [trace.name for trace in figure.data if trace.showlegend] == ["run-0", "run-2"]
    assert {trace.xaxis for trace in figure.data} == {"x", "x2", "x3"}
    marks = curve(figure, "run-0", "y4", "odd")
    assert marks.text == ("NaN",)
    assert figure.layout.yaxis2.overlaying == "y"
    said = json.loads(plotly.io.to_json(figure, validate=True))
    assert len(said["data"]) == len(figure.data)


def test_a_figure_shows_what_is_asked_for_and_refuses_what_does_not_exist(runs: Path) -> None:
    figure = darkit.compare("run-0", "train_loss", smooth=0.9, log=True)
    assert [trace.meta["kind"] for trace in figure.data if trace.showlegend] == ["smooth"]
    assert figure.layout.yaxis.type == "log"
    grouped = darkit.compare([f"run-{seed}" for seed in range(3)], ["train_loss"], group="trainer.lr")
    assert [trace.name for trace in grouped.data if trace.showlegend] == ["0.01 (1)", "0.1 (2)"]
    with pytest.raises(RunNotFoundError, match="Did you mean 'run-2'"):
        darkit.compare("run-7")
    with pytest.raises(ConfigError, match=r"metric 'val_los'\. Did you mean 'val_loss'"):
        darkit.compare("run-0", metrics=["val_los"])
    with pytest.raises(ConfigError, match=r"config key 'lr'\. Did you mean 'trainer.lr'"):
        darkit.compare("run-0", group=("tags", "lr"))
    with pytest.raises(ConfigError, match=r"config key 'trainer.lrr'\. Did you mean 'trainer.lr'"):
        report(["run-0"], View(group=("trainer.lrr",)))
    assert darkit.compare("run-0", group=("*", "state", "model.nested.p")).data
    with pytest.raises(ConfigError, match="axis must be one of"):
        darkit.compare("run-0", axis="day")
    with pytest.raises(ConfigError, match="Name 1 to 200 runs, not 0"):
        darkit.compare([])
    with pytest.raises(ConfigError, match="Give its folder as root="):
        darkit.compare(darkit.load("run-0"), root=runs.parent)


def test_of_many_metrics_the_first_are_drawn_and_the_others_named(runs: Path) -> None:
    add_columns(runs / "run-0", {f"m{letter}": lambda step: step for letter in "abcdefghijklmnopqrst"})
    with pytest.warns(UserWarning, match="Shows the first 12 of 23 charts"):
        figure = darkit.compare("run-0")
    assert len(figure.layout.annotations) == 12


def test_a_report_is_one_page_with_what_each_run_is_and_asks_for_nothing(runs: Path) -> None:
    write_notes(runs / "run-1", Notes(("paper",), "the <b>best</b> one"))
    page = report(["run-0", "run-1"], View(offset=60)).decode()
    assert "<td>finished</td>" in page
    assert "500 / 500" in page
    assert "paper" in page
    assert "the &lt;b&gt;best&lt;/b&gt; one" in page
    assert "000000000000 +diff" in page
    assert "2025-10-09 09:53" in page, "in the reader's time zone"
    assert "2025-10-09 10:53" in report(["run-0"], View(offset=60, zone="Europe/Berlin")).decode(), "it was summer then"
    assert "@media print" in page
    assert "default-src 'none'" in page


def test_the_command_writes_the_clock_of_this_machine_as_it_was_at_the_start(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "EST5EDT,M3.2.0,M11.1.0")  # New York's rules
        time.tzset()
        for month in (1, 7):
            start = datetime(2025, month, 1, 12, tzinfo=UTC).timestamp()
            make_run(runs, f"month-{month}", 5, started=start)
        done(capsys, "report", "month-1", "month-7", "-o", str(tmp_path / "report.html"))
    time.tzset()
    page = (tmp_path / "report.html").read_text()
    assert "2025-01-01 07:00" in page
    assert "2025-07-01 08:00" in page


def test_a_report_opens_without_a_server_and_prints_on_sheets(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], open_page: Callable[..., Page]
) -> None:
    for name in ("first", "a-rather-long-name-of-a-run-with-lr=0.0003-and-width=512"):
        folder = make_run(home / "base", name, 400)
    write_notes(folder, Notes((), "words of a note " * 20))
    out = tmp_path / "report.html"
    said = done(
        capsys,
        "report",
        *sorted(path.name for path in (home / "base").iterdir()),
        "-o",
        str(out),
        "--smooth",
        "0.5",
        "--log",
    )
    assert said.startswith(f"Wrote {out}, ")
    page = open_page(out.as_uri())
    expect(page.locator(".chart .plot-container")).to_have_count(3)
    expect(page.get_by_role("heading", level=1)).to_have_text("Comparison of 2 runs")
    (note,) = [one for one in page.locator("td.reason").all() if one.inner_text()]
    assert note.evaluate("(one) => one.clientWidth") >= 200
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.locator("td:first-child").first.evaluate("(one) => one.clientWidth") < 195  # it stays while others pass
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 700, "height": 1000})
    page.wait_for_function("() => document.documentElement.scrollWidth <= 700")  # a sheet
    sheets = page.pdf(format="A4")
    assert sheets.startswith(b"%PDF")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.wait_for_function("() => document.querySelector('.chart .main-svg').clientWidth === 680")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    page.wait_for_function("() => document.querySelector('.chart .main-svg').clientWidth !== 680")
    grouped = tmp_path / "grouped.html"
    done(capsys, "report", "first", folder.name, "-o", str(grouped), "--group", "*", "--spread", "ci")
    assert "95 % CI" in grouped.read_text()

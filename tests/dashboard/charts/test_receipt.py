"""The receipt as a page: everything that was recorded, as text, without a script or a request."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from darkit.dashboard.charts.receipt import receipt_page
from darkit.runs import Run
from darkit.runs.media import MediaStore
from darkit.runs.spiking import ENERGY, LAYERS, RASTER, SYNAPSES, read_receipt
from tests.dashboard.parts import make_run

HOSTILE = "<script>alert(1)</script>"
PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 32


class Seen(HTMLParser):
    """The elements of a page, their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def run(home: Path) -> Run:
    columns = ("step", "time", "firing_rate_lif1", f"firing_rate_{HOSTILE}", "firing_rate")
    folder = make_run(home / "base", "one", 0, columns=columns)
    lines = [",".join(columns), "10,1,0.5,nan,0.25", "20,2,0.25,0.125,0.25", "30,3,,0.125,inf"]
    (folder / "train_log.csv").write_text("\n".join(lines) + "\n")
    store = MediaStore(folder)
    tables = {
        LAYERS: (["layer", "class", "firing rate", "neurons"], [[HOSTILE, "Leaky", 0.125, 4096], ["b", None, None, 1]]),
        SYNAPSES: (["module", "MAC"], [[f"m{index}", index] for index in range(1005)]),
        ENERGY: (["operation", "pJ", "per sample", "dense twin"], [["energy in nJ", None, 25.0, 100.0]]),
    }
    for key, (names, rows) in tables.items():
        data = json.dumps({"columns": names, "rows": rows}).encode()
        store.add("table", key, 30, data, "json", time=1.0, caption=f"{key} {HOSTILE}")
    for sample in range(2):
        store.add("image", f"{RASTER}/{sample}", 30, PNG + bytes([sample]), "png", time=1.0, caption=f"Sample {sample}")
    return Run(folder)


def page_of(run: Run, language: str = "en") -> Seen:
    receipt = read_receipt(run.path)
    assert receipt is not None
    return Seen(receipt_page(run, receipt, language).decode())


def test_the_page_has_tables_curves_bars_and_rasters_and_everything_is_text(run: Run) -> None:
    seen = page_of(run)
    for text in ("Spiking receipt of one", "step 30", HOSTILE, "12.50%", "4,096", "and 5 more rows", "Sample 1"):
        assert text in seen.text
    assert "25 nJ per sample, 25.0% of the 100 nJ of the dense twin" in seen.text
    assert not seen.of("script")
    widths = [float(bar["width"] or 0) for bar in seen.of("rect")]
    assert widths[0] == pytest.approx(widths[1] / 4)
    points = [(line["points"] or "").split() for line in seen.of("polyline")]
    assert [len(curve) for curve in points] == [2, 2, 2]  # of three rows, without NaN, infinity and what is missing
    assert [point.split(",")[1] for point in points[0]] == ["8.0", "93.0"]  # the top, and half of it
    assert len(seen.of("img")) == 2
    assert all((image["src"] or "").startswith("data:image/png;base64,") for image in seen.of("img"))
    (policy,) = (meta["content"] or "" for meta in seen.of("meta") if "http-equiv" in meta)
    assert policy.startswith("default-src 'none'")
    assert "script-src" not in policy
    assert "脉冲收据" in page_of(run, "zh").text


def test_a_raster_whose_content_is_not_what_was_recorded_is_left_out(run: Run) -> None:
    receipt = read_receipt(run.path)
    assert receipt is not None
    (run.path / "media" / receipt.rasters[0].file).write_bytes(PNG + b"?")
    assert [image["src"] is not None for image in page_of(run).of("img")] == [True]

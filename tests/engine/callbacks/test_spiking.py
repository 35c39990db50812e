"""The receipt as columns and media of a run, without effect on the training, and as a page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import darkit
from darkit.cli.main import main
from darkit.engine.callbacks import SpikingReceipt
from darkit.runs.media import read_media
from darkit.runs.spiking import ENERGY, LAYERS, SOURCE, read_receipt
from tests.cli.parts import refused
from tests.engine.parts import made, train, xy
from tests.engine.spiking import tutorials

SETTINGS: dict[str, Any] = {"batch_size": 8, "loss": F.cross_entropy, "max_step": 6, "lr": 1e-2}


def fit(*data: Any, **more: Any) -> darkit.Run:
    torch.manual_seed(0)
    return train(tutorials.FeedForward(), *data, **{**SETTINGS, "eval_step_interval": 2, **more})


def test_an_evaluation_is_measured_drawn_and_printed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    data = tutorials.currents()
    run = fit(data, data, name="measured", raster_samples=2, ac_energy=0.1)
    log = run.log()
    for name in ("firing_rate", "firing_rate_lif1", "dead_lif1", "saturated_lif2", "synops", "energy_nj"):
        assert log["step"].filter(log[name].is_not_null()).to_list() == [2, 4, 6]
    media = read_media(run.path)
    assert {one.key for one in media if one.step == 6} == {
        *("spiking/layers", "spiking/synapses", "spiking/energy", "spiking/raster/0", "spiking/raster/1")
    }
    (raster, _) = (one for one in media if one.step == 6 and one.kind == "image")
    assert raster.caption.endswith("from the top lif1 (10 of 10 neurons), lif2 (3 of 3 neurons).")
    receipt = read_receipt(run.path)
    assert receipt is not None
    assert receipt.step == 6
    assert [row[0] for row in receipt.tables[LAYERS].rows] == ["lif1", "lif2"]
    assert receipt.tables[ENERGY].caption == "Set by mac_energy and ac_energy."
    multiplied, accumulated = (row[2] for row in receipt.tables[ENERGY].rows[:2])
    assert log["energy_nj"][-1] == pytest.approx((multiplied * 4.6 + accumulated * 0.1) / 1000)
    capsys.readouterr()
    assert main(["show", "measured", "--spiking"]) == 0
    page = " ".join(capsys.readouterr().out.split())
    for text in ("measured, step 6", "layers of neurons", "firing rate over time", "spiking/raster/1: "):
        assert text in page
    assert re.search(r"nJ per sample, [\d.]+% of the [\d.]+ nJ of the dense twin", page)
    output = str(tmp_path / "receipt.html")
    assert refused(capsys, "show", "measured", "-o", output).startswith(
        "--output writes the receipt of a spiking model"
    )
    assert main(["show", "measured", "--spiking", "-o", output]) == 0
    written = (tmp_path / "receipt.html").read_text()
    for text in ("Spiking receipt of measured", "<td>lif1</td>", "<polyline", "data:image/png;base64,", "dense twin"):
        assert text in written
    assert "already exists" in refused(capsys, "show", "measured", "--spiking", "-o", output)


def test_without_validation_a_training_batch_is_measured_and_nothing_changes() -> None:
    data = tutorials.currents()
    run = fit(data, log_step_interval=4, eval_step_interval=3)
    log = run.log()
    assert log["step"].filter(log["firing_rate"].is_not_null()).to_list() == [4, 6]
    receipt = read_receipt(run.path)
    assert receipt is not None
    assert receipt.tables[ENERGY].caption == SOURCE
    again = fit(data, log_step_interval=4, eval_step_interval=0, raster_samples=0)
    assert again.log()["train_loss"].to_list() == log["train_loss"].to_list()
    assert "spiking/raster/0" not in {one.key for one in read_media(again.path)}


def test_a_receipt_of_ones_own_replaces_the_usual_one() -> None:
    data = tutorials.currents()
    run = fit(data, data, callbacks=[SpikingReceipt(samples=[3, 99])])
    assert {one.key for one in read_media(run.path) if "raster" in one.key} == {"spiking/raster/3"}


def test_other_models_have_no_receipt(capsys: pytest.CaptureFixture[str]) -> None:
    run = train(made(), xy(), xy(), name="plain", callbacks=[SpikingReceipt()])
    assert "firing_rate" not in run.log().columns
    assert refused(capsys, "show", "plain", "--spiking").startswith("The run 'plain' has no spiking receipt")

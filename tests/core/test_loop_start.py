"""How a run around somebody else's loop starts beside the runs of `fit`, and what every reader makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import darkit
from darkit.cli.main import main
from darkit.core import Predicter
from darkit.dashboard.pages.run import commands
from darkit.dashboard.reading.cache import LogCache
from darkit.dashboard.reading.library import Library
from darkit.errors import ConfigError
from darkit.runs import base, files
from tests.core.parts import Net, NetConfig, samples


def looped(name: str = "mine") -> Net:
    model = Net(NetConfig(hidden=3))
    with darkit.start_run(name, config={"lr": 0.5}, max_step=2) as run:
        run.log({"loss": 2.0, "acc": 0.1}, step=1)
        run.log({"loss": 1.0, "acc": 0.2}, step=2)
        run.save(model=model, optimizer=torch.optim.Adam(model.parameters()))
    return model


def fitted(name: str = "fit", **settings: object) -> Net:
    model = Net(NetConfig(hidden=3))
    loss = torch.nn.functional.mse_loss
    darkit.fit(model, samples(8), name=name, loss=loss, max_step=4, device="cpu", tensorboard=False, **settings)
    return model


def content(name: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in darkit.load(name).path.iterdir() if path.is_file()}


def test_a_run_of_fit_is_not_resumed_by_start_run_nor_the_other_way_round() -> None:
    looped()
    fitted()
    before = content("mine"), content("fit")
    with pytest.raises(ConfigError, match=r"'mine' was made by darkit.start_run, with a loop and a config of its own"):
        fitted("mine", resume=True)
    for resume in (True, "auto"):
        with pytest.raises(ConfigError, match=r"'fit' was not made by start_run"):
            darkit.start_run("fit", resume=resume)
    assert (content("mine"), content("fit")) == before


def test_each_starts_from_the_weights_of_the_other() -> None:
    model = looped()
    trained = fitted("from-mine", resume="mine", lr=0.0)
    assert torch.equal(trained.layers[0].weight, model.layers[0].weight)
    fresh = Net(NetConfig(hidden=3))
    with darkit.start_run("from-fit", resume="from-mine") as run:
        run.restore(model=fresh)
    assert torch.equal(fresh.layers[0].weight, model.layers[0].weight)


@pytest.mark.filterwarnings("ignore::darkit.errors.ReproductionWarning")
def test_every_command_reads_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model = looped()
    for words in (["runs"], ["show", "mine"], ["show", "mine", "--json"], ["verify", "mine"]):
        assert main(words) in (0, None)
    shown = capsys.readouterr().out
    assert "best 0.2, last 0.2" in shown
    assert main(["predict", "mine", "[[1, 1, 1, 1]]"]) in (0, None)
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert answer[0] == pytest.approx(model(torch.ones(1, 4)).tolist()[0], rel=1e-3)
    assert main(["export", "mine", "--output", str(tmp_path / "mine.pt")]) in (0, None)
    predicter = Predicter.from_pretrained("mine", device="cpu")
    assert torch.equal(predicter.predict(torch.ones(1, 4)), model(torch.ones(1, 4)))


def test_its_page_says_how_to_resume_it() -> None:
    looped()
    facts = Library(base(), LogCache()).facts("mine")
    assert dict(commands(facts, "en"))["Resume"] == "darkit.start_run('mine', resume=True, max_step=4)"
    assert facts.state == "finished"
    assert not facts.problem


def test_a_damaged_record_of_the_run_is_no_reason_to_write_over_it() -> None:
    looped()
    info = darkit.load("mine").path / files.RUN
    info.write_text(info.read_text().replace("start_run", "somebody"))
    with pytest.raises(ConfigError, match="was not made by start_run"):
        darkit.start_run("mine", resume=True)

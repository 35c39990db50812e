"""Media in anybody's loop and in the guide's log: at their step, as they were at the call."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy
import PIL.Image
import pytest
import torch

import darkit
from darkit.errors import LogError, MediaError
from darkit.runs.media import Medium, read_media, read_medium
from tests.core.parts import Loop, loop, samples


def media(name: str) -> list[tuple[str, str, int, str]]:
    return [(one.kind, one.key, one.step, one.caption) for one in read_media(darkit.load(name).path)]


def pixels(name: str, medium: Medium) -> Any:
    return numpy.asarray(PIL.Image.open(io.BytesIO(read_medium(darkit.load(name).path, medium))))


def test_a_loop_logs_numbers_and_media_in_one_call() -> None:
    from matplotlib.figure import Figure

    image, array = torch.zeros(3, 4, 4), numpy.zeros((4, 4), numpy.uint8)
    with darkit.start_run("mine") as run:
        run.log(
            {"loss": 1.0, "image": image, "array": array, "figure": Figure(), "text": darkit.Text("hello", "said")},
            step=3,
        )
        image.fill_(1.0)
        array += 9
        run.log({"table": darkit.Table(["a"], [[1]]), "weights": darkit.Histogram(torch.ones(5))}, step=3)
        run.log({"sound": darkit.Audio(numpy.zeros(10), 100)}, step=4)
    assert media("mine") == [
        *(
            ("image", "image", 3, ""),
            ("image", "array", 3, ""),
            ("figure", "figure", 3, ""),
            ("text", "text", 3, "said"),
        ),
        *(("table", "table", 3, ""), ("histogram", "weights", 3, ""), ("audio", "sound", 4, "")),
    ]
    found = read_media(darkit.load("mine").path)
    assert pixels("mine", found[0]).max() == pixels("mine", found[1]).max() == 0  # as it was at the call
    assert json.loads(read_medium(darkit.load("mine").path, found[4])) == {"columns": ["a"], "rows": [[1]]}
    log = darkit.load("mine").log()
    assert log.columns == ["step", "time", "loss"]
    assert log["step"].to_list() == [3, 4]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({"loss": 1.0, "image": darkit.Image(b"<svg/>")}, MediaError),
        ({"loss": 1.0, "image": torch.full((3, 4, 4), 7.0)}, MediaError),
        ({"loss": 1.0, "good": darkit.Text("x"), "bad": [1]}, LogError),
        ({"loss": 1.0, "x" * 201: darkit.Text("x")}, MediaError),
    ],
)
def test_a_medium_that_does_not_fit_is_refused_with_all_of_its_call(values: Any, kind: type[Exception]) -> None:
    with darkit.start_run("mine") as run:
        with pytest.raises(kind):
            run.log(values)
        run.log({"loss": 2.0})
    assert media("mine") == []
    assert darkit.load("mine").log()["loss"].to_list() == [2.0]


def test_a_resumed_loop_has_each_medium_once() -> None:
    with darkit.start_run("mine") as run:
        for step in range(1, 6):
            run.log({"said": darkit.Text(f"first {step}")}, step=step)
            if step == 3:
                run.save(step=3)
    with darkit.start_run("mine", resume=True) as run:
        for step in range(run.restore() + 1, 6):
            run.log({"said": darkit.Text(f"second {step}")}, step=step)
    path = darkit.load("mine").path
    said = [read_medium(path, one).decode() for one in read_media(path)]
    assert said == ["first 1", "first 2", "first 3", "second 4", "second 5"]
    assert len(list((path / "media").iterdir())) == 6


def test_media_are_durable_before_the_checkpoint_of_their_step() -> None:
    with darkit.start_run("mine") as run:
        run.log({"said": darkit.Text("x")}, step=1)
        run.save(step=1)
        assert media("mine") == [("text", "said", 1, "")]


class Showing(Loop):
    """Logs media as the guide's loop logs numbers."""

    def on_step(self, step: int, loss: torch.Tensor) -> None:
        self.log(step=step, train_loss=loss, picture=darkit.Image(torch.zeros(2, 2)))
        self.log({"only": darkit.Text(f"at {step}")})


def test_the_guide_s_log_takes_media_too_and_after_its_end() -> None:
    trainer = loop(Showing)
    trainer.train(samples(8))
    trainer.log(step=7, late=darkit.Text("late"))
    found = media("hand")
    assert [(key, step) for _, key, step, _ in found] == [
        ("picture", 0),
        ("only", 0),
        ("picture", 1),
        ("only", 1),
        ("late", 7),
    ]
    assert "picture" not in darkit.load("hand").log().columns
    with pytest.raises(LogError, match="picture must be a single number, but its shape is"):
        trainer.log(picture=torch.zeros(2, 2))  # which may be anything

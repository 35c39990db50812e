"""The place in somebody's code where a training failed, of real tracebacks."""

from __future__ import annotations

import traceback

import pytest
import torch
from torch import nn

import darkit
from darkit.errors import BatchError, NonFiniteLossError
from darkit.runs.failure import place_of_failure
from tests.engine.parts import made, train, xy


class Wrong(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x[:, :2])


def traceback_of(name: str) -> str:
    return darkit.load(name).details.traceback


def test_a_model_that_fails_is_shown_where_it_does_and_not_where_darkit_says_so() -> None:
    x = torch.zeros(8, 3)
    with pytest.raises(BatchError) as caught:
        train(Wrong(), (x, x[:, :1]), loss=nn.functional.mse_loss, max_step=2)
    found = place_of_failure("".join(traceback.format_exception(caught.value)))
    assert found.startswith(f'  File "{__file__}", line ')
    assert "return self.layer(x[:, :2])" in found.splitlines()[1]
    assert found.splitlines()[-1].startswith("RuntimeError: mat1 and mat2 shapes cannot be multiplied")
    assert "darkit/engine" not in found


def test_a_model_that_got_the_target_too_is_told_about_loss() -> None:
    x = torch.zeros(8, 3)
    with pytest.raises(
        BatchError, match=r"but 3 were given\. Give loss=, such as torch\.nn\.functional\.cross_entropy"
    ):
        train(nn.Linear(3, 1), (x, x[:, :1]), max_step=1)


def test_where_darkit_itself_raises_there_is_no_place() -> None:
    x, y = xy()
    with pytest.raises(NonFiniteLossError):
        train(made(), (x, y * float("nan")), name="nan", max_step=4)
    text = traceback_of("nan")
    assert "guard.py" in text
    assert "guard.py" not in place_of_failure(text)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", ""),
        ("ValueError: no frames", ""),
        (
            '  File "/x/site-packages/a.py", line 1, in a\n    b()\nE: c',
            '  File "/x/site-packages/a.py", line 1, in a\n    b()\nE: c',
        ),
        (
            '  File "/x/lib/python3.11/a.py", line 1, in a\n  File "mine.py", line 2, in b\nE: c\nmore',
            '  File "mine.py", line 2, in b\nE: c\nmore',
        ),
        (
            r'  File "C:\venv\Lib\site-packages\a.py", line 1, in a'
            + "\n"
            + r'  File "C:\me\b.py", line 2'
            + '\n  File "<string>", line 1\nE',
            r'  File "C:\me\b.py", line 2' + "\nE",
        ),
    ],
)
def test_texts(text: str, place: str) -> None:
    assert place_of_failure(text) == place

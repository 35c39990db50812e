"""Two processes that train one model: as exact as one."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

from darkit.engine.checkpoints.checkpoint import read_run_checkpoint
from darkit.engine.checkpoints.difference import differences
from darkit.runs import Run
from tests.children import CHECKOUT, Child, Zygote
from tests.faults.parts import finished, problems, state, wait_until

SCRIPT = """
import lightning, os, sys, time, torch, darkit
from torch import nn

class Hold(lightning.Callback):
    def on_train_batch_end(self, trainer, *rest):
        while trainer.global_step == int(os.environ.get("HOLD", 0)):
            time.sleep(0.01)

class Data(torch.utils.data.Dataset):
    def __len__(self):
        return 40
    def __getitem__(self, index):
        return torch.full((4,), index / 40.0), torch.tensor([index % 2.0])

if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 1))
    darkit.fit(model, Data(), loss=nn.functional.mse_loss, name="ranks", resume="auto", device="cpu", device_num=2,
               strategy="ddp", batch_size=4, optimizer="adamw", max_step=int(sys.argv[1]), save_step_interval=7,
               log_step_interval=1, tensorboard=False, callbacks=[Hold()])
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "ranks.py"
    path.write_text(textwrap.dedent(SCRIPT))
    return path


def start(zygote: Zygote, script: Path, home: Path, steps: int, **environment: str) -> Child:
    """Start the first rank, which starts the other one."""
    variables = {"PYTHONPATH": str(CHECKOUT), "WARM_PYTHON": zygote.python}
    return zygote.start([str(script), str(steps)], home, **variables, **environment)


def train(zygote: Zygote, script: Path, home: Path, steps: int) -> None:
    child = start(zygote, script, home, steps)
    assert child.wait() == 0, child.output


def test_two_ranks_killed_and_resumed_end_as_those_that_were_not(zygote: Zygote, script: Path, tmp_path: Path) -> None:
    steps = 50
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    train(zygote, script, straight, steps)
    run = broken / "base" / "ranks"
    child = start(zygote, script, broken, steps, HOLD="19")
    wait_until(lambda: max(finished(run), default=0) >= 14, "checkpoints")
    child.kill_group()
    assert state(run) == "crashed"
    assert 0 < max(finished(run)) < steps
    train(zygote, script, broken, steps)
    contents = [read_run_checkpoint(home / "base" / "ranks")[1] for home in (straight, broken)]
    assert len(contents[0]["ranks"]) == 2
    assert list(differences(*contents)) == []
    logs = [Run(home / "base" / "ranks").log() for home in (straight, broken)]
    assert logs[0]["step"].to_list() == list(range(1, steps + 1)), "only the first rank writes"
    assert logs[0].drop("time").equals(logs[1].drop("time"))
    assert problems(run) == []
    assert state(run) == "finished"


TOKENS = """
import sys, torch, darkit
from torch import nn
from torch.nn import functional as F

torch.set_num_threads(1)
lengths = [2, 20, 3, 11, 20, 1, 7, 7]
tokens = torch.randint(0, 5, (8, 20), generator=torch.Generator().manual_seed(0))
labels = torch.stack([row.where(torch.arange(20) < length, -100) for row, length in zip(tokens, lengths)])

def loss(logits, labels):
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten())

def train(**settings):
    torch.manual_seed(0)
    return darkit.fit(nn.Embedding(5, 5), (tokens, labels), (tokens, labels), loss=loss, device="cpu", optimizer="sgd",
                      lr=0.5, max_step=4, eval_step_interval=2, tensorboard=False, **settings)

if __name__ == "__main__":
    train(name="ranks", device_num=2, strategy="ddp", batch_size=1, gradient_accumulation_steps=2)
"""


def test_what_ranks_train_and_log_is_that_of_one_process_however_many_targets_each_has(
    zygote: Zygote, tmp_path: Path
) -> None:
    script = tmp_path / "tokens.py"
    script.write_text(TOKENS)
    train(zygote, script, tmp_path, 4)
    scope: dict[str, Any] = {"__name__": "tokens"}
    exec(TOKENS, scope)
    one, two = scope["train"](name="one", batch_size=4), Run(tmp_path / "base" / "ranks")
    for column in ("train_loss", "val_loss"):
        expected = one.log()[column].drop_nulls().to_list()
        assert two.log()[column].drop_nulls().to_list() == pytest.approx(expected, rel=1e-5)
    weights = [read_run_checkpoint(run.path)[1]["state_dict"]["weight"] for run in (one, two)]
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-5, atol=1e-6)

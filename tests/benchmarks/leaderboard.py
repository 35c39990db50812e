"""Train the built-in models and write their losses, times, firing rates and energies into ``docs/leaderboard.md``.

``python tests/benchmarks/leaderboard.py [PAGE [STEPS]]``: about five minutes on two cores with the default of steps.
Models in one part of the table have the same data and the same number of steps.
"""

from __future__ import annotations

import datetime
import os
import platform
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "leaderboard.md"
STEPS = 300
_TEXT = ("trainer.batch_size=16", "data.context_length=128", "trainer.eval_iters=20")
_HEAD = """# Leaderboard

The built-in models on the same data with the same number of steps, made by `make leaderboard` on {date} ({cpu} CPU
cores, {steps} steps each, default settings of the models). The loss is that of the validation data, in nats. Time is
the median of the training steps. Energy is per sample, by the costs of [the receipt](spiking.md#the-receipt): of a
dense model every weight and input is a multiplication. The dense twin of a spiking model has its layers and its time
steps.

| data | model | parameters | loss | accuracy | time in ms | firing rate | energy in uJ | dense twin in uJ |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
"""


@dataclass(frozen=True)
class Entry:
    """One training.

    Attributes:
        data: What the table calls its data.
        model: The choice of ``model=``.
        words: Further settings.
    """

    data: str
    model: str
    words: tuple[str, ...] = ()


ENTRIES = [
    *(Entry("text, next token", model, _TEXT) for model in ("gpt", "lstm", "spikegpt")),
    Entry("text, masked tokens", "spikebert", _TEXT),
    *(Entry("digits", model) for model in ("mlp", "snn")),
    *(Entry("events", model) for model in ("csnn", "srnn")),
]


def main(page: Path, steps: int) -> None:
    """Train everything and write the page."""
    with tempfile.TemporaryDirectory() as home:
        os.environ["DARWIN_KIT_HOME"] = home
        rows = [_row(entry, steps) for entry in ENTRIES]
    head = _HEAD.format(date=datetime.date.today().isoformat(), cpu=os.cpu_count(), steps=steps)
    page.write_text(head + "".join(f"| {' | '.join(row)} |\n" for row in rows), encoding="utf-8")
    print(f"Wrote {page} with Python {platform.python_version()}.")


def _row(entry: Entry, steps: int) -> list[str]:
    from darkit.cli.train import main as train
    from darkit.runs import load

    name = entry.model
    words = [f"model={name}", f"name={name}", f"trainer.max_step={steps}", "trainer.eval_step_interval=0"]
    if code := train([*words, "trainer.log_step_interval=1", *entry.words]):
        sys.exit(code)
    run = load(name)
    log = run.log()
    last = log.tail(1).to_dicts()[0]
    before = log.filter(log["val_loss"].is_null())
    seconds = before["time"].diff().median()  # other programs may disturb some steps
    parameters, dense = _size(name)
    spiking = last.get("firing_rate") is not None
    return [
        entry.data,
        name,
        f"{parameters:,}",
        f"{last['val_loss']:.3f}",
        f"{last['val_accuracy']:.1%}" if last.get("val_accuracy") is not None else "",
        f"{1000 * seconds:.1f}",
        f"{last['firing_rate']:.1%}" if spiking else "",
        f"{(last['energy_nj'] if spiking else dense) / 1000:,.3g}",
        f"{last['energy_dense_nj'] / 1000:,.3g}" if spiking else "",
    ]


def _size(name: str) -> tuple[int, float]:
    """Return the number of parameters of a run's model, and its energy per sample in nJ if all inputs are dense."""
    import torch

    from darkit.engine.metrics.undisturbed import evaluating
    from darkit.engine.spiking.operations import counting
    from darkit.engine.spiking.receipt import EnergyCosts
    from darkit.prediction.exporting.examples import find_layout, in_precision
    from darkit.prediction.exporting.loading import load_predicter
    from darkit.runs import load

    run = load(name)
    model = load_predicter(run, None).model
    with evaluating(model), torch.no_grad():
        layout = find_layout(run, model, lambda one: one.call(model, in_precision(model, one.make(1))))
        with counting(model) as found:
            layout.call(model, in_precision(model, layout.make(1)))
    macs = sum(one.dense for one in found.values())
    return sum(parameter.numel() for parameter in model.parameters()), macs * EnergyCosts().multiplied / 1000


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE, int(sys.argv[2]) if len(sys.argv) > 2 else STEPS)

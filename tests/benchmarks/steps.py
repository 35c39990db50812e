"""What a training costs per step, by contender: ``python tests/benchmarks/steps.py CONTENDER [KIND [STEPS]]``.

Each contender trains the same model on the same data in a process of its own. The model's forward pass notes the time,
so that only steps are measured, after some to get warm. Prints microseconds per step. Kinds: ``tiny``; ``slow``, 10 ms
a step; ``slower``, some 100 ms a step on two threads; ``evaluation``, each step followed by one of 100 batches;
``memory``, as tiny without saves, which prints the peak memory of the process in MB.
"""

from __future__ import annotations

import contextlib
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

STEPS = {"tiny": 2600, "slow": 400, "slower": 90, "evaluation": 70, "memory": 2000}
WARM = {"tiny": 200, "slow": 100, "slower": 10, "evaluation": 10, "memory": 10}
THREADS = {"slower": 2}
PRODUCTS = 24  # of matrices, in a step of some 100 ms
SAVE_EVERY = 1000
BATCH = 4
times: list[float] = []


class Model(nn.Module):
    """The integration guide's model; ``slow`` and ``slower`` compute more."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.fc1 = nn.Linear(12, 12)
        self.fc2 = nn.Linear(12, 12)
        self.kind = kind

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training:
            times.append(time.perf_counter())
            if self.kind == "slow":
                busy_wait(0.010)
            elif self.kind == "slower":
                multiply()
        return self.fc2(torch.relu(self.fc1(inputs)))


def busy_wait(seconds: float) -> None:
    """Compute for a time, as a model does: it holds a core, but lets other threads run."""
    end = time.perf_counter() + seconds
    block = torch.ones(64, 64)
    while time.perf_counter() < end:
        block = torch.tanh(block @ block)


def multiply() -> None:
    """Compute a fixed amount on all threads, so that whatever takes a core from them is seen."""
    block = torch.ones(512, 512)
    for _ in range(PRODUCTS):
        block = torch.tanh(block @ block)


class Samples(Dataset[tuple[Tensor, Tensor]]):
    """The same data as a Dataset of someone's own."""

    def __init__(self, kind: str) -> None:
        self.inputs, self.targets = data(kind).tensors

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.inputs[index], self.targets[index]


def data(kind: str) -> TensorDataset:
    """Make enough data for all steps in one epoch."""
    inputs = torch.randn(STEPS[kind] * BATCH, 12)
    return TensorDataset(inputs, inputs.roll(1, 1))


def validation(kind: str) -> TensorDataset | None:
    """Make 100 batches to evaluate on."""
    return TensorDataset(*(part[: 100 * BATCH] for part in data("tiny").tensors)) if kind == "evaluation" else None


def plain(kind: str, folder: Path, dataset: Dataset[tuple[Tensor, Tensor]] | None = None) -> None:
    """A loop without anything, but for the evaluations of that kind."""
    model = Model(kind)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    held_out = validation(kind)
    for inputs, targets in DataLoader(dataset or data(kind), batch_size=BATCH):
        optimizer.zero_grad()
        F.mse_loss(model(inputs), targets).backward()
        optimizer.step()
        if held_out is not None:
            mean_loss(model, held_out)


def mean_loss(model: Model, held_out: TensorDataset) -> float:
    """Evaluate, as one does by hand."""
    model.eval()
    total = 0.0
    with torch.no_grad():
        for inputs, targets in DataLoader(held_out, batch_size=BATCH):
            total += F.mse_loss(model(inputs), targets).item() * len(inputs)
    model.train()
    return total / len(held_out)


def plain_samples(kind: str, folder: Path) -> None:
    """The same with a Dataset of samples."""
    plain(kind, folder, Samples(kind))


def lightning_module(kind: str, log: bool) -> object:
    """Make the model as a LightningModule."""
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = Model(kind)

        def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
            inputs, targets = batch
            loss = F.mse_loss(self.model(inputs), targets)
            if log:
                self.log("train_loss", loss, prog_bar=True)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=1e-3)

    return Module()


def lightning_barebones(kind: str, folder: Path) -> None:
    """Lightning with nothing on."""
    import lightning

    trainer = lightning.Trainer(barebones=True, accelerator="cpu", max_steps=STEPS[kind])
    trainer.fit(lightning_module(kind, log=False), DataLoader(data(kind), batch_size=BATCH))


def lightning_full(kind: str, folder: Path) -> None:
    """Lightning with what darkit does: CSV and TensorBoard at every step, checkpoints, a progress bar."""
    import lightning
    from lightning.pytorch.callbacks import ModelCheckpoint
    from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

    trainer = lightning.Trainer(
        accelerator="cpu",
        max_steps=STEPS[kind],
        log_every_n_steps=1,
        logger=[CSVLogger(folder), TensorBoardLogger(folder)],
        callbacks=[ModelCheckpoint(every_n_train_steps=SAVE_EVERY, save_top_k=-1)],
        enable_model_summary=False,
    )
    trainer.fit(lightning_module(kind, log=True), DataLoader(data(kind), batch_size=BATCH))


def hugging_face(kind: str, folder: Path) -> None:
    """Hugging Face's Trainer, logging every step."""
    from transformers import Trainer, TrainingArguments

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = Model(kind)

        def forward(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
            outputs = self.model(inputs)
            return {"loss": F.mse_loss(outputs, targets), "logits": outputs}

    def collate(samples: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        return {"inputs": torch.stack([s[0] for s in samples]), "targets": torch.stack([s[1] for s in samples])}

    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=BATCH,
        max_steps=STEPS[kind],
        logging_steps=1,
        save_steps=SAVE_EVERY,
        report_to="none",
        use_cpu=True,
        learning_rate=1e-3,
        remove_unused_columns=False,
    )
    Trainer(model=Wrapped(), args=arguments, train_dataset=data(kind), data_collator=collate).train()


def darkit_full(kind: str, folder: Path, dataset: Dataset[tuple[Tensor, Tensor]] | None = None) -> None:
    """darkit with everything on: a CSV row and a TensorBoard event at every step, checkpoints, a progress bar."""
    import os

    import darkit

    os.environ["DARWIN_KIT_HOME"] = str(folder)
    darkit.fit(
        Model(kind),
        dataset or data(kind),
        validation(kind),
        loss=F.mse_loss,
        device="cpu",
        optimizer="adam",
        batch_size=BATCH,
        max_step=STEPS[kind],
        save_step_interval=0 if kind == "memory" else SAVE_EVERY,
        log_step_interval=1,
        eval_step_interval=1 if kind == "evaluation" else 0,
        tensorboard=True,
    )


def darkit_samples(kind: str, folder: Path) -> None:
    """The same with a Dataset of samples."""
    darkit_full(kind, folder, Samples(kind))


def darkit_module(kind: str, folder: Path) -> None:
    """darkit with everything on and a LightningModule, which Lightning's own loop trains."""
    import os

    import darkit

    os.environ["DARWIN_KIT_HOME"] = str(folder)
    darkit.fit(
        lightning_module(kind, log=True),
        data(kind),
        device="cpu",
        batch_size=BATCH,
        max_step=STEPS[kind],
        save_step_interval=SAVE_EVERY,
        tensorboard=True,
    )


CONTENDERS: dict[str, Callable[[str, Path], None]] = {
    "plain": plain,
    "plain_samples": plain_samples,
    "lightning_barebones": lightning_barebones,
    "hugging_face": hugging_face,
    "lightning_full": lightning_full,
    "darkit_full": darkit_full,
    "darkit_samples": darkit_samples,
    "darkit_module": darkit_module,
}


def main(contender: str, kind: str = "tiny", steps: str = "") -> None:
    """Run one contender and print its time per step, or its memory."""
    if steps:
        STEPS[kind] = int(steps)
    torch.set_num_threads(THREADS.get(kind, 1))
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        CONTENDERS[contender](kind, Path(folder))
    if kind == "memory":
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6)
        return
    measured = times[WARM[kind] : STEPS[kind]]
    print((measured[-1] - measured[0]) / (len(measured) - 1) * 1e6)


if __name__ == "__main__":
    main(*sys.argv[1:])

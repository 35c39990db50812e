"""Language models trained and found again the way that DarwinKit's SpikeGPT and SpikeLM are."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import snntorch
import torch
import torch.nn.functional as F
import transformers
from datasets import Dataset
from torch import Tensor, nn
from torch.utils.data import DataLoader

import darkit
from darkit.core import TrainerConfig
from darkit.core.utils.dataset import create_tokenized_bert_dataset, create_tokenized_gpt_dataset
from darkit.core.utils.dataset.data_collator import MaskDataCollatorWithPadding
from darkit.errors import ConfigError
from darkit.lm.main import LogFieldnames, Predicter, Trainer
from darkit.runs import files
from tests.core.parts import STORY, byte_tokenizer
from tests.test_someone_elses import fast_tokenizer

TEXTS = Dataset.from_dict({"text": [sentence.strip() + "." for sentence in STORY.split(",")]})


@dataclass
class SpikesConfig:
    vocab_size: int = 300
    ctx_len: int = 16
    n_embd: int = 16


class Spikes(nn.Module):
    """A language model whose hidden layer spikes: logits, or the loss when targets are given."""

    def __init__(self, config: SpikesConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.mix = nn.Linear(config.n_embd, config.n_embd)
        self.neuron = snntorch.Leaky(beta=0.5)
        self.head = nn.Linear(config.n_embd, config.vocab_size)

    def configure_optimizers(self, settings: Any) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=settings.learning_rate, betas=settings.betas, eps=settings.eps)

    def forward(self, tokens: Tensor, targets: Tensor | None = None) -> Tensor:
        spikes, _ = self.neuron(self.mix(self.embedding(tokens)), self.neuron.init_leaky())
        logits = self.head(spikes)
        return logits if targets is None else F.cross_entropy(logits.flatten(0, 1), targets.flatten())


@dataclass
class GenerativeConfig(TrainerConfig):
    device: str = "cpu"
    name: str = "generative"
    model_type: str = "RWKV"
    batch_size: int = 2
    max_step: int = 4
    learning_rate: float = 4e-3
    beta1: float = 0.9
    beta2: float = 0.99
    eps: float = 1e-8
    grad_norm_clip: float = 1.0
    lr_decay: bool = True
    final_tokens: int = 400
    save_step_interval: int = 2
    tensorboard: bool = False

    @property
    def betas(self) -> tuple[float, float]:
        return (self.beta1, self.beta2)


class GenerativeTrainer(Trainer):
    """Sets its own learning rate by the tokens it has seen, and clips with Fabric."""

    def __init__(self, model: Spikes, tokenizer: Any, config: GenerativeConfig, **kwargs: Any) -> None:
        super().__init__(model, tokenizer, config, **kwargs)
        self.config = config
        self.avg_loss = -1.0
        self.lr = 0.0
        self.max_step = config.max_step
        self.current_step = 0
        self.save_step_interval = config.save_step_interval

    def _update_lr(self, optimizer: Any, targets: Tensor) -> float:
        self.tokens += int((targets >= 0).sum())
        rate = self.config.learning_rate * (0.55 + 0.45 * math.cos(math.pi * self.tokens / self.config.final_tokens))
        for group in optimizer.param_groups:
            group["lr"] = rate
        return rate

    def train(self, train_dataset: Any, valid_dataset: Any = None, is_train: bool = True) -> None:
        self.fabric.launch()
        raw = self.model.module if hasattr(self.model, "module") else self.model
        optimizer = raw.configure_optimizers(self.config)
        if self.resume:
            _, optimizer, done = self._load_checkpoint(raw, optimizer)
            if self.resume_key == self.config.name:
                self.current_step = done
        model = self.fabric.setup(raw)
        self.optimizer = self.fabric.setup_optimizers(optimizer)
        blocks = create_tokenized_gpt_dataset(train_dataset, self.tokenizer, ctx_len=model.config.ctx_len + 1)
        loader = self.fabric.setup_dataloaders(DataLoader(blocks, batch_size=self.config.batch_size, shuffle=False))
        self.tokens = 0
        model.train(is_train)
        for data in cycle(loader):
            if self.current_step >= self.config.max_step:
                break
            x, y = data[:, : model.config.ctx_len].contiguous(), data[:, 1:].contiguous()
            with torch.set_grad_enabled(is_train):
                loss = model(x, y)
                self.fabric.backward(loss)
            self.fabric.clip_gradients(model, optimizer, max_norm=self.config.grad_norm_clip)
            optimizer.step()
            optimizer.zero_grad()
            self.lr = self._update_lr(optimizer, y)
            self.log(LogFieldnames(step=self.current_step * self.config.batch_size, train_loss=loss.item()))
            self._auto_save_pretrained()
            self.current_step += 1


class GenerativePredicter(Predicter):
    def __init__(self, name: str, model: Any, tokenizer: Any, device: str = "cuda", **kwargs: Any) -> None:
        super().__init__(name, model, tokenizer=tokenizer, device=device, **kwargs)

    @classmethod
    def get_model(cls, name: str, checkpoint: str | None = None) -> nn.Module:
        model = Spikes(SpikesConfig(**cls.get_model_config_json(name)))
        model.load_state_dict(torch.load(cls.get_checkpoint(name, checkpoint), weights_only=True).get("state_dict"))
        return model


@dataclass
class MaskedConfig(TrainerConfig):
    name: str = "masked"
    device: str = "cpu"
    device_num: int = 1
    learning_rate: float = 5e-3
    max_train_steps: int = 4
    max_seq_length: int = 32
    batch_size: int = 2
    lr_scheduler_type: transformers.SchedulerType = transformers.SchedulerType.LINEAR
    weight_decay: float = 1e-2
    num_warmup_steps: int = 0
    save_step_interval: int = 3
    tensorboard: bool = False


class MaskedSpikes(Spikes):
    """Takes a batch by names, and returns a loss and logits."""

    def forward(self, input_ids: Tensor, labels: Tensor | None = None, **others: Tensor) -> Any:
        logits = super().forward(input_ids)
        loss = None if labels is None else F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)
        return {"loss": loss, "prediction_logits": logits}


class MaskedTrainer(Trainer):
    """Saves with Fabric, under the names of a checkpoint's entries, and has a schedule of transformers."""

    def __init__(self, model: MaskedSpikes, tokenizer: Any, config: MaskedConfig, **kwargs: Any) -> None:
        super().__init__(model, tokenizer, config, **kwargs)
        self.max_step = config.max_train_steps
        self.current_step = 0
        self.save_step_interval = config.save_step_interval

    def _save_model(self, checkpoint: str = "complete") -> None:
        if self.save_directory:
            content = {"model_class": "MaskedSpikes", "state_dict": self.model, "optimizer_state_dict": self.optimizer}
            self.fabric.save(self.save_directory / f"{checkpoint}.pth", content | {"current_step": self.current_step})

    def _get_optimizer(self) -> torch.optim.Optimizer:
        named = list(self.model.named_parameters())
        groups = [
            {"params": [p for n, p in named if "bias" not in n], "weight_decay": self.config.weight_decay},
            {"params": [p for n, p in named if "bias" in n], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.config.learning_rate)

    def train(self, train_dataset: Any, val_dataset: Any = None) -> None:
        self.fabric.launch()
        optimizer = self._get_optimizer()
        if self.resume:
            _, optimizer, done = self._load_checkpoint(self.model, optimizer)
            if self.resume_key == self.config.name:
                self.current_step = done
        model = self.fabric.setup(self.model)
        self.optimizer = self.fabric.setup_optimizers(optimizer)
        schedule = transformers.get_scheduler(
            name=self.config.lr_scheduler_type,
            optimizer=optimizer,
            num_warmup_steps=self.config.num_warmup_steps,
            num_training_steps=self.config.max_train_steps,
        )
        collator = MaskDataCollatorWithPadding(
            tokenizer=self.tokenizer, padding="max_length", max_length=self.config.max_seq_length
        )
        rows = create_tokenized_bert_dataset(train_dataset, self.tokenizer)
        loader = self.fabric.setup_dataloaders(
            DataLoader(rows, shuffle=True, collate_fn=collator, batch_size=self.config.batch_size)
        )
        for batch in cycle(loader):
            if self.current_step >= self.config.max_train_steps:
                break
            assert batch["input_ids"].shape == batch["labels"].shape == (self.config.batch_size, 32)
            with self.fabric.no_backward_sync(model):
                loss = model(**batch)["loss"].mean()
                self.fabric.backward(loss)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            self._auto_save_pretrained()
            self.log(LogFieldnames(step=self.current_step, train_loss=loss.item()))
            self.current_step += 1


class MaskedPredicter(Predicter):
    @classmethod
    def get_model(cls, name: str, checkpoint: str | None = None) -> nn.Module:
        model = MaskedSpikes(SpikesConfig(**cls.get_model_config_json(name)))
        content = torch.load(cls.get_checkpoint(name, checkpoint), weights_only=True)
        model.load_state_dict(content["state_dict"], strict=True)
        return model

    def _predict(self, ctx: Tensor) -> Tensor:
        out = self.model(ctx.contiguous())["prediction_logits"]
        return out.view(-1, out.size(-1))[-1:].argmax(1)


@pytest.fixture(autouse=True)
def _own_registries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(darkit.core.Trainer, "_registry", {})
    monkeypatch.setattr(darkit.core.Predicter, "_registry", {})
    Trainer.register("Spikes", GenerativeTrainer)
    Predicter.register("Spikes", GenerativePredicter)
    Trainer.register("MaskedSpikes", MaskedTrainer)
    Predicter.register("MaskedSpikes", MaskedPredicter)


def spikes(kind: type[Spikes], tokenizer: Any) -> Any:
    torch.manual_seed(0)
    return kind(SpikesConfig(vocab_size=getattr(tokenizer, "vocab_size", 300)))


def saved(root: Path, name: str) -> list[int]:
    return [checkpoint.step for checkpoint in darkit.load(name, root=root).checkpoints()]


def test_a_generative_model_is_trained_resumed_and_found_by_its_name(home: Path) -> None:
    tokenizer = fast_tokenizer("bpe")
    with Trainer(spikes(Spikes, tokenizer), tokenizer=tokenizer, config=GenerativeConfig()) as trainer:
        assert type(trainer) is GenerativeTrainer
        trainer.train(train_dataset=TEXTS)
    root = home / "models" / "lm"
    assert trainer.save_directory == root / "generative"
    assert trainer.is_name_exist
    assert trainer.tokenizer_save_path.is_dir()
    assert saved(root, "generative") == [2, 4]
    run = darkit.load("generative", root=root)
    assert run.log()["step"].to_list() == [0, 2, 4, 6]  # in samples, as the loop logs
    assert run.trainer_config["betas"] == [0.9, 0.99]

    longer = GenerativeConfig(max_step=6)
    with Trainer(spikes(Spikes, tokenizer), tokenizer=tokenizer, config=longer, resume="generative") as again:
        again.train(train_dataset=TEXTS)
    assert saved(root, "generative") == [2, 4, 6]

    predicter = Predicter.from_pretrained("generative", device="cpu", checkpoint="complete")
    assert type(predicter) is GenerativePredicter
    assert predicter.name == "generative"
    assert Predicter.get_save_directory("generative") == run.path
    assert Predicter.get_external_config_json("generative") == {
        "model_class": "Spikes",
        "series": {"train_loss": ["step", "train_loss"], "val_loss": ["step", "val_loss"]},
        "fork": None,
    }
    pieces = predicter.predict("the ship", ctx_len=24)
    assert isinstance(pieces, Iterator)
    text = "".join(pieces)
    ids = tokenizer.encode("the ship")
    with torch.no_grad():
        while len(ids) < 24:
            ids.append(int(again.model(torch.tensor([ids]))[0, -1].argmax()))
    assert text == tokenizer.decode(ids)[len("the ship") :]
    assert (
        "".join(predicter.predict("the ship", temperature=0, max_new_tokens=24 - len(tokenizer.encode("the ship"))))
        == text
    )


def test_a_masked_model_saves_with_fabric_and_is_as_durable_as_any(home: Path) -> None:
    tokenizer = fast_tokenizer("wordpiece")
    with Trainer(spikes(MaskedSpikes, tokenizer), tokenizer=tokenizer, config=MaskedConfig()) as trainer:
        trainer.train(TEXTS)
    run = darkit.load("masked", root=home / "models" / "lm")
    assert saved(run.path.parent, "masked") == [3, 4]
    assert (run.status, run.details.step, run.details.max_step) == ("finished", 4, 4)
    assert run.trainer_config["lr_scheduler_type"] == "linear"
    for checkpoint in run.checkpoints():
        assert checkpoint.verified
        content = torch.load(checkpoint.path, weights_only=True)
        assert (content["current_step"], "rng" in content) == (checkpoint.step, True)
        assert len(content["optimizer_state_dict"]["state"]) == len(list(trainer.model.parameters()))
    with Trainer(
        spikes(MaskedSpikes, tokenizer), tokenizer=tokenizer, config=MaskedConfig(max_train_steps=6), resume="masked"
    ) as again:
        again.train(TEXTS)
    assert saved(run.path.parent, "masked") == [3, 4, 6]
    predicter = Predicter.from_pretrained("masked:iter-4-ckpt", device="cpu")
    assert type(predicter) is MaskedPredicter
    assert torch.equal(predicter.model.head.weight, trainer.model.head.weight)
    assert isinstance("".join(predicter.predict("the sea", ctx_len=12)), str)


def test_what_cannot_be_predicted_is_refused(home: Path) -> None:
    predicter = Predicter("none", spikes(Spikes, byte_tokenizer()), byte_tokenizer())
    with pytest.raises(ConfigError, match="ctx_len must be at least 1, not 0"):
        predicter.predict("x", ctx_len=0)
    with pytest.raises(ConfigError, match="'' has no tokens"):
        predicter.predict("")
    assert predicter.predict(torch.zeros(1, 3, dtype=torch.long)).shape == (1, 3, 300)
    predicter.tokenizer = None
    with pytest.raises(ConfigError, match="has no tokenizer"):
        predicter.predict("x")


def test_a_run_of_darwinkits_own_is_found_by_a_subclass_that_builds_its_model(home: Path) -> None:
    folder = home / "models" / "lm" / "older"
    folder.mkdir(parents=True)
    tokenizer = fast_tokenizer("bpe")
    tokenizer.save_pretrained(folder / "tokenizer")
    model = spikes(Spikes, tokenizer)
    files.write_json(folder / "config.json", vars(model.config))
    files.write_json(folder / "external_config.json", {"model_class": "Spikes", "series": {}, "fork": None})
    torch.save(
        {"model_class": "Spikes", "state_dict": model.state_dict(), "current_step": 5}, folder / "iter-5-ckpt.pth"
    )
    predicter = Predicter.from_pretrained("older", device="cpu")
    assert type(predicter) is GenerativePredicter
    assert torch.equal(predicter.model.head.weight, model.head.weight)
    assert len("".join(predicter.predict("the", ctx_len=20))) > 0


def test_a_trainer_and_its_module_take_what_code_for_darwinkit_gives(home: Path) -> None:
    from darkit.core.predicter import Predicter as Found
    from darkit.core.trainer import FabricTrainer, LogFieldnames
    from darkit.core.trainer_fabric import FabricTrainer as OfItsModule

    assert (FabricTrainer, LogFieldnames) == (darkit.core.FabricTrainer, darkit.core.LogFieldnames)
    assert (Found, OfItsModule) == (darkit.core.Predicter, FabricTrainer)
    with pytest.raises(ImportError, match="cannot import name 'Nothing'"):
        from darkit.core.trainer import Nothing  # type: ignore[attr-defined]  # noqa: F401
    model, config = nn.Linear(2, 2), TrainerConfig(device="cpu")
    trainer = Trainer(model, config=config, tokenizer=None, resume=None, fork=None, server_prot=None)
    assert trainer.fork is None
    with pytest.raises(ConfigError, match=r"fork='theirs' is not possible for a Trainer.*leave it out"):
        Trainer(model, config=config, tokenizer=None, fork="theirs")
    with pytest.raises(ConfigError, match="server_prot=8001 is not possible"):
        Trainer(model, config=config, tokenizer=None, server_prot=8001)


class Loaded(GenerativePredicter):
    """Loads as DarwinKit's own class does."""

    @classmethod
    def from_pretrained(cls, name: str, device: Any = None, checkpoint: Any = None) -> Any:  # type: ignore[override]
        model = cls.get_model(name, checkpoint).to(device)
        return cls(name, cls.inject_script(model, name), tokenizer=cls.get_tokenizer(name), device=device)


def test_an_overridden_from_pretrained_finds_what_it_calls_and_no_script_is_run(home: Path) -> None:
    folder = home / "models" / "lm" / "older"
    folder.mkdir(parents=True)
    tokenizer = fast_tokenizer("bpe")
    tokenizer.save_pretrained(folder / "tokenizer")
    model = spikes(Spikes, tokenizer)
    files.write_json(folder / "config.json", vars(model.config))
    torch.save(
        {"model_class": "Spikes", "state_dict": model.state_dict(), "current_step": 5}, folder / "iter-5-ckpt.pth"
    )
    files.write_json(folder / "external_config.json", {"model_class": "Spikes", "series": {}, "fork": None})
    assert torch.equal(Loaded.from_pretrained("older", "cpu").model.head.weight, model.head.weight)
    assert Loaded.get_fork_directory(None) is None
    files.write_json(folder / "external_config.json", {"model_class": "Spikes", "series": {}, "fork": "changed"})
    with pytest.raises(ConfigError, match=r"'older' is a fork .*lm/fork/changed', which are not run"):
        Loaded.from_pretrained("older", "cpu")

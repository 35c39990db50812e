"""Every objective trains from its ``data=`` choice, tells its split, and goes on bit for bit after a break."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from darkit.data import (
    DataChoice,
    labelled_text,
    masked_text,
    streamed_text,
    table_data,
    text_files,
    text_pairs,
)
from darkit.engine.checkpoints.checkpoint import read_run_checkpoint
from darkit.engine.checkpoints.difference import differences
from darkit.models.gpt import GPT, GPTConfig
from darkit.runs import Run, load
from tests.cli.parts import done, refused, write
from tests.engine.parts import run_names, train
from tests.engine.resuming import assert_same, break_off

CHECKOUT = Path(__file__).parents[1]
STEPS = 7
WORDS = ("the", "cat", "saw", "red", "old", "bird", "tree", "quick", "lazy", "over", "under", "with", "and", "fox")
LITTLE = (
    "data.vocab_size=300",
    "data.context_length=16",
    "trainer.batch_size=4",
    "trainer.max_step=4",
    "trainer.eval_iters=2",
    "trainer.eval_step_interval=2",
    "trainer.save_step_interval=2",
    "trainer.log_step_interval=1",
    "trainer.tensorboard=false",
)
SIZES = {"vocab_size": 300, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
BERT = {**SIZES, "intermediate_size": 16, "max_position_embeddings": 16}
BART = {
    "vocab_size": 300,
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "max_position_embeddings": 16,
    "pad_token_id": 0,
    "bos_token_id": 3,
    "eos_token_id": 2,
    "decoder_start_token_id": 3,
    "forced_eos_token_id": 2,
}


def sentence(number: int) -> str:
    return " ".join(WORDS[(number * 7 + place * place) % len(WORDS)] for place in range(4 + number % 5))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with data and models of one's own."""
    place = tmp_path / "work"
    place.mkdir()
    monkeypatch.chdir(place)
    texts = [sentence(number) for number in range(40)]
    write(place / "text.txt", "\n".join(texts) + "\n")
    rows = [{"text": text, "label": ["bad", "good"][len(text) % 2], "score": len(text) / 9} for text in texts]
    write(place / "labels.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    pairs = [{"source": text, "target": " ".join(reversed(text.split()))} for text in texts]
    write(place / "pairs.jsonl", "".join(json.dumps(row) + "\n" for row in pairs))
    lines = [f"{number},{number * 0.5},{['a', 'b', 'c'][number % 3]}" for number in range(40)]
    write(place / "table.csv", "\n".join(["width,height,kind", *lines]) + "\n")
    for name, config, values in (
        ("BertForMaskedLM", "BertConfig", BERT),
        ("BertForPreTraining", "BertConfig", BERT),
        ("BertForSequenceClassification", "BertConfig", BERT),
        ("BartForConditionalGeneration", "BartConfig", BART),
    ):
        settings = "".join(f"  {key}: {value}\n" for key, value in values.items())
        content = f"_target_: transformers.{name}\nconfig:\n  _target_: transformers.{config}\n{settings}"
        write(place / "configs" / "model" / f"{name}.yaml", content)
    own = "_target_: torch.nn.Linear\nin_features: ${data.input_size}\nout_features: ${data.output_size}\n"
    write(place / "configs" / "model" / "linear.yaml", own)
    return place


CHOICES: dict[str, tuple[str, ...]] = {
    "masked": ("model=BertForMaskedLM", "data.path=text.txt", "data.documents=line", *LITTLE),
    "pairs": ("model=BertForPreTraining", "data.path=text.txt", "data.documents=line", *LITTLE),
    "classification": ("model=BertForSequenceClassification", "data.path=labels.jsonl", *LITTLE),
    "table": (
        "model=linear",
        "data.path=table.csv",
        "data.features=[width,height]",
        "data.target=kind",
        *LITTLE[2:],
    ),
    "seq2seq": ("model=BartForConditionalGeneration", "data.path=pairs.jsonl", *LITTLE),
    "stream": (
        "model=gpt",
        "model.config.num_layers=1",
        "model.config.num_heads=2",
        "model.config.hidden_size=16",
        "data.path=text.txt",
        "data.val_fraction=0.2",
        *LITTLE,
    ),
}


@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_trains_is_evaluated_and_tells_its_split_and_goes_on(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("train", f"data={name}", *CHOICES[name])
    done(capsys, *words, "name=x")
    run = load("x")
    log = run.log()
    assert run.status == "finished"
    assert log["val_loss"].drop_nulls().len() == 2
    data = run.info["data"]
    assert len(data["split"]["fingerprint"]) == 64
    assert ("prepared" in data) or f"data.path={data['files'][0]}" in words
    assert (run.path / "tokenizer.json").is_file() == (name != "table")
    if name in ("classification", "table"):
        assert data["label_names"] == (["bad", "good"] if name == "classification" else ["a", "b", "c"])
    done(capsys, *words, "name=x", "resume=true", "trainer.max_step=6")
    assert load("x").log()["step"].to_list() == [1, 2, 3, 4, 5, 6]


def test_the_embedded_text_is_the_default_of_masked_text(capsys: pytest.CaptureFixture[str]) -> None:
    words = [word for word in CHOICES["masked"] if not word.startswith(("data.path", "data.documents"))]
    done(capsys, "train", "data=masked", *words, "data.whole_words=true", "name=x")
    assert load("x").info["data"]["kind"] == "MaskedTokens"


@pytest.mark.parametrize("name", ["classification", "seq2seq", "stream"])
def test_data_that_needs_a_file_says_so(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [word for word in CHOICES[name] if not word.startswith("data.path")]
    assert refused(capsys, "train", f"data={name}", *words).startswith("data.path must say where the ")
    assert run_names() == []


def test_a_model_that_is_too_small_for_the_data_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "train", "data=masked", *CHOICES["masked"], "data.context_length=17")
    assert said == (
        "The training data has sequences of 17 tokens, but the model takes at most 16: use shorter windows, or give "
        "the model a max_position_embeddings of at least 17."
    )
    said = refused(capsys, "train", "data=masked", *CHOICES["masked"], "model.config.vocab_size=20")
    assert "but the model's has 20: give the model a vocab_size of at least" in said
    assert run_names() == []


# Going on


def masked() -> DataChoice:
    return masked_text("text.txt", documents="line", vocab_size=300, context_length=16)


def pairs() -> DataChoice:
    return masked_text("text.txt", documents="line", vocab_size=300, context_length=16, pairs=True, whole_words=True)


def classified() -> DataChoice:
    return labelled_text("labels.jsonl", vocab_size=300, context_length=16)


def scored() -> DataChoice:
    return labelled_text("labels.jsonl", label="score", task="regression", vocab_size=300, context_length=16)


def translated() -> DataChoice:
    return text_pairs("pairs.jsonl", vocab_size=300, context_length=16, multiple_of=4)


def tabulated() -> DataChoice:
    return table_data("table.csv", features=["width", "height"], target="kind")


def streamed() -> DataChoice:
    return streamed_text("text.txt", vocab_size=300, context_length=16, val_fraction=0.2)


def prepared() -> DataChoice:
    return text_files("text.txt", documents="line", vocab_size=300, context_length=16)


def of_documents() -> DataChoice:
    return text_files("text.txt", documents="line", vocab_size=300, context_length=16, packed=False, multiple_of=4)


class Scores(nn.Module):
    """Finds a number for each text; brings no loss."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.EmbeddingBag(300, 1)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.embedding(input_ids, per_sample_weights=None) * attention_mask.any()


def bert(kind: str) -> Callable[[], nn.Module]:
    return lambda: getattr(transformers, kind)(transformers.BertConfig(**BERT))


def gpt() -> nn.Module:
    return GPT(GPTConfig(vocab_size=300, context_length=16, num_layers=1, num_heads=2, hidden_size=16, dropout=0.1))


CASES: dict[str, tuple[Callable[[], DataChoice], Callable[[], nn.Module]]] = {
    "masked": (masked, bert("BertForMaskedLM")),
    "pairs": (pairs, bert("BertForPreTraining")),
    "classification": (classified, bert("BertForSequenceClassification")),
    "regression": (scored, Scores),
    "seq2seq": (translated, lambda: transformers.BartForConditionalGeneration(transformers.BartConfig(**BART))),
    "table": (tabulated, lambda: nn.Linear(2, 3)),
    "files": (prepared, gpt),
    "documents": (of_documents, gpt),
    "stream": (streamed, gpt),
}


def fit(case: str, name: str, **options: Any) -> Run:
    make, model = CASES[case]
    torch.manual_seed(3)
    choice, made = make(), model()
    settings = {"max_step": STEPS, "seed": 3, "optimizer": "adamw", "eval_step_interval": 3, "eval_iters": 2}
    loss = choice.loss_for(made)
    return train(made, choice.train, choice.val, name=name, loss=loss, batch_size=8, **{**settings, **options})


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("case", CASES)
def test_going_on_is_bit_for_bit_as_without_a_break(case: str, workers: int) -> None:
    straight = fit(case, "straight", num_workers=workers, save_step_interval=1)
    name = break_off(straight, 6)
    assert_same(straight, fit(case, name, num_workers=workers, resume=True, save_step_interval=0), STEPS)


RANKS = """
import sys, torch, darkit
from darkit.data import masked_text, streamed_text, text_files
from darkit.models.gpt import GPT, GPTConfig
from darkit.models.spikebert import SpikeBERT, SpikeBERTConfig

if __name__ == "__main__":
    case, workers, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    torch.manual_seed(0)
    make = {"files": text_files, "masked": masked_text, "stream": streamed_text}[case]
    choice = make("text.txt", documents="line", vocab_size=300, context_length=8, val_fraction=0.2)
    size = choice.settings["vocab_size"]
    if case == "masked":
        sizes = dict(num_layers=1, num_heads=2, hidden_size=16, feed_forward_size=16)
        model = SpikeBERT(SpikeBERTConfig(vocab_size=size, context_length=8, **sizes))
    else:
        sizes = dict(num_layers=1, num_heads=2, hidden_size=16, dropout=0.1)
        model = GPT(GPTConfig(vocab_size=size, context_length=8, **sizes))
    darkit.fit(model, choice.train, choice.val, name="ranks", resume="auto", device="cpu", device_num=2, strategy="ddp",
               batch_size=4, num_workers=workers, max_step=steps, save_step_interval=4, eval_step_interval=4,
               eval_iters=2, log_step_interval=1, tensorboard=False)
"""


@pytest.mark.parametrize(
    ("case", "workers"),
    [("masked", 2), *(pytest.param(case, 0, marks=pytest.mark.soak) for case in ("files", "stream"))],
)
def test_two_processes_go_on_exactly(python: str, folder: Path, tmp_path: Path, case: str, workers: int) -> None:
    (folder / "ranks.py").write_text(RANKS)

    def start(home: Path) -> Run:
        variables = {"DARWIN_KIT_HOME": str(home), "PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"}
        command = [python, "ranks.py", case, str(workers), "26"]
        ended = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, timeout=240)
        assert ended.returncode == 0, ended.stderr[-3000:]
        return Run(home / "base" / "ranks")

    straight = start(tmp_path / "straight")
    shutil.copytree(tmp_path / "straight", tmp_path / "broken")
    for checkpoint in Run(tmp_path / "broken" / "base" / "ranks").checkpoints():
        if checkpoint.step > 4:
            checkpoint.path.unlink()
            checkpoint.path.with_suffix(".json").unlink()
    broken = start(tmp_path / "broken")
    assert broken.info["continued"], "it has gone on"
    contents = [read_run_checkpoint(run.path)[1] for run in (straight, broken)]
    assert len(contents[0]["ranks"]) == 2
    assert list(differences(*contents)) == []
    assert straight.log().drop("time").equals(broken.log().drop("time"))
    assert straight.log()["epoch"][-1] > 0, "it has gone over the end of an epoch"

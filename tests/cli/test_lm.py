"""``DarwinKit lm``: DarwinKit's commands for language models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import darkit
import darkit.cli.main
from darkit.cli.lm import train_words
from darkit.core import Predicter
from darkit.errors import ConfigError
from darkit.lm import main as lm
from tests.cli.parts import done, refused
from tests.core.parts import byte_tokenizer

SMALL = ("--ctx_len", "16", "--n_layer", "1", "--n_embd=16", "--batch_size", "2", "--max_step", "2")


def test_a_model_is_trained_listed_and_predicts_with_darwinkits_commands(
    capsys: pytest.CaptureFixture[str], home: Path, tmp_path: Path
) -> None:
    words = ("--save_step_interval", "1", "SpikeGPT", "--name", "mine", "--vocab_size", "300", *SMALL)
    said = done(capsys, "lm", "train", *words, "--device", "cpu", "--learning_rate", "0.002", "--beta2", "0.99")
    assert said.startswith(
        "darkit train model=spikegpt 'trainer.betas=[0.9,0.99]' trainer.save_step_interval=1 name=mine"
    )
    run = darkit.load("mine")
    assert run.trainer_config == run.trainer_config | {
        "lr": 0.002,
        "betas": [0.9, 0.99],
        "batch_size": 2,
        "max_step": 2,
    }
    assert run.config == run.config | {"num_layers": 1, "hidden_size": 16, "context_length": 16}
    text = done(capsys, "lm", "predict", "SpikeGPT", "mine:iter-1-ckpt", "The", "--device", "cpu", "--ctx_len", "12")
    model = Predicter.from_pretrained("mine:iter-1-ckpt", device="cpu")
    count = 12 - len(model.tokenizer.encode("The").ids)
    assert text == f"The{''.join(model.predict('The', temperature=0, max_new_tokens=count))}\n"

    tokenizer = byte_tokenizer()
    config = darkit.TrainerConfig(name="other", device="cpu", max_step=1, tensorboard=False)
    with lm.Trainer(model.model, tokenizer, config, loss=torch.nn.functional.cross_entropy) as trainer:
        trainer.save_pretrained()
    listed = done(capsys, "lm", "show")
    assert listed.splitlines() == [
        *("TRAINED MODELS:", "  - other", "    1. iter-0-ckpt"),
        *("  - mine", "    1. iter-1-ckpt", "    2. iter-2-ckpt"),
    ]
    assert (home / "models" / "lm" / "other").is_dir()
    assert done(capsys, "lm", "predict", "SpikeGPT", "other:complete", "the", "--device", "cpu").startswith("the")

    assert refused(capsys, "lm", "predict", "SpikeLM", "mine", "The").endswith("SpikeGPT, not a SpikeLM.")
    assert "There is no run 'none'" in refused(capsys, "lm", "predict", "SpikeLM", "none", "The")


def test_the_words_are_those_of_darkit_train(tmp_path: Path) -> None:
    words = ["--tokenizer", "gpt2", "--dataset", str(tmp_path), "--resume", "mine", "SpikeLM", "--hidden_size", "24"]
    assert train_words([*words, "--max_train_steps", "5", "--lr_scheduler_type=linear"]) == [
        *("model=spikebert", "data=masked", f"data.path={tmp_path}", "data.tokenizer=gpt2", "resume=mine"),
        *("model.config.hidden_size=24", "trainer.max_step=5", "scheduler=linear"),
    ]
    found = train_words(["--dataset", "Salesforce/wikitext:wikitext-2-v1", "SpikeGPT"])
    assert found == ["model=spikegpt", "data=files", "data.path=hf:Salesforce/wikitext:wikitext-2-v1"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["SpikeGPS"], "Unknown model 'SpikeGPS'. Did you mean 'SpikeGPT'?"),
        ([], "No model is named. Available: SpikeGPT, SpikeLM."),
        (["SpikeGPT", "--ctx_lem", "3"], "Unknown option --ctx_lem. Did you mean 'ctx_len'?"),
        (["SpikeGPT", "--num_hidden_layers", "3"], "Unknown option --num_hidden_layers."),
        (["SpikeGPT", "--ctx_len"], "--ctx_len needs a value."),
        (["--fork", "mine", "SpikeGPT"], "--fork would run code of a web page"),
        (["--tokenizer", "gpt2", "SpikeGPT"], "--tokenizer needs a --dataset"),
    ],
)
def test_what_has_no_counterpart_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        train_words(words)
    assert said in str(error.value)


def test_a_mistake_is_one_sentence_and_help_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "lm", "train", "SpikeGPS").startswith("Unknown model 'SpikeGPS'")
    assert "darkit lm show" in done(capsys, "lm")
    with pytest.raises(SystemExit):
        darkit.cli.main.main(["lm", "train", "--help"])
    assert "ctx_len" in capsys.readouterr().out

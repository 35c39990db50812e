"""Folders of transformers and peft load with ``from_pretrained``, as the model that was trained."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from torch import nn

import darkit
from darkit.core import Predicter
from darkit.errors import ConfigError
from darkit.prediction.exporting.hf import export_hf
from darkit.runs import files, load
from tests.engine.description.test_adapters import ADAPTERS, adapted, base
from tests.prediction.exporting.parts import GPT2, tokenizer, tokens

X = tokens()[0]["input_ids"][None]


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=X).logits
    return found


def edit(runs: Path, name: str, **changes: Any) -> None:
    path = runs / name / "run.json"
    info = json.loads(path.read_text())
    info["model"].update(changes)
    files.write_json(path, info)


def test_a_model_of_transformers_loads_with_its_tokenizer_and_generation_config(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert export_hf(load("gpt2"), "1", out) == "gpt2:iter-1-ckpt"
    loaded = transformers.AutoModelForCausalLM.from_pretrained(out)
    assert type(loaded) is transformers.GPT2LMHeadModel
    assert torch.equal(logits(loaded), logits(Predicter.from_pretrained("gpt2:iter-1-ckpt", "cpu").model))
    assert not torch.equal(logits(loaded), logits(Predicter.from_pretrained("gpt2", "cpu").model))
    assert type(transformers.AutoModel.from_pretrained(out)) is transformers.GPT2Model
    assert (loaded.generation_config.max_new_tokens, loaded.generation_config.eos_token_id) == (7, 2)
    read = transformers.AutoTokenizer.from_pretrained(out)
    text = "w3 </s> w5 nothing <unk> w1"
    assert read(text)["input_ids"] == tokenizer().encode(text).ids
    assert read.eos_token == "</s>"
    assert (out / "model.safetensors").is_file()


def test_the_card_says_what_the_run_knows(runs: Path, tmp_path: Path) -> None:
    export_hf(load("gpt2"), None, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    run = load("gpt2")
    step = run.checkpoints()[-1]
    for known in (
        'pipeline_tag: "text-generation"',
        "# `gpt2`",
        'AutoModelForCausalLM.from_pretrained("path/to/this/folder")',
        f"`train_loss`: `{step.metrics['train_loss']}`",
        f"`{run.info['data']['fingerprint']}`",
        f"`{step.sha256}`",
        '"n_embd": 16',
        '"lr": 0.1',
        "License of the weights",
    ):
        assert known in card


def test_code_on_the_hub_that_a_config_names_is_left_out(runs: Path, tmp_path: Path) -> None:
    path = runs / "gpt2" / "config.json"
    files.write_json(path, json.loads(path.read_text()) | {"auto_map": {"AutoModel": "evil/repo--model.Evil"}})
    export_hf(load("gpt2"), None, tmp_path / "out")
    assert "evil" not in (tmp_path / "out" / "config.json").read_text()


def test_label_names_of_the_data_are_those_of_the_config(home: Path, tmp_path: Path) -> None:
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, num_labels=2
    )
    data = [{"input_ids": row["input_ids"], "labels": torch.tensor(0)} for row in tokens()]
    darkit.fit(transformers.BertForSequenceClassification(config), data, max_step=1, name="bert")
    path = home / "base" / "bert" / "run.json"
    info = json.loads(path.read_text())
    info["data"]["label_names"] = ["bad", "good"]
    files.write_json(path, info)
    export_hf(load("bert"), None, tmp_path / "out")
    loaded = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert loaded.config.id2label == {0: "bad", 1: "good"}


def test_an_adapter_alone_loads_onto_its_base(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert export_hf(load("lora"), None, out) == "the adapter of lora:iter-2-ckpt"
    assert {path.name for path in out.iterdir()} == {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    base = transformers.AutoModelForCausalLM.from_pretrained(runs.parent / "base-model")
    before = logits(base)
    loaded = peft.PeftModel.from_pretrained(base, str(out))
    assert torch.equal(logits(loaded), logits(Predicter.from_pretrained("lora", "cpu").model))
    assert not torch.equal(logits(loaded), before)


@pytest.mark.parametrize("name", ["modules to save", "tokens", "ia3", "vera", "adalora"])
def test_adapters_of_other_types_load_as_well(home: Path, tmp_path: Path, name: str) -> None:
    config = ADAPTERS[name]
    config.task_type = "CAUSAL_LM"
    model = adapted(config)
    start = copy.deepcopy(model.get_base_model().state_dict())
    darkit.fit(model, tokens(), max_step=2, batch_size=4, lr=0.1, name="run")
    export_hf(load("run"), None, tmp_path / "out")
    fresh = base()
    added = r"\.(base_layer|original_module|token_adapter)"
    changed = {re.sub(added, "", key): value for key, value in start.items()}
    missing = fresh.load_state_dict(changed, strict=False).missing_keys
    loaded = peft.PeftModel.from_pretrained(fresh, str(tmp_path / "out"))
    assert missing == []
    assert torch.equal(logits(loaded), logits(model))


def test_an_adapter_that_changed_its_base_is_refused(home: Path, tmp_path: Path) -> None:
    darkit.fit(adapted(ADAPTERS["pissa"]), tokens(), max_step=1, name="run")
    with pytest.raises(ConfigError, match="initialized by 'pissa', which changes the weights of the base"):
        export_hf(load("run"), None, tmp_path / "out")


def test_an_adapter_with_another_name_is_written_at_the_same_place(home: Path, tmp_path: Path) -> None:
    base = transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT2))
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["c_attn"], fan_in_fan_out=True)
    darkit.fit(peft.get_peft_model(base, config, adapter_name="mine"), tokens(), max_step=1, name="named")
    export_hf(load("named"), None, tmp_path / "out")
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()


def test_an_adapter_whose_base_was_trained_too_is_refused(home: Path, tmp_path: Path) -> None:
    base = transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT2))
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["c_attn"], fan_in_fan_out=True)
    model = peft.get_peft_model(base, config)
    model.base_model.model.transformer.ln_f.weight.requires_grad_(True)
    darkit.fit(model, tokens(), max_step=1, name="unfrozen")
    with pytest.raises(ConfigError, match=r"also trained weights of the base model, such as '.*ln_f\.weight'"):
        export_hf(load("unfrozen"), None, tmp_path / "out")


class Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT2))

    def forward(self, **batch: Any) -> Any:
        return self.inner(**batch)


class OwnHead(transformers.GPT2LMHeadModel):  # type: ignore[misc]
    """Not what AutoModel would load."""


@pytest.mark.parametrize("model", [Wrapped, lambda: OwnHead(transformers.GPT2Config(**GPT2))])
def test_a_model_of_the_users_own_class_is_refused(home: Path, tmp_path: Path, model: Any) -> None:
    darkit.fit(model(), tokens(), max_step=1, name="own")
    with pytest.raises(ConfigError, match=r"is a tests\..*; --format hf is for models of transformers and peft"):
        export_hf(load("own"), None, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_loads_as_another_model_is_refused(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = transformers.GPT2LMHeadModel.save_pretrained

    def spoil(self: Any, folder: Path) -> None:
        with torch.no_grad():
            self.transformer.ln_f.bias += 1
        save(self, folder)
        with torch.no_grad():
            self.transformer.ln_f.bias -= 1

    monkeypatch.setattr(transformers.GPT2LMHeadModel, "save_pretrained", spoil)
    with pytest.raises(ConfigError, match=r"loads as a GPT2LMHeadModel whose 'transformer\.ln_f\.bias' differs"):
        export_hf(load("gpt2"), None, tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"peft_type": "XLORA"}, "'XLORA' is not built"),
        ({"peft_type": "PROMPT_TUNING"}, "'PROMPT_TUNING' is not built"),
        ({"megatron_config": {"a": 1}, "megatron_core": "antigravity"}, "Megatron"),
    ],
)
def test_an_adapter_that_loads_files_or_modules_is_not_built(runs: Path, changes: dict[str, Any], said: str) -> None:
    adapter = load("lora").info["model"]["adapter"]
    edit(runs, "lora", adapter=adapter | {"config": adapter["config"] | changes})
    with pytest.raises(darkit.errors.ModelError, match=said):
        Predicter.from_pretrained("lora", "cpu")

"""Models of peft are recorded with their adapter, and built again as the same function."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from torch import nn

from darkit.engine.description.describe import describe_model
from darkit.engine.description.exports import write_exports
from darkit.errors import ReproductionWarning
from darkit.prediction.rebuild import build_model
from darkit.runs import Run, files

SIZES = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
X = torch.randint(0, 50, (2, 6), generator=torch.Generator().manual_seed(0))
TARGETS = ["q_proj", "v_proj"]
ADAPTERS = {
    "lora": peft.LoraConfig(r=2, target_modules=TARGETS, lora_dropout=0.1, use_rslora=True),
    "dora": peft.LoraConfig(r=2, target_modules="all-linear", use_dora=True, bias="lora_only"),
    "pissa": peft.LoraConfig(r=2, target_modules=TARGETS, init_lora_weights="pissa"),
    "modules to save": peft.LoraConfig(r=2, target_modules=TARGETS, modules_to_save=["lm_head"]),
    "tokens": peft.LoraConfig(r=2, target_modules=TARGETS, trainable_token_indices=[1, 2]),
    "adalora": peft.AdaLoraConfig(target_modules=TARGETS, total_step=10, init_r=4, target_r=2),
    "ia3": peft.IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]),
    "loha": peft.LoHaConfig(r=2, target_modules=TARGETS),
    "lokr": peft.LoKrConfig(r=2, target_modules=TARGETS),
    "oft": peft.OFTConfig(oft_block_size=4, target_modules=TARGETS),
    "vera": peft.VeraConfig(r=2, target_modules=TARGETS),
    "layer norms": peft.LNTuningConfig(target_modules=["input_layernorm"]),
}


def base() -> Any:
    config = transformers.LlamaConfig(**SIZES, intermediate_size=16, max_position_embeddings=16)
    return transformers.LlamaForCausalLM(config)


def adapted(config: Any, **settings: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peft.get_peft_model(base(), config, **settings)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=X).logits
    return found


def rebuilt(model: nn.Module, folder: Path) -> nn.Module:
    description = write_exports(folder, model, None, None)
    files.write_json(folder / files.RUN, {"model": description.as_dict()})
    return build_model(Run(folder))


@pytest.mark.parametrize("name", ADAPTERS)
@pytest.mark.parametrize("task", [None, "CAUSAL_LM"])
def test_an_adapter_is_built_again_with_its_base(name: str, task: str | None, tmp_path: Path) -> None:
    config = ADAPTERS[name]
    config.task_type = task
    torch.manual_seed(0)
    model = adapted(config, adapter_name="mine")
    for value in model.parameters():  # fresh adapters change nothing
        if value.requires_grad:
            nn.init.normal_(value, std=0.3)
    again = rebuilt(model, tmp_path)
    assert type(again) is type(model)
    again.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(logits(again), logits(model))
    assert next(iter(again.peft_config.values())).to_dict() == model.peft_config["mine"].to_dict()  # type: ignore[union-attr, operator]
    assert describe_model(model).adapter["also_trained"] == []


def test_what_is_trained_beside_the_adapter_is_recorded() -> None:
    model = adapted(ADAPTERS["lora"])
    model.base_model.model.model.norm.weight.requires_grad_(True)
    assert describe_model(model).adapter["also_trained"] == ["base_model.model.model.norm.weight"]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: _with_two(), "it has 2 adapters"),
        (
            lambda: adapted(peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)),
            "'PREFIX_TUNING' is not built from a record",
        ),
        (
            lambda: peft.get_peft_model(_Own(), peft.LoraConfig(r=2, target_modules=["layer"])),
            "no config that builds it",
        ),
    ],
)
def test_what_cannot_be_built_again_is_said(make: Any, reason: str, tmp_path: Path) -> None:
    model = make()
    assert reason in describe_model(model).reason
    with pytest.warns(ReproductionWarning, match="prediction by name needs model="):
        write_exports(tmp_path, model, None, None)


class _Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


def _with_two() -> Any:
    model = adapted(ADAPTERS["lora"])
    model.add_adapter("second", peft.LoraConfig(r=2, target_modules=TARGETS))
    return model

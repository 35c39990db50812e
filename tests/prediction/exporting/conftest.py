"""Small runs of models of transformers and peft, trained once; each test gets a copy of all."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers

import darkit
from tests.prediction.exporting.parts import GPT2, tokens


def _train(model: Any, name: str, **settings: Any) -> None:
    darkit.fit(model, tokens(), max_step=2, batch_size=4, lr=0.1, save_step_interval=1, name=name, **settings)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of the runs ``gpt2`` and ``lora``."""
    from tests.prediction.exporting.parts import tokenizer

    folder = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setenv("DARWIN_KIT_HOME", str(folder))
        patch.setenv("HF_HUB_OFFLINE", "1")
        torch.manual_seed(0)
        model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT2))
        model.generation_config.update(max_new_tokens=7, eos_token_id=2)
        _train(model, "gpt2", tokenizer=tokenizer())
        torch.manual_seed(0)
        base = transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT2))
        base.save_pretrained(folder / "base-model")
        config = peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["c_attn"], fan_in_fan_out=True)
        _train(peft.get_peft_model(base, config), "lora")
    return folder


@pytest.fixture
def runs(trained: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the home."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    shutil.copytree(trained, home)
    return home / "base"

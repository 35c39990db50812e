"""Folders of transformers and peft: ``--format hf``."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn

from darkit.data.text.tokenizers import special_token
from darkit.engine.description.adapters import is_adapted
from darkit.engine.description.twin import untouched
from darkit.errors import ConfigError, DarkitError
from darkit.prediction.exporting.card import model_card
from darkit.prediction.exporting.examples import first_line
from darkit.prediction.exporting.loading import load_predicter
from darkit.prediction.predicter import Predicter
from darkit.runs import Run, files
from darkit.runs.checkpoints import Checkpoint

_ADVICE = (
    "--format hf is for models of transformers and peft that were given to fit themselves. Use --format safetensors, "
    "onnx or torch-export."
)
_SPECIAL = {"end": "eos", "pad": "pad", "mask": "mask", "cls": "cls", "sep": "sep", "unk": "unk"}
_CHANGE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")  # initializations of LoRA
_CODE = ("auto_map", "custom_pipelines")  # entries of a config that name code on the hub


def export_hf(run: Run, wanted: str | None, output: Path) -> str:
    """Write a folder for ``from_pretrained``: config, weights, tokenizer, generation config and model card.

    Raises:
        ConfigError: The model is not one of transformers or peft, or the folder does not load as the same model.
    """
    facts = run.info.get("model")
    facts = facts if isinstance(facts, Mapping) else {}
    path = str(facts.get("class", ""))
    if not path.startswith(("transformers.", "peft.")):
        raise ConfigError(f"The model of run {run.name!r} is a {path or 'model of unknown class'}; {_ADVICE}")
    if facts.get("config_kind", "none") == "none":
        raise ConfigError(
            f"The run {run.name!r} recorded no config that builds its {path.rpartition('.')[2]}. "
            "Use --format safetensors."
        )
    predicter = load_predicter(run, wanted)
    checkpoint, model = predicter.checkpoint, predicter.model
    if checkpoint is None:
        raise ConfigError(f"A Predicter registered for {path} loads the weights of run {run.name!r} itself; {_ADVICE}")
    output.mkdir()
    try:
        with untouched(), redirect_stderr(io.StringIO()):  # where transformers draws progress
            write = _write_adapter if is_adapted(model) else _write_model
            write(run, checkpoint, predicter, output)
    except DarkitError:
        raise
    except Exception as error:  # of transformers, peft or a model's code
        raise ConfigError(
            f"{run.name}:{checkpoint.name} cannot be exported as hf: {first_line(error)}. Use --format safetensors."
        ) from error
    what = "the adapter of " if is_adapted(model) else ""
    return f"{what}{run.name}:{checkpoint.name}"


def _write_model(run: Run, checkpoint: Checkpoint, predicter: Predicter, output: Path) -> None:
    model: Any = predicter.model
    auto = _auto_class(model)
    if auto is None:
        raise ConfigError(f"{type(model).__name__} has no AutoModel class that loads it. Use --format safetensors.")
    for name in _CODE:
        model.config.__dict__.pop(name, None)
    _set_generation(run, model)
    _set_labels(model, predicter.label_names)
    model.save_pretrained(output)
    tokenizer = _write_tokenizer(predicter.tokenizer, output)
    loaded = auto.from_pretrained(output, local_files_only=True, dtype="auto")
    _compare(model, loaded, model.state_dict(), loaded.state_dict())
    usage = [
        f"from transformers import {auto.__name__}{', AutoTokenizer' if tokenizer else ''}",
        "",
        f'model = {auto.__name__}.from_pretrained("path/to/this/folder")',
        *(['tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")'] if tokenizer else []),
    ]
    card = model_card(
        run,
        checkpoint,
        library="transformers",
        model_class=type(model).__name__,
        task=_pipeline_task(model, predicter.task),
        usage=usage,
    )
    files.write_text(output / "README.md", card)


def _write_adapter(run: Run, checkpoint: Checkpoint, predicter: Predicter, output: Path) -> None:
    import peft

    model: Any = predicter.model
    facts = run.info["model"]["adapter"]
    if facts.get("also_trained"):
        raise ConfigError(
            f"The run {run.name!r} also trained weights of the base model, such as {facts['also_trained'][0]!r}, which "
            "an adapter does not hold. Use --format safetensors."
        )
    name = next(iter(model.peft_config))
    config = model.peft_config[name]
    config.auto_mapping = None
    initial = getattr(config, "init_lora_weights", None)
    if isinstance(initial, str) and initial.lower().startswith(_CHANGE_BASE):
        raise ConfigError(
            f"The adapter of run {run.name!r} was initialized by {initial!r}, which changes the weights of the base "
            "model, so it is not complete alone. Use --format safetensors."
        )
    base_class, base_name = type(model.get_base_model()), config.base_model_name_or_path
    model.save_pretrained(output, selected_adapters=[name], save_embedding_layers=False)
    folder = output / name
    if folder.is_dir():  # peft gives every adapter but "default" a folder of its own
        for path in list(folder.iterdir()):
            path.rename(output / path.name)
        folder.rmdir()
    tokenizer = _write_tokenizer(predicter.tokenizer, output)
    loaded = peft.PeftModel.from_pretrained(copy.deepcopy(model).unload(), str(output))
    adapters = (
        peft.get_peft_model_state_dict(part, adapter_name=key, save_embedding_layers=False)
        for part, key in ((model, name), (loaded, "default"))
    )
    _compare(model, loaded, *adapters)
    auto = _auto_class(model.get_base_model())
    base = auto.__name__ if auto else base_class.__name__
    usage = [
        "from peft import PeftModel",
        f"from transformers import {base}{', AutoTokenizer' if tokenizer else ''}",
        "",
        f'base = {base}.from_pretrained("path/to/the/base/model")  # with the weights that the training started from',
        'model = PeftModel.from_pretrained(base, "path/to/this/folder")',
    ]
    limits = ["The base model is not part of this folder. An adapter is right on the weights it was trained on only."]
    size = getattr(getattr(model, "config", None), "vocab_size", None)
    if isinstance(size, int):
        limits.append(f"The base model must have a vocabulary of {size} tokens.")
    if any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in model.modules()):
        limits.append("The base model has batch norms, whose running statistics are not part of an adapter.")
    card = model_card(
        run,
        checkpoint,
        library="peft",
        model_class=f"{type(config).__name__} on {base_class.__name__}",
        task=_pipeline_task(model.get_base_model(), predicter.task),
        usage=usage,
        base_model=base_name if isinstance(base_name, str) else None,
        limits=limits,
    )
    files.write_text(output / "README.md", card)


def _auto_class(model: nn.Module) -> Any:
    """Return the class such as ``AutoModelForCausalLM`` that loads a model's class, or None."""
    import transformers

    config = getattr(model, "config", None)
    names = [name for name in dir(transformers) if name.startswith("AutoModel")]
    for name in sorted(names, key=lambda name: (name == "AutoModelForPreTraining", name)):  # the more telling first
        mapping = getattr(getattr(transformers, name), "_model_mapping", {})
        if type(config) not in mapping:
            continue
        classes = mapping[type(config)]
        if (classes if isinstance(classes, tuple) else (classes,))[0] is type(model):
            return getattr(transformers, name)
    return None


def _set_generation(run: Run, model: Any) -> None:
    """Give a model that generates the generation config that the run recorded."""
    settings = run.info["model"].get("generation")
    if isinstance(settings, Mapping) and getattr(model, "generation_config", None) is not None:
        model.generation_config = type(model.generation_config).from_dict(dict(settings))


def _set_labels(model: Any, names: Sequence[str]) -> None:
    """Name the labels of a classifier as its training data does."""
    if names and len(names) == getattr(model.config, "num_labels", None):
        model.config.id2label = dict(enumerate(names))
        model.config.label2id = {name: number for number, name in enumerate(names)}


def _pipeline_task(model: Any, task: str) -> str:
    """Return the task of a model that reads text, or an empty string."""
    return task if getattr(model, "main_input_name", "") == "input_ids" else ""


def _write_tokenizer(tokenizer: Any, output: Path) -> bool:
    """Write the tokenizer of a run, if it has one."""
    if tokenizer is None:
        return False
    if isinstance(tokenizer, Tokenizer):
        from transformers import PreTrainedTokenizerFast

        ids = {attribute: special_token(tokenizer, use) for use, attribute in _SPECIAL.items()}
        known = tokenizer.get_added_tokens_decoder()  # to declare another one would change how texts are split
        special = {f"{name}_token": known[token].content for name, token in ids.items() if token in known}
        fast: Any = PreTrainedTokenizerFast
        tokenizer = fast(tokenizer_object=tokenizer, **special)
    tokenizer.save_pretrained(output)
    return True


def _compare(model: nn.Module, loaded: nn.Module, wanted: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Raise `ConfigError` if a loaded model has another class or other weights."""
    other = next((key for key in _keys(wanted, found) if not _same(wanted.get(key), found.get(key))), None)
    if type(model) is not type(loaded) or other is not None:
        raise ConfigError(
            f"The folder loads as a {type(loaded).__name__} whose {other!r} differs from the run's "
            f"{type(model).__name__}. Use --format safetensors."
        )


def _keys(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    yield from wanted
    yield from (key for key in found if key not in wanted)


def _same(one: Any, other: Any) -> bool:
    if not isinstance(one, torch.Tensor) or not isinstance(other, torch.Tensor):
        return one is None and other is None
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)

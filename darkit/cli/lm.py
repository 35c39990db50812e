"""``DarwinKit lm``: DarwinKit's commands for language models, each as the command of darkit that it means."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from darkit.cli.errors import USAGE_ERROR, print_error
from darkit.cli.loading import loading
from darkit.cli.parsers import Subparsers, add_command
from darkit.cli.pipes import say
from darkit.cli.terminal import text_for_output
from darkit.errors import ConfigError, nearest
from darkit.lm.utils import lm_root
from darkit.runs import Run, base, list_runs, load
from darkit.runs.checkpoints import COMPLETE, list_checkpoints
from darkit.runs.inert import inert
from darkit.runs.names import check_name, is_name, split_reference

_EXAMPLES = """\
  DarwinKit lm train SpikeGPT --name mine --max_step 200
  DarwinKit lm train --dataset texts/ --tokenizer gpt2 SpikeGPT --ctx_len 128
  DarwinKit lm predict SpikeGPT mine "The import statement" --device cpu
  darkit lm show                    darkit and DarwinKit are the same command
"""
_MODELS = {"SpikeGPT": "spikegpt", "SpikeLM": "spikebert"}
_CLASSES = {"SpikeGPT": ("SpikeGPT",), "SpikeLM": ("SpikeBERT", "SpikeLM")}  # in the path of a model's class
_DATA = {"SpikeGPT": "files", "SpikeLM": "masked"}  # of a dataset that is given
_SETTINGS = {
    "name": "name",
    **{
        name: f"trainer.{name}"
        for name in (
            *("device", "device_num", "num_workers", "batch_size", "max_step", "weight_decay", "save_step_interval"),
            *("eval_iters", "eval_step_interval", "gradient_accumulation_steps"),
        )
    },
    "max_train_steps": "trainer.max_step",
    "learning_rate": "trainer.lr",
    "grad_norm_clip": "trainer.gradient_clip",
    "num_warmup_steps": "trainer.warmup_step",
    "lr_scheduler_type": "scheduler",
    "vocab_size": "data.vocab_size",
    "ctx_len": "data.context_length",
    "max_seq_length": "data.context_length",
    "resume": "resume",
}
_SIZES = {
    "SpikeGPT": {"n_layer": "num_layers", "n_embd": "hidden_size"},
    "SpikeLM": {
        "num_hidden_layers": "num_layers",
        "num_attention_heads": "num_heads",
        "hidden_size": "hidden_size",
        "intermediate_size": "feed_forward_size",
        "T": "time_steps",
    },
}


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(commands, "lm", _help, "DarwinKit's commands for language models", _EXAMPLES)
    parser.set_defaults(print_help=parser.print_help)
    inner = parser.add_subparsers(title="commands", metavar="COMMAND")
    training = inner.add_parser("train", help="train a model: darkit train", epilog=_options())
    training.add_argument("words", metavar="--OPTION VALUE ... MODEL --OPTION VALUE ...", help=", ".join(_MODELS))
    predict = inner.add_parser("predict", help="continue a text with the likeliest tokens: darkit predict")
    predict.add_argument("type", metavar="MODEL_TYPE", choices=list(_MODELS), help=", ".join(_MODELS))
    predict.add_argument("name", metavar="MODEL_NAME", help="the run's name, or NAME:CHECKPOINT")
    predict.add_argument("prompt", metavar="PROMPT", help="the text")
    predict.add_argument("--device", help="auto, cpu, cuda or mps (default: the accelerator if available)")
    predict.add_argument(
        "--ctx_len", type=int, default=512, metavar="N", help="maximum number of tokens with the prompt (default: 512)"
    )
    predict.set_defaults(run=_predict)
    show = inner.add_parser("show", help="list the checkpoints of all runs")
    show.set_defaults(run=_show)


def _options() -> str:
    names = ["dataset", "tokenizer", "beta1", "beta2", *_SETTINGS, *_SIZES["SpikeGPT"], *_SIZES["SpikeLM"]]
    return f"options: {', '.join(dict.fromkeys(names))}"


def _help(arguments: argparse.Namespace) -> int:
    show: Callable[[], None] = arguments.print_help
    show()
    return 0


def train(words: Sequence[str]) -> int:
    """Run ``lm train``: print the words of ``darkit train`` that it means, and train.

    Args:
        words: What follows ``lm train``.

    Returns:
        The exit code.
    """
    try:
        meant = train_words(words)
    except ConfigError as error:
        print_error(error)
        return USAGE_ERROR
    say(f"darkit train {shlex.join(meant)}")
    with loading():
        from darkit.cli.train import main

    return main(meant)


def train_words(words: Sequence[str]) -> list[str]:
    """Return the words of ``darkit train`` that those of ``lm train`` mean. Raises `ConfigError`."""
    given = dict(_pairs(words))
    model = given.pop("", None)
    if model is None:
        raise ConfigError(f"No model is named. Available: {', '.join(_MODELS)}.")
    if model not in _MODELS:
        raise ConfigError(f"Unknown model {model!r}. {nearest(model, _MODELS)}.")
    found = [f"model={_MODELS[model]}"]
    if given.pop("fork", ""):
        raise ConfigError("--fork would run code of a web page: darkit train fork=NAME:CHECKPOINT continues a run.")
    dataset, tokenizer = given.pop("dataset", None), given.pop("tokenizer", None)
    if dataset is not None:
        path = dataset if Path(dataset).exists() else f"hf:{dataset.removeprefix('hf:')}"
        found += [f"data={_DATA[model]}", f"data.path={path}"]
    if tokenizer is not None and dataset is None and model == "SpikeGPT":
        raise ConfigError("--tokenizer needs a --dataset: the text that comes with Python has a tokenizer of its own.")
    if tokenizer is not None:
        found.append(f"data.tokenizer={tokenizer}")
    betas = [given.pop("beta1", "0.9"), given.pop("beta2", "0.999")] if {"beta1", "beta2"} & given.keys() else None
    if betas is not None:
        found.append(f"trainer.betas=[{','.join(betas)}]")
    settings = _SETTINGS | {name: f"model.config.{size}" for name, size in _SIZES[model].items()}
    for name, value in given.items():
        if name not in settings:
            raise ConfigError(f"Unknown option --{name}. {nearest(name, settings)}.")
        found.append(f"{settings[name]}={value}")
    return found


def _pairs(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield options and values; the model has the option ''."""
    left = iter(words)
    for word in left:
        if not word.startswith("--"):
            yield "", word
            continue
        name, sign, value = word.removeprefix("--").partition("=")
        if not sign and (value := next(left, "")) == "":
            raise ConfigError(f"--{name} needs a value.")
        yield name, value


def _predict(arguments: argparse.Namespace) -> int:
    """Stream the text."""
    name, checkpoint = split_reference(arguments.name)
    own = (lm_root() / check_name(name)).is_dir()
    found = load(name, root=lm_root() if own else base())
    kind = found.model_class  # empty in a run that DarwinKit has made
    if kind and not any(word in kind for word in _CLASSES[arguments.type]):
        raise ConfigError(f"The run {name!r} has a {inert(kind)}, not a {arguments.type}.")
    with loading():  # torch
        from darkit.core import Predicter as CorePredicter
        from darkit.lm.main import Predicter
    if "" not in sys.path:
        sys.path.insert(0, "")  # the model's class may be in the working directory
    wanted = None if checkpoint == COMPLETE else checkpoint
    if own:
        pieces = Predicter.from_pretrained(name, arguments.device, wanted).predict(arguments.prompt, arguments.ctx_len)
    else:
        model = CorePredicter.from_pretrained(name, arguments.device, wanted)
        pieces = Predicter(name, model.model, model.tokenizer, model.device).predict(
            arguments.prompt, arguments.ctx_len
        )
    print(arguments.prompt, end="", flush=True)
    for piece in pieces:
        print(text_for_output(piece), end="", flush=True)
    print()
    return 0


def _show(arguments: argparse.Namespace) -> int:
    """Print the runs in ``models/lm`` and in the usual folder, each with its checkpoints, lowest step first."""
    own = sorted(lm_root().iterdir()) if lm_root().is_dir() else []
    runs = [Run(path) for path in own if is_name(path.name) and path.is_dir() and not path.is_symlink()]
    say("TRAINED MODELS:")
    for run in [*runs, *list_runs()]:
        if checkpoints := list_checkpoints(run.path):
            lines = [f"    {number}. {checkpoint.name}" for number, checkpoint in enumerate(checkpoints, 1)]
            say("\n".join([f"  - {inert(run.name)}", *lines]))
    return 0

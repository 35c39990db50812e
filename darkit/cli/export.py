"""``darkit export``: a run's weights alone, for other programs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from darkit.cli.parsers import Subparsers, add_command
from darkit.errors import ConfigError, RunExistsError
from darkit.runs import files, load
from darkit.runs.names import split_reference

_EXAMPLES = """\
  darkit export NAME                                   NAME.safetensors here
  darkit export NAME:iter-400-ckpt --format torch      for torch.load(weights_only=True)
  darkit export NAME --output weights/model.safetensors
"""
_ENDINGS = {"safetensors": ".safetensors", "torch": ".pth"}


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(commands, "export", run, "write a run's weights alone into one file", _EXAMPLES)
    parser.add_argument("name", metavar="NAME", help="the run's name, or NAME:CHECKPOINT")
    parser.add_argument("--format", choices=sorted(_ENDINGS), default="safetensors", help="default: safetensors")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: NAME with the format's ending, here")
    parser.add_argument("--force", action="store_true", help="replace FILE if it is there")


def run(arguments: argparse.Namespace) -> int:
    """Read the checkpoint and writes the weights.

    Raises:
        RunExistsError: The file exists.
        ConfigError: Its folder is not there, or the weights do not fit the format.
    """
    from darkit.engine.checkpoints.checkpoint import read_run_checkpoint

    name, wanted = split_reference(arguments.name)
    found = load(name)
    output: Path = arguments.output or Path(f"{found.name}{_ENDINGS[arguments.format]}")
    if output.exists() and not arguments.force:
        raise RunExistsError(f"{output} already exists. Choose another --output, or --force.")
    if not output.parent.is_dir():
        raise ConfigError(f"The folder {output.parent} does not exist. Create it first.")
    checkpoint, content = read_run_checkpoint(found.path, wanted)
    weights = content["state_dict"]
    others = [key for key, value in weights.items() if not hasattr(value, "detach")]
    if others and arguments.format == "safetensors":
        raise ConfigError(f"safetensors stores tensors only, and {others[0]!r} is not a tensor. Use --format torch.")
    with files.open_atomically(output) as file:
        if arguments.format == "torch":
            import torch

            torch.save(weights, file)
        else:
            file.write(_safetensors(weights, content, checkpoint.step))
    print(f"Wrote {len(weights)} tensors of {found.name}:{checkpoint.name} to {output}.")
    return 0


def _safetensors(weights: dict[str, Any], content: dict[str, Any], step: int) -> bytes:
    """Serialize weights; those that share memory are written out each, as the format knows no sharing."""
    from safetensors.torch import save

    tensors = {name: value.detach().clone().contiguous() for name, value in weights.items()}
    facts = {"format": "pt", "model_class": str(content.get("model_class", "")), "step": str(step)}
    return save(tensors, metadata=facts)

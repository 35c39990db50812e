"""``darkit export``: a run in the formats of other programs."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from darkit.cli.parsers import Subparsers, add_command
from darkit.runs import load
from darkit.runs.names import split_reference
from darkit.runs.outputs import fresh_output


@dataclass(frozen=True)
class Format:
    """A format of ``darkit export``.

    Attributes:
        help: What it writes.
        ending: The ending of the default output; empty for a folder.
        module: The module of its function, imported when the format is asked for.
        function: ``function(run, wanted, output)`` writes a file or a folder at ``output``, which does not exist yet,
            and returns what it wrote, such as ``12 tensors of x:iter-4-ckpt``. ``wanted`` is the checkpoint of
            ``NAME:CHECKPOINT``, or None. If it raises, nothing is left behind.
    """

    help: str
    ending: str
    module: str
    function: str


FORMATS = {
    "safetensors": Format(
        "the weights, for any program", ".safetensors", "darkit.prediction.exporting.weights", "export_safetensors"
    ),
    "torch": Format(
        "the weights, for torch.load(weights_only=True)", ".pth", "darkit.prediction.exporting.weights", "export_torch"
    ),
    "hf": Format(
        "a folder for from_pretrained of transformers or peft, with a model card",
        "",
        "darkit.prediction.exporting.hf",
        "export_hf",
    ),
    "onnx": Format("the model, for ONNX runtimes", ".onnx", "darkit.prediction.exporting.onnx_file", "export_onnx"),
    "torch-export": Format(
        "the model, for torch.export.load", ".pt2", "darkit.prediction.exporting.traced", "export_program"
    ),
    "nir": Format(
        "a spiking model as a graph of the Neuromorphic Intermediate Representation",
        ".nir",
        "darkit.prediction.exporting.nir_file",
        "export_nir",
    ),
    "tensorboard": Format(
        "the log and the media, as event files of TensorBoard",
        "-tensorboard",
        "darkit.integrations.exporters.tensorboard",
        "export_tensorboard",
    ),
    "csv": Format("the log, as one table", ".csv", "darkit.integrations.exporters.tables", "export_csv"),
    "parquet": Format(
        "the log, as one table with types", ".parquet", "darkit.integrations.exporters.tables", "export_parquet"
    ),
    "mlflow": Format(
        "the log and the config, as an SQLite store of MLflow",
        "-mlflow",
        "darkit.integrations.exporters.mlflow",
        "export_mlflow",
    ),
}
_EXAMPLES = """\
  darkit export NAME                                   NAME.safetensors here
  darkit export NAME:iter-400-ckpt --format torch      NAME.pth, of an earlier checkpoint
  darkit export NAME --output weights/model.safetensors
"""


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(commands, "export", run, "write a run for other programs", _EXAMPLES)
    formats = "".join(f"  {name:<14}{one.help}\n" for name, one in FORMATS.items())
    parser.epilog = f"formats:\n{formats}\n{parser.epilog}"
    parser.add_argument("name", metavar="NAME", help="the run's name, or NAME:CHECKPOINT")
    parser.add_argument(
        "--format", choices=FORMATS, default="safetensors", metavar="FORMAT", help="default: safetensors"
    )
    parser.add_argument("--output", type=Path, metavar="PATH", help="default: NAME with the format's ending, here")
    parser.add_argument("--force", action="store_true", help="replace PATH if it is there")


def run(arguments: argparse.Namespace) -> int:
    """Write the run in the format.

    Raises:
        RunExistsError: The output exists.
        ConfigError: Its folder does not exist, or the run does not fit the format.
    """
    name, wanted = split_reference(arguments.name)
    found = load(name)
    chosen = FORMATS[arguments.format]
    output: Path = arguments.output or Path(f"{found.name}{chosen.ending}")
    facts = {"format": arguments.format, "run": arguments.name, "id": found.info.get("id")}
    with fresh_output(output, facts, replace=arguments.force) as fresh:
        write = getattr(import_module(chosen.module), chosen.function)
        written = write(found, wanted, fresh)
    print(f"Wrote {written} to {output}.")
    return 0

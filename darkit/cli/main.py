"""``darkit`` and ``DarwinKit``: the command and its subcommands."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from darkit.cli.errors import INTERRUPTED, USAGE_ERROR, print_error
from darkit.cli.loading import loading, own_process
from darkit.cli.pipes import tolerate_closed_output
from darkit.errors import DarkitError, StorageError
from darkit.version import __version__

_COMMANDS = {  # loaded when they are called: all together take longer than most of them
    "sweep": "darkit.cli.sweep",
    "find": "darkit.cli.find",
    "profile": "darkit.cli.profile",
    "runs": "darkit.cli.runs",
    "query": "darkit.cli.query",
    "show": "darkit.cli.show",
    "compare": "darkit.cli.compare",
    "stop": "darkit.cli.stop",
    "predict": "darkit.cli.predict",
    "eval": "darkit.cli.evaluate",
    "data": "darkit.cli.data",
    "export": "darkit.cli.export",
    "import": "darkit.cli.import_",
    "report": "darkit.cli.report",
    "verify": "darkit.cli.verify",
    "verify-resume": "darkit.cli.verify_resume",
    "reproduce": "darkit.cli.reproduce",
    "new": "darkit.cli.new",
    "start": "darkit.cli.start",
    "stop-server": "darkit.cli.stop_server",
    "top": "darkit.cli.top",
    "du": "darkit.cli.du",
    "prune": "darkit.cli.prune",
    "rm": "darkit.cli.rm",
    "restore": "darkit.cli.restore",
    "mv": "darkit.cli.mv",
    "lm": "darkit.cli.lm",
}
_EXAMPLES = """\
examples:
  darkit train                                   train the default run
  darkit train model=mymodel trainer.lr=1e-3     train another model, with other settings
  darkit runs                                    list all runs
  darkit show NAME                               show one run
  darkit predict NAME "The import statement"     predict with it
  darkit import runs/                            make runs of TensorBoard, W&B, MLflow and other logs
  darkit start                                   watch all of them on a local page

Runs are stored in DARWIN_KIT_HOME; `darkit runs` prints the folder.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: The command line; by default that of the process.

    Returns:
        The exit code: 0, or 2 when the user can fix the error.
    """
    if arguments is None:
        own_process()
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["train"]:
        return train(words[1:])
    if words[:1] == ["sweep"]:  # in part read by Hydra too
        from darkit.cli.sweep import main as sweep

        with tolerate_closed_output():
            return sweep(words[1:])
    if words[:2] == ["lm", "train"] and not {"-h", "--help"} & set(words):  # its options are those of many models
        from darkit.cli.lm import train as lm_train

        return lm_train(words[2:])
    code = 0
    try:
        with tolerate_closed_output():
            code = _run(words)
    except StorageError as error:  # from flushing the output
        print_error(error)
        return USAGE_ERROR
    return code


def train(words: Sequence[str]) -> int:
    """Run ``darkit train``: once, as Hydra reads the words, or once for each of ``seeds=``."""
    if any(word.startswith("seeds=") for word in words):
        from darkit.cli.sweep import main as sweep

        with tolerate_closed_output():
            return sweep(words, only_seeds=True)
    with loading():
        from darkit.cli.train import main as train_once

    return train_once(words)


def _run(words: Sequence[str]) -> int:
    parser = _parser(words[0] if words else "")
    chosen = parser.parse_args(words)
    if chosen.run is None:
        parser.print_help()
        return 0
    try:
        code: int = chosen.run(chosen)
    except DarkitError as error:
        print_error(error)
        return USAGE_ERROR
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


def _parser(word: str = "") -> argparse.ArgumentParser:
    """Return the parser of the command of this name, or of all commands for another word."""
    parser = argparse.ArgumentParser(
        prog="darkit",
        description="Runs you can trust and compare, from any PyTorch module and data.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"darkit {__version__}")
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    commands.add_parser("train", help="train a run from composed configs", add_help=False)
    with loading():
        modules = [import_module(_COMMANDS[name]) for name in ([word] if word in _COMMANDS else _COMMANDS)]
    for module in modules:
        module.add_parser(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())

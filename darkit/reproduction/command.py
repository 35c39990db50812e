"""The recorded command of a run, taken apart: what Python ran, and how it is run again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from darkit.errors import ConfigError
from darkit.runs import Run

SCRIPT, MODULE, CODE, TRAIN = "script", "module", "code", "train"
_WITH_VALUE = ("-W", "-X")
_COMMANDS = ("darkit", "DarwinKit")
_NOTEBOOKS = ("ipykernel_launcher", "ipykernel", "colab_kernel_launcher")
_TRAIN_MODULES = ("train", "cli.train")  # of darkit
_LAUNCHERS = ("torch.distributed.run", "torch.distributed.launch", "accelerate.commands.launch")


@dataclass(frozen=True)
class Command:
    """What a Python process ran.

    Attributes:
        kind: ``script``, ``module``, ``code`` or ``train``, which is ``darkit train``.
        what: The script's path, the module's name or the code; empty for ``train``.
        words: The arguments after it.
        flags: The interpreter's own flags before it.
    """

    kind: str
    what: str
    words: tuple[str, ...]
    flags: tuple[str, ...] = ()


def read_command(run: Run) -> Command:
    """Take the recorded command of a run apart.

    Raises:
        ConfigError: It was not recorded, or cannot be run again: a notebook, a script from stdin, a launcher.
    """
    words = run.info.get("command")
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
        raise ConfigError(f"The run {run.name!r} did not record its command.")
    command = _parse(words[1:])
    if command is None:
        raise ConfigError(
            f"The run {run.name!r} was started at a prompt or by a script from stdin, which no file holds."
        )
    name = Path(command.what).name if command.kind == SCRIPT else command.what
    if command.kind in (SCRIPT, MODULE) and name.removesuffix(".py").split(".")[0] in _NOTEBOOKS:
        raise ConfigError(f"The run {run.name!r} was started in a notebook, whose cells no file of the run holds.")
    if command.kind == MODULE and command.what in _LAUNCHERS:
        raise ConfigError(f"The run {run.name!r} was started by {command.what}, which starts processes of its own.")
    trainer = run.trainer_config
    processes = [trainer.get(key) for key in ("device_num", "num_nodes")]
    if any(isinstance(number, int) and number > 1 for number in processes):
        raise ConfigError(
            f"The run {run.name!r} was trained by several processes. darkit reproduce runs one: give the command "
            "itself, with another name, and compare the two."
        )
    return command


def _parse(words: Sequence[str]) -> Command | None:
    flags: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "-":
            return None
        if word in ("-m", "-c"):
            return _named(MODULE if word == "-m" else CODE, rest, flags) if rest else None
        if word.startswith("-"):
            flags.append(word)
            if word in _WITH_VALUE and rest:
                flags.append(rest.pop(0))
            continue
        return _named(SCRIPT, [word, *rest], flags)
    return None


def _named(kind: str, rest: Sequence[str], flags: Sequence[str]) -> Command:
    what, *words = rest
    is_darkit = what == "darkit" if kind == MODULE else kind == SCRIPT and Path(what).stem in _COMMANDS
    if (kind == MODULE and what.startswith("darkit.") and what.removeprefix("darkit.") in _TRAIN_MODULES) or (
        is_darkit and words[:1] == ["train"]
    ):
        return Command(TRAIN, "", tuple(words[1:] if is_darkit else words), tuple(flags))
    return Command(kind, what, tuple(words), tuple(flags))

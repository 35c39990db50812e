"""The settings in a run's ``config.yaml``, as far as they can be trusted.

A config that this darkit home wrote itself, which its seal tells, is taken as it is: it is what the person asked for.
Any other run directory may be a stranger's. It chooses, by name, among the choices that exist here, and gives them
plain values. Whatever else it asks for, a person has to say on the command line.
"""

from __future__ import annotations

import inspect
import json
import math
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from darkit.errors import ConfigError
from darkit.runs import Run, files, seal
from darkit.runs.inert import inert
from darkit.runs.moved import present_name
from darkit.runs.overrides import resumed_overrides
from darkit.runs.safe import DEEPEST, UnreadableError, as_dict, read_bytes

_LONGEST = 2**20  # bytes
_GROUPS = ("model", "data", "optimizer", "scheduler", "trainer", "experiment")
_SETTINGS = ("model", "data", "trainer")  # what settings of a choice begin with
_FROM_HUB = ("data.path", "data.tokenizer")  # settings that may name something on the network
_KEY = re.compile(r"[A-Za-z]\w*(\.[A-Za-z0-9]\w*)*", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][\w-]*", re.ASCII)
_WORD = re.compile(r"[\w-]{0,64}", re.ASCII)
_LOSS = re.compile(r"\w*(_loss|cross_entropy|cross_entropy_with_logits|kl_div)", re.ASCII)
_SHOWN = 5  # words of a refusal
_LONGEST_SHOWN = 120  # characters of each


def read_composed(run: Run) -> dict[str, Any]:
    """Read a run's composed config: mappings, lists and plain values. Nothing in it is resolved or built.

    Returns:
        What it holds; nothing where the run has none.

    Raises:
        ConfigError: It is not a YAML mapping, is too large or too deep, or refers to itself.
    """
    return _read(run)[0]


def _read(run: Run) -> tuple[dict[str, Any], bool]:
    """Read a run's composed config, and whether this darkit home wrote it."""
    path = run.path / files.COMPOSED_CONFIG
    try:
        text = read_bytes(path, _LONGEST)
        _refuse_growth(text)
        content = yaml.load(text, Loader=_LOADER)  # noqa: S506 - a safe loader
    except FileNotFoundError:
        return {}, False
    except (UnreadableError, yaml.YAMLError, ValueError, RecursionError) as error:
        reason = error.reason if isinstance(error, UnreadableError) else str(error).partition("\n")[0]
        raise ConfigError(f"Cannot read the config of run {run.name!r} from {path}: {inert(reason)}.") from error
    if not isinstance(content, dict):
        raise ConfigError(f"Cannot read the config of run {run.name!r} from {path}: it is not a mapping.")
    return content, seal.holds(text.decode("utf-8"), run.info.get("composed_seal"), purpose=files.COMPOSED_CONFIG)


def believed_data(run: Run, *, elsewhere: bool) -> dict[str, Any]:
    """Return the settings of a run's data; of a run of another home one of darkit's own choices, with plain values.

    Args:
        run: The run.
        elsewhere: Whether other files are going to take the place of the recorded ones.

    Raises:
        ConfigError: The run does not tell what data it had, or it is something that only a person may name.
    """
    composed, ours = _read(run)
    data = composed.get("data")
    if not isinstance(data, dict) or "_target_" not in data:
        raise ConfigError(f"The run {run.name!r} did not record its data. Give a choice: --data NAME KEY=VALUE.")
    if ours:
        return data
    values = {str(key): value for key, value in data.items() if key != "_target_"}
    target = present_name(str(data["_target_"]))
    known = _parameters(target)
    if known is None:
        raise _refused(run, f"data._target_={_shown(target)}")
    for key, value in values.items():
        if key not in known or not _is_plain(value):
            raise _refused(run, f"data.{_shown(key)}={_shown(value)}")
        replaced = (elsewhere and key == "path") or key == "tokenizer"  # by the run's own
        if not replaced and _is_on_hub(f"data.{key}", value):
            raise _refused(run, f"data.{key}={_shown(value)}")
    return {"_target_": target, **values}


def believed_loss(run: Run) -> Any:
    """Return the setting ``loss`` of a run; of a run of another home only the name of a loss of torch.

    Raises:
        ConfigError: It is something that only a person may name.
    """
    composed, ours = _read(run)
    loss = composed.get("loss")
    if loss is None or ours or (isinstance(loss, str) and _LOSS.fullmatch(loss)):
        return loss
    raise ConfigError(
        f"The run {run.name!r} was trained with loss={_shown(loss)}, which is not trusted in a run directory of "
        "another darkit home."
    )


def believed_overrides(
    run: Run, given: Sequence[str], replaced: Iterable[str], *, step: float | None = None
) -> list[str]:
    """Return the overrides that a run was started or resumed with, without those given again.

    Args:
        run: The run.
        given: The overrides that a person gave.
        replaced: The keys of overrides that are not taken over.
        step: The step at which they hold; None for those of the run's start.

    Raises:
        ConfigError: One of them asks for something that only a person may name.
    """
    composed, ours = _read(run)
    overrides = composed.get("overrides") or []
    if not isinstance(overrides, list):
        raise ConfigError(
            f"Cannot read the config of run {run.name!r} from {run.path / files.COMPOSED_CONFIG}: overrides must be a "
            f"list, not {type(overrides).__name__}."
        )
    if step is not None and (later := resumed_overrides(run.info, step)) is not None:
        if "resume_overrides" not in map(key_of, map(str, overrides)):
            replaced = {*replaced, "resume_overrides"}  # which that resume alone was allowed
        overrides, is_sealed = later
        ours = ours and is_sealed
    left = [str(item) for item in overrides if key_of(str(item)) not in {*replaced}]
    choices = {key_of(word): word.partition("=")[2] for word in (*left, *given)}
    refused = [] if ours else [item for item in left if not _is_believed(item, choices)]
    if refused:
        words = " ".join(shlex.quote(_shown(item)) for item in refused[:_SHOWN])
        more = f" and {len(refused) - _SHOWN} more" if len(refused) > _SHOWN else ""
        raise ConfigError(
            f"The run {run.name!r} was started with {words}{more}, which is not trusted in a run directory of another "
            "darkit home. If it is yours, repeat it on the command line."
        )
    return [*_earlier_defaults(composed, [*left, *given], {*map(key_of, given)}), *left]


def _earlier_defaults(composed: Mapping[str, Any], overrides: Sequence[str], given: set[str]) -> list[str]:
    """Return what a model of darkit's had by default when a run was started, where that is another value today.

    Args:
        composed: The run's composed config.
        overrides: Those that hold now.
        given: The keys of those that a person gave: another model has other settings.
    """
    from darkit.cli.compose import config_dir

    name = next((word.partition("=")[2] for word in overrides if key_of(word) == "model"), "gpt")
    path = config_dir() / "model" / f"{name}.yaml"
    if given & {"model", "experiment"} or not _NAME.fullmatch(name) or not path.is_file() or _is_own("model", name):
        return []
    shipped = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)  # noqa: S506 - a safe loader
    recorded = as_dict(composed.get("model"))
    if shipped.get("_target_") != recorded.get("_target_"):
        return []
    now, then = shipped.get("config"), as_dict(recorded.get("config"))
    own = {*map(key_of, overrides)}
    return [
        f"model.config.{key}={json.dumps(then[key])}"
        for key, value in as_dict(now).items()
        if type(value) in (bool, int, float) and type(then.get(key)) in (bool, int, float)
        if then[key] != value and _is_plain(then[key]) and f"model.config.{key}" not in own
    ]


def key_of(word: str) -> str:
    """Return what an override sets, without the signs before it and the place behind it."""
    return word.lstrip("+~").partition("=")[0].partition("@")[0]


def _is_believed(word: str, choices: Mapping[str, str]) -> bool:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import OverrideType
    from hydra.errors import HydraException

    if word != word.strip():
        return False
    try:
        override = OverridesParser.create().parse_overrides([word])[0]
    except HydraException:  # a flag, or no override at all
        return False
    if override.type == OverrideType.DEL or override.package is not None or override.is_sweep_override():
        return False
    key, value = override.key_or_group, override.value()
    if key in _GROUPS:
        return isinstance(value, str) and _NAME.fullmatch(value) is not None
    if key == "loss":
        return value is None or (isinstance(value, str) and _LOSS.fullmatch(value) is not None)
    if key == "resume_overrides":
        return isinstance(value, bool)
    group = key.partition(".")[0]
    if group not in _SETTINGS or group == key or not _KEY.fullmatch(key):
        return False
    own = group != "trainer" and _is_own(group, choices.get(group))
    return _is_plain(value, words=own) and not _is_on_hub(key, value)


def _is_own(group: str, name: str | None) -> bool:
    """Return whether a choice may be a config of the working directory's, whose code is unknown."""
    from darkit.cli.compose import config_dir

    folder = Path("configs").resolve()
    if not folder.is_dir() or folder == config_dir().resolve():
        return False
    return name is None or (folder / group / (name.strip("'\"") + ".yaml")).exists()


def _is_plain(value: Any, *, words: bool = False) -> bool:
    """Return whether a value is a number, a truth value, text that nothing resolves, or a list of these.

    With ``words``, text must be a single word, which names neither a file nor code.
    """
    if value is None or isinstance(value, bool | int):
        return True
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, str):
        return _WORD.fullmatch(value) is not None if words else "${" not in value and value.isprintable()
    if isinstance(value, list):
        return all(_is_plain(item, words=words) for item in value)
    return False


def _is_on_hub(key: str, value: Any) -> bool:
    """Return whether a setting would fetch something from the network."""
    from darkit.data.sources.source import is_on_hub

    if key not in _FROM_HUB or not isinstance(value, str | list):
        return False
    if key == "data.path":
        return any(is_on_hub(str(item)) for item in (value if isinstance(value, list) else [value]))
    return not Path(str(value)).expanduser().exists()  # a tokenizer that is no file is looked for there


def _parameters(target: str) -> frozenset[str] | None:
    """Return what a choice of darkit's own takes, or None where the target is none."""
    from darkit.cli.compose import config_dir

    pattern = re.compile(r"^_target_: (\S+)", re.MULTILINE)
    shipped = {
        match[1]
        for path in (config_dir() / "data").glob("*.yaml")
        if (match := pattern.search(path.read_text(encoding="utf-8")))
    }
    if target not in shipped:
        return None
    module, _, name = target.rpartition(".")
    return frozenset(inspect.signature(getattr(import_module(module), name)).parameters)


def _refused(run: Run, what: str) -> ConfigError:
    return ConfigError(
        f"The run {run.name!r} was trained with {what}, which is not trusted in a run directory of another darkit "
        "home. If it is yours, give the data: --data NAME KEY=VALUE."
    )


def _shown(value: Any) -> str:
    text = inert(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _refuse_growth(text: bytes) -> None:
    """Refuse YAML that expands while it is parsed: aliases and deep nesting."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("it has references (YAML aliases)")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise ValueError(f"its values are nested more than {DEEPEST} deep")

"""Models rebuilt from a run directory."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import nn

from darkit.engine.checkpoints.weights import class_path
from darkit.engine.description import building, scripts
from darkit.engine.description.adapters import attach_adapter
from darkit.errors import ModelError
from darkit.runs import Run, files
from darkit.runs.safe import as_dict

_ADVICE = "import the module that defines it first, or pass the model itself as model="
_NO_TYPES: Mapping[str, str] = {}


def build_model(run: Run) -> nn.Module:
    """Build a run's model from its recorded config, with fresh weights.

    A run directory may come from a stranger: classes are imported by name, but only a `torch.nn.Module` is called, with
    a config that `darkit.engine.description.building.build_config` builds.

    Raises:
        ModelError: Its class cannot be found or is not a module, or its config was not recorded.
    """
    facts = as_dict(run.info.get("model"))
    script = as_dict(facts.get("script"))
    kind, values, types = facts.get("config_kind", "none"), run.model_config, as_dict(facts.get("types"))
    if run.origin:
        raise ModelError(
            f"The run {run.name!r} was imported from {run.origin.get('kind')}: it has a log, but no model."
        )
    if kind == "none" and not facts.get("class"):
        raise ModelError(f"The run {run.name!r} was recorded without its model: pass the model itself as model=.")
    cls: type[nn.Module] = nn.Module
    if kind != "parts":
        cls = find_model_class(str(facts.get("class", "")), run.name, script, run.path)
    if kind == "none":
        raise ModelError(
            f"The run {run.name!r} has no recorded config of {cls.__name__}: pass the model itself as model=."
        )
    apart = "config" in facts  # in run.json, which was read
    if not apart and (
        reason := files.why_unreadable(run.path / files.MODEL_CONFIG)
    ):  # the class's defaults would be another model
        raise ModelError(
            f"{cls.__name__} of run {run.name!r} cannot be built, because its config.json cannot be read ({reason}): "
            "restore the file, or pass the model itself as model=."
        )
    try:
        config_class = None
        if kind in building.WITH_CLASS:
            config_class = _find_config_class(str(facts.get("config_class", "")), cls, run.name, run.path)
        model = building.build_from(cls, kind, config_class, values, types)
        return attach_adapter(model, adapter) if (adapter := as_dict(facts.get("adapter"))) else model
    except _NotFoundError:
        raise
    except Exception as error:  # of any constructor
        reason = str(error).rstrip(".") if isinstance(error, ModelError) else f"{type(error).__name__}: {error}"
        raise ModelError(
            f"{cls.__name__} of run {run.name!r} cannot be built from its "
            f"{files.RUN if apart else files.MODEL_CONFIG} ({reason}); pass the model itself as model=."
        ) from error


def find_model_class(
    path: str, run_name: str, script: Mapping[str, Any] = _NO_TYPES, folder: Path | None = None
) -> type[nn.Module]:
    """Find a model's class among the imported ones, in its script, or by importing its module.

    A class of a script is also found in a module that the script was later imported as.

    Args:
        path: Its recorded path.
        run_name: The run's name, for errors.
        script: The record of the script that defined it; see `darkit.engine.description.scripts`.
        folder: The run directory, from which nothing is imported.

    Raises:
        ModelError: It cannot be found, or is not a module.
    """
    found: Any = _loaded_class(nn.Module, path)
    module, name = _split_main(path)
    if found is None and module:
        if script:
            found = _from_script(path, name, script, run_name, folder)
        else:
            found = next((cls for cls in _subclasses(nn.Module) if cls.__qualname__ == name), None)
    if found is None:
        found = _import(path, run_name, folder)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ModelError(f"{path!r}, the recorded class of run {run_name!r}, is not a torch.nn.Module.")
    return found


class _NotFoundError(ModelError):
    """A class that cannot be found."""


def _find_config_class(path: str, model_class: type[nn.Module], run_name: str, folder: Path) -> Any:
    module, name = _split_main(path)
    if module:
        beside = getattr(sys.modules.get(model_class.__module__), name, None)
        if isinstance(beside, type):
            return beside
    return _loaded_class(object, path) or _import(path, run_name, folder)


def _from_script(path: str, name: str, script: Mapping[str, Any], run_name: str, folder: Path | None) -> Any:
    """Find a class in the recorded script or the module run with ``python -m``."""
    if isinstance(script.get("module"), str):
        return _import(f"{script['module']}.{name}", run_name, folder)
    try:
        found: Any = scripts.load_script(script, run_name)
        for part in name.split("."):
            found = getattr(found, part)
    except (ModelError, AttributeError) as error:
        raise _not_found(path, run_name, error) from error
    return found


def _import(path: str, run_name: str, folder: Path | None = None) -> Any:
    parts = path.split(".")
    try:
        if _split_main(path)[0] or len(parts) < 2:
            raise ImportError("it was defined in a script")
        _check_importable(parts, folder)
        found = _import_module(parts)
        for name in parts[found.__name__.count(".") + 1 :]:
            found = getattr(found, name)
    except Exception as error:  # of any imported module
        raise _not_found(path, run_name, error) from error
    return found


def _not_found(path: str, run_name: str, error: Exception) -> ModelError:
    reason = str(error).rstrip(".")
    return _NotFoundError(f"The class {path!r} of run {run_name!r} cannot be found ({reason}): {_ADVICE}.")


def _check_importable(parts: list[str], folder: Path | None) -> None:
    """Check that a class is in an installed package or the user's own code, before importing it.

    Raises:
        ImportError: The name is invalid, is part of Python, or its module is in the run directory.
    """
    if not all(part.isidentifier() for part in parts):
        raise ImportError("it is not the name of a class in a module")
    first = parts[0]
    if first in sys.modules:
        return
    if first in sys.stdlib_module_names:
        raise ImportError(f"the module {first!r} of Python has no models")
    spec = importlib.util.find_spec(first)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {first!r}", name=first)
    if folder is not None:
        places = [spec.origin or "", *(spec.submodule_search_locations or ())]
        if any(Path(place).resolve().is_relative_to(folder.parent.resolve()) for place in places if place):
            raise ImportError(f"the module {first!r} is among the runs, from which nothing is imported")


def _import_module(parts: list[str]) -> Any:
    """Import the longest prefix of a path that is a module; a class may be inside another class."""
    for length in range(len(parts) - 1, 1, -1):
        name = ".".join(parts[:length])
        try:
            return import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise  # the module exists but one of its imports does not
    return import_module(parts[0])


def _split_main(path: str) -> tuple[str, str]:
    """Split off ``__main__``, or its name in a spawned process; both parts are empty for other paths."""
    module, _, name = path.partition(".")
    return (module, name) if module in scripts.MAIN else ("", "")


def _loaded_class(base: type, path: str) -> Any:
    """Return the latest subclass of ``base`` with a path, or None."""
    return next((cls for cls in _subclasses(base) if class_path(cls) == path), None)


def _subclasses(base: type) -> Iterator[type]:
    """Iterate over all subclasses of a class, the latest first."""
    seen = {base}
    waiting = [base]
    while waiting:
        children: list[type] = type.__subclasses__(waiting.pop())
        new = [child for child in children if child not in seen]
        seen.update(new)
        waiting.extend(new)
        yield from reversed(new)

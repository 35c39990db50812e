"""Names that darkit's own code had in earlier versions, as the configs of existing runs have them."""

from __future__ import annotations

_MODULES = "files labelled masked masking pairs regression seq2seq stream tables text tokenizers windows"
_MOVED = {f"darkit.data.{module}": "data" for module in _MODULES.split()}
"""Earlier modules, and the package that has their public names now."""


def present_name(path: str) -> str:
    """Return the present name of a function or class, given the recorded one, ``module.name``."""
    module, _, name = path.rpartition(".")
    return f"darkit.{_MOVED[module]}.{name}" if module in _MOVED else path

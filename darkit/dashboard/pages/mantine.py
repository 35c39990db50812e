"""dash-mantine-components with only the components that the pages use.

Importing the package creates a class for each of its 200 components, which doubles the time to start. This module
replaces the package's list of components by an empty one during the import, then creates the components in use, and any
other one at its first access. A later version of the package without such a list is imported as usual.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import Any

_PACKAGE = "dash_mantine_components"
_LIST = f"{_PACKAGE}._imports_"
_USED = (
    "MantineProvider", "NotificationContainer", "ColorSchemeToggle", "SegmentedControl", "Slider", "Switch", "Select",
    "MultiSelect", "TagsInput", "TextInput", "Textarea", "NumberInput", "Autocomplete", "Modal", "Tabs", "TabsList",
    "TabsTab", "TabsPanel",
)  # fmt: skip


class _NoList(MetaPathFinder, Loader):
    """Replace the module that imports all components."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname == _LIST else None

    def exec_module(self, module: Any) -> None:
        module.__all__ = []


def _load() -> Any:
    if _PACKAGE in sys.modules:
        return sys.modules[_PACKAGE]
    finder = _NoList()
    sys.meta_path.insert(0, finder)
    try:
        package: Any = import_module(_PACKAGE)
    finally:
        sys.meta_path.remove(finder)

    def component(name: str) -> Any:
        if not name[:1].isupper():
            raise AttributeError(f"module {_PACKAGE!r} has no attribute {name!r}")
        try:
            made = getattr(import_module(f"{_PACKAGE}.{name}"), name)
        except ModuleNotFoundError as error:
            raise AttributeError(f"module {_PACKAGE!r} has no attribute {name!r}") from error
        setattr(package, name, made)  # the import has set it to the module of that name
        return made

    package.__getattr__ = component
    for name in _USED:
        component(name)
    return package


dmc = _load()

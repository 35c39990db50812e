"""``wandb.config`` and ``wandb.summary``: values by name, as attributes and items."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from darkit.errors import ConfigError
from darkit.runs.configs import plain, public_values

Changed = Callable[[Mapping[str, Any]], None]


class Values(MutableMapping[str, Any]):
    """Values by name, also as attributes.

    Args:
        values: The first values.
        changed: Called with the new values of each change.
    """

    def __init__(self, values: Mapping[str, Any], changed: Changed) -> None:
        object.__setattr__(self, "_items", dict(values))
        object.__setattr__(self, "_changed", changed)

    def __getitem__(self, key: str) -> Any:
        return self._items[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.update({key: value})

    def __delitem__(self, key: str) -> None:
        raise ConfigError(f"{key!r} cannot be deleted: what was recorded stays.")

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __getattr__(self, key: str) -> Any:
        try:
            return self._items[key]
        except KeyError:
            raise AttributeError(f"{type(self).__name__} has no {key!r}.") from None

    def __setattr__(self, key: str, value: Any) -> None:
        self[key] = value

    def __repr__(self) -> str:
        return str(self._items)

    def as_dict(self) -> dict[str, Any]:
        """Return the values."""
        return dict(self._items)

    def update(self, values: Any = (), /, **others: Any) -> None:
        """Set values."""
        new = {str(key): plain(value) for key, value in {**dict(values), **others}.items()}
        self._items.update(new)
        self._changed(new)


class Config(Values):
    """The config of a run. A value changes only with ``allow_val_change``, or in a notebook.

    Args:
        values: The first values.
        changed: Called with the new values of each change.
        free: Whether values may change.
    """

    def __init__(self, values: Mapping[str, Any], changed: Changed, *, free: bool) -> None:
        super().__init__(values, changed)
        object.__setattr__(self, "_free", free)

    def update(self, values: Any = (), /, allow_val_change: bool | None = None, **others: Any) -> None:
        """Set values. Raises `ConfigError` for another value of a name that has one, unless that is allowed."""
        new = read_config(values) | others
        if not (self._free if allow_val_change is None else allow_val_change):
            for key, value in new.items():
                if key in self._items and self._items[key] != plain(value):
                    raise ConfigError(
                        f"The config's {key!r} is {self._items[key]!r} and cannot become {value!r} without "
                        "config.update(..., allow_val_change=True)."
                    )
        super().update(new)

    def setdefaults(self, values: Any) -> None:
        """Set the values of names that have none."""
        self.update({key: value for key, value in read_config(values).items() if key not in self._items})


def read_config(values: Any) -> dict[str, Any]:
    """Return a config given as W&B takes it: a mapping, a namespace, or the path of a YAML file.

    Raises:
        ConfigError: It is something else, or cannot be read.
    """
    if isinstance(values, str | Path):
        from omegaconf import OmegaConf

        try:
            loaded = OmegaConf.to_container(OmegaConf.load(values))
        except Exception as error:
            raise ConfigError(f"The config file {str(values)!r} cannot be read: {error}.") from error
        found = loaded if isinstance(loaded, dict) else {}
        return {
            str(key): value["value"] if isinstance(value, dict) and "value" in value else value
            for key, value in found.items()
            if key not in ("wandb_version", "_wandb")
        }
    if isinstance(values, argparse.Namespace):
        return dict(vars(values))
    if isinstance(values, Mapping) or values == ():
        return {str(key).strip("-"): value for key, value in dict(values).items()}
    if isinstance(values, list | set | int | float):
        raise ConfigError(f"config must be a dict, a namespace or the path of a YAML file, not {values!r:.60}.")
    return public_values(values)

"""Settings that code gives to its own optimizer and schedule, which no config has.

torch keeps them beside the progress, which a resume restores, so what the code gives anew would have no effect.
Checkpoints therefore have what it gave when the training began, whatever a schedule or a callback made of it since.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from darkit.errors import ConfigError, ReproductionWarning

KEY = "given_settings"  # in a checkpoint
_EXACT = ("lr", "weight_decay", "betas")  # what a fork may change
_KERNELS = ("fused", "foreach", "capturable", "differentiable")  # how a step is computed, not what
_LEFT_OUT = ("params", "param_names", "initial_lr", *_KERNELS)
_OF_SCHEDULES = ("max_lr", "min_lr", "base_momentum", "max_momentum", "swa_lr")  # in the groups of an optimizer
_PROGRESS = (
    *("last_epoch", "base_lrs", "best", "num_bad_epochs", "cooldown_counter", "T_cur", "verbose"),
    *("_last_lr", "_step_count", "_get_lr_called_within_step", "_is_initial", "_schedule_phases"),
)
Changes = Mapping[str, tuple[Any, Any]]


class OwnSettings:
    """What code gives to optimizer and schedule now, compared with what it gave when the checkpoint was trained.

    Args:
        changed: Names of the settings that differ from those of the checkpoint, such as ``lr`` of the config, or
            ``optimizer.lr``, which was recorded before.
        fork: Whether a fork begins: what differs holds, or is refused.
        allowed: Whether a resume may have other settings.
        tell: Gets the settings that differ and hold, or None.
        honours: Whether other settings can hold at all: Lightning's own loop restores all those of a LightningModule.

    Attributes:
        changed: As given.
        given: The settings that hold, for the next checkpoints; None where they are not known.
    """

    def __init__(
        self,
        changed: Collection[str] = (),
        *,
        fork: bool = False,
        allowed: bool = False,
        tell: Callable[[Changes], None] | None = None,
        honours: bool = True,
    ) -> None:
        self.changed = changed
        self.given: dict[str, Any] | None = None
        self._fork, self._allowed, self._tell, self._honours = fork, allowed, tell, honours
        self._held: Changes = {}
        self._ignored: Changes = {}

    def compare(self, optimizer: Optimizer, schedule: LRScheduler | None, saved: Mapping[str, Any] | None) -> set[str]:
        """Compare a new optimizer and schedule with those that a checkpoint's training was given.

        Args:
            optimizer: The optimizer, before its state is restored.
            schedule: The user's schedule, or None.
            saved: The checkpoint's content, or None.

        Returns:
            Names of the settings whose new values hold: those that changed, and of the optimizer those found here.
        """
        before = (saved or {}).get(KEY)
        now = optimizer_settings(optimizer) | ({} if schedule is None else schedule_settings(schedule))
        return self.compare_settings(None if is_trained(optimizer) else now, before)

    def compare_settings(self, now: dict[str, Any] | None, before: Any) -> set[str]:
        """Compare settings, as `compare` does.

        Args:
            now: The settings by name; None where they are not known, because an optimizer was trained before.
            before: Those that a checkpoint's training was given; anything but a dict is not compared.

        Returns:
            As `compare`.
        """
        if now is None:  # the groups have the progress too
            self.given = before
            return {*self.changed}
        if not isinstance(before, dict) or "optimizer" in self.changed:
            self.given = now
            return {*self.changed}
        differing = {key: pair for key, pair in _differences(before, now).items() if not self._is_in_config(key)}
        held = {key: pair for key, pair in differing.items() if self._holds(key)}
        ignored = {key: pair for key, pair in differing.items() if key not in held}
        self.given = now | {key: before[key] for key in ignored}
        self._held, self._ignored = held, ignored
        return {*self.changed, *(key.partition(".")[2] for key in held)}

    def report(self) -> None:
        """Report what `compare` found, once optimizer and schedule are restored: they are of the same kind then.

        Raises:
            ConfigError: A fork has other settings than those that it can honour.
        """
        self.refuse()
        self.tell()

    def refuse(self) -> None:
        """Refuse what `compare` found and a fork cannot honour, or warn of it. Raises `ConfigError`."""
        if self._ignored:
            self._refuse(self._ignored)

    def tell(self) -> None:
        """Tell what `compare` found and holds."""
        if self._held and self._tell is not None:
            self._tell(self._held)

    def _is_in_config(self, key: str) -> bool:
        """Return whether a setting was changed by that of the config, which is compared elsewhere."""
        kind, _, name = key.partition(".")
        return kind == "optimizer" and name in self.changed

    def _holds(self, key: str) -> bool:
        kind, _, name = key.partition(".")
        exact = self._honours and kind == "optimizer" and name in _EXACT
        return exact and (self._fork or self._allowed or key in self.changed)

    def _refuse(self, ignored: Changes) -> None:
        """Refuse settings that are not honoured, or warn of them where a training may go on without them."""
        said = (
            f"Optimizer and schedule are restored with the settings of the checkpoint, so {listed(ignored)} has no "
            "effect"
        )
        if self._fork and not self._allowed:
            raise ConfigError(f"{said}: give the earlier value.")
        exact = self._honours and any(key.partition(".")[2] in _EXACT for key in ignored)
        hint = "; resume_overrides=true resumes with the new one" if exact and not self._allowed else ""
        warnings.warn(f"{said}{hint}.", ReproductionWarning, stacklevel=2)


def listed(changes: Changes) -> str:
    """Return settings that differ as text, such as ``optimizer.lr 0.01 -> 0.001``."""
    return ", ".join(f"{key} {before!r} -> {now!r}" for key, (before, now) in changes.items())


def is_trained(optimizer: Optimizer) -> bool:
    """Return whether an optimizer has made a step; some have a state from the start."""
    return any(bool(state.get("step", 1)) for state in optimizer.state.values())


def optimizer_settings(optimizer: Optimizer) -> dict[str, Any]:
    """Return plain settings by name: a list with the value in each group."""
    found: dict[str, Any] = {}
    for key in {key: None for group in optimizer.param_groups for key in group if key not in _LEFT_OUT}:
        base = "initial_lr" if key == "lr" else key  # a schedule has set the first rate
        values = [_plain(group.get(base, group.get(key))) for group in optimizer.param_groups]
        if not all(value is None for value in values):
            found[f"{'scheduler' if key in _OF_SCHEDULES else 'optimizer'}.{key}"] = values
    return found


def schedule_settings(schedule: LRScheduler) -> dict[str, Any]:
    """Return plain settings by name."""
    state = _plain(schedule.state_dict())
    return {f"scheduler.{key}": value for key, value in (state or {}).items()}


def _plain(value: Any) -> Any:
    """Return numbers, text, and lists and dicts of them, without progress; None for anything else."""
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        return value.item() if value.numel() == 1 else None
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        pairs = {str(key): _plain(item) for key, item in value.items() if key not in _PROGRESS}
        return {key: item for key, item in pairs.items() if item is not None}
    return None


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return what both have with other values; what all groups have the same as one value."""
    found = {}
    for key in before.keys() & now.keys():
        one, other = before[key], now[key]
        kind, _, name = key.partition(".")
        is_one_per_group = bool(name) and (kind.startswith("optimizer") or name in _OF_SCHEDULES)
        if one == other or (is_one_per_group and len(one) != len(other)):  # other groups are refused elsewhere
            continue
        same = is_one_per_group and all(values == [values[0]] * len(values) for values in (one, other))
        found[key] = (one[0], other[0]) if same else (one, other)
    return dict(sorted(found.items()))

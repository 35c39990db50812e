"""Settings that code gives to its own optimizer and schedule, which no config has.

torch keeps them beside the progress, which a resume restores, so what the code gives anew would have no effect.
Checkpoints therefore have what it gave when the training began, whatever a schedule or a callback made of it since.
Those of earlier versions do not: there it is found in the restored state, apart from what may be progress.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, LambdaLR, LRScheduler, ReduceLROnPlateau

from darkit.engine.steps.fused import KERNELS, is_chosen, kernel_settings
from darkit.errors import ConfigError, ReproductionWarning
from darkit.runs.safe import as_dict

KEY = "given_settings"  # in a checkpoint
_EXACT = ("lr", "weight_decay", "betas", *KERNELS)  # what a fork may change
_LEFT_OUT = ("params", "param_names", "initial_lr", "differentiable", *KERNELS)  # the kernel may be darkit's choice
_OF_SCHEDULES = ("max_lr", "min_lr", "base_momentum", "max_momentum", "swa_lr")  # in the groups of an optimizer
_PROGRESS = (
    *("last_epoch", "base_lrs", "best", "num_bad_epochs", "cooldown_counter", "T_cur", "verbose"),
    *("_last_lr", "_step_count", "_get_lr_called_within_step", "_is_initial", "_schedule_phases"),
)
_STEADY = ("lr", "momentum", "betas", "weight_decay", "eps")  # no optimizer keeps its progress there
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
        has_callbacks: Whether callbacks of the user's may have changed settings in a checkpoint that does not record
            what was given.

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
        has_callbacks: bool = False,
    ) -> None:
        self.changed = changed
        self.given: dict[str, Any] | None = None
        self._fork, self._allowed, self._tell, self._honours = fork, allowed, tell, honours
        self._has_callbacks = has_callbacks
        self._held: Changes = {}
        self._ignored: Changes = {}
        self._doubted: Changes = {}

    def compare(
        self,
        optimizer: Optimizer,
        schedule: LRScheduler | None,
        saved: Mapping[str, Any] | None,
        *,
        is_own: bool = True,
    ) -> set[str]:
        """Compare a new optimizer and schedule with those that a checkpoint's training was given.

        Args:
            optimizer: The optimizer, before its state is restored.
            schedule: The user's schedule, or None.
            saved: The checkpoint's content, or None.
            is_own: Whether the user's code made the optimizer; that of the config is compared elsewhere.

        Returns:
            Names of the settings whose new values hold: those that changed, and of the optimizer those found here.
        """
        before = (saved or {}).get(KEY)
        now = optimizer_settings(optimizer) | ({} if schedule is None else schedule_settings(schedule))
        if is_trained(optimizer):
            return self.compare_settings(None, before)
        doubtful: set[str] = set()
        state = (saved or {}).get("optimizer_state_dict")
        if saved and not isinstance(before, dict) and isinstance(state, Mapping) and "optimizer" not in self.changed:
            before, doubtful = _settings_in_state(saved, optimizer, schedule, now, is_steady=not self._has_callbacks)
            before |= {} if is_own else {key: now[key] for key in now if key.startswith("optimizer.")}
            now = {key: value for key, value in now.items() if key in before}
        if is_own and isinstance(before, dict) and isinstance(state, Mapping) and not is_chosen(optimizer):
            before = before | kernel_settings(state.get("param_groups", ()))
            now = now | kernel_settings(optimizer.param_groups)
        return self.compare_settings(now, before, doubtful)

    def compare_settings(self, now: dict[str, Any] | None, before: Any, doubtful: Collection[str] = ()) -> set[str]:
        """Compare settings, as `compare` does.

        Args:
            now: The settings by name; None where they are not known, because an optimizer was trained before.
            before: Those that a checkpoint's training was given; anything but a dict is not compared.
            doubtful: Names of those in ``before`` that may not have been given: they stay as they are.

        Returns:
            As `compare`.
        """
        if now is None:  # the groups have the progress too
            self.given = before
            return {*self.changed}
        if not isinstance(before, dict) or "optimizer" in self.changed:
            self.given = _recorded(now)
            return {*self.changed}
        differing = {key: pair for key, pair in _differences(before, now).items() if not self._is_in_config(key)}
        is_said = {key for key in differing if self._allowed or key in self.changed}
        doubted = {key: pair for key, pair in differing.items() if key in doubtful and key not in is_said}
        held = {key: pair for key, pair in differing.items() if key not in doubted and self._holds(key)}
        ignored = {key: pair for key, pair in differing.items() if key not in doubted and key not in held}
        self.given = None if doubted else _recorded(now | {key: before[key] for key in ignored})
        self._held, self._ignored, self._doubted = held, ignored, doubted
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
        if self._doubted:
            warnings.warn(
                "The checkpoint, of an earlier version, does not record whether code or a callback set its values, so "
                f"{listed(self._doubted)} has no effect{self._hint(self._doubted)}.",
                ReproductionWarning,
                stacklevel=2,
            )

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
        """Refuse settings that have no effect, or warn of them where a training may continue."""
        said = (
            f"Optimizer and schedule are restored with the settings of the checkpoint, so {listed(ignored)} has no "
            "effect"
        )
        kernels_alone = all(key.rpartition(".")[2] in KERNELS for key in ignored)  # they may depend on the machine
        if self._fork and not self._allowed and not kernels_alone:
            raise ConfigError(f"{said}: give the earlier value.")
        warnings.warn(f"{said}{self._hint(ignored)}.", ReproductionWarning, stacklevel=2)

    def _hint(self, ignored: Changes) -> str:
        exact = self._honours and any(key.partition(".")[2] in _EXACT for key in ignored)
        return "; resume_overrides=true resumes with the new one" if exact and not self._allowed else ""


def _recorded(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a checkpoint records of settings: the kernel is in the optimizer's state."""
    return {key: value for key, value in settings.items() if key.rpartition(".")[2] not in KERNELS}


def listed(changes: Changes) -> str:
    """Return settings that differ as text, such as ``optimizer.lr 0.01 -> 0.001``."""
    return ", ".join(f"{key} {before!r} -> {now!r}" for key, (before, now) in changes.items())


def is_trained(optimizer: Optimizer) -> bool:
    """Return whether an optimizer has made a step; some have a state from the start."""
    return any(bool(state.get("step", 1)) for state in optimizer.state.values())


def optimizer_settings(optimizer: Optimizer) -> dict[str, Any]:
    """Return plain settings by name: a list with the value in each group."""
    return _settings_of_groups(optimizer.param_groups)


def _settings_of_groups(groups: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key in {key: None for group in groups for key in group if key not in _LEFT_OUT}:
        base = "initial_lr" if key == "lr" else key  # a schedule has set the first rate
        values = [_plain(group.get(base, group.get(key))) for group in groups]
        if not all(value is None for value in values):
            found[f"{'scheduler' if key in _OF_SCHEDULES else 'optimizer'}.{key}"] = values
    return found


def schedule_settings(schedule: LRScheduler) -> dict[str, Any]:
    """Return plain settings by name."""
    return _settings_of_schedule(schedule.state_dict())


def _settings_of_schedule(state: Any) -> dict[str, Any]:
    return {f"scheduler.{key}": value for key, value in (_plain(state) or {}).items()}


def _settings_in_state(
    saved: Mapping[str, Any],
    optimizer: Optimizer,
    schedule: LRScheduler | None,
    now: Mapping[str, Any],
    *,
    is_steady: bool,
) -> tuple[dict[str, Any], set[str]]:
    """Return the settings of a checkpoint that does not record what was given, from the state that it restores.

    Values that differ from those of ``now`` because of progress are as they are now, and what may be progress of a
    class that is not torch's is left out.

    Args:
        saved: The checkpoint's content.
        optimizer: The new optimizer.
        schedule: The user's new schedule, or None.
        now: The settings of both.
        is_steady: Whether nothing but a schedule has changed settings of the optimizer.

    Returns:
        The settings by name, and the names of those that may have been changed since they were given.
    """
    groups = saved["optimizer_state_dict"].get("param_groups", [])
    state = saved.get("scheduler_state_dict")
    of_groups = _settings_of_groups(groups)
    found = of_groups | ({} if schedule is None else _settings_of_schedule(state))
    has_base = all("initial_lr" in group for group in groups)
    is_cycled = any("max_momentum" in group for group in groups)
    is_steady = is_steady and (schedule is None or _is_of_torch(schedule))
    before, doubtful = dict(now), set()
    for key in _differences(found, now):
        kind, _, name = key.partition(".")
        is_rate = key == "optimizer.lr"
        is_foreign = kind == "optimizer" and name not in _STEADY and not _is_of_torch(optimizer)
        if is_foreign or (key not in of_groups and _has_progress(schedule, name)):
            del before[key]
        elif is_cycled and key == "optimizer.betas":
            before[key] = [[new[0], *old[1:]] for new, old in zip(now[key], found[key], strict=True)]
        elif (is_cycled and key == "optimizer.momentum") or (
            is_rate and not has_base and _is_reduced(schedule, state, now[key], found[key])
        ):
            continue
        else:
            before[key] = found[key]
            is_first = is_rate and has_base  # a schedule keeps the first rate
            is_lost = is_rate and state is not None and not isinstance(schedule, ReduceLROnPlateau)
            if kind == "optimizer" and not is_first and (is_lost or not is_steady):
                doubtful.add(key)
    return before, doubtful


def _is_of_torch(part: Any) -> bool:
    return type(part).__module__.startswith("torch.optim.")


def _has_progress(schedule: LRScheduler | None, name: str) -> bool:
    """Return whether what a schedule has under a name may change while it is stepped."""
    parts = getattr(schedule, "_schedulers", ()) if name == "_schedulers" else ()
    has_more = any(not _is_of_torch(part) or isinstance(part, LambdaLR | CosineAnnealingWarmRestarts) for part in parts)
    return not _is_of_torch(schedule) or name in ("T_i", "lr_lambdas") or has_more


def _is_reduced(schedule: LRScheduler | None, state: Any, given: Sequence[float], rates: Sequence[float]) -> bool:
    """Return whether a schedule, which had this state, may have made these rates of the given ones."""
    if not isinstance(schedule, ReduceLROnPlateau):
        return False
    factor = as_dict(state).get("factor", schedule.factor)
    for rate, wanted, least in zip(given, rates, schedule.min_lrs, strict=True):
        while rate > max(wanted, least) and not math.isclose(rate, wanted):
            rate = max(rate * factor, least)
        if not math.isclose(rate, wanted):
            return False
    return True


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
        is_of_groups = bool(name) and (kind.startswith("optimizer") or name in _OF_SCHEDULES)
        is_one_per_group = is_of_groups and isinstance(one, list) and isinstance(other, list)
        if one == other or (is_one_per_group and len(one) != len(other)):  # other groups are refused elsewhere
            continue
        same = is_one_per_group and all(values == [values[0]] * len(values) for values in (one, other))
        found[key] = (one[0], other[0]) if same else (one, other)
    return dict(sorted(found.items()))

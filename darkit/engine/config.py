"""The trainer's config. Imports no torch.

Every field is checked when the config is made and again before a run starts, because attributes may be set in between.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from darkit.engine.aliases import field_of, plain_number, with_fields
from darkit.errors import ConfigError, nearest
from darkit.runs.best import best_mode
from darkit.runs.names import check_name, check_project

CUTS = ("device_num", "num_nodes", "batch_size", "gradient_accumulation_steps", "global_batch_size")
"""Settings that cut the samples of steps into batches."""
AUTO = "auto"  # resume="auto": resume the run of that name if it exists, else start it

_KINDS: dict[str, tuple[tuple[type, ...], str]] = {  # annotation -> the types that fit, and their name in a sentence
    "int": ((int,), "a whole number"),
    "int | None": ((int, type(None)), "a whole number or None"),
    "float": ((int, float), "a number"),
    "bool": ((bool,), "true or false"),
    "bool | str": ((bool, str), "true, false or 'auto'"),
    "str": ((str,), "text"),
    "str | None": ((str, type(None)), "text"),
}
Value = TypeVar("Value")


@dataclass(frozen=True)
class _Limits:
    """The values that a field of `TrainerConfig` may have."""

    at_least: float = -math.inf
    at_most: float = math.inf
    below: float = math.inf
    one_of: tuple[str, ...] = ()
    or_bool: bool = False

    def check(self, name: str, value: Any) -> None:
        """Raise `ConfigError` unless the value of that field is within the limits."""
        if self.one_of and value not in self.one_of and not (self.or_bool and isinstance(value, bool)):
            choices = (*self.one_of, *(("true", "false") if self.or_bool else ()))
            raise ConfigError(f"{name} must be one of {', '.join(choices)}, not {value!r}.")
        if not isinstance(value, int | float):
            return
        if value < self.at_least:
            raise ConfigError(f"{name} must be at least {self.at_least}, not {value!r}.")
        if value > self.at_most:
            raise ConfigError(f"{name} must be at most {self.at_most}, not {value!r}.")
        if value >= self.below:
            raise ConfigError(f"{name} must be below {self.below}, not {value!r}.")


def _limited(default: Value, **limits: Any) -> Value:
    """Return a dataclass field with limits."""
    made: Value = dataclasses.field(default=default, metadata={"limits": _Limits(**limits)})
    return made


@dataclass
class TrainerConfig:
    """The settings of a training.

    A subclass may add fields, and may set a new default with or without an annotation (``lr = 1e-3``), with or
    without ``@dataclass``. A property computes a field, such as ``betas`` from fields of the subclass. The constructor
    also accepts names that other libraries use, such as ``max_steps`` and ``learning_rate``
    (`darkit.engine.aliases`). A number may be a scalar of NumPy or torch.

    Raises:
        ConfigError: A value is of the wrong type or out of its range.
    """

    name: str | None = None
    """Name of the run, 1 to 100 characters; None generates one."""
    device: str = _limited("auto", one_of=("auto", "cpu", "cuda", "mps"))
    """``auto``, ``cpu``, ``cuda`` or ``mps``. Once a run starts, the device in use."""
    device_num: int = _limited(1, at_least=1)
    """Number of devices on each node, at least 1; with 1, what torchrun or SLURM has started."""
    num_nodes: int = _limited(1, at_least=1)
    """Number of nodes (machines), at least 1; with 1, what torchrun or SLURM has started."""
    strategy: str = "auto"
    """Lightning's strategy for several devices: ``auto``, ``ddp``, ..."""
    precision: str = _limited(
        "32-true", one_of=("32-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "64-true")
    )
    """Number format: ``32-true``, ``16-mixed``, ``bf16-mixed``, ``16-true``, ``bf16-true`` or ``64-true``."""
    max_step: int = _limited(1000, at_least=1)
    """Step at which the run ends, at least 1."""
    max_epoch: int | None = _limited(None, at_least=1)
    """Epoch after which the run ends, at least 1, or the step `max_step` if that is earlier; the default `max_step` is
    then no limit. None counts steps only."""
    batch_size: int = _limited(32, at_least=1)
    """Samples per batch and device, at least 1; a DataLoader keeps its batch size."""
    global_batch_size: int | None = _limited(None, at_least=1)
    """Samples of an optimizer step on all processes, at least their number; each process computes them in batches of up
    to `batch_size`. A run resumes with the same steps on any number of processes. None means `batch_size` x processes x
    `gradient_accumulation_steps`."""
    num_workers: int = _limited(0, at_least=0)
    """Worker processes that load data, at least 0 (0 loads in the training process)."""
    lr: float = _limited(1e-3, at_least=0)
    """Peak learning rate, at least 0."""
    optimizer: str = "adamw"
    """Class of `torch.optim`, in any case: ``adamw``, ``adam``, ``sgd``, ``RMSprop``, ..."""
    fused: bool | str = _limited("auto", one_of=("auto",), or_bool=True)
    """Whether `optimizer` updates all weights in one fused kernel, which is faster and rounds differently: ``true``,
    ``false``, or ``auto``: where torch has one for its class, device and precision. A resumed run keeps its kernel."""
    weight_decay: float = _limited(0.0, at_least=0)
    """Weight decay as the optimizer defines it, at least 0."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of the running averages of Adam and its relatives, each from 0 to below 1."""
    scheduler: str = _limited("constant", one_of=("constant", "linear", "cosine"))
    """Learning rate after the warm-up: ``constant``, or ``linear`` or ``cosine`` down to 0 at `max_step`."""
    warmup_step: int = _limited(0, at_least=0)
    """Steps of linear warm-up to `lr`, at least 0."""
    gradient_accumulation_steps: int = _limited(1, at_least=1)
    """Batches per step, at least 1; weighted as in one large batch (see `darkit.engine.metrics.means`)."""
    gradient_clip: float = _limited(0.0, at_least=0)
    """Largest total norm of the gradients, at least 0; 0 does not clip."""
    ema_decay: float = _limited(0.0, at_least=0, below=1)
    """Decay of the weight averages that are evaluated, saved and used for prediction, from 0 to below 1; 0 disables."""
    eval_iters: int = _limited(0, at_least=0)
    """Batches per evaluation, at least 0; 0 uses all validation data."""
    eval_step_interval: int = _limited(100, at_least=0)
    """Steps between evaluations, at least 0; 0 evaluates at the last step only."""
    save_step_interval: int = _limited(0, at_least=0)
    """Steps between checkpoints, at least 0; the last step is always saved, 0 saves nothing else."""
    keep_last: int | None = _limited(None, at_least=1)
    """Number of latest checkpoints kept, at least 1; None keeps all or, with
    `keep_best`, the last one and those without a value of `monitor`."""
    keep_best: int = _limited(0, at_least=0)
    """Number of best checkpoints kept in addition, at least 0."""
    keep_optimizer: str = _limited("all", one_of=("all", "last"))
    """Which checkpoints keep the state of the optimizer, two thirds of their bytes with Adam: ``all``, or only the
    ``last`` one. The run can be resumed only from those; the others start new runs, predict and are evaluated."""
    monitor: str = "val_loss"
    """Metric that decides which checkpoint is best."""
    mode: str = _limited("auto", one_of=("auto", "min", "max"))
    """Whether a smaller or a larger `monitor` is better: ``min`` or ``max``; ``auto`` goes by its name, as
    `darkit.runs.best` does."""
    early_stop_patience: int = _limited(0, at_least=0)
    """Evaluations in a row without a better `monitor` that end the training, at least 0; 0 disables."""
    load_best_at_end: bool = False
    """Whether to load the best checkpoint into the model after the training. Every new best step is then saved too."""
    log_step_interval: int = _limited(1, at_least=1)
    """Steps between rows of the log, at least 1; evaluated steps and the last one are always logged."""
    tensorboard: bool = True
    """Whether the log also goes to TensorBoard."""
    console: bool = True
    """Whether to record what the process prints, in ``console.log``."""
    seed: int = _limited(0, at_least=0, at_most=2**63 - 1)
    """Seed of the data order and of python's, numpy's and torch's generators, from 0 to 2**63 - 1."""
    deterministic: bool = False
    """Whether torch must use deterministic algorithms only."""
    compile: bool = False
    """Whether to compile the model with `torch.compile`."""
    reset_state: bool = True
    """Whether the hidden state of snntorch's and spikingjelly's neurons is reset before every batch; otherwise it goes
    on from batch to batch and is saved."""
    raster_samples: int = _limited(1, at_least=0)
    """Samples of the first validation batch whose spikes a spiking model's receipt draws, at least 0."""
    mac_energy: float = _limited(4.6, at_least=0)
    """Picojoules of a multiplication with an addition in a spiking model's receipt, at least 0."""
    ac_energy: float = _limited(0.9, at_least=0)
    """Picojoules of an addition alone in a spiking model's receipt, at least 0."""
    peak_flops: float = _limited(0.0, at_least=0)
    """Floating-point operations per second that one device can do at most in this precision, for the shown utilization
    (MFU); 0 takes the data sheets of known GPUs."""
    nan_policy: str = _limited("stop", one_of=("stop", "warn"))
    """Reaction to a loss that is NaN or infinite: ``stop`` the run, or ``warn`` once and continue."""
    spike_policy: str = _limited("none", one_of=("none", "rewind"))
    """Reaction to a loss far above the recent ones: ``none``, or ``rewind`` to the last checkpoint before it and skip
    the batches since then."""
    spike_threshold: float = _limited(10.0, at_least=1)
    """Robust z-score above which a loss is a spike, at least 1."""
    spike_window: int = _limited(64, at_least=4)
    """Losses before it that a loss is compared with, at least 4."""
    spike_limit: int = _limited(10, at_least=1)
    """Largest number of rewinds, at least 1; later spikes are only reported."""

    project: str | None = None
    """Project that the run belongs to, named as a run is; None for none. A resumed run keeps its project."""

    @property
    def best_mode(self) -> str:
        """``min`` or ``max``: `mode`, or by default what the name of `monitor` implies."""
        return best_mode(vars(self), self.monitor)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Make ``lr = 1e-3`` in a subclass the new default of that field, and a property of its name its value."""
        super().__init_subclass__(**kwargs)
        known = {field.name: field for field in dataclasses.fields(TrainerConfig)}
        own = inspect.get_annotations(cls)
        missing = {name: known[name].type for name in cls.__dict__ if name in known and name not in own}
        for name in missing:
            if isinstance(value := cls.__dict__[name], property):
                setattr(cls, name, dataclasses.field(default=value, init=False, metadata=known[name].metadata))
        if missing:
            cls.__annotations__ = own | missing

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Make undecorated subclasses dataclasses; otherwise their fields would be ignored."""
        for part in reversed(cls.__mro__):
            if not issubclass(part, TrainerConfig):
                continue
            if "__dataclass_fields__" not in part.__dict__:
                dataclass(part)
            _accept_aliases(part)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        self.validate()

    def _is_computed(self, name: str) -> bool:
        """Return whether a field is a property without a setter."""
        made = getattr(type(self), name, None)
        return isinstance(made, property) and made.fset is None

    def process_count(self) -> int:
        """Return the number of processes that train together."""
        return self.device_num * self.num_nodes

    def validate(self) -> None:
        """Check every field of `TrainerConfig`. Raises `ConfigError`."""
        for field in dataclasses.fields(TrainerConfig):
            given = getattr(self, field.name)
            value = plain_number(given)
            if field.name == "betas":
                value = _check_betas(value)
            if value is not given and not self._is_computed(field.name):
                setattr(self, field.name, value)
            if field.name != "betas":
                _check_kind(field.name, str(field.type), value)
                field.metadata.get("limits", _Limits()).check(field.name, value)
        if self.name is not None:
            check_name(self.name)
        if self.project is not None:
            check_project(self.project)


Config = TypeVar("Config", bound=TrainerConfig)


def with_overrides(config: Config, overrides: Mapping[str, Any]) -> Config:
    """Return the config with some fields changed; the same object if nothing changes.

    Raises:
        ConfigError: A field is unknown, or its value does not fit.
    """
    known = [field.name for field in dataclasses.fields(config)]
    for key in overrides:
        if field_of(key, known) not in known:
            raise ConfigError(f"Unknown setting {key!r}. {nearest(key, known)}.")
    overrides = with_fields(overrides, known)
    changed = copy.copy(config) if overrides else config
    for key, value in overrides.items():
        if changed._is_computed(key):
            raise ConfigError(f"{key} is computed by {type(config).__name__}, so it cannot be set to {value!r}.")
        setattr(changed, key, value)
    changed.validate()
    return changed


def _accept_aliases(cls: type[TrainerConfig]) -> None:
    """Let a class's constructor accept aliases, unless it has parameters of those names."""
    made: Any = cls.__dict__.get("__init__")
    if made is None or hasattr(made, "accepts_aliases"):
        return
    own = inspect.signature(made).parameters
    known = {field.name for field in dataclasses.fields(cls)}.union(own)

    @functools.wraps(made)
    def init(self: TrainerConfig, *args: Any, **kwargs: Any) -> None:
        made(self, *args, **with_fields(kwargs, known))

    init.accepts_aliases = True  # type: ignore[attr-defined]
    cls.__init__ = init  # type: ignore[method-assign]


def _check_kind(name: str, kind: str, value: Any) -> None:
    types, described = _KINDS[kind]
    if not issubclass(type(value), types) or (isinstance(value, bool) and bool not in types):
        raise ConfigError(f"{name} must be {described}, not {value!r}.")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{name} must be finite, not {value!r}.")


def _check_betas(value: Any) -> tuple[float, float]:
    try:
        first, second = (float(item) for item in value)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"betas must be two numbers, not {value!r}.") from error
    if not (0 <= first < 1 and 0 <= second < 1):
        raise ConfigError(f"betas must each be from 0 to below 1, not {value!r}.")
    return first, second

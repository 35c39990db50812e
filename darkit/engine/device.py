"""The device of a run, and the state of all random generators."""

from __future__ import annotations

import platform
import random
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from darkit.engine.config import TrainerConfig
from darkit.errors import DeviceWarning

_process_seed: list[int] = []
PEAKS = {  # operations a second without sparsity: NVIDIA's data sheets; the longer of two names comes first
    "H200 NVL": {"bf16": 835.5e12, "16": 835.5e12, "32": 60e12},
    "H100 NVL": {"bf16": 835.5e12, "16": 835.5e12, "32": 60e12},
    "H100 PCIe": {"bf16": 756.5e12, "16": 756.5e12, "32": 51e12},
    "H200": {"bf16": 989e12, "16": 989e12, "32": 67e12},
    "H100": {"bf16": 989e12, "16": 989e12, "32": 67e12},
    "A100": {"bf16": 312e12, "16": 312e12, "32": 19.5e12},
    "L40S": {"bf16": 362e12, "16": 362e12, "32": 91.6e12},
    "RTX 4090": {"bf16": 165.2e12, "16": 165.2e12, "32": 82.6e12},
    "V100S": {"16": 130e12, "32": 16.4e12},
    "V100-PCIE": {"16": 112e12, "32": 14e12},
    "V100": {"16": 125e12, "32": 15.7e12},
}
_OTHER_CARD = re.compile(r"\b(MIG|Laptop|D|GH200)\b")  # with a part of the speed, or another one


def resolve_device(config: TrainerConfig) -> str:
    """Set ``config.device`` to the device in use, and return it.

    ``auto`` selects an accelerator if available. A requested device that is not available becomes ``cpu``, with a
    `DeviceWarning`.
    """
    wanted = config.device
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        config.device = next(name for name in ("cuda", "mps", "cpu") if available[name])
    elif not available[wanted]:
        config.device = "cpu"
        warnings.warn(
            f"Device {wanted!r} is not available; using the CPU, which may be much slower.",
            DeviceWarning,
            stacklevel=3,
        )
    return config.device


def move_to_device(batch: Any, device: str | torch.device) -> Any:
    """Move a batch: a tensor, anything with ``.to(device)``, or tuples, lists and dicts of them."""
    if isinstance(batch, Tensor):
        return batch.to(device)
    from lightning.fabric.utilities import move_data_to_device  # slow to load, and most predictions need no more

    return move_data_to_device(batch, torch.device(device))


def floats_like(model: nn.Module, batch: Any) -> Any:
    """Convert the floats of a batch to the dtype of a model's weights, if these share one that is not float32.

    A trainer of that precision does so too; a model with several dtypes gets its inputs unchanged.
    """
    types = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    dtype = types.pop() if len(types) == 1 else None
    return batch if dtype in (None, torch.float32) else map_floats(lambda tensor: tensor.to(dtype), batch)


def map_floats(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Apply a function to the floating-point tensors in dicts, lists and tuples."""
    if isinstance(value, Tensor):
        return function(value) if value.is_floating_point() else value
    if isinstance(value, Mapping):
        return {key: map_floats(function, item) for key, item in value.items()}
    return type(value)(map_floats(function, item) for item in value) if type(value) in (list, tuple) else value


def process_seed() -> int:
    """Return what torch's generators began with in this process, before darkit seeded them for a training."""
    return (_process_seed or [torch.initial_seed()])[0]


def describe_machine(config: TrainerConfig | None) -> dict[str, Any]:
    """Describe what computes a training and decides how its sums are rounded.

    Args:
        config: The trainer's config, or None for a loop that has none.

    Returns:
        ``machine``: ``cpu`` (its name and the instructions that torch uses), ``threads``, ``cuda`` (the version) and
        ``device`` (the name of the GPU); the last two only if a GPU is used, as far as that is known.
    """
    found = {"cpu": f"{_cpu_name()} ({torch.backends.cpu.get_cpu_capability()})", "threads": torch.get_num_threads()}
    device = config.device if config is not None else "auto"
    if device == "cuda" or (device == "auto" and torch.cuda.is_initialized()):  # type: ignore[no-untyped-call]
        found |= {"device": torch.cuda.get_device_name(), "cuda": torch.version.cuda or torch.version.hip}
    return {"machine": found}


@lru_cache(maxsize=1)
def _cpu_name() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def seed_generators(seed: int) -> None:
    """Seed the generators of python, numpy and torch (on every device)."""
    if not _process_seed:
        _process_seed.append(torch.initial_seed())
    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def generator_states() -> dict[str, Any]:
    """Collect the states of all generators in a form that ``torch.load(weights_only=True)`` reads."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return plain_states(random.getstate(), numpy.random.get_state(legacy=True), torch.get_rng_state(), cuda)


def seeded_states(*numbers: int) -> dict[str, Any]:
    """Return the states of all generators for a seed that is a function of some numbers, without changing them."""
    seed = int(numpy.random.SeedSequence(numbers).generate_state(1, numpy.uint64)[0]) % 2**63
    with kept_generators():
        seed_generators(seed)
        return generator_states()


def plain_states(python: Any, numpys: Any, torchs: Any, cuda: list[Tensor]) -> dict[str, Any]:
    """Return the states of generators, as their libraries give them, in the form of `generator_states`."""
    version, internal, gauss = python
    kind, keys, position, has_gauss, cached = numpys
    return {
        "python": [version, list(internal), gauss],
        "numpy": [kind, keys.tolist(), position, has_gauss, cached],
        "torch": torchs,
        "cuda": cuda,
    }


@contextmanager
def kept_generators() -> Iterator[None]:
    """Restore all generators after a block."""
    states = generator_states()
    try:
        yield
    finally:
        restore_generators(states)


@contextmanager
def usual_types(dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    """Compute in a block as outside of a precision's context: with this default type, and without autocast."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_default_dtype(before)


def widest_float(device: torch.device) -> torch.dtype:
    """Return float64, or float32 on a device without it."""
    return torch.float32 if device.type == "mps" else torch.float64


def restore_generators(states: dict[str, Any]) -> None:
    """Restore states from `generator_states`; devices that are not available are skipped."""
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, position, has_gauss, cached = states["numpy"]
    numpy.random.set_state((kind, numpy.array(keys, dtype=numpy.uint32), position, has_gauss, cached))
    torch.set_rng_state(states["torch"].cpu())
    if torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([state.cpu() for state in states["cuda"]])


def known_peak(device: str, precision: str, given: float = 0.0) -> tuple[float | None, str]:
    """Return the operations per second that a device can do at most, and where the number comes from.

    Args:
        device: The type of the device.
        precision: The precision of the training.
        given: What the config says, or 0: then it is what the data sheet of a known GPU says, or None.
    """
    if given:
        return given, "peak_flops"
    kind = precision.partition("-")[0]
    name = torch.cuda.get_device_name() if device == "cuda" else ""
    known = next((known for known in PEAKS if known in name), None)
    in_tf32 = kind == "32" and torch.backends.cuda.matmul.fp32_precision == "tf32"
    if known is None or kind not in PEAKS[known] or in_tf32 or _OTHER_CARD.search(name):
        return None, ""
    return PEAKS[known][kind], f"data sheet of {known}"

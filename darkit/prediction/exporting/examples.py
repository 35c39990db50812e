"""Example inputs for a model, from what its run recorded of a sample."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from darkit.engine.data.fits import limits_of
from darkit.engine.device import floats_like
from darkit.errors import ConfigError
from darkit.prediction.text.language import context_of, parameter_names
from darkit.runs import Run
from darkit.runs.example import first_input

_SHORT = 16  # tokens, for models whose samples have no recorded length
_LARGEST_BYTE = 256
_MOST_NUMBERS = 2**27  # of a sample
_TARGETS = ("label", "target")
_MASKS = ("mask",)
_ZEROS = ("token_type", "segment")
_POSITIONS = ("position",)
Fields = dict[str, tuple[torch.dtype, tuple[int, ...]]]


@dataclass(frozen=True)
class Layout:
    """The inputs of a model.

    Attributes:
        fields: Name, dtype and shape of each input without the batch dimension.
        named: Whether the model is called with names; else by position.
        highest: The integers are below this.
    """

    fields: Fields
    named: bool
    highest: int

    def make(self, rows: int, *, shorter: int = 0, seed: int = 0) -> dict[str, Tensor]:
        """Make a batch.

        Args:
            rows: Samples.
            shorter: By how much the token sequences are shortened.
            seed: Different seeds give different batches.
        """
        generator = torch.Generator().manual_seed(seed)
        times = self.times()
        return {
            name: self._values(name, dtype, (rows, *(shape if name not in times else (shape[0] - shorter,))), generator)
            for name, (dtype, shape) in self.fields.items()
        }

    def call(self, module: Any, batch: Mapping[str, Tensor]) -> Any:
        """Call a module with a batch."""
        return module(**batch) if self.named else module(*batch.values())

    def times(self) -> list[str]:
        """Return the names of inputs whose first dimension is the time of token sequences, if all have the same."""
        found = {
            name: shape[0]
            for name, (dtype, shape) in self.fields.items()
            if len(shape) == 1 and not dtype.is_floating_point and dtype is not torch.uint8
        }
        return list(found) if len(set(found.values())) == 1 and min(found.values()) > 3 else []

    def _values(self, name: str, dtype: torch.dtype, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        if any(word in name for word in _MASKS) or dtype is torch.bool:
            return torch.ones(shape, dtype=dtype)
        if dtype.is_floating_point or dtype.is_complex:
            return torch.randn(shape, generator=generator, dtype=torch.float32).to(dtype)
        if any(word in name for word in _ZEROS):
            return torch.zeros(shape, dtype=dtype)
        if any(word in name for word in _POSITIONS):
            return torch.arange(shape[-1]).expand(shape).to(dtype).clone()
        highest = _LARGEST_BYTE if dtype is torch.uint8 else self.highest
        return torch.randint(highest, shape, generator=generator).to(dtype)


class Inference(nn.Module):
    """A model whose inputs are tensors, and whose output is a tensor, or a tuple or a dict of tensors."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.settings = {"use_cache": False} if "use_cache" in parameter_names(model) else {}


def as_inference(model: nn.Module, layout: Layout) -> Inference:
    """Wrap a model in a module whose ``forward`` has the layout's names as parameters, as torch.export needs."""

    def forward(self: Inference, *positional: Tensor, **named: Tensor) -> Any:
        return as_tensors(self.model(*positional, **named, **self.settings))

    kind = inspect.Parameter.KEYWORD_ONLY if layout.named else inspect.Parameter.POSITIONAL_OR_KEYWORD
    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = [itself, *(inspect.Parameter(name, kind) for name in layout.fields)]
    forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    made: Inference = type("Inference", (Inference,), {"forward": forward})(model)
    return made.eval()


def as_tensors(output: Any) -> Any:
    """Return a model's output as a tensor, or as a tuple or a dict of the tensors in it.

    Raises:
        ConfigError: It is of another kind.
    """
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        return {str(key): value for key, value in output.items() if isinstance(value, Tensor)}
    if isinstance(output, tuple | list) and all(isinstance(value, Tensor | None) for value in output):
        return tuple(value for value in output if value is not None)
    raise ConfigError(
        f"The model returns a {type(output).__name__}; only a tensor, or a tuple or a dict of tensors can be exported."
    )


def find_layout(run: Run, model: nn.Module, answer: Callable[[Layout], Any]) -> Layout:
    """Find the inputs that a model takes.

    Args:
        run: The run, which recorded a sample of its training data.
        model: Its model.
        answer: Calls the model with a layout's batch.

    Raises:
        ConfigError: Nothing is known of a sample, or the model fails on what is known.
    """
    highest = _highest_id(run, model)
    problem: Exception | None = None
    for fields, named in _candidates(run, model):
        layout = Layout(fields, named, highest)
        try:
            answer(layout)
        except Exception as error:  # a model may raise anything
            problem = problem or error
        else:
            return layout
    if problem is None:
        raise ConfigError(
            f"The run {run.name!r} did not record the dtypes and shapes of a sample, so no example input can be made. "
            "Use --format safetensors."
        )
    raise ConfigError(
        f"The model of run {run.name!r} fails on an input like its training samples ({first_line(problem)}). Use "
        "--format safetensors."
    ) from problem


def first_line(error: BaseException) -> str:
    """Return the first line of the innermost error's message."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0][:300].rstrip(".") if lines else ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _candidates(run: Run, model: nn.Module) -> Iterator[tuple[Fields, bool]]:
    """Yield possible inputs, the most likely first."""
    data = run.info.get("data")
    parts = data.get("sample_parts") if isinstance(data, Mapping) else None
    if isinstance(parts, Mapping) and isinstance(parts.get("fields"), Mapping):
        fields = _named_inputs({str(key): _tensor(part) for key, part in parts["fields"].items()}, model)
        if fields:
            yield fields, True
    elif parts is not None:
        tensors = [_tensor(part) for part in parts] if isinstance(parts, list) else [_tensor(parts)]
        for count in dict.fromkeys((max(1, len(tensors) - 1), 1, len(tensors) or 1)):
            known = [part for part in tensors[:count] if part is not None]
            if len(known) == count:
                yield dict(zip(_positional_names(model, count), known, strict=True)), False
    first = first_input(run.info)
    if parts is None and first is not None:
        kind, shape = first
        dtype = {"float": torch.float32, "bool": torch.bool}.get(kind, torch.int64)
        yield dict(zip(_positional_names(model, 1), [(dtype, shape)], strict=True)), False
    names = parameter_names(model)
    if getattr(model, "main_input_name", None) == "input_ids" and "input_ids" in names:  # of transformers
        length = min(_SHORT, context_of(model) or _SHORT)
        usual = [name for name in ("input_ids", "attention_mask", "decoder_input_ids") if name in names]
        yield dict.fromkeys(usual, (torch.int64, (length,))), True
        yield dict.fromkeys(usual[:2], (torch.int64, (length,))), True


def _named_inputs(fields: Mapping[str, Any], model: nn.Module) -> Fields:
    """Leave out labels, and what the model's ``forward`` does not name."""
    names = parameter_names(model)
    known = {name: part for name, part in fields.items() if part is not None}
    inputs = {name: part for name, part in known.items() if not any(word in name.lower() for word in _TARGETS)}
    return {name: part for name, part in inputs.items() if name in names} or inputs


def _tensor(part: Any) -> tuple[torch.dtype, tuple[int, ...]] | None:
    """Return dtype and shape of a recorded tensor, or None for anything else."""
    if not isinstance(part, Mapping) or not isinstance(part.get("shape"), list):
        return None
    dtype = getattr(torch, str(part.get("dtype")), None)
    shape = part["shape"]
    if not isinstance(dtype, torch.dtype) or not all(type(length) is int and length > 0 for length in shape):
        return None
    return (dtype, tuple(shape)) if math.prod(shape) <= _MOST_NUMBERS else None


def _positional_names(model: nn.Module, count: int) -> list[str]:
    """Return the names of the first parameters of a model's ``forward``."""
    try:
        named = [
            name
            for name, one in inspect.signature(model.forward).parameters.items()
            if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)
        ]
    except (TypeError, ValueError):  # made in C
        named = []
    return named[:count] if len(named) >= count else [f"input_{number}" for number in range(count)]


def _highest_id(run: Run, model: nn.Module) -> int:
    """Return the number of ids that every embedding of a model has."""
    sizes = [
        part.num_embeddings for part in model.modules() if isinstance(part, nn.Embedding) and part.num_embeddings > 2
    ]
    vocabulary = limits_of(run.model_config).vocabulary
    return min([*sizes, *([vocabulary] if isinstance(vocabulary, int) and vocabulary > 0 else [])], default=2)


def in_precision(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert the floats of a batch to the precision of the model."""
    converted: dict[str, Tensor] = floats_like(model, batch)
    return converted

"""Models traced by `torch.export`, and compared with the original on one batch: ``--format torch-export``."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from darkit.engine.description.twin import untouched
from darkit.engine.metrics.undisturbed import undisturbed
from darkit.errors import ConfigError, DarkitError
from darkit.prediction.exporting.examples import (
    Inference,
    Layout,
    as_inference,
    find_layout,
    first_line,
    in_precision,
)
from darkit.prediction.exporting.loading import load_predicter
from darkit.runs import Run

_ROWS = 3  # of the example batch, where its number is free
_OTHER_ROWS = 5
_SHORTER = 2  # tokens by which the other batch is shorter
_TOLERANCE = 1e-3  # relative, for programs that compute in another order
Answer = Callable[[Mapping[str, Tensor]], list[Tensor]]


@dataclass(frozen=True)
class Traced:
    """A model to export.

    Attributes:
        name: The run and its checkpoint, such as ``x:iter-4-ckpt``.
        facts: What the model is made of, as text.
        inference: The model as a module of tensors.
        layout: Its inputs.
        outputs: The names of its outputs.
    """

    name: str
    facts: dict[str, str]
    inference: Inference
    layout: Layout
    outputs: list[str]

    def batch(self, rows: int, *, shorter: int = 0, seed: int = 0) -> dict[str, Tensor]:
        """Make a batch in the precision of the model."""
        return in_precision(self.inference.model, self.layout.make(rows, shorter=shorter, seed=seed))

    def answer(self, batch: Mapping[str, Tensor]) -> list[Tensor]:
        """Return the outputs of the model itself."""
        with undisturbed(self.inference):
            return leaves(self.layout.call(self.inference, batch))


def export_program(run: Run, wanted: str | None, output: Path) -> str:
    """Write a ``.pt2`` file for `torch.export.load`.

    Raises:
        ConfigError: The model cannot be exported.
    """
    traced = trace(run, wanted)

    def write(program: torch.export.ExportedProgram) -> Answer:
        with output.open("wb") as file:
            torch.export.save(program, file, extra_files={"darkit.json": json.dumps(traced.facts)})
        with output.open("rb") as file:
            module = torch.export.load(file).module()
        return lambda batch: leaves(traced.layout.call(module, batch))

    return f"{traced.name}, {export_verified(traced, write, 'torch-export')},"


def trace(run: Run, wanted: str | None) -> Traced:
    """Load a run's model and find its inputs.

    Raises:
        ConfigError: Its inputs are unknown, or its output is random.
    """
    predicter = load_predicter(run, wanted)
    model = predicter.model

    def answer(layout: Layout) -> Any:
        with undisturbed(model), torch.no_grad():
            return layout.call(as_inference(model, layout), in_precision(model, layout.make(_ROWS)))

    with quiet():
        layout = find_layout(run, model, answer)
    inference = as_inference(model, layout)
    checkpoint = predicter.checkpoint
    name = f"{run.name}:{checkpoint.name}" if checkpoint else run.name
    facts = {
        "run": run.name,
        "run_id": str(run.info.get("id", "")),
        "checkpoint": checkpoint.name if checkpoint else "",
        "sha256": checkpoint.sha256 if checkpoint else "",
    }
    with quiet():
        first = answer(layout)
        traced = Traced(name, facts, inference, layout, list(first) if isinstance(first, dict) else [])
        torch.manual_seed(1)
        changing = difference(leaves(first), leaves(answer(layout))) > 0
    if changing:
        raise ConfigError(
            f"The model of run {run.name!r} gives another output each time for the same input, so an exported file "
            "cannot be verified. Use --format safetensors."
        )
    return traced


def export_verified(traced: Traced, write: Callable[[torch.export.ExportedProgram], Answer], format: str) -> str:
    """Export a model with as many free dimensions as it allows, and compare its output on another batch.

    Args:
        traced: The model.
        write: Writes an exported program, and returns how to run what it wrote.
        format: The format's name, for the error.

    Returns:
        Which dimensions are free, such as ``for batches of any size``.

    Raises:
        ConfigError: The model cannot be exported, or the outputs differ.
    """
    problem: Exception | None = None
    for said, dimensions in _freedoms(traced.layout):
        rows, other, shorter = (_ROWS, _OTHER_ROWS, _SHORTER if 1 in dimensions else 0) if dimensions else (1, 1, 0)
        try:
            with quiet(), torch.no_grad():
                program = _export(traced, traced.batch(rows), dimensions)
                run = write(program)
                batch = traced.batch(other, shorter=shorter, seed=1)
                _compare(traced.answer(batch), run(batch))
        except DarkitError:
            raise
        except Exception as error:  # of torch, of the model's code or of another runtime
            problem = error
        else:
            return said
    assert problem is not None  # noqa: S101 - the last attempt failed
    raise ConfigError(
        f"{traced.name} cannot be exported as {format}: {first_line(problem)}. Use --format safetensors."
    ) from problem


@contextmanager
def quiet() -> Iterator[None]:
    """Hide what a block prints, warns of and logs, as torch does below an error, and restore the generators."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with untouched(), redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def leaves(output: Any) -> list[Tensor]:
    """Return the tensors of an output."""
    if isinstance(output, Tensor):
        return [output]
    return list(output.values() if isinstance(output, Mapping) else output)


def difference(one: list[Tensor], other: list[Tensor]) -> float:
    """Return the largest difference of two outputs, relative to the largest value; infinite for other shapes."""
    if [value.shape for value in one] != [value.shape for value in other]:
        return float("inf")
    return max((_relative(a, b) for a, b in zip(one, other, strict=True)), default=0.0)


def _relative(one: Tensor, other: Tensor) -> float:
    if not one.numel():
        return 0.0
    a, b = one.detach().to(torch.complex128 if one.is_complex() else torch.float64), other.detach()
    b = b.to(a.dtype)
    same = (a == b) | (a.isnan() & b.isnan())
    apart = torch.where(same, torch.zeros((), dtype=a.dtype), a - b).abs()
    if not apart.isfinite().all():
        return float("inf")
    finite = a.abs()[a.isfinite()]
    return float(apart.max()) / max(float(finite.max()) if finite.numel() else 0.0, 1e-6)


def _compare(wanted: list[Tensor], found: list[Tensor]) -> None:
    """Raise `ValueError` for an output that differs from the model's."""
    apart = difference(wanted, found)
    if apart > _TOLERANCE:
        shapes = ", ".join(str(list(value.shape)) for value in found)
        raise ValueError(f"its output differs from the model's by {apart:.2g} of the largest value (shapes {shapes})")


def _freedoms(layout: Layout) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield which dimensions are free, most first."""
    if layout.times():
        yield "for batches and sequences of any size", (0, 1)
    yield "for batches of any size", (0,)
    yield "for one sample at a time", ()


def _export(traced: Traced, batch: dict[str, Tensor], dimensions: tuple[int, ...]) -> torch.export.ExportedProgram:
    times = traced.layout.times()
    free = {
        name: {number: torch.export.Dim.DYNAMIC for number in dimensions if number == 0 or name in times}
        for name in batch
    }
    args, named = ((), batch) if traced.layout.named else (tuple(batch.values()), {})
    with undisturbed(traced.inference):
        return torch.export.export(traced.inference, args, named, dynamic_shapes=free, strict=False)

"""Models as ONNX files, compared with the original on one batch: ``--format onnx``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from darkit.errors import ConfigError
from darkit.prediction.exporting.traced import Answer, Traced, export_verified, trace
from darkit.runs import Run

_LARGEST = 2**31 - 2**24  # bytes of weights in one file; protobuf takes 2 GiB
_ATTENTION = torch.ops.aten.scaled_dot_product_attention.default


def export_onnx(run: Run, wanted: str | None, output: Path) -> str:
    """Write an ONNX file.

    Raises:
        ConfigError: ``onnx`` or ``onnxscript`` is missing, or the model cannot be exported.
    """
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise ConfigError(f"--format onnx needs {' and '.join(missing)}: pip install 'darkit[onnx]'.")
    traced = trace(run, wanted)
    size = sum(value.nbytes for value in traced.inference.state_dict().values() if isinstance(value, Tensor))
    if size > _LARGEST:
        raise ConfigError(
            f"The weights of {traced.name} have {size} bytes, and one ONNX file holds 2 GiB. Use --format torch-export."
        )
    return f"{traced.name}, {export_verified(traced, lambda program: _write(traced, program, output), 'onnx')},"


def _write(traced: Traced, program: torch.export.ExportedProgram, output: Path) -> Answer:
    import onnx

    if _has_unusual_attention(program):
        program = program.run_decompositions({_ATTENTION: _attention})
    made: Any = torch.onnx.export(
        program, (), dynamo=True, verbose=False, output_names=[_output_name(name) for name in traced.outputs] or None
    )
    proto = made.model_proto
    onnx.helper.set_model_props(proto, traced.facts)
    output.write_bytes(proto.SerializeToString())
    onnx.checker.check_model(str(output))
    run = _runtime(output)
    names = [part.name for part in proto.graph.input]

    def answer(batch: Mapping[str, Tensor]) -> list[Tensor]:
        values = dict(zip(names, batch.values(), strict=True))
        return [torch.as_tensor(part) for part in run({name: value.numpy() for name, value in values.items()})]

    return answer


def _runtime(path: Path) -> Any:
    """Return a function of inputs by name: onnxruntime if installed, else the slow reference of ONNX."""
    if find_spec("onnxruntime") is None:
        from onnx.reference import ReferenceEvaluator

        reference = ReferenceEvaluator(str(path))
        return lambda inputs: reference.run(None, inputs)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, inputs)


def _output_name(name: str) -> str:
    return name if name.isidentifier() else "".join(one if one.isalnum() else "_" for one in name)


def _has_unusual_attention(program: torch.export.ExportedProgram) -> bool:
    """Return whether a program has an attention of tensors without four dimensions, which torch.onnx refuses."""
    return any(node.target is _ATTENTION and node.args[0].meta["val"].ndim != 4 for node in program.graph.nodes)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Compute `torch.nn.functional.scaled_dot_product_attention` by its definition, without dropout."""
    if enable_gqa:
        key, value = (part.repeat_interleave(query.shape[-3] // part.shape[-3], -3) for part in (key, value))
    scores = query @ key.transpose(-2, -1) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        shape = (query.shape[-2], key.shape[-2])
        attn_mask = torch.ones(shape, dtype=torch.bool, device=query.device).tril()
    if attn_mask is not None and attn_mask.dtype is torch.bool:
        scores = scores.masked_fill(attn_mask.logical_not(), float("-inf"))
    elif attn_mask is not None:
        scores = scores + attn_mask
    return scores.softmax(-1) @ value

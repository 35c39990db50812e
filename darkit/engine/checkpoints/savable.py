"""What a checkpoint can hold: values that ``torch.load(weights_only=True)`` reads back."""

from __future__ import annotations

import io
from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from darkit.engine.checkpoints.snapshot import is_array_of_numbers, plain_number
from darkit.errors import CheckpointUnreadableError
from darkit.runs.verify import find_greedy_globals

_MAPPINGS = (dict, OrderedDict, Counter)
_READABLE = frozenset((type(None), bool, int, float, complex, str, bytes, Tensor, nn.Parameter))


def check_savable(content: Mapping[str, Any]) -> None:
    """Refuse state that no checkpoint can hold, before there is work to lose.

    NumPy values are accepted if a `darkit.engine.checkpoints.snapshot.Snapshot` converts them.

    Raises:
        CheckpointUnreadableError: A value cannot be saved; the message has its path.
    """
    refuse_unreadable(dict(content), numpy=True)


def refuse_unreadable(value: Any, path: str = "", *, numpy: bool = False) -> None:
    """Refuse values that ``torch.load(weights_only=True)`` does not read. Raises `CheckpointUnreadableError`."""
    if numpy:
        value = plain_number(value)
    if type(value) in _MAPPINGS:
        for key, item in value.items():
            refuse_unreadable(key, path, numpy=numpy)
            refuse_unreadable(item, f"{path}.{key}" if path else str(key), numpy=numpy)
    elif type(value) in (list, tuple):
        for index, item in enumerate(value):
            refuse_unreadable(item, f"{path}[{index}]", numpy=numpy)
    elif type(value) not in _READABLE and not (numpy and is_array_of_numbers(value)):
        refused = _needs(value)
        if refused:
            raise CheckpointUnreadableError(
                f"The checkpoint could not be read back: {path} needs {refused}. Checkpoints hold only tensors, "
                "numbers, text and containers of these, so that loading runs no code."
            )


def is_readable(value: Any) -> bool:
    """Return whether ``torch.load(weights_only=True)`` reads a value."""
    try:
        refuse_unreadable(value, numpy=True)
    except CheckpointUnreadableError:
        return False
    return True


def _needs(value: Any) -> str:
    """Return the names of the code that unpickling a value needs."""
    buffer = io.BytesIO()
    try:
        torch.save(value, buffer)
    except Exception as error:  # an object's own __reduce__ may raise anything
        return f"an object that torch.save cannot write ({error})"
    buffer.seek(0)
    refused = torch.serialization.get_unsafe_globals_in_checkpoint(cast(Any, buffer))
    return ", ".join(sorted({*refused, *find_greedy_globals(buffer)}))

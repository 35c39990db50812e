"""The parts of tensors that this process holds, apart from everything else in a training's state."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from darkit.engine.steps.parts import is_split, local_part

if TYPE_CHECKING:
    from torch.distributed.checkpoint.planner import WriteItem

Path = tuple[Any, ...]
"""The keys and indices that lead to a tensor in nested state."""


@dataclass
class Shard:
    """The part of one tensor that this process holds, in the form that torch's distributed checkpoints take.

    Attributes:
        local: The part.
        offset: Where it begins in the whole tensor.
        shape: The shape of the whole tensor.
    """

    local: Tensor
    offset: tuple[int, ...]
    shape: torch.Size

    def __create_write_items__(self, fqn: str, whole: object) -> list[WriteItem]:
        """Describe what is to be written: nothing where this process has no element of the tensor."""
        from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex, TensorProperties
        from torch.distributed.checkpoint.planner import TensorWriteData, WriteItem, WriteItemType

        if not self.local.numel():
            return []
        chunk = ChunkStorageMetadata(torch.Size(self.offset), self.local.shape)
        data = TensorWriteData(chunk, TensorProperties.create_from_tensor(self.local), self.shape)
        return [WriteItem(MetadataIndex(fqn, chunk.offsets), WriteItemType.SHARD, tensor_data=data)]


@dataclass
class Split:
    """State in two parts.

    Attributes:
        rest: The state with None in place of every tensor that is split over processes.
        shards: This process's part of each of those, by its path in the state as JSON. Tied tensors are there under
            each path; `torch.save` writes what shares memory once.
    """

    rest: dict[str, Any]
    shards: dict[str, Shard] = field(default_factory=dict)


def split(content: Mapping[str, Any]) -> Split:
    """Take the tensors that are split over processes out of nested state, without communication or a copy."""
    found = Split({})

    def taken(value: Any, path: Path) -> Any:
        if is_split(value):
            local, offset = local_part(value)
            if not value.numel():
                return local
            found.shards[json.dumps(path)] = Shard(local, offset, value.shape)
            return None
        if type(value) in (dict, OrderedDict):
            items = {key: taken(item, (*path, key)) for key, item in value.items()}
            if type(value) is dict:
                return items
            ordered = OrderedDict(items)
            ordered.__dict__.update(value.__dict__)
            return ordered
        if type(value) in (list, tuple):
            return type(value)(taken(item, (*path, index)) for index, item in enumerate(value))
        return value

    found.rest = taken(dict(content), ())
    return found


def put(content: Any, path: Path, value: Any) -> None:
    """Put a value where a path leads in nested dicts and lists.

    Raises:
        LookupError: It leads nowhere.
    """
    for key in path[:-1]:
        content = content[key]
    if not isinstance(content, dict | list) or (isinstance(content, dict) and path[-1] not in content):
        raise LookupError(f"nothing at {path}")
    content[path[-1]] = value

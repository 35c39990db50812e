"""The description of the data in ``run.json``, to compare the data of two runs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from darkit.engine.data.loaders import Loaders
from darkit.engine.data.samples import describe, describe_parts
from darkit.engine.device import kept_generators, seed_generators
from darkit.runs.tasks import TASKS

_MOST_SAMPLES = 64
_COMPARED = 8  # samples, of which each process reads every one twice


def describe_data(loaders: Loaders) -> dict[str, Any]:
    """Describe the training data.

    Returns:
        ``kind``, ``task`` where the dataset has one, and for map-style data ``samples`` (their number), ``sample`` and
        ``sample_parts`` (shapes and dtypes of the first, as text and as data) and ``fingerprint``, a sha256 over their
        number and up to 64 evenly spaced samples. A dataset's ``facts``, a dict of plain values, come first.
    """
    dataset = loaders.dataset
    facts = getattr(dataset, "facts", None)
    facts = dict(facts) if isinstance(facts, Mapping) else {}
    if isinstance(task := getattr(dataset, "task", None), str) and task in TASKS:
        facts["task"] = task
    if loaders.train.order is None:
        return facts | {"kind": type(dataset if dataset is not None else loaders.train.loader).__name__}
    length = len(dataset)
    digest = hashlib.sha256(str(length).encode())
    first: dict[str, Any] = {}
    with kept_generators():
        seed_generators(0)  # random samples are the same in every process and for every seed
        for index in range(0, length, -(-length // _MOST_SAMPLES)):
            sample = dataset[index]
            first = first or {"sample": describe(sample), "sample_parts": describe_parts(sample)}
            add_to_digest(digest, sample)
    return facts | {"kind": type(dataset).__name__, "samples": length, **first, "fingerprint": digest.hexdigest()}


def digest_of_samples(dataset: Any) -> str | None:
    """Return a digest of up to 8 evenly spaced samples, among them the first and the last.

    Returns:
        A sha256; None if a sample is another one each time that it is read, from a generator of its own.
    """
    last = len(dataset) - 1
    places = sorted({last * part // (_COMPARED - 1) for part in range(_COMPARED)})
    found = set()
    with kept_generators():
        for _ in range(2):
            seed_generators(0)
            digest = hashlib.sha256()
            for index in places:
                add_to_digest(digest, dataset[index])
            found.add(digest.hexdigest())
    return found.pop() if len(found) == 1 else None


def add_to_digest(digest: Any, value: Any) -> None:
    """Add a nested sample or batch to a `hashlib` digest."""
    if isinstance(value, Tensor) and (value.layout is not torch.strided or value.is_nested):
        digest.update(f"{value.dtype}{value.layout}".encode())
        add_to_digest(digest, dense_parts(value.detach()))
    elif isinstance(value, Tensor):
        value = value.detach().cpu()
        digest.update(f"{value.dtype}{list(value.shape)}".encode())
        digest.update(value.reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
    elif isinstance(value, Mapping):
        for key, item in value.items():
            digest.update(str(key).encode())
            add_to_digest(digest, item)
    elif isinstance(value, tuple | list):
        for item in value:
            add_to_digest(digest, item)
    elif callable(getattr(value, "tobytes", None)):  # a NumPy array or an image
        digest.update(value.tobytes())
    elif value is None or isinstance(value, bool | int | float | complex | str | bytes):
        digest.update(repr(value).encode("utf-8", "surrogateescape"))
    else:  # its repr may hold a memory address
        digest.update(type(value).__name__.encode())


def dense_parts(value: Tensor) -> list[Any]:
    """Return the dense tensors of a sparse or nested one."""
    if value.is_nested:
        return list(value.unbind())
    if value.layout is torch.sparse_coo:
        joined = value.coalesce()
        return [list(value.shape), joined.indices(), joined.values()]
    if value.layout in (torch.sparse_csr, torch.sparse_bsr):
        return [list(value.shape), value.crow_indices(), value.col_indices(), value.values()]
    if value.layout in (torch.sparse_csc, torch.sparse_bsc):
        return [list(value.shape), value.ccol_indices(), value.row_indices(), value.values()]
    return [value.to_dense()]

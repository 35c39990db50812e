"""Checks that data and model fit, before a run is created."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy
import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset, TensorDataset, default_collate

from darkit.engine.device import kept_generators
from darkit.errors import BatchError, DataError, ModelError

if TYPE_CHECKING:
    from darkit.engine.data.loaders import Loaders

CONTEXT_NAMES = ("context_length", "ctx_len", "block_size", "n_positions", "max_position_embeddings", "n_ctx")
"""Names of the maximum number of tokens in configs."""
VOCABULARY_NAMES = ("vocab_size", "vocabulary_size", "n_vocab")
"""Names of the vocabulary size in configs."""
_ID_NAMES = ("input_ids", "tokens", "idx", "inputs")
_MOST_IDS = 2**24  # to check: about ten milliseconds
_MOST_SAMPLES = 64
_INTEGERS = (torch.int64, torch.int32, torch.int16)


@dataclass(frozen=True)
class Limits:
    """The limits of a model, from its config.

    Attributes:
        vocabulary: Vocabulary size, or None if unknown.
        context: Maximum number of tokens, or None.
        names: The config's names of the two.
    """

    vocabulary: int | None
    context: int | None
    names: tuple[str, str]


def limits_of(values: Mapping[str, Any]) -> Limits:
    """Return the limits of a model with these config values."""
    vocabulary, context = (_first(values, names) for names in (VOCABULARY_NAMES, CONTEXT_NAMES))
    return Limits(vocabulary[1], context[1], (vocabulary[0], context[0]))


def refuse_uninitialized(model: nn.Module) -> None:
    """Refuse a model with uninitialized lazy modules. Raises `ModelError` with the first one's name."""
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if torch.nn.parameter.is_lazy(value):
            raise ModelError(
                f"{name} of {type(model).__name__} is uninitialized: call the model with one batch before training, so "
                "that its lazy modules get their shapes."
            )


def check_fits(model: nn.Module, values: Mapping[str, Any], loaders: Loaders, *, direct: bool) -> None:
    """Check training and validation data with `check_fit`; ``direct`` batches are passed to ``forward`` unchanged."""
    for loader, data, purpose in (
        (loaders.train.loader, loaders.dataset, "training"),
        (loaders.val, getattr(loaders.val, "dataset", None), "validation"),
    ):
        if data is None:
            continue
        check_fit(model, values, data, purpose=purpose)
        collate = getattr(loader, "collate_fn", None)
        if not direct and collate is not default_collate:
            continue
        with kept_generators():
            for sample in _samples(data, most=1):
                if collate is default_collate:
                    _refuse_sparse(sample, purpose)
                if direct:
                    _check_names(model, _names(sample, collate))


def check_fit(model: nn.Module, values: Mapping[str, Any], data: Any, *, purpose: str = "training") -> None:
    """Check data against a model without running a step.

    A dataset's ``vocabulary`` (largest id plus one) and ``context_length`` are trusted. Otherwise the ids of a
    map-style dataset are checked: all ids of tensors with up to 16 million, else an evenly spaced part.

    Args:
        model: The model.
        values: The values of its config.
        data: The dataset, or None if unknown.
        purpose: ``training`` or ``validation``, for errors.

    Raises:
        DataError: The data's vocabulary or context is larger than the model's, or an id is out of range.
    """
    limits = limits_of(values)
    vocabulary, context = (_integer(getattr(data, name, None)) for name in ("vocabulary", "context_length"))
    _compare_vocabulary(vocabulary, limits, purpose)
    _compare_context(context, limits, purpose)
    if limits.vocabulary is None and limits.context is None:
        return
    for sample in _samples(data, most=1 if vocabulary is not None else _MOST_SAMPLES):
        ids = list(_ids(sample))
        if ids and context is None:
            _compare_context(ids[0].shape[-1], limits, purpose)
        if ids and vocabulary is None:
            _check_ids(ids, limits, purpose)


def _first(values: Mapping[str, Any], names: tuple[str, ...]) -> tuple[str, int | None]:
    found = ((name, _integer(values.get(name))) for name in names)
    return next(((name, value) for name, value in found if value), ("", None))


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _compare_vocabulary(vocabulary: int | None, limits: Limits, purpose: str) -> None:
    if vocabulary is not None and limits.vocabulary is not None and vocabulary > limits.vocabulary:
        raise DataError(
            f"The vocabulary of the {purpose} data has {vocabulary} tokens, but the model's has {limits.vocabulary}: "
            f"give the model a {limits.names[0]} of at least {vocabulary}."
        )


def _compare_context(context: int | None, limits: Limits, purpose: str) -> None:
    if context is not None and limits.context is not None and context > limits.context:
        raise DataError(
            f"The {purpose} data has sequences of {context} tokens, but the model takes at most {limits.context}: use "
            f"shorter windows, or give the model a {limits.names[1]} of at least {context}."
        )


def _check_ids(ids: list[Tensor], limits: Limits, purpose: str) -> None:
    """Check the range of inputs, and only the maximum of targets, where -100 means no target."""
    if limits.vocabulary is None:
        return
    for number, tensor in enumerate(ids):
        least, largest = (int(value) for value in torch.aminmax(tensor)) if tensor.numel() else (0, 0)
        wrong = largest if largest >= limits.vocabulary else least if number == 0 and least < 0 else None
        if wrong is not None:
            raise DataError(
                f"The {purpose} data has the id {wrong}, but the model's vocabulary has {limits.vocabulary} tokens "
                f"({limits.names[0]}): ids must lie between 0 and {limits.vocabulary - 1}."
            )


def small_batch(loaders: Loaders) -> Any:
    """Make a batch of the first two training samples, without changing generators or order.

    Returns:
        The batch, or None for data without random access or samples that cannot be collated.
    """
    loader, data = loaders.train.loader, loaders.dataset
    if not hasattr(data, "__getitem__") or not hasattr(data, "__len__"):
        return None
    collate = getattr(loader, "collate_fn", None)
    with kept_generators(), suppress(Exception):  # data with other keys, or a collate_fn for full batches
        if getattr(loader, "batch_sampler", None) is None:
            return collate(data[0]) if callable(collate) else data[0]
        samples = [data[index] for index in range(min(2, len(data)))]
        return collate(samples) if callable(collate) else default_collate(samples)
    return None


def _samples(data: Any, most: int) -> Iterator[Any]:
    """Yield evenly spaced samples, or whole tensors of ids; torch's generator is restored."""
    if isinstance(data, TensorDataset) and all(tensor.layout is torch.strided for tensor in data.tensors):
        rows = max(1, sum(tensor[:1].numel() for tensor in data.tensors))
        every = max(1, -(-len(data) * rows // _MOST_IDS))
        yield tuple(tensor[::every] for tensor in data.tensors)
        return
    if isinstance(data, IterableDataset) or not hasattr(data, "__getitem__") or not hasattr(data, "__len__"):
        return
    with torch.random.fork_rng(devices=[]), suppress(LookupError):  # the dataset may have other keys
        for index in range(0, len(data), max(1, -(-len(data) // most))):
            yield data[index]


def _ids(sample: Any) -> Iterator[Tensor]:
    """Yield the ids of a sample: the inputs, then others of the same shape, such as targets."""
    if isinstance(sample, Mapping):
        first = next((sample[name] for name in _ID_NAMES if name in sample), None)
        others = [sample[name] for name in ("labels", "targets") if name in sample]
    elif isinstance(sample, tuple | list) and sample:
        first, *others = sample
    else:
        first, others = sample, []
    inputs = _integers(first)
    if inputs is None or not inputs.ndim:
        return
    yield inputs
    for other in map(_integers, others):
        if other is not None and other.shape == inputs.shape:
            yield other


def _integers(value: Any) -> Tensor | None:
    """Return integers of a tensor, array or list as a tensor; None for anything else."""
    if isinstance(value, list) and not all(isinstance(item, int) for item in value):
        return None
    if isinstance(value, list | numpy.ndarray) and len(value):
        value = torch.as_tensor(value)
    return value if isinstance(value, Tensor) and value.dtype in _INTEGERS else None


def _refuse_sparse(sample: Any, purpose: str) -> None:
    """Refuse samples that torch cannot collate. Raises `DataError`."""
    parts = sample.values() if isinstance(sample, Mapping) else sample if isinstance(sample, tuple | list) else [sample]
    for part in parts:
        if isinstance(part, Tensor) and (part.layout is not torch.strided or part.is_nested):
            kind = "nested" if part.is_nested else str(part.layout).removeprefix("torch.")
            raise DataError(
                f"The {purpose} samples have {kind} tensors, which torch does not collate: give the dataset a "
                "collate_fn, or make them dense."
            )


def _check_names(model: nn.Module, names: list[str]) -> None:
    try:
        signature = inspect.signature(model.forward)
    except (TypeError, ValueError):  # made in C
        return
    if not names:
        return
    try:
        signature.bind(**dict.fromkeys(names))
    except TypeError as error:
        raise BatchError(
            f"The batches have {', '.join(names)}, which {type(model).__name__}.forward does not accept: {error}."
        ) from error


def _names(sample: Any, collate: Any) -> list[str]:
    """Return the keys of a batch of such samples; empty if it has none or they are unknown."""
    batch = sample
    if callable(collate) and collate is not default_collate:
        try:
            batch = collate([sample])
        except Exception:  # a collate_fn may fail for a single sample
            return []
    return [str(name) for name in batch] if isinstance(batch, Mapping) else []

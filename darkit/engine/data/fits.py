"""Whether data fits a model, told in one sentence before anything of a run is created."""

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
"""What configs call the number of tokens that a model sees at most."""
VOCABULARY_NAMES = ("vocab_size", "vocabulary_size", "n_vocab")
"""What configs call the number of tokens in a model's vocabulary."""
_ID_NAMES = ("input_ids", "tokens", "idx", "inputs")
_MOST_IDS = 2**24  # that are looked at: some ten milliseconds
_MOST_SAMPLES = 64
_WHOLE = (torch.int64, torch.int32, torch.int16)


@dataclass(frozen=True)
class Limits:
    """What a model can take, as its config tells it.

    Attributes:
        vocabulary: Tokens in its vocabulary, or None where the config does not say.
        context: Tokens that it sees at most, or None.
        names: What the config calls the two.
    """

    vocabulary: int | None
    context: int | None
    names: tuple[str, str]


def limits_of(values: Mapping[str, Any]) -> Limits:
    """Finds what a model can take in the values of its config."""
    vocabulary, context = (_first(values, names) for names in (VOCABULARY_NAMES, CONTEXT_NAMES))
    return Limits(vocabulary[1], context[1], (vocabulary[0], context[0]))


def refuse_uninitialized(model: nn.Module) -> None:
    """Refuse a model with lazy modules that have not seen a batch. Raises `ModelError` with the first one's name."""
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if torch.nn.parameter.is_lazy(value):
            raise ModelError(
                f"{name} of the {type(model).__name__} has no shape yet: call the model with one batch before "
                "training, so that its lazy modules get their shapes."
            )


def check_fits(model: nn.Module, values: Mapping[str, Any], loaders: Loaders, *, direct: bool) -> None:
    """Checks the data to train and to evaluate on; `check_fit` says how.

    Args:
        model: The model.
        values: The values of its config.
        loaders: What the run trains and is evaluated on.
        direct: Whether a batch goes into the model's ``forward`` as it is, and not into a loss or a method.
    """
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
    """Checks what can be known without a step.

    A dataset that tells its ``vocabulary`` (its largest id and one) and its ``context_length`` is taken at its word.
    Of any other map-style dataset of ids some are looked at: all of tensors of up to 16 million, else a part that is
    spread evenly.

    Args:
        model: The model.
        values: The values of its config.
        data: What the samples are taken from, or None where that cannot be known.
        purpose: ``training`` or ``validation``, for errors.

    Raises:
        DataError: The data's vocabulary or context is larger than the model's, or an id is out of its range.
    """
    limits = limits_of(values)
    vocabulary, context = (_whole(getattr(data, name, None)) for name in ("vocabulary", "context_length"))
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
    found = ((name, _whole(values.get(name))) for name in names)
    return next(((name, value) for name, value in found if value), ("", None))


def _whole(value: Any) -> int | None:
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
            f"The {purpose} data has {context} tokens in a row, but the model sees at most {limits.context}: take "
            f"shorter windows, or give the model a {limits.names[1]} of at least {context}."
        )


def _check_ids(ids: list[Tensor], limits: Limits, purpose: str) -> None:
    """Checks inputs for their whole range, and what is to be predicted for its largest alone: -100 asks for nothing."""
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
    """Makes a batch of the first two training samples as the loader would; no generator and no order is moved.

    Returns:
        The batch; None of data that has no samples by number, or where one cannot be made so.
    """
    loader, data = loaders.train.loader, loaders.dataset
    if not hasattr(data, "__getitem__") or not hasattr(data, "__len__"):
        return None
    collate = getattr(loader, "collate_fn", None)
    with kept_generators(), suppress(Exception):  # data that takes no numbers, or a collate_fn for whole batches
        if getattr(loader, "batch_sampler", None) is None:
            return collate(data[0]) if callable(collate) else data[0]
        samples = [data[index] for index in range(min(2, len(data)))]
        return collate(samples) if callable(collate) else default_collate(samples)
    return None


def _samples(data: Any, most: int) -> Iterator[Any]:
    """Yields samples spread evenly, or tensors of ids as one; the generator of torch is as before."""
    if isinstance(data, TensorDataset) and all(tensor.layout is torch.strided for tensor in data.tensors):
        rows = max(1, sum(tensor[:1].numel() for tensor in data.tensors))
        every = max(1, -(-len(data) * rows // _MOST_IDS))
        yield tuple(tensor[::every] for tensor in data.tensors)
        return
    if isinstance(data, IterableDataset) or not hasattr(data, "__getitem__") or not hasattr(data, "__len__"):
        return
    with torch.random.fork_rng(devices=[]), suppress(LookupError):  # somebody's own sampler may ask by anything else
        for index in range(0, len(data), max(1, -(-len(data) // most))):
            yield data[index]


def _ids(sample: Any) -> Iterator[Tensor]:
    """Yields the ids of a sample, the inputs, and then the others of their shape, such as what comes next."""
    if isinstance(sample, Mapping):
        first = next((sample[name] for name in _ID_NAMES if name in sample), None)
        others = [sample[name] for name in ("labels", "targets") if name in sample]
    elif isinstance(sample, tuple | list) and sample:
        first, *others = sample
    else:
        first, others = sample, []
    inputs = _whole_numbers(first)
    if inputs is None or not inputs.ndim:
        return
    yield inputs
    for other in map(_whole_numbers, others):
        if other is not None and other.shape == inputs.shape:
            yield other


def _whole_numbers(value: Any) -> Tensor | None:
    """Returns a tensor, an array or a list of whole numbers as a tensor, or None for anything else."""
    if isinstance(value, list) and not all(isinstance(item, int) for item in value):
        return None
    if isinstance(value, list | numpy.ndarray) and len(value):
        value = torch.as_tensor(value)
    return value if isinstance(value, Tensor) and value.dtype in _WHOLE else None


def _refuse_sparse(sample: Any, purpose: str) -> None:
    """Refuse samples that torch cannot put into a batch. Raises `DataError`."""
    parts = sample.values() if isinstance(sample, Mapping) else sample if isinstance(sample, tuple | list) else [sample]
    for part in parts:
        if isinstance(part, Tensor) and (part.layout is not torch.strided or part.is_nested):
            kind = "nested" if part.is_nested else str(part.layout).removeprefix("torch.")
            raise DataError(
                f"The {purpose} samples have {kind} tensors, which torch does not put into batches: give the dataset a "
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
            f"The batches have {', '.join(names)}, which {type(model).__name__}.forward does not take so: {error}."
        ) from error


def _names(sample: Any, collate: Any) -> list[str]:
    """Returns the names that a batch of such samples has; none where it has no names, or they cannot be known."""
    batch = sample
    if callable(collate) and collate is not default_collate:
        try:
            batch = collate([sample])
        except Exception:  # whatever somebody's function raises of one sample alone: it is made for a batch
            return []
    return [str(name) for name in batch] if isinstance(batch, Mapping) else []

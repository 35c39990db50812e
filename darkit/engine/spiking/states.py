"""The hidden state that neurons keep in a model from call to call, handled as the libraries' tutorials do by hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from darkit.errors import listing

_MOST_NAMES = 3
States = dict[str, dict[str, Tensor]]  # name of the part -> name of the state -> value


class NeuronStates:
    """The hidden state of the parts of a model that have a reset function of snntorch or spikingjelly.

    norse's neurons keep none: their state is an argument and a result.

    Args:
        model: The model.
        resets: Whether training resets the state before every batch. Otherwise a batch begins with the state after the
            one before, without its gradient, and the state belongs to the training: it is saved and restored.
    """

    def __init__(self, model: nn.Module, resets: bool = True) -> None:
        self.resets = resets
        self._parts = {name: (part, found) for name, part in model.named_modules() if (found := _library(part))}

    def __bool__(self) -> bool:
        return bool(self._parts)

    def begin(self) -> None:
        """Prepare the state for a batch; one that is computed without gradients always begins with a reset state."""
        if self.resets or not torch.is_grad_enabled():
            self.reset()
        else:
            self.detach()

    def reset(self) -> None:
        """Reset the state with the parts' own functions."""
        for part, library in self._parts.values():
            (part.reset_mem if library == "snntorch" else part.reset)()

    def detach(self) -> None:
        """Keep the state without the graph that it comes from."""
        for part, library in self._parts.values():
            places = _places(part, library)
            places.update({name: value.detach() for name, value in _tensors(part, library)})

    def collect(self) -> States:
        """Return a copy of the state that a resumed training needs: none if every batch resets it."""
        if self.resets:
            return {}
        found = {
            name: {key: value.detach().clone() for key, value in _tensors(part, library)}
            for name, (part, library) in self._parts.items()
        }
        return {name: values for name, values in found.items() if values}

    def restore(self, states: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Restore what `collect` returned."""
        for name, values in states.items():
            if name in self._parts and not self.resets:
                _places(*self._parts[name]).update({key: value.clone() for key, value in values.items()})

    def describe(self) -> str:
        """Return what happens to the state, in a sentence; empty if there is none."""
        if not self._parts:
            return ""
        if self.resets:
            return f"{self._name()} is reset before every batch, with their own functions; reset_state=false keeps it."
        return (
            f"{self._name()} is kept from batch to batch, without its gradient, and saved; every batch of an "
            "evaluation begins with a reset one."
        )

    def describe_untouched(self) -> str:
        """Say in a sentence that darkit resets and saves no hidden state of the model; empty if it has none."""
        if not self._parts:
            return ""
        return (
            f"{self._name()} is left to the LightningModule: unless its own code resets it, it goes from batch to "
            "batch, and from a validation to the training; checkpoints do not have it."
        )

    def _name(self) -> str:
        libraries = listing(sorted({library for _, library in self._parts.values()}))
        names = list(self._parts)
        more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        return f"The hidden state of {libraries}'s parts {', '.join(names[:_MOST_NAMES])}{more}"


def _library(part: nn.Module) -> str:
    """Return the library whose reset function a part has; empty if it has none."""
    for cls in type(part).__mro__:
        if cls.__module__.startswith("snntorch._neurons") and hasattr(part, "reset_mem"):
            return "snntorch"
        if cls.__module__ == "spikingjelly.activation_based.base" and cls.__name__ == "MemoryModule":
            return "spikingjelly"
    return ""


def _places(part: nn.Module, library: str) -> dict[str, Tensor | None]:
    """Return the dict of a part in which its library keeps the state."""
    found: dict[str, Tensor | None] = part._buffers if library == "snntorch" else part.__dict__["_memories"]
    return found


def _tensors(part: nn.Module, library: str) -> Iterator[tuple[str, Tensor]]:
    """Yield the states of a part that are tensors: non-persistent buffers of snntorch, memories of spikingjelly."""
    for name, value in list(_places(part, library).items()):
        if isinstance(value, Tensor) and (library != "snntorch" or name in part._non_persistent_buffers_set):
            yield name, value

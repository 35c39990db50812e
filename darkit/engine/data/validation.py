"""Validation batches, whose passes leave no trace."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from darkit.engine.data.batches import own_batches
from darkit.engine.data.loader_state import LoaderState
from darkit.engine.data.order import refuse_early_end
from darkit.engine.data.samples import collating
from darkit.engine.data.workers import begin, end


class Signs(Protocol):
    """What counts progress between steps."""

    signs: int


class ValidationBatches:
    """Validation batches; each counts as progress.

    A pass leaves no trace: the state of the data, such as a sampler's generator, is restored. So an evaluation does not
    depend on the number of evaluations before it, which a resumed run cannot know.

    Args:
        batches: A re-iterable of batches.
        progress: Whose ``signs`` are counted, such as a session.
    """

    def __init__(self, batches: Any, progress: Signs) -> None:
        self.batches = batches
        self.progress = progress
        self._state = LoaderState(batches)

    def __iter__(self) -> Iterator[Any]:
        before = self._state.state(everything=True)
        batches = own_batches(self.batches) or begin(self.batches)
        try:
            with collating("validation"):
                given = getattr(self.batch_sampler, "first", 0)
                for batch in batches:
                    given += 1
                    self.progress.signs += 1
                    yield batch
                refuse_early_end(self.batch_sampler, given)
        finally:
            end(batches)
            self._state.restore(before)

    def __len__(self) -> int:
        return len(self.batches)

    @property
    def batch_sampler(self) -> Any:
        """The batch sampler of the loader, if it has one; it may be divided over several processes."""
        return getattr(self.batches, "batch_sampler", None)

    def close(self) -> None:
        """Release the data, so that its worker processes end."""
        self.batches = ()
        self._state = LoaderState(())

"""A run's model, loaded for an export."""

from __future__ import annotations

from darkit.errors import ModelError
from darkit.prediction.predicter import Predicter
from darkit.runs import Run

_ADVICE = (
    "pass the model itself as model=",
    "import the module that defines it first",
)  # for Python, not for a command


def load_predicter(run: Run, wanted: str | None) -> Predicter:
    """Load the model of a run and its weights on the CPU.

    Raises:
        ModelError: The model cannot be built from the run's record.
        DarkitError: As `Predicter.from_pretrained`.
    """
    try:
        return Predicter.from_pretrained(run.name, "cpu", wanted)
    except ModelError as error:
        reason = str(error)
        for advice in _ADVICE:
            reason = reason.partition(advice)[0].rstrip(" :;.,")
        raise ModelError(f"{reason}. Use --format safetensors, which needs the weights alone.") from error

"""Notice a loss that is far above the recent ones."""

from __future__ import annotations

import logging
import math
import statistics
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from lightning import LightningModule, Trainer
from torch import Tensor

from darkit.engine.callbacks.base import StepCallback, check_interval, log_values
from darkit.errors import ConfigError

logger = logging.getLogger(__name__)
LAG = 8  # steps after which a loss on an accelerator is read, which has finished it by then
_NORMAL = 1.4826  # standard deviations of a normal distribution in its median absolute deviation


@dataclass(frozen=True)
class LossSpike:
    """A loss far above the recent ones.

    Attributes:
        step: Its step.
        loss: The loss.
        median: The median of the losses before it.
        z: How far it is above the median, in robust standard deviations.
        noticed: The step after which it was noticed.
        losses: The last of the losses before it.
    """

    step: int
    loss: float
    median: float
    z: float
    noticed: int
    losses: list[float]


def warn_of(spike: LossSpike, rewinds: int) -> bool:
    """Log a spike."""
    logger.warning(
        "Loss spike at step %d: %.4g, %.1f robust standard deviations above %.4g.",
        spike.step,
        spike.loss,
        spike.z,
        spike.median,
    )
    return True


class LossSpikeGuard(StepCallback):
    """Judge each step's loss by its robust z-score among the losses before it.

    The score is the distance from the median in units of 1.4826 times the median absolute deviation (Iglewicz and
    Hoaglin 1993, "How to Detect and Handle Outliers"). A loss that is not finite is no spike, but `LossGuard`'s matter.

    On an accelerator a loss is judged 8 steps later, so that no step waits for the device. The number is fixed: which
    step notices a spike is the same each time.

    Args:
        threshold: The score above which a loss is a spike.
        window: The number of losses before it; without so many nothing is judged.
        react: Called with the spike and the number of earlier ones that were reacted to; by default it is logged.
            Returns whether it was dealt with; otherwise it is called again when a resumed training starts.

    Attributes:
        rewinds: The number of spikes that the training was rewound for; who rewinds it counts, in the saved state.
    """

    def __init__(
        self,
        threshold: float = 10.0,
        window: int = 64,
        react: Callable[[LossSpike, int], bool] = warn_of,
    ) -> None:
        if not threshold > 0:
            raise ConfigError(f"threshold must be above 0, not {threshold!r}.")
        self.threshold = threshold
        self.window = check_interval("window", window, 4)
        self.react = react
        self.rewinds = 0
        self._losses: deque[float] = deque(maxlen=window)
        self._waiting: deque[tuple[int, Any]] = deque()  # steps, and losses or copies on their way
        self._open: LossSpike | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if self._open is not None:
            self._tell(trainer, self._open)

    def on_step(self, trainer: Trainer, pl_module: LightningModule, outputs: dict[str, Any], step: int) -> None:
        loss = log_values(trainer, outputs).get("train_loss")
        if not isinstance(loss, Tensor):
            return
        self._waiting.append((step, _copied(loss)))
        last = step if loss.is_cpu else step - LAG
        while self._waiting and self._waiting[0][0] <= last:
            at, copied = self._waiting.popleft()
            self._judge(trainer, at, _read(copied), step)

    def _judge(self, trainer: Trainer, step: int, loss: float, now: int) -> None:
        if not math.isfinite(loss):
            return
        before = list(self._losses)
        self._losses.append(loss)
        if len(before) < self.window:
            return
        median, score = robust_score(loss, before)
        if score > self.threshold:
            self._tell(trainer, LossSpike(step, loss, median, score, now, before[-8:]))

    def _tell(self, trainer: Trainer, spike: LossSpike) -> None:
        self._open = spike
        if not trainer.should_stop and self.react(spike, self.rewinds):
            self._open = None

    def state_dict(self) -> dict[str, Any]:
        return {
            "losses": list(self._losses),
            "waiting": [[step, _read(copied)] for step, copied in self._waiting],
            "rewinds": self.rewinds,
            "open": None if self._open is None else asdict(self._open),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._losses = deque(state["losses"], maxlen=self.window)
        self._waiting = deque((step, loss) for step, loss in state["waiting"])
        self.rewinds = state["rewinds"]
        self._open = None if state["open"] is None else LossSpike(**state["open"])


def robust_score(value: float, before: list[float]) -> tuple[float, float]:
    """Return the median of values, and the robust z-score of another value; 0 where most of them are the same."""
    median = statistics.median(before)
    deviation = _NORMAL * statistics.median(abs(other - median) for other in before)
    return median, (value - median) / deviation if deviation else 0.0


def _copied(loss: Tensor) -> Any:
    """Return a loss as a number, or from an accelerator a copy on its way, and the event of its arrival."""
    if loss.is_cpu:
        return loss.item()
    copy = loss.detach().to("cpu", non_blocking=True)
    if not loss.is_cuda:
        return copy
    arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
    arrived.record(torch.cuda.current_stream(loss.device))
    return copy, arrived


def _read(copied: Any) -> float:
    if isinstance(copied, tuple):
        copied, arrived = copied
        arrived.synchronize()
    return float(copied)

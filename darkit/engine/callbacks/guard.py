"""Stop, or warn once, on a non-finite loss."""

from __future__ import annotations

import logging
import math
from typing import Any

import torch
from lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from darkit.engine.callbacks.base import EveryStepCallback, agreement_of, log_values
from darkit.engine.log.rows import RowStream
from darkit.engine.steps.parts import local_values, smallest_of_all
from darkit.errors import ConfigError, NonFiniteLossError

logger = logging.getLogger(__name__)


class LossGuard(EveryStepCallback):
    """Check every step's loss: after it is logged, so that the log shows it, and before the step is saved.

    On the CPU it checks at once. On an accelerator the first bad step is recorded in a tensor there, which the log's
    thread reads, so that no step waits for the device; before a checkpoint `check` reads it too. Without a log it
    checks at once and waits for the device. The processes of a `darkit.fit` check the mean of their losses, on an
    accelerator every half second, so that all stop after the same step.

    Args:
        policy: ``stop`` raises `NonFiniteLossError`; ``warn`` logs one warning.
        stream: The log whose thread reads tensors on an accelerator, or None.
    """

    def __init__(self, policy: str = "stop", stream: RowStream | None = None) -> None:
        if policy not in ("stop", "warn"):
            raise ConfigError(f"policy must be 'stop' or 'warn', not {policy!r}.")
        self.policy = policy
        self._first_bad: Tensor | None = None
        self._warned = False
        self._bad_step = -1
        self._waits = stream is None
        if stream is not None:
            stream.watches.append(self.check)
        self._stream = stream

    def on_step(self, trainer: Trainer, pl_module: LightningModule, outputs: dict[str, Any], step: int) -> None:
        loss = log_values(trainer, outputs).get("train_loss")
        if not isinstance(loss, Tensor):
            return
        agreement = agreement_of(pl_module)
        if agreement is not None and self._stream is not None and self.check in self._stream.watches:
            self._stream.watches.remove(self.check)
        if loss.device.type == "cpu" or (self._waits and agreement is None):
            if not math.isfinite(value := loss.item()):
                self._report(step, f"The loss is not finite at step {step} ({value})")
            return
        if self._first_bad is None:
            self._first_bad = torch.full((), -1, dtype=torch.long, device=loss.device)
        newly = (self._first_bad < 0) & ~torch.isfinite(loss)
        self._first_bad = torch.where(newly, step, self._first_bad)
        if agreement is not None and agreement.ends_block:
            self.check()

    def check_step(self, module: nn.Module, step: int) -> None:
        """Check the loss and the weights of a step before it is saved. Raises `NonFiniteLossError`."""
        self.check()
        if self._bad_step == step and self.policy == "stop":
            raise NonFiniteLossError(f"The loss is not finite at step {step}, so it is not saved.")
        self.check_weights(module, step)

    def check(self) -> None:
        """Wait for the accelerator and report a bad step on it. Raises `NonFiniteLossError`."""
        if self._first_bad is not None and not self._warned and (step := int(self._first_bad.item())) >= 0:
            self._report(step, f"The loss is not finite at step {step}")

    def check_weights(self, module: nn.Module, step: int) -> None:
        """Check the weights after a step: a finite loss with an infinite gradient spoils them too.

        Processes that each hold a part of the model come to the same result.

        Raises:
            NonFiniteLossError: A weight is not finite and the policy is ``stop``.
        """
        trained = [(name, one) for name, one in module.named_parameters() if one.requires_grad]
        found = (place for place, (_, one) in enumerate(trained) if not bool(torch.isfinite(local_values(one)).all()))
        first = next(found, len(trained))
        if any(isinstance(one, DTensor) for _, one in trained):
            first = smallest_of_all(first)
        if first < len(trained):
            self._report(step, f"The weight {trained[first][0]!r} is not finite after step {step}")

    def _report(self, step: int, problem: str) -> None:
        self._bad_step = step
        if self.policy == "stop":
            raise NonFiniteLossError(
                f"{problem}; checkpoints before it are kept. A smaller learning rate or gradient_clip may help; "
                "nan_policy='warn' continues."
            )
        if not self._warned:
            self._warned = True
            logger.warning("%s; continuing because nan_policy is 'warn'.", problem)

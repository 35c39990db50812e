"""Stop, or warn once, on a non-finite loss."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from lightning import LightningModule, Trainer
from torch import Tensor, nn

from darkit.engine.callbacks.base import EveryStepCallback, agreement_of, log_values
from darkit.engine.checkpoints.finite import is_finite, not_finite, saved_weights, trained_names
from darkit.engine.log.rows import RowStream
from darkit.engine.steps.adapter import Adapter
from darkit.engine.steps.parts import is_split, local_values, smallest_of_all
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
        saves: Waits for the saves on their way, of earlier steps, and raises what is wrong with them.
    """

    def __init__(
        self, policy: str = "stop", stream: RowStream | None = None, saves: Callable[[], None] = lambda: None
    ) -> None:
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
        self._saves = saves

    def on_step(self, trainer: Trainer, pl_module: LightningModule, outputs: dict[str, Any], step: int) -> None:
        is_ours = isinstance(pl_module, Adapter)  # whose outputs have the loss of the whole step
        loss = outputs.get("loss") if is_ours else log_values(trainer, outputs).get("train_loss")
        if not isinstance(loss, Tensor):
            return
        agreement = agreement_of(pl_module)
        if agreement is not None and self._stream is not None and self.check in self._stream.watches:
            self._stream.watches.remove(self.check)
        if loss.is_cpu or (self._waits and agreement is None):
            if not math.isfinite(value := loss.item()):
                self._saves()  # weights that are not finite since an earlier step are the cause
                self._report(step, f"The loss is not finite at step {step} ({value})")
            return
        if self._first_bad is None:
            self._first_bad = torch.full((), -1, dtype=torch.long, device=loss.device)
        newly = (self._first_bad < 0) & ~torch.isfinite(loss)
        self._first_bad = torch.where(newly, step, self._first_bad)
        if agreement is not None and agreement.ends_block:
            self.check()

    def check_step(self, module: nn.Module, step: int) -> None:
        """Check the loss of a step before it is saved, and in several processes the weights, in all alike.

        One process checks the weights in the copy, with `check_copy`.

        Raises:
            NonFiniteLossError: One is not finite and the policy is ``stop``.
        """
        self.check()
        if self._bad_step == step and self.policy == "stop":
            raise NonFiniteLossError(f"The loss is not finite at step {step}, so it is not saved.", step)
        self.check_together(module, step)

    def check_together(self, module: nn.Module, step: int) -> None:
        """Check the weights in several processes, in all alike; in one nothing, because `check_copy` does.

        Raises:
            NonFiniteLossError: A weight is not finite and the policy is ``stop``.
        """
        if dist.is_initialized():
            self.check_weights(module, step)

    def check_copy(
        self, module: nn.Module, step: int, content: Mapping[str, Any]
    ) -> Callable[[Mapping[str, Any]], None]:
        """Return a check of the weights in the copy of a checkpoint's content, for the thread that writes it.

        Weights that the content lacks are checked at once. The check raises `NonFiniteLossError` as `check_weights`
        does.
        """
        if dist.is_initialized():  # `check_together` has done it
            return lambda copied: None
        names = trained_names(module)
        saved = [name for name in names if name in saved_weights(content)]
        if len(saved) < len(names):
            self.check_weights(module, step)

        def check(copied: Mapping[str, Any]) -> None:
            if name := not_finite(saved, saved_weights(copied)):
                self._report_weight(name, step)

        return check

    def check(self) -> None:
        """Wait for the accelerator and report a bad step on it. Raises `NonFiniteLossError`."""
        if self._first_bad is not None and not self._warned and (step := int(self._first_bad.item())) >= 0:
            self._report(step, f"The loss is not finite at step {step}")

    def check_weights(self, module: nn.Module, step: int) -> None:
        """Check the weights after a step at once: a finite loss with an infinite gradient spoils them too.

        Processes that each hold a part of the model come to the same result.

        Raises:
            NonFiniteLossError: A weight is not finite and the policy is ``stop``.
        """
        trained = [(name, one) for name, one in module.named_parameters() if one.requires_grad]
        found = (place for place, (_, one) in enumerate(trained) if not is_finite(local_values(one).detach()))
        first = next(found, len(trained))
        if any(is_split(one) for _, one in trained):
            first = smallest_of_all(first)
        if first < len(trained):
            self._report_weight(trained[first][0], step)

    def _report_weight(self, name: str, step: int) -> None:
        self._report(step, f"The weight {name!r} is not finite after step {step}")

    def _report(self, step: int, problem: str) -> None:
        self._bad_step = step
        if self.policy == "stop":
            raise NonFiniteLossError(
                f"{problem}. A smaller learning rate or gradient_clip may help; nan_policy='warn' continues.",
                step,
            )
        if not self._warned:
            self._warned = True
            logger.warning("%s; continuing because nan_policy is 'warn'.", problem)

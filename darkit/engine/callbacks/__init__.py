"""Callbacks that also work alone in a stock ``lightning.Trainer(callbacks=[...])``.

Their order matters and is that of a step: `StepEvaluate`, `StepLog`, `LossGuard`, `StopOnRequest`, `StepCheckpoint`.
"""

from darkit.engine.callbacks.checkpoint import StepCheckpoint
from darkit.engine.callbacks.evaluate import StepEvaluate
from darkit.engine.callbacks.export import ExportConfigs
from darkit.engine.callbacks.guard import LossGuard
from darkit.engine.callbacks.log import StepLog
from darkit.engine.callbacks.stop import StopOnRequest

__all__ = ["ExportConfigs", "LossGuard", "StepCheckpoint", "StepEvaluate", "StepLog", "StopOnRequest"]

"""Callbacks that also work alone in a stock ``lightning.Trainer(callbacks=[...])``.

Their order matters and is that of a step: `EmaWeights`, `StepEvaluate`, `SpikingReceipt`, `LossSpikeGuard`,
`EarlyStop`, `StepLog`, `LossGuard`, `RequireMetric`, `StopOnRequest`, `SaveBest`, `StepCheckpoint`.
"""

from darkit.engine.callbacks.checkpoint import StepCheckpoint
from darkit.engine.callbacks.early_stop import EarlyStop
from darkit.engine.callbacks.ema import EmaWeights
from darkit.engine.callbacks.evaluate import StepEvaluate
from darkit.engine.callbacks.export import ExportConfigs
from darkit.engine.callbacks.guard import LossGuard
from darkit.engine.callbacks.log import StepLog
from darkit.engine.callbacks.loss_spike import LossSpikeGuard
from darkit.engine.callbacks.require import RequireMetric
from darkit.engine.callbacks.save_best import SaveBest
from darkit.engine.callbacks.spiking import SpikingReceipt
from darkit.engine.callbacks.stop import StopOnRequest

__all__ = [
    "EarlyStop",
    "EmaWeights",
    "ExportConfigs",
    "LossGuard",
    "LossSpikeGuard",
    "RequireMetric",
    "SaveBest",
    "SpikingReceipt",
    "StepCheckpoint",
    "StepEvaluate",
    "StepLog",
    "StopOnRequest",
]

"""darkit: give it an nn.Module and data, get a run that can be trusted and compared.

``darkit.fit(model, data)`` trains; ``darkit.runs()`` lists what was trained; ``darkit.load(name)`` finds one again.
Nothing here imports torch until something that needs it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from darkit import errors, runs
from darkit.runs import Run, load
from darkit.version import __version__ as __version__

if TYPE_CHECKING:
    from darkit import dashboard
    from darkit.core.active import ActiveRun, start_run
    from darkit.core.run_logger import RunLogger
    from darkit.dashboard.offline import compare, query
    from darkit.engine.config import TrainerConfig
    from darkit.engine.data.stateful import dataloader
    from darkit.engine.log.media import Audio, Histogram, Image, Table, Text
    from darkit.engine.native.recorder import RunRecorder
    from darkit.engine.training import fit

__all__ = [
    "ActiveRun",
    "Audio",
    "Histogram",
    "Image",
    "Run",
    "RunLogger",
    "RunRecorder",
    "Table",
    "Text",
    "TrainerConfig",
    "compare",
    "dashboard",
    "dataloader",
    "errors",
    "fit",
    "load",
    "query",
    "runs",
    "start_run",
]

_LAZY = {
    "ActiveRun": "darkit.core.active",
    "RunLogger": "darkit.core.run_logger",
    "RunRecorder": "darkit.engine.native.recorder",
    "compare": "darkit.dashboard.offline",
    "dataloader": "darkit.engine.data.stateful",
    "query": "darkit.dashboard.offline",
    "start_run": "darkit.core.active",
    **dict.fromkeys(("Audio", "Histogram", "Image", "Table", "Text"), "darkit.engine.log.media"),
    "fit": "darkit.engine.training",
    "TrainerConfig": "darkit.engine.config",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    if name == "dashboard":  # a room that is also a function
        return import_module("darkit.dashboard")
    raise AttributeError(f"module 'darkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

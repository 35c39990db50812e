"""The dashboard: every run of a home, live, side by side. It reads run directories only and needs no torch.

``darkit.dashboard()`` shows its page in a notebook. ``server.app.create_app(root)`` makes the application;
``server.serve`` keeps one running for a home.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _CallableModule(ModuleType):
    """Let ``darkit.dashboard`` be both this package and the function that shows its page."""

    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        from darkit.dashboard.notebook import show

        return show(*arguments, **settings)


sys.modules[__name__].__class__ = _CallableModule

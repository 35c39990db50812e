"""Fixtures of the tests of prediction."""

from __future__ import annotations

from tests.core.conftest import _own_registries

__all__ = ["_own_registries"]

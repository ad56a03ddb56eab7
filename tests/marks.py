"""Marks of parameters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def slow_but_for(quick: Iterable[str], names: Iterable[str]) -> list[Any]:
    """All names; those that are not quick belong to the slow tests."""
    kept = set(quick)
    return [n if n in kept else pytest.param(n, marks=pytest.mark.slow) for n in names]

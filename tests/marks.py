"""Marks of parameters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def slow_but_for(quick: Iterable[Any], values: Iterable[Any]) -> list[Any]:
    """All values; those that are not quick belong to the slow tests."""
    kept = list(quick)
    return [v if v in kept else pytest.param(v, marks=pytest.mark.slow) for v in values]


def every(count: int, lines: Iterable[Any]) -> list[Any]:
    """All lines of parameters; but for every so many-th, they belong to the slow tests."""
    return [
        line if number % count == 0 else pytest.param(*_values(line), marks=pytest.mark.slow)
        for number, line in enumerate(lines)
    ]


def _values(line: Any) -> tuple[Any, ...]:
    """A line of several parameters, or the value of a single one."""
    return line if isinstance(line, tuple) else (line,)

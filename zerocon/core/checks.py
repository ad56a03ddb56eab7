"""Checks of settings; messages name the field, the value and what is allowed."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

_BRIEF = reprlib.Repr()  # Python 3.11 takes no arguments here
_BRIEF.maxlevel, _BRIEF.maxstring, _BRIEF.maxother = 3, 120, 120


Bounds = dict[str, tuple[float, float]]  # a setting's name -> the least and the most it may be
_NOTED: ContextVar[Bounds | None] = ContextVar("noted", default=None)


class ConfigError(ValueError):
    """A setting is invalid. The run does not start."""


@contextmanager
def noting() -> Generator[Bounds]:
    """Collect the bounds that are checked in the block: a class states them once, for all."""
    bounds: Bounds = {}
    token = _NOTED.set(bounds)
    try:
        yield bounds
    finally:
        _NOTED.reset(token)


def in_range(name: str, value: float, low: float = -math.inf, high: float = math.inf) -> None:
    noted = _NOTED.get()
    if noted is not None:
        noted[name] = (low, high)
    if not (math.isfinite(value) and low <= value <= high):
        if high == math.inf:
            allowed = f"at least {low:g}"
        elif low == -math.inf:
            allowed = f"at most {high:g}"
        else:
            allowed = f"between {low:g} and {high:g}"
        raise ConfigError(f"{name} is {value}; it must be {allowed}")


def one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name} is {value!r}; it must be one of: {', '.join(allowed)}")


def shown(value: object, most: int = 120) -> str:
    """A value as written, shortened for messages."""
    text = repr(value) if isinstance(value, str) else _BRIEF.repr(value)
    return text if len(text) <= most else f"{text[:most]}… ({len(text)} characters)"

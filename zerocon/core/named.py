"""Functions known by name, so that a room can use another's without importing it."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any


def named(place: str) -> Callable[..., Any]:
    """The function at `module:name`; the module is imported now."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)

"""Functions referred to by name, so that a package can use another's without importing it."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any


def named(place: str) -> Callable[..., Any]:
    """Import and return the function at `module:name`."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)

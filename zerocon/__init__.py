"""Experiments on text-guided image editing with pretrained diffusion models."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from zerocon.core.registry import register

if TYPE_CHECKING:
    from zerocon.api import compose, edit, load, prepare
    from zerocon.core.taps import record, replace

__version__ = "0.1.0"
__all__ = ["compose", "edit", "load", "prepare", "record", "register", "replace"]

_FROM = {"record": "zerocon.core.taps", "replace": "zerocon.core.taps"}


def __getattr__(name: str) -> Any:
    """Load `zerocon.edit` and the like on first use, so that importing the package is fast."""
    if name in __all__:
        return getattr(import_module(_FROM.get(name, "zerocon.api")), name)
    raise AttributeError(f"module 'zerocon' has no attribute {name!r}")

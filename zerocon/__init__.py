"""Text-guided image editing with pretrained diffusion models, as experiments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zerocon.core.registry import register

if TYPE_CHECKING:
    from zerocon.api import edit

__version__ = "0.1.0"
__all__ = ["edit", "register"]


def __getattr__(name: str) -> Any:
    """`zerocon.edit`, without making every import of the package load torch."""
    if name == "edit":
        from zerocon.api import edit

        return edit
    raise AttributeError(f"module 'zerocon' has no attribute {name!r}")

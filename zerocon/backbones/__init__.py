"""Frozen text-to-image models behind one small interface (`base.Backbone`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zerocon.core.registry import offer

if TYPE_CHECKING:
    from zerocon.backbones.sdxl import SDXL
    from zerocon.backbones.shapes import Shapes
    from zerocon.backbones.stable_diffusion import StableDiffusion

__all__ = ["SDXL", "Shapes", "StableDiffusion"]

__getattr__ = offer(
    __name__,
    backbone={
        "SDXL": "sdxl",
        "Shapes": "shapes",
        "StableDiffusion": "stable_diffusion",
    },
)

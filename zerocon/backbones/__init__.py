"""Frozen text-to-image models behind one small interface (`base.Backbone`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zerocon.core.registry import offer

if TYPE_CHECKING:
    from zerocon.backbones.flux import Flux
    from zerocon.backbones.sd3 import SD3
    from zerocon.backbones.sdxl import SDXL
    from zerocon.backbones.shapes import Shapes, ShapesFlow
    from zerocon.backbones.stable_diffusion import StableDiffusion

__all__ = ["SD3", "SDXL", "Flux", "Shapes", "ShapesFlow", "StableDiffusion"]

__getattr__ = offer(
    __name__,
    backbone={
        "SD3": "sd3",
        "SDXL": "sdxl",
        "Flux": "flux",
        "Shapes": "shapes",
        "ShapesFlow": "shapes",
        "StableDiffusion": "stable_diffusion",
    },
)

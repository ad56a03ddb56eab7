"""Metrics: one number per case and column, from the pictures and their cases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zerocon.core.registry import offer

if TYPE_CHECKING:
    from zerocon.metrics.clip import ClipScore
    from zerocon.metrics.lpips import PerceptualDistance
    from zerocon.metrics.pixel import PixelDistances
    from zerocon.metrics.similarity import ClipChange, DinoSimilarity
    from zerocon.metrics.structure import StructureDistance
    from zerocon.metrics.truth import GroundTruth

__all__ = [
    "ClipChange",
    "ClipScore",
    "DinoSimilarity",
    "GroundTruth",
    "PerceptualDistance",
    "PixelDistances",
    "StructureDistance",
]

__getattr__ = offer(
    __name__,
    metric={
        "ClipChange": "similarity",
        "ClipScore": "clip",
        "DinoSimilarity": "similarity",
        "GroundTruth": "truth",
        "PerceptualDistance": "lpips",
        "PixelDistances": "pixel",
        "StructureDistance": "structure",
    },
)

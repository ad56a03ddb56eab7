"""Inversions: from a picture's latent to a trajectory that leads back to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zerocon.core.registry import offer

if TYPE_CHECKING:
    from zerocon.inversions.by_solver import (
        EulerInversion,
        FireFlowInversion,
        FixedPointInversion,
        RFSolverInversion,
        UniInversion,
    )
    from zerocon.inversions.ddim import DDIMInversion
    from zerocon.inversions.direct import DirectInversion
    from zerocon.inversions.edit_friendly import EditFriendlyInversion
    from zerocon.inversions.negative_prompt import NegativePromptInversion
    from zerocon.inversions.none import NoInversion
    from zerocon.inversions.null_text import NullTextInversion
    from zerocon.inversions.regularized import RegularizedInversion
    from zerocon.inversions.rf_inversion import RFInversion
    from zerocon.inversions.turbo_edit import TurboEditInversion

__all__ = [
    "DDIMInversion",
    "DirectInversion",
    "EditFriendlyInversion",
    "EulerInversion",
    "FireFlowInversion",
    "FixedPointInversion",
    "NegativePromptInversion",
    "NoInversion",
    "NullTextInversion",
    "RFInversion",
    "RFSolverInversion",
    "RegularizedInversion",
    "TurboEditInversion",
    "UniInversion",
]

__getattr__ = offer(
    __name__,
    inversion={
        "DDIMInversion": "ddim",
        "DirectInversion": "direct",
        "EditFriendlyInversion": "edit_friendly",
        "EulerInversion": "by_solver",
        "FireFlowInversion": "by_solver",
        "FixedPointInversion": "by_solver",
        "NegativePromptInversion": "negative_prompt",
        "NoInversion": "none",
        "NullTextInversion": "null_text",
        "RFInversion": "rf_inversion",
        "RFSolverInversion": "by_solver",
        "RegularizedInversion": "regularized",
        "UniInversion": "by_solver",
        "TurboEditInversion": "turbo_edit",
    },
)

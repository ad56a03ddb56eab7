"""Timesteps of diffusion models, spaced as in diffusers' schedulers.

All lists are noisiest first.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

TRAINED_TIMES = 1000  # training timesteps of all models here, in which published settings count
# `consistency` is LCMScheduler's; the others are schedulers' `timestep_spacing`.
Spacing = Literal["leading", "trailing", "linspace", "consistency"]
SPACINGS: tuple[str, ...] = get_args(Spacing)


def timesteps(
    trained: int, steps: int, spacing: Spacing = "leading", *, offset: int = 0, distilled: int = 50
) -> list[int]:
    """`steps` of the times 0 … `trained` - 1.

    `offset` is only added by `leading` (`steps_offset` in a scheduler's config). `distilled` is
    a consistency model's number of distilled timesteps (`original_inference_steps`).
    """
    most = distilled if spacing == "consistency" else trained
    if not 1 <= steps <= most:
        raise ValueError(f"method.steps is {steps}; it must be between 1 and {most}")
    if spacing == "leading":
        stride = trained // steps
        return [min(i * stride + offset, trained - 1) for i in reversed(range(steps))]
    if spacing == "trailing":
        return [round(trained - i * (trained / steps)) - 1 for i in range(steps)]
    if spacing == "linspace":
        stride = (trained - 1) / max(1, steps - 1)
        return [round(i * stride) for i in reversed(range(steps))]
    taken = [math.floor(i * (distilled / steps)) for i in range(steps)]
    return [(distilled - i) * (trained // distilled) - 1 for i in taken]

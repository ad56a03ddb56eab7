"""SDEdit (Meng et al. 2022): noise the picture part of the way, denoise under the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.core.checks import in_range
from zerocon.core.conditions import Conditions, Draws
from zerocon.core.diffusion import add_noise, ddim_step, guided
from zerocon.inversions.base import Trajectory
from zerocon.methods.base import Used


@dataclass(frozen=True)
class SDEdit:
    """`strength` is the share of the steps that are noised over and sampled again."""

    needs_inversion: ClassVar[bool] = False
    uses_mask: ClassVar[bool] = False
    uses: ClassVar[frozenset[Used]] = frozenset({"target"})

    steps: int = 50
    guidance: float = 7.5
    strength: float = 0.7

    def __post_init__(self) -> None:
        in_range("method.steps", self.steps, 1, 1000)
        in_range("method.guidance", self.guidance, 0, 100)
        in_range("method.strength", self.strength, 0, 1)

    @torch.no_grad()
    def __call__(
        self, backbone: Backbone, trajectory: Trajectory, conditions: Conditions, draws: Draws
    ) -> Tensor:
        schedule = trajectory.schedule.tail(max(1, round(self.strength * self.steps)))
        noise = draws.normal_like(trajectory.clean, "sdedit")
        z = add_noise(trajectory.clean, noise, schedule.alphas[0])
        for time, alpha, alpha_below in schedule.steps:
            eps = guided(
                backbone.eps, z, time, conditions.target, conditions.negative, self.guidance
            )
            z = ddim_step(z, eps, alpha, alpha_below)
        return z

"""Deterministic DDIM inversion (Song et al. 2020; Dhariwal & Nichol 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.diffusion import ddim_step
from zerocon.inversions.base import Trajectory


@dataclass(frozen=True)
class DDIMInversion:
    """The sampler's step run backwards, at guidance 1 under the source condition."""

    @torch.no_grad()
    def __call__(self, backbone: Backbone, clean: Tensor, source: Tensor, steps: int) -> Trajectory:
        schedule = backbone.schedule(steps)
        z, latents = clean, [clean]
        for time, alpha, alpha_below in reversed(schedule.steps):
            # As every published implementation: the network sees the time it goes *to*.
            eps = backbone.eps(z, time, source)
            z = ddim_step(z, eps, alpha_below, alpha)
            latents.append(z)
        return Trajectory(schedule, torch.stack(latents))

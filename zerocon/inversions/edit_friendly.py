"""Edit-friendly DDPM inversion (Huberman-Spiegelglas et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.core.checks import ConfigError, in_range
from zerocon.core.conditions import Conditions, Draws
from zerocon.core.devices import sent
from zerocon.core.forward import predict_guided
from zerocon.core.levels import Path, noise_scale, noisy_mean
from zerocon.inversions.base import Provided, Trajectory


@dataclass(frozen=True)
class EditFriendlyInversion:
    """Noise maps that lead the DDPM sampler (η = 1) through independently drawn latents.

    `guidance` is that of the source prompt during the extraction. Sampling starts after the share
    `skip` of the steps. `last_noise`: include the noise map of the step onto the picture; without
    it, as published, the reconstruction is only approximate.
    """

    provides: ClassVar[frozenset[Provided]] = frozenset({"trajectory"})
    diffusion_only: ClassVar[bool] = True  # η = 1 steps are those of diffusion models

    guidance: float = 3.5
    skip: float = 0.36
    last_noise: bool = True

    def __post_init__(self) -> None:
        in_range("inversion.guidance", self.guidance, 0, 100)
        in_range("inversion.skip", self.skip, 0, 1)
        if self.skip == 1:
            raise ConfigError("inversion.skip is 1, which leaves no step; it must be below 1")

    @torch.no_grad()
    def __call__(
        self, backbone: Backbone, clean: Tensor, conditions: Conditions, steps: int, draws: Draws
    ) -> Trajectory:
        path = backbone.path(steps).tail(max(1, steps - round(self.skip * steps)))
        drawn = _drawn(clean, path, draws)
        z, latents, noises = drawn[-1], [drawn[-1]], list[Tensor]()
        for (here, there), goal in zip(path.steps, drawn[-2::-1], strict=True):
            guess = predict_guided(
                backbone, here, z, conditions.negative, conditions.source, self.guidance
            )
            # z_{t-1} = mean + σ · noise, solved for the noise. z then follows the sampler, so
            # that errors do not accumulate.
            mean, sigma = noisy_mean(guess, here, there), noise_scale(here, there)
            noises.append((goal - mean) / sigma if sigma else torch.zeros_like(z))
            z = mean + sigma * noises[-1]
            latents.append(z)
        latents[-1] = clean
        if not self.last_noise:
            noises[-1] = torch.zeros_like(z)
        return Trajectory(path, torch.stack(latents[::-1]), noises=torch.stack(noises))


def _drawn(clean: Tensor, path: Path, draws: Draws) -> list[Tensor]:
    """The picture and an independent draw at every level, least noisy first."""
    generators = draws.generators("edit_friendly")
    latents = [clean]
    for level in reversed(path.levels[:-1]):
        noise = torch.stack([torch.randn(clean.shape[1:], generator=g) for g in generators])
        latents.append(level.mix(clean, sent(noise, clean).to(clean.dtype)))
    return latents

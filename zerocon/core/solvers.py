"""How a latent gets from one level to the next."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from zerocon.core.levels import Path, noise_scale, noisy_mean
from zerocon.core.sampling import Branches, Evaluate


@dataclass(frozen=True)
class Euler:
    """One evaluation a step: DDIM's deterministic step, Euler's on a flow model."""

    path: Path

    def step(self, i: int, z: Branches, evaluate: Evaluate) -> Branches:
        here, there = self.path.steps[i]
        return z | {branch: guess.at(there) for branch, guess in evaluate(z, here).items()}


@dataclass(frozen=True, eq=False)
class WithNoise:
    """DDPM's step (η = 1) of a diffusion model, with the noise of each step given."""

    path: Path
    noises: Tensor  # [step, case, channel, y, x]

    def step(self, i: int, z: Branches, evaluate: Evaluate) -> Branches:
        here, there = self.path.steps[i]
        noise = noise_scale(here, there) * self.noises[i]
        found = evaluate(z, here)
        stepped = {name: noisy_mean(guess, here, there) + noise for name, guess in found.items()}
        return z | stepped


@dataclass(frozen=True, eq=False)
class WithResiduals:
    """As `WithNoise`, with what each step adds to its mean given as it is, not times σ."""

    path: Path
    residuals: Tensor  # [step, case, channel, y, x]

    def step(self, i: int, z: Branches, evaluate: Evaluate) -> Branches:
        here, there = self.path.steps[i]
        found = evaluate(z, here)
        left = self.residuals[i]
        return z | {name: noisy_mean(guess, here, there) + left for name, guess in found.items()}

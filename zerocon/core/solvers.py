"""Solvers: steps of latents from one level to the next.

Solvers work in both directions: down a path they sample, up a path they invert. Those with several
evaluations per step use the common coordinate of `levels`; `v` is the velocity in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from zerocon.core.levels import Level, Path, moved, noise_scale, noisy_mean
from zerocon.core.sampling import Branches, Evaluate, Guesses

Velocities = Mapping[str, Tensor]  # by branch


@dataclass(frozen=True)
class Euler:
    """One evaluation per step: DDIM's deterministic step; Euler's for a flow model."""

    path: Path

    def step(self, i: int, z: Branches, evaluate: Evaluate) -> Branches:
        here, there = self.path.steps[i]
        return z | {branch: guess.at(there) for branch, guess in evaluate(z, here).items()}


@dataclass(frozen=True, eq=False)
class WithNoise:
    """A diffusion model's DDPM step (η = 1) with given noise maps."""

    path: Path
    noises: Tensor  # [step, case, channel, y, x]

    def step(self, i: int, z: Branches, evaluate: Evaluate) -> Branches:
        here, there = self.path.steps[i]
        noise = noise_scale(here, there) * self.noises[i]
        found = evaluate(z, here)
        stepped = {name: noisy_mean(guess, here, there) + noise for name, guess in found.items()}
        return z | stepped


@dataclass(frozen=True)
class Midpoint:
    """RF-Solver (Wang et al. 2024): the midpoint method, with two evaluations per step.

    The paper's Taylor term `Δ²/2 · (v_mid - v) / (Δ/2)` gives the same step.
    """

    path: Path
    middles: tuple[Level, ...]  # halfway through each step

    def step(self, i: int, z: Branches, evaluate: Evaluate) -> Branches:
        here, there = self.path.steps[i]
        first = velocities(evaluate(z, here))
        half = along(z, first, here, self.middles[i])
        return along(z, velocities(evaluate(half, self.middles[i])), here, there)


@dataclass(eq=False)
class FireFlow:
    """FireFlow (Deng et al. 2024): midpoint steps that reuse the previous midpoint's `v`.

    One evaluation per step, and an additional one in the first.
    """

    path: Path
    middles: tuple[Level, ...]
    last: Velocities = field(default_factory=dict[str, Tensor])

    def step(self, i: int, z: Branches, evaluate: Evaluate) -> Branches:
        here, there = self.path.steps[i]
        if i == 0:
            self.last = velocities(evaluate(z, here))
        half = along(z, self.last, here, self.middles[i])
        self.last = velocities(evaluate(half, self.middles[i]))
        return along(z, self.last, here, there)


@dataclass(eq=False)
class Corrector:
    """Uni-Inv (Jiao et al. 2025): predict the step's end with the last `v`, use the `v` there.

    One evaluation per step, at its end, and an additional one in the first. With `zero_start`, an
    option of the published code, the first prediction is the latent itself instead.
    """

    path: Path
    zero_start: bool = False
    last: Velocities = field(default_factory=dict[str, Tensor])

    def step(self, i: int, z: Branches, evaluate: Evaluate) -> Branches:
        here, there = self.path.steps[i]
        if i == 0 and self.zero_start:
            self.last = {name: torch.zeros_like(latent) for name, latent in z.items()}
        elif i == 0:
            self.last = velocities(evaluate(z, here))
        self.last = velocities(evaluate(along(z, self.last, here, there), there))
        return along(z, self.last, here, there)


@dataclass(frozen=True)
class FixedPoint:
    """FTEdit (Xu et al. 2025): step with the mean `v` of `evaluations` at the step's end.

    The first evaluation is at the latent itself, each further one at the previous one's result.
    """

    path: Path
    evaluations: int = 3

    def step(self, i: int, z: Branches, evaluate: Evaluate) -> Branches:
        here, there = self.path.steps[i]
        asked = z | {name: latent * (there.scale / here.scale) for name, latent in z.items()}
        found: list[Velocities] = []
        for _ in range(self.evaluations):
            found.append(velocities(evaluate(asked, there)))
            asked = along(z, found[-1], here, there)
        mean = {name: torch.stack([v[name] for v in found]).mean(0) for name in found[0]}
        return along(z, mean, here, there)


def velocities(found: Guesses) -> Velocities:
    return {name: guess.velocity for name, guess in found.items()}


def along(z: Branches, v: Velocities, here: Level, there: Level) -> Branches:
    """Move the branches that have a velocity; others stay."""
    return z | {name: moved(z[name], velocity, here, there) for name, velocity in v.items()}


@dataclass(frozen=True, eq=False)
class WithResiduals:
    """As `WithNoise`, but adds the given residuals without the factor σ."""

    path: Path
    residuals: Tensor  # [step, case, channel, y, x]

    def step(self, i: int, z: Branches, evaluate: Evaluate) -> Branches:
        here, there = self.path.steps[i]
        found = evaluate(z, here)
        left = self.residuals[i]
        return z | {name: noisy_mean(guess, here, there) + left for name, guess in found.items()}

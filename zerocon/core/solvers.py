"""How a latent gets from one level to the next.

A solver walks a path in either direction: down it samples, up it inverts. Those with several
evaluations a step work in the common coordinate of `levels`; `v` is the velocity there.
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


@dataclass(frozen=True)
class Midpoint:
    """RF-Solver (Wang et al. 2024): half a step along `v`, then the whole step along the `v` there.

    Two evaluations a step. Their Taylor term `Δ²/2 · (v_mid - v) / (Δ/2)` is the same step.
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
    """FireFlow (Deng et al. 2024): midpoint whose half step goes along the last step's middle `v`.

    One evaluation a step, and one more in the first.
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
    """Uni-Inv (Jiao et al. 2025): predicts with the last `v`, steps with the `v` found there.

    One evaluation a step, at the level it goes to, and one more in the first; with `zero_start`
    the first prediction does not move instead, as an option of the published code has it.
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
    """FTEdit (Xu et al. 2025): `evaluations` at the level it goes to, and the mean of their `v`.

    The first asks at the latent itself, each other one where the one before led.
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
    """The branches that have a velocity, moved by it; the others stay."""
    return z | {name: moved(z[name], velocity, here, there) for name, velocity in v.items()}


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

"""Noise levels, and a network's prediction at a level.

Every model mixes the clean latent and noise, `z = signal · clean + noise · ε`. Diffusion models
keep `signal² + noise² = 1`, flow models `signal + noise = 1`. A backbone predicts both parts of
the mixture, so that the step `z' = signal' · clean + noise' · ε` leads from any level to any
other. It is DDIM's step for a diffusion model and Euler's for a flow model.

All models share one coordinate: with `t = noise / (signal + noise)`, `z / (signal + noise)` of a
diffusion model equals a flow model's latent, `(1 - t) · clean + t · ε`. In it, steps along the
velocity `ε - clean` are straight lines. Solvers and flow editors use it for both kinds of models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import torch
from torch import Tensor

from zerocon.core.timesteps import Spacing, timesteps


@dataclass(frozen=True)
class Level:
    """The mixture of signal and noise at one time."""

    time: float  # the network's time input
    signal: float  # √ā of a diffusion model, 1 - t of a flow model
    noise: float  # √(1 - ā), or t
    flow: bool = False

    @property
    def scale(self) -> float:
        """Divisor that takes a latent to the common coordinate; 1 for a flow model."""
        return self.signal + self.noise

    @property
    def t(self) -> float:
        """The flow time, from 0 (clean) to 1 (noise)."""
        return self.noise / self.scale

    def times(self, z: Tensor, unit: float = 1.0) -> Tensor:
        """The network's time input of every row of `z`, in `unit`s, made where `z` is, [row]."""
        return torch.full((len(z),), float(self.time / unit), device=z.device)

    def mix(self, clean: Tensor, noise: Tensor) -> Tensor:
        return self.signal * clean + self.noise * noise


@dataclass(frozen=True, eq=False)
class Levels:
    """The levels of a forward pass's rows, where they are not all at the same one.

    Nothing here is copied to the device, so that no pass waits for it.
    """

    each: Sequence[Level]  # of as many rows as `like` has, each
    like: Tensor

    def times(self, _z: Tensor, unit: float = 1.0) -> Tensor:
        return torch.cat([level.times(self.like, unit) for level in self.each])

    @cached_property
    def signal(self) -> Tensor:
        """[row, 1, 1, 1], at least in single precision."""
        return self._of_rows([level.signal for level in self.each])

    @cached_property
    def noise(self) -> Tensor:
        return self._of_rows([level.noise for level in self.each])

    def _of_rows(self, values: Sequence[float]) -> Tensor:
        like = at_least_single(self.like[:, :1, :1, :1])
        return torch.cat([torch.full_like(like, value) for value in values])


@dataclass(frozen=True)
class Path:
    """The levels that a sampler visits, noisiest first, including the end of the last step."""

    levels: tuple[Level, ...]

    def __len__(self) -> int:
        """The number of steps."""
        return len(self.levels) - 1

    @cached_property
    def steps(self) -> list[tuple[Level, Level]]:
        """(from, to) of each step, in the order of sampling."""
        return list(zip(self.levels[:-1], self.levels[1:], strict=True))

    def tail(self, count: int) -> Path:
        """The last `count` steps."""
        return Path(self.levels[len(self) - count :])

    @property
    def upwards(self) -> Path:
        """The levels in the order of an inversion, cleanest first."""
        return Path(self.levels[::-1])


def vp_path(
    alphas_cumprod: Tensor,
    steps: int,
    *,
    spacing: Spacing = "leading",
    offset: int = 1,
    distilled: int = 50,
    final_alpha: float | None = None,
) -> Path:
    """A diffusion model's levels at `timesteps`, by default those of DDIM in Stable Diffusion.

    The last level has ā = `final_alpha`; in Stable Diffusion this is the ā of time 0, not 1.
    """
    trained = len(alphas_cumprod)
    times = timesteps(trained, steps, spacing, offset=offset, distilled=distilled)
    final = float(alphas_cumprod[0]) if final_alpha is None else final_alpha
    visited = [vp_level(time, float(alphas_cumprod[time])) for time in times]
    return Path((*visited, vp_level(0, final)))


def vp_level(time: float, alpha: float) -> Level:
    """A diffusion model's level at ā = `alpha`."""
    return Level(time, alpha**0.5, (1 - alpha) ** 0.5)


def vp_level_at(alphas_cumprod: Tensor, t: float) -> Level:
    """A diffusion model's level at a flow time, at most that of its noisiest level.

    The time is interpolated between two training times.
    """
    alphas = alphas_cumprod.double().numpy()
    signals, noises = np.sqrt(alphas), np.sqrt(1 - alphas)
    known = noises / (signals + noises)
    t = min(t, float(known[-1]))
    size = ((1 - t) ** 2 + t**2) ** 0.5
    return Level(float(np.interp(t, known, np.arange(len(known)))), (1 - t) / size, t / size)


def flow_path(steps: int, *, shift: float = 1.0, trained: int = 1000) -> Path:
    """Times evenly from 1 to 0, moved towards noise by `shift`: `t' = s t / (1 + (s - 1) t)`.

    The network's time input is `t' · trained`.
    """
    if steps < 1:
        raise ValueError(f"method.steps is {steps}; it must be at least 1")
    even = [1 - i / steps for i in range(steps + 1)]
    shifted = [shift * t / (1 + (shift - 1) * t) for t in even]
    return Path(tuple(flow_level(t, trained) for t in shifted))


def flow_level(t: float, trained: int = 1000) -> Level:
    return Level(t * trained, 1 - t, t, flow=True)


At = Level | Levels  # where a forward pass's rows are


@dataclass(frozen=True, eq=False)
class Guess:
    """A network's estimate of the clean latent and the noise. Guesses add and scale."""

    clean: Tensor
    noise: Tensor

    @classmethod
    def from_noise(cls, z: Tensor, noise: Tensor, level: At) -> Self:
        """From a diffusion model's prediction of ε: `clean = (z - √(1-ā) ε) / √ā`."""
        return cls((z - level.noise * noise) / level.signal, noise)

    @classmethod
    def from_v(cls, z: Tensor, v: Tensor, level: At) -> Self:
        """From a diffusion model's prediction of `v = √ā ε - √(1-ā) clean`."""
        return cls(level.signal * z - level.noise * v, level.signal * v + level.noise * z)

    @classmethod
    def from_velocity(cls, z: Tensor, velocity: Tensor, level: At) -> Self:
        """From a flow model's prediction of `velocity = ε - clean`, without a division."""
        return cls(z - level.noise * velocity, z + level.signal * velocity)

    @classmethod
    def along(cls, z: Tensor, velocity: Tensor, level: Level) -> Self:
        """From the velocity of the latent `z` in the common coordinate."""
        z = z / level.scale
        return cls(z - level.t * velocity, z + (1 - level.t) * velocity)

    def detach(self) -> Guess:
        return Guess(self.clean.detach(), self.noise.detach())

    @property
    def velocity(self) -> Tensor:
        """The velocity in the common coordinate, for any kind of prediction."""
        return self.noise - self.clean

    def at(self, level: Level) -> Tensor:
        """Mix the same two parts at another level."""
        return level.mix(self.clean, self.noise)

    def seen_from(self, z: Tensor, level: Level) -> Guess:
        """The same network output, taken as the prediction for the latent `z` at `level`.

        A diffusion model's output is ε, a flow model's the velocity. This is for inversion, which
        evaluates the network at the next level, and for latents changed after the evaluation.
        """
        if level.flow:
            return Guess.from_velocity(z, self.velocity, level)
        return Guess.from_noise(z, self.noise, level)

    def to(self, dtype: torch.dtype) -> Guess:
        return Guess(self.clean.to(dtype), self.noise.to(dtype))

    def __add__(self, other: Guess) -> Guess:
        return Guess(self.clean + other.clean, self.noise + other.noise)

    def __sub__(self, other: Guess) -> Guess:
        return Guess(self.clean - other.clean, self.noise - other.noise)

    def __mul__(self, factor: float | Tensor) -> Guess:
        return Guess(self.clean * factor, self.noise * factor)

    __rmul__ = __mul__

    def __getitem__(self, rows: Tensor | slice) -> Guess:
        return Guess(self.clean[rows], self.noise[rows])


def moved(z: Tensor, velocity: Tensor, here: Level, there: Level) -> Tensor:
    """Move the latent `z` from `here` to `there` along a velocity in the common coordinate."""
    return there.scale * (z / here.scale + (there.t - here.t) * velocity)


def guided(negative: Guess, positive: Guess, scale: float) -> Guess:
    """Classifier-free guidance: `∅ + w (c - ∅)`."""
    return negative + scale * (positive - negative)


def noise_scale(here: Level, there: Level) -> float:
    """σ of a diffusion model's step at η = 1: `√((1-ā_s)/(1-ā_t)) √(1-ā_t/ā_s)` for t → s."""
    return there.noise / here.noise * (1 - (here.signal / there.signal) ** 2) ** 0.5


def noisy_mean(guess: Guess, here: Level, there: Level) -> Tensor:
    """The result of the η = 1 step before its noise is added."""
    left = max(0.0, there.noise**2 - noise_scale(here, there) ** 2)
    return there.signal * guess.clean + left**0.5 * guess.noise


def at_least_single(x: Tensor) -> Tensor:
    """Convert half precision to single, and leave other precisions."""
    return x if x.dtype == torch.float64 else x.float()

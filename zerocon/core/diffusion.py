"""DDIM coefficients and steps, and classifier-free guidance: pure functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Schedule:
    """The times a sampler visits, noisiest first, and the cumulative alpha at each.

    `alphas` has one entry more than `times`: the last is the one that the final step
    lands on (Stable Diffusion: the alpha of time 0, not 1).
    """

    times: tuple[int, ...]
    alphas: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.times)

    @property
    def steps(self) -> list[tuple[int, float, float]]:
        """(time, alpha at it, alpha after it) from the noisiest step to the last."""
        return list(zip(self.times, self.alphas[:-1], self.alphas[1:], strict=True))

    def tail(self, count: int) -> Schedule:
        """The last `count` steps."""
        return Schedule(self.times[len(self) - count :], self.alphas[len(self) - count :])


def ddim_schedule(
    alphas_cumprod: Tensor, steps: int, *, offset: int = 1, final_alpha: float | None = None
) -> Schedule:
    """DDIM's times with 'leading' spacing, as Stable Diffusion's scheduler config has it."""
    train_steps = len(alphas_cumprod)
    if not 1 <= steps <= train_steps:
        raise ValueError(f"method.steps is {steps}; it must be between 1 and {train_steps}")
    stride = train_steps // steps
    times = tuple(min(i * stride + offset, train_steps - 1) for i in reversed(range(steps)))
    final = float(alphas_cumprod[0]) if final_alpha is None else final_alpha
    return Schedule(times, (*(float(alphas_cumprod[t]) for t in times), final))


def predicted_clean(z: Tensor, eps: Tensor, alpha: float) -> Tensor:
    """`z0̂ = (z_t - √(1-ā_t) ε) / √ā_t`."""
    return (z - (1 - alpha) ** 0.5 * eps) / alpha**0.5


def ddim_step(z: Tensor, eps: Tensor, alpha: float, alpha_next: float) -> Tensor:
    """One deterministic step from alpha to alpha_next, in either direction."""
    clean = predicted_clean(z, eps, alpha)
    return alpha_next**0.5 * clean + (1 - alpha_next) ** 0.5 * eps


def noise_scale(alpha: float, alpha_next: float) -> float:
    """σ of the step at η = 1: `√((1-ā_s)/(1-ā_t)) √(1-ā_t/ā_s)` for t → s."""
    return ((1 - alpha_next) / (1 - alpha) * (1 - alpha / alpha_next)) ** 0.5


def noisy_mean(z: Tensor, eps: Tensor, alpha: float, alpha_next: float) -> Tensor:
    """Where the η = 1 step lands before its noise is added."""
    sigma = noise_scale(alpha, alpha_next)
    clean = predicted_clean(z, eps, alpha)
    return alpha_next**0.5 * clean + max(0.0, 1 - alpha_next - sigma**2) ** 0.5 * eps


def noisy_step(z: Tensor, eps: Tensor, noise: Tensor, alpha: float, alpha_next: float) -> Tensor:
    """One step at η = 1 (DDPM's) with the given noise."""
    return noisy_mean(z, eps, alpha, alpha_next) + noise_scale(alpha, alpha_next) * noise


def add_noise(clean: Tensor, noise: Tensor, alpha: float) -> Tensor:
    """`z_t = √ā_t z0 + √(1-ā_t) ε`."""
    return alpha**0.5 * clean + (1 - alpha) ** 0.5 * noise


def eps_from_v(v: Tensor, z: Tensor, alpha: Tensor) -> Tensor:
    """The noise in a `v` prediction: `ε = √ā_t v + √(1-ā_t) z_t`."""
    return alpha.sqrt() * v + (1 - alpha).sqrt() * z


EpsFn = Callable[[Tensor, int, Tensor], Tensor]


def guided(
    eps: EpsFn, z: Tensor, time: int, cond: Tensor, negative: Tensor, scale: float
) -> Tensor:
    """Classifier-free guidance, `ε(∅) + w (ε(c) - ε(∅))`; one row a case when w is 1."""
    if scale == 1.0:
        return eps(z, time, cond)
    both = eps(torch.cat([z, z]), time, torch.cat([negative, cond]))
    without, with_text = both.chunk(2)
    return without + scale * (with_text - without)


def at_least_single(x: Tensor) -> Tensor:
    """Half precision as single; what is finer stays."""
    return x if x.dtype == torch.float64 else x.float()

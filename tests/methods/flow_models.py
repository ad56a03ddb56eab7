"""The two kinds of models for the flow editors, and each as a transcription needs it.

A `Model` gives the velocity in the common coordinate, computed here directly from the network.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.methods.test_flow import TinyFlow
from zerocon.backbones.loading import Parts
from zerocon.backbones.stable_diffusion import StableDiffusionBackbone
from zerocon.core.conditions import Condition
from zerocon.core.levels import At, Guess, Level

Velocity = Callable[[Tensor, float, Condition], Tensor]  # v(z, t, condition)


def curved(z: Tensor, t: float | Tensor, condition: Condition) -> Tensor:
    """A velocity that depends nonlinearly on the latent, the time and the text."""
    text = condition.tokens.mean((1, 2))[:, None, None, None]
    mixed = z.roll(1, 2) - 0.5 * z.roll(1, 1)
    return torch.sin(1.3 * z + 2 * t + text) + 0.3 * torch.cos(mixed * (1 + t) - text)


@dataclass
class CurvedFlow(TinyFlow):
    """A flow model whose network is `curved`; `guidance_is_told`: as for FLUX.1-dev."""

    guidance_is_told: bool = False

    def predict(self, z: Tensor, level: At, condition: Condition) -> Guess:
        self.evaluations.forward += len(z)
        one = isinstance(level, Level)  # or one for each row
        t = level.time / 1000 if one else level.times(z).to(z)[:, None, None, None] / 1000
        velocity = curved(z, t, condition)
        if self.guidance_is_told:
            assert condition.guidance is not None
            velocity = velocity + 0.1 * condition.guidance[:, None, None, None] * torch.cos(z)
        return Guess.from_velocity(z, velocity, level)


@dataclass
class Model:
    """Inputs of a transcription: the velocity, and the sampler's times, noisiest first."""

    backbone: Any
    v: Velocity
    times: Callable[[int], Sequence[float]]  # the model's own, of so many steps
    scale: Callable[[float], float]  # of its latents, in the common coordinate's
    top: float  # the noisiest time it knows
    size: tuple[int, int]  # of its latents
    prompts: Sequence[list[str]]  # source, target and negative, of two cases

    def even(self, steps: int) -> list[float]:
        return [self.top * (1 - i / steps) for i in range(steps + 1)]


def flow_model() -> Model:
    def times(steps: int) -> list[float]:
        even = [1 - i / steps for i in range(steps + 1)]
        return [3 * t / (1 + 2 * t) for t in even]

    prompts = ["cat", "dog"], ["dog", "cat"], ["", ""]
    return Model(CurvedFlow(), curved, times, lambda _t: 1.0, 1.0, (4, 4), prompts)


def precise(parts: Parts) -> StableDiffusionBackbone:
    """A tiny Stable Diffusion in double precision, its attention not nearly uniform."""
    ours = copy.deepcopy(parts)
    for module in ours.modules:
        module.double()
    for name, weight in ours.unet.named_parameters():
        if "to_q" in name or "to_k" in name:
            weight.data.mul_(3.0)
    return StableDiffusionBackbone(ours, "precise", torch.device("cpu"), torch.float64, "precise")


def diffusion_model(backbone: StableDiffusionBackbone) -> Model:
    """ε from the U-Net, x0 and the velocity from ε; the levels from the betas."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float32) ** 2
    alphas = (1 - betas).cumprod(0).double().numpy()
    known = np.sqrt(1 - alphas) / (np.sqrt(1 - alphas) + np.sqrt(alphas))

    def scale(t: float) -> float:
        return 1 / (t**2 + (1 - t) ** 2) ** 0.5

    def v(z: Tensor, t: float, condition: Condition) -> Tensor:
        told = float(np.interp(t, known, np.arange(1000)))
        x, signal, noise = scale(t) * z, scale(t) * (1 - t), scale(t) * t
        eps = backbone.unet(x, told, condition.tokens, return_dict=False)[0]
        return eps - (x - noise * eps) / signal

    def times(steps: int) -> list[float]:
        visited = [known[i * (1000 // steps) + 1] for i in reversed(range(steps))]
        return [float(t) for t in (*visited, known[0])]

    prompts = ["a red circle", "a big star"], ["a blue house", "a small moon"], ["", ""]
    return Model(backbone, v, times, scale, float(known[-1]), (16, 16), prompts)

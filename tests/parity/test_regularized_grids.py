"""pix2pix-zero's inversion on its authors' grid and on PIE-Bench's, written out by hand.

Their scheduler steps from ā[t-1] to ā[t-1+stride], with the noise that the network sees at t.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from zerocon.backbones.loading import Parts
from zerocon.backbones.stable_diffusion import StableDiffusionBackbone
from zerocon.core.checks import ConfigError
from zerocon.core.conditions import Conditions, Draws
from zerocon.inversions.direct import DirectInversion
from zerocon.inversions.regularized import RegularizedInversion

STEPS, WEIGHT, TIMES_OVER, ROLLS = 10, 20.0, 2, 3


@pytest.fixture(scope="module")
def backbone(parts: Parts) -> StableDiffusionBackbone:
    ours = copy.deepcopy(parts)
    return StableDiffusionBackbone(ours, "tiny", torch.device("cpu"), torch.float64, "tiny")


@pytest.fixture(scope="module")
def conditions(backbone: StableDiffusionBackbone) -> Conditions:
    source = backbone.embed(["a big red circle on a gray background"])
    return Conditions(source, source, backbone.embed([""]))


def clean_latent() -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(1, 4, 16, 16, generator=generator, dtype=torch.float64)


def correlation(noise: Tensor, generator: torch.Generator) -> Tensor:
    total = torch.zeros((), dtype=noise.dtype)
    for channel in noise[0]:
        x = channel[None, None]
        while True:
            roll = int(torch.randint(x.shape[2] // 2, (1,), generator=generator))
            for axis in (2, 3):
                total = total + (x * x.roll(roll, axis)).mean() ** 2
            if x.shape[2] <= 8:
                break
            x = F.avg_pool2d(x, 2)
    return total


def divergence(noise: Tensor) -> Tensor:
    mean, variance = noise.mean(), noise.var()
    return variance + mean**2 - 1 - (variance + 1e-7).log()


def slope(loss: Any, noise: Tensor) -> Tensor:
    leaf = noise.detach().requires_grad_()
    return torch.autograd.grad(loss(leaf), leaf)[0]


def walked(
    backbone: StableDiffusionBackbone, text: Tensor, times: list[int], draws: Draws
) -> list[Tensor]:
    generator = draws.generator("a", "rolls")
    alphas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2  # as the scheduler, in single
    alphas = (1 - alphas).cumprod(0).double()
    z, latents, stride = clean_latent(), [clean_latent()], 1000 // STEPS
    for t in times:
        here, there = alphas[t - 1], alphas[min(t - 1 + stride, 999)]
        with torch.no_grad():
            noise = backbone.unet(z, t, text).sample
        for _ in range(TIMES_OVER):
            for _ in range(ROLLS):
                descent = slope(lambda x: correlation(x, generator), noise)
                noise = noise - WEIGHT * descent / ROLLS
            noise = noise - WEIGHT * slope(divergence, noise)
        clean = (z - (1 - here).sqrt() * noise) / here.sqrt()
        z = there.sqrt() * clean + (1 - there).sqrt() * noise
        latents.append(z)
    return latents


def test_on_the_grid_of_pie_bench(
    backbone: StableDiffusionBackbone, conditions: Conditions
) -> None:
    times = [1 + k * 1000 // STEPS for k in range(STEPS)]
    theirs = walked(backbone, conditions.source.tokens, times, Draws(0, ["a"]))
    invert = RegularizedInversion(iterations=TIMES_OVER, rolls=ROLLS, grid="pie_bench")
    ours = invert(backbone, clean_latent(), conditions, STEPS, Draws(0, ["a"]))
    torch.testing.assert_close(ours.latents, torch.stack(theirs), rtol=0, atol=1e-9)


def test_the_authors_leave_out_the_first_and_the_last_time(
    backbone: StableDiffusionBackbone, conditions: Conditions
) -> None:
    times = [1 + k * 1000 // STEPS for k in range(STEPS)][1:-1]
    theirs = walked(backbone, conditions.source.tokens, times, Draws(0, ["a"]))
    invert = RegularizedInversion(iterations=TIMES_OVER, rolls=ROLLS, grid="authors")
    before = backbone.evaluations.forward
    ours = invert(backbone, clean_latent(), conditions, STEPS, Draws(0, ["a"]))
    assert backbone.evaluations.forward - before == STEPS - 2
    torch.testing.assert_close(ours.start, theirs[-1], rtol=0, atol=1e-9)
    torch.testing.assert_close(ours.latents[1:-1], torch.stack(theirs), rtol=0, atol=1e-9)


def test_the_grids_differ(backbone: StableDiffusionBackbone, conditions: Conditions) -> None:
    starts = [
        RegularizedInversion(iterations=0, grid=grid)(
            backbone, clean_latent(), conditions, STEPS, Draws(0, ["a"])
        ).start
        for grid in ("diffusers", "authors", "pie_bench")
    ]
    assert (starts[0] - starts[1]).abs().max() > 0.01
    assert (starts[1] - starts[2]).abs().max() > 0.01


def test_direct_inversion_uses_the_grid(
    backbone: StableDiffusionBackbone, conditions: Conditions
) -> None:
    starts = [
        invert(backbone, clean_latent(), conditions, STEPS, Draws(0, ["a"])).start
        for invert in (
            DirectInversion(walk="regularized", grid="pie_bench"),
            RegularizedInversion(grid="pie_bench"),
        )
    ]
    assert torch.equal(*starts)


def test_a_grid_needs_pix2pix_zeros_inversion() -> None:
    with pytest.raises(ConfigError, match=r"inversion\.grid=authors .* inversion\.walk=regular"):
        DirectInversion(grid="authors")
    with pytest.raises(ConfigError, match=r"inversion\.grid"):
        RegularizedInversion(grid="publishd")  # pyright: ignore[reportArgumentType]

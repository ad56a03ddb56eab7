"""An inversion in smaller steps than the sampler's, as Plug-and-Play's preprocessing."""

from __future__ import annotations

import pytest
import torch

from zerocon.backbones.stable_diffusion import StableDiffusionBackbone
from zerocon.core.checks import ConfigError
from zerocon.core.conditions import Conditions, Draws
from zerocon.inversions.ddim import DDIMInversion
from zerocon.inversions.direct import DirectInversion


@pytest.fixture(scope="module")
def conditions(backbone: StableDiffusionBackbone) -> Conditions:
    source = backbone.embed(["a big red circle on a gray background"])
    return Conditions(source, source, backbone.embed([""]))


def clean_latent() -> torch.Tensor:
    return torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(5))


def test_the_trajectory_has_the_fine_latents_at_the_samplers_levels(
    backbone: StableDiffusionBackbone, conditions: Conditions
) -> None:
    draws = Draws(0, ["a"])
    before = backbone.evaluations.forward
    coarse = DDIMInversion(steps=20)(backbone, clean_latent(), conditions, 5, draws)
    # Levels noisier than the sampler's first one are not walked to.
    assert backbone.evaluations.forward - before == 17
    fine = DDIMInversion()(backbone, clean_latent(), conditions, 20, draws)
    assert coarse.path == backbone.path(5)
    assert len(coarse.latents) == 6
    for level, z in zip(coarse.path.levels[:-1], coarse.latents.flip(0), strict=False):
        place = fine.path.levels.index(level)
        assert torch.equal(z, fine.latents[20 - place])
    assert torch.equal(coarse.clean, clean_latent())
    own = DDIMInversion()(backbone, clean_latent(), conditions, 5, draws)
    assert (own.start - coarse.start).abs().max() > 1e-3


def test_the_samplers_times_must_be_among_the_inversions(
    backbone: StableDiffusionBackbone, conditions: Conditions
) -> None:
    with pytest.raises(ConfigError, match=r"inversion\.steps is 7.*a multiple of method\.steps"):
        DDIMInversion(steps=7)(backbone, clean_latent(), conditions, 5, Draws(0, ["a"]))
    with pytest.raises(ConfigError, match=r"leave inversion\.prompt, inversion\.steps"):
        DirectInversion(steps=20, walk="regularized")

"""A tiny model whose attention is not nearly uniform, as a random one's is."""

from __future__ import annotations

import copy

import pytest

from tests.tiny import tiny_backbone
from zerocon.backbones.loading import Parts
from zerocon.backbones.stable_diffusion import StableDiffusionBackbone


@pytest.fixture(scope="session")
def backbone(parts: Parts) -> StableDiffusionBackbone:
    ours = copy.deepcopy(parts)
    for name, weight in ours.unet.named_parameters():
        if "to_q" in name or "to_k" in name:
            weight.data.mul_(3.0)
    return tiny_backbone(ours)

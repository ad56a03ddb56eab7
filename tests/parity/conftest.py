"""One small network in double precision, as zerocon's backbone and as diffusers' own U-Net."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from diffusers import DDIMScheduler

from tests.parity.rules import Both, Net, VNet, both
from zerocon.backbones.loading import Parts
from zerocon.backbones.stable_diffusion import StableDiffusionBackbone

PROMPTS = [
    ("a big red circle on a gray background", "a big blue circle on a gray background"),
    ("a small green star at the beach", "a small white striped heart at the beach"),
]
WORDS = [("circle", "circle"), ("star", "heart")]


@pytest.fixture(scope="session")
def sharp(parts: Parts) -> Parts:
    """A random network's attention is nearly uniform; this one's is not."""
    ours = copy.deepcopy(parts)
    for name, weight in ours.unet.named_parameters():
        if "to_q" in name or "to_k" in name:
            weight.data.mul_(3.0)
    return ours


@pytest.fixture(scope="session")
def double(sharp: Parts) -> StableDiffusionBackbone:
    cpu, ours = torch.device("cpu"), copy.deepcopy(sharp)
    return StableDiffusionBackbone(ours, "double", cpu, torch.float64, "double")


@pytest.fixture(scope="session")
def net(sharp: Parts) -> Net:
    return Net(copy.deepcopy(sharp.unet).double().eval().requires_grad_(False))


@pytest.fixture
def v_edits(sharp: Parts, net: Net) -> Both:
    """The same network, asked for v."""
    config = dict(sharp.scheduler.config) | {"prediction_type": "v_prediction"}
    parts = replace(copy.deepcopy(sharp), scheduler=DDIMScheduler.from_config(config))
    backbone = StableDiffusionBackbone(parts, "v", torch.device("cpu"), torch.float64, "v")
    return both(backbone, VNet(copy.deepcopy(net.unet)), PROMPTS, WORDS)


@pytest.fixture
def edits(double: StableDiffusionBackbone, net: Net) -> Both:
    return both(double, net, PROMPTS, WORDS)

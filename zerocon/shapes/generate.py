"""Pictures from captions with the shapes models: what `zerocon shapes check` judges."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.core.forward import predict_guided


@torch.no_grad()
def generate(
    backbone: Backbone,
    prompts: Sequence[str],
    noise: Tensor,
    steps: int = 30,
    guidance: float = 4.0,
) -> Tensor:
    """Plain sampling from `noise`; pictures in 0..1, [prompt, 3, side, side]."""
    cond = backbone.embed(prompts)
    negative = backbone.embed([""] * len(prompts))
    z = noise.to(backbone.device, backbone.dtype)
    for here, there in backbone.path(steps).steps:
        z = predict_guided(backbone, here, z, negative, cond, guidance).at(there)
    return backbone.decode(z)

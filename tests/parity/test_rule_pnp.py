"""Plug-and-Play, written out: features and self-attention of the inverted source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.parity.rules import Both, Control, Layer, Sheet, agree, cfg, ddim, differ, pairs
from zerocon.inversions.ddim import DDIMInversion
from zerocon.methods.ddim import DDIM
from zerocon.methods.pnp import PnP

STEPS, W, ATTENTION, FEATURES = 4, 7.5, 0.5, 0.8


@dataclass
class SourcesAttention(Control):
    """Rows are [source, negative, target]: all attend with the first one's queries and keys."""

    active: bool

    def qkv(self, layer: Layer, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        injected = layer.side == "up_blocks" and (layer.block, layer.attention) != (1, 0)
        if not self.active or layer.cross or not injected:
            return q, k, v
        return q[:1].expand_as(q), k[:1].expand_as(k), v


def edited(sheet: Sheet, text: Tensor) -> Tensor:
    trajectory = sheet.inverted(STEPS, text)
    z = trajectory[-1]
    # The second convolution of the second residual block, before the shortcut is added.
    convolution = sheet.net.unet.up_blocks[1].resnets[1].conv2
    for i, (t, here, there) in enumerate(pairs(STEPS)):

        def inject(_module: Any, _inputs: Any, out: Tensor, i: int = i) -> Tensor:
            return out[:1].expand_as(out) if i < int(FEATURES * STEPS) else out

        hook = convolution.register_forward_hook(inject)
        control = SourcesAttention(active=i < int(ATTENTION * STEPS))
        texts = [sheet.empty, sheet.empty, sheet.target]
        _, empty, told = sheet.net([trajectory[STEPS - i], z, z], t, texts, control)
        hook.remove()
        z = ddim(z, cfg(empty, told, W), here, there)
    return z


@torch.no_grad()
@pytest.mark.parametrize("prompt", ["empty", "source"])
def test_features_and_attention_are_injected(edits: Both, prompt: str) -> None:
    inversion = DDIMInversion(prompt)  # pyright: ignore[reportArgumentType]
    ours = edits.edit(PnP(STEPS, W, attention=ATTENTION, features=FEATURES), inversion)
    told = [s.source if prompt == "source" else s.empty for s in edits.sheets]
    agree(ours, [edited(sheet, text) for sheet, text in zip(edits.sheets, told, strict=True)])
    differ(ours, edits.edit(DDIM(STEPS, W), inversion))

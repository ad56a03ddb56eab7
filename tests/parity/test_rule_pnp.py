"""Plug-and-Play, written out: features and self-attention of the inverted source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from tests.parity.rules import Both, Control, Layer, Sheet, agree, cfg, ddim, differ, pairs
from zerocon.inversions.ddim import DDIMInversion
from zerocon.methods.ddim import DDIM
from zerocon.methods.pnp import PnP

STEPS, W, ATTENTION, FEATURES = 3, 7.5, 0.5, 0.9  # injected in the first 1 and 2 of the steps
Source = Literal["trajectory", "replayed", "late"]


@dataclass
class SourcesAttention(Control):
    """Rows are [source, negative, target]: all attend with the first one's queries and keys."""

    active: bool

    def qkv(self, layer: Layer, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        injected = layer.side == "up_blocks" and (layer.block, layer.attention) != (1, 0)
        if not self.active or layer.cross or not injected:
            return q, k, v
        return q[:1].expand_as(q), k[:1].expand_as(k), v


def edited(sheet: Sheet, inverted_under: Tensor, source: str) -> Tensor:
    trajectory = sheet.inverted(STEPS, inverted_under)
    z = beside = trajectory[-1]
    # The second convolution of the second residual block, before the shortcut is added.
    convolution = sheet.net.unet.up_blocks[1].resnets[1].conv2
    for i, (t, here, there) in enumerate(pairs(STEPS)):

        def inject(_module: Any, _inputs: Any, out: Tensor, i: int = i) -> Tensor:
            return out[:1].expand_as(out) if i < int(FEATURES * STEPS) else out

        (noise,) = sheet.net([beside], t, [sheet.source])  # of a source that is sampled again
        next_to_it = ddim(beside, noise, here, there)
        if source == "trajectory":
            beside = trajectory[STEPS - i]
        if source == "late":
            beside = next_to_it
            z = z if i else beside
        hook = convolution.register_forward_hook(inject)
        control = SourcesAttention(active=i < int(ATTENTION * STEPS))
        texts = [sheet.empty, sheet.empty, sheet.target]
        _, empty, told = sheet.net([beside, z, z], t, texts, control)
        hook.remove()
        z = ddim(z, cfg(empty, told, W), here, there)
        beside = next_to_it
    return z


@torch.no_grad()
@pytest.mark.parametrize(
    ("prompt", "source"), [("empty", "trajectory"), ("source", "replayed"), ("source", "late")]
)
def test_features_and_attention_are_injected(
    edits: Both, prompt: Literal["empty", "source"], source: Source
) -> None:
    """From the inversion's latents, from sampling them again, or from that one step further on.

    With `late` the edit, too, begins with the latent that the first step has led to.
    """
    inversion = DDIMInversion(prompt)
    method = PnP(STEPS, W, attention=ATTENTION, features=FEATURES, source=source)
    ours = edits.edit(method, inversion)
    told = [s.source if prompt == "source" else s.empty for s in edits.sheets]
    agree(ours, [edited(s, text, source) for s, text in zip(edits.sheets, told, strict=True)])
    if source == "trajectory":
        differ(ours, edits.edit(DDIM(STEPS, W), inversion))

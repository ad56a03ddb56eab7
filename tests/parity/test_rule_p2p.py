"""Prompt-to-Prompt, written out: replace, refine, reweight, self-attention and local blend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.parity.rules import Both, Control, Layer, Net, Sheet, agree, both, cfg, ddim, differ
from tests.parity.rules import pairs as pairs_of
from zerocon.backbones.stable_diffusion import StableDiffusionBackbone
from zerocon.inversions.ddim import DDIMInversion
from zerocon.methods.p2p import P2P

STEPS, W, CROSS, SELF = 4, 7.5, 0.6, 0.7
QUARTER = (16 // 4) ** 2  # positions at a quarter of the latent's side
SOURCE_ROW, TARGET_ROW = 2, 3  # of [source ∅, target ∅, source, target]

Maps = Callable[[Tensor, Tensor], Tensor]  # (M, M*) -> the target's maps, [head, position, token]


@dataclass
class Edit(Control):
    """The controller of one step."""

    step: int
    maps: Maps
    alphas: Tensor  # [step, token]
    word_maps: list[Tensor]  # of the maps at a quarter of the side, [row, position, token]

    def probs(self, layer: Layer, probs: Tensor) -> Tensor:
        source, target = probs[SOURCE_ROW], probs[TARGET_ROW]
        if layer.cross:
            alpha = self.alphas[self.step]
            target = alpha * self.maps(source, target) + (1 - alpha) * target
        elif self.step < int(SELF * STEPS) and probs.shape[2] <= QUARTER:
            target = source
        left = torch.stack([probs[0], probs[1], source, target])
        if layer.cross and layer.side != "mid_block" and probs.shape[2] == QUARTER:
            self.word_maps.append(left[[SOURCE_ROW, TARGET_ROW]].mean(1))
        return left


@dataclass
class Blend:
    """`threshold` of the maps of the steps so far, from step `start` on."""

    source: list[int]  # the blend word's places
    target: list[int]
    threshold: float
    start: int

    def mask(self, word_maps: Tensor) -> Tensor:
        """[y, x] of the summed maps, [row, position, token]."""
        words = [word_maps[0][:, self.source].sum(1), word_maps[1][:, self.target].sum(1)]
        maps = torch.stack(words).unflatten(1, (1, 4, 4))
        large = F.interpolate(F.max_pool2d(maps, 3, stride=1, padding=1), size=(16, 16))
        large = large / large.amax((2, 3), keepdim=True)
        return (large > self.threshold).any(0)[0]


def edited(sheet: Sheet, maps: Maps, alphas: Tensor, blend: Blend | None) -> tuple[Tensor, Tensor]:
    """(the latent, the last mask)."""
    source = target = sheet.inverted(STEPS)[-1]
    texts = [sheet.empty, sheet.empty, sheet.source, sheet.target]
    total, mask = torch.zeros(2, QUARTER, 77), torch.ones(16, 16, dtype=torch.bool)
    for i, (t, here, there) in enumerate(pairs_of(STEPS)):
        control = Edit(i, maps, alphas, [])
        noise = sheet.net([source, target, source, target], t, texts, control)
        source = ddim(source, cfg(noise[0], noise[2], W), here, there)
        target = ddim(target, cfg(noise[1], noise[3], W), here, there)
        assert len(control.word_maps) == 5  # two of the encoder's, three of the decoder's
        total = total + torch.stack(control.word_maps).mean(0)
        if blend and i >= blend.start:
            mask = blend.mask(total)
            target = source + mask * (target - source)
    return target, mask


def schedule(own: dict[int, tuple[float, float]]) -> Tensor:
    """1 where a token's map is edited, [step, token]; the shares are of one step more."""
    alphas = torch.zeros(STEPS + 1, 77, dtype=torch.float64)
    alphas[: int(CROSS * (STEPS + 1))] = 1
    for place, (first, last) in own.items():
        alphas[:, place] = 0
        alphas[int(first * (STEPS + 1)) : int(last * (STEPS + 1)), place] = 1
    return alphas[:STEPS]


def one(
    backbone: StableDiffusionBackbone, net: Net, source: str, target: str, words: tuple[str, str]
) -> Both:
    return both(backbone, net, [(source, target)], [words])


BASE = P2P(STEPS, W, cross=CROSS, self_attention=SELF, local_blend=False)


@torch.no_grad()
@pytest.mark.parametrize("blended", [False, True])
def test_replace(double: StableDiffusionBackbone, net: Net, blended: bool) -> None:
    """`circle`, one token, becomes `owl`, spelled in three; `red` has a schedule of its own."""
    edits = one(
        double,
        net,
        "a big red circle at the beach",
        "a big red owl at the beach",
        ("circle", "owl"),
    )
    circle, red = 4, 3
    owl = [4, 5, 6]
    assert len(edits.conditions.words[0].target) == len(edits.conditions.words[0].source) + 2
    mapper = torch.zeros(77, 77, dtype=torch.float64)
    for place in range(circle):
        mapper[place, place] = 1
    mapper[circle, owl] = 1 / 3
    for place in range(owl[-1] + 1, 77):  # as published: by the target's places
        mapper[place, place] = 1

    blend = Blend([circle], owl, threshold=0.97, start=int(0.4 * STEPS)) if blended else None
    theirs, mask = edited(
        edits.sheets[0], lambda m, _: m @ mapper, schedule({red: (0.2, 0.9)}), blend
    )
    method = P2P(
        STEPS, W, edit="replace", cross=CROSS, cross_words={"red": [0.2, 0.9]}, self_attention=SELF,
        local_blend=blended, blend_threshold=0.97, blend_start=0.4,
    )  # fmt: skip
    ours = edits.edit(method, DDIMInversion())
    agree(ours, [theirs])
    if blended:
        assert 0 < mask.double().mean() < 1
        differ(ours, edits.edit(BASE, DDIMInversion()))


@torch.no_grad()
def test_refine(double: StableDiffusionBackbone, net: Net) -> None:
    """`striped` is new: its map is the target's own, the others' are the source's."""
    edits = one(
        double, net, "a red circle at the beach", "a red striped circle at the beach",
        ("circle", "circle"),
    )  # fmt: skip
    striped, end = 3, 8
    origin = [0, 1, 2, -1, *range(3, end), *range(end + 1, 77)]
    assert len(edits.conditions.words[0].target) == end + 1

    def maps(m: Tensor, own: Tensor) -> Tensor:
        left = m[:, :, origin].clone()
        left[:, :, striped] = own[:, :, striped]
        return left

    theirs, mask = edited(edits.sheets[0], maps, schedule({}), Blend([3], [4], 0.95, 0))
    method = P2P(
        STEPS, W, edit="refine", cross=CROSS, self_attention=SELF, blend_threshold=0.95,
        blend_start=0.0,
    )  # fmt: skip
    ours = edits.edit(method, DDIMInversion())
    agree(ours, [theirs])
    assert 0 < mask.double().mean() < 1


@torch.no_grad()
def test_reweight(double: StableDiffusionBackbone, net: Net) -> None:
    """One prompt; `red` counts 2.7 times, the blend word 1.3 times."""
    prompt = "a big red circle at the beach"
    edits = one(double, net, prompt, prompt, ("circle", "circle"))
    scale = torch.ones(77, dtype=torch.float64)
    scale[3], scale[4] = 2.7, 1.3
    theirs, _ = edited(edits.sheets[0], lambda m, _: m * scale, schedule({}), None)
    method = P2P(
        STEPS, W, edit="reweight", cross=CROSS, self_attention=SELF, reweight={"red": 2.7},
        blend_weight=1.3, local_blend=False,
    )  # fmt: skip
    ours = edits.edit(method, DDIMInversion())
    agree(ours, [theirs])
    unscaled = P2P(STEPS, W, edit="reweight", cross=CROSS, self_attention=SELF, local_blend=False)
    differ(ours, edits.edit(unscaled, DDIMInversion()))

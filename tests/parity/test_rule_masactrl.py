"""MasaCtrl, written out: with and without its mask, and with direct inversion."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.parity.rules import Both, Control, Layer, Sheet, agree, cfg, ddim, differ, pairs
from zerocon.inversions.ddim import DDIMInversion
from zerocon.inversions.direct import DirectInversion
from zerocon.methods.masactrl import MasaCtrl

STEPS, W, FIRST_STEP, FIRST_LAYER, THRESHOLD = 3, 7.5, 1, 10, 0.4
QUARTER = (16 // 4) ** 2
# Where `circle` stands, and `star` (spelled in three tokens) and `heart`.
WORDS = [([4], [4]), ([4, 5, 6], [5])]
Words = tuple[list[int], list[int]]


@dataclass
class Mutual(Control):
    """Rows are [source ∅, target ∅, source, target]; target rows attend to the source's."""

    active: bool
    words: Words | None = None  # the places of the object, in source and target
    maps: list[Tensor] = field(default_factory=list[Tensor])  # of this pass, [row, position, token]

    def qkv(self, layer: Layer, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if not self.mutual(layer):
            return q, k, v
        return q, k[[0, 0, 2, 2]], v[[0, 0, 2, 2]]

    def probs(self, layer: Layer, probs: Tensor) -> Tensor:
        if layer.cross and probs.shape[2] == QUARTER:
            self.maps.append(probs.mean(1))
        if not self.mutual(layer) or self.words is None:
            return probs
        source, target = (self.foreground(2 + i, probs.shape[2]) for i in range(2))
        seen = torch.where(target[:, None], source[None, :], ~source[None, :])
        masked = torch.where(seen, probs, 0.0)
        masked = masked / masked.sum(3, keepdim=True)
        return torch.stack([probs[0], masked[1], probs[2], masked[3]])

    def mutual(self, layer: Layer) -> bool:
        return self.active and not layer.cross and layer.number >= FIRST_LAYER

    def foreground(self, row: int, positions: int) -> Tensor:
        """Where the object's word gets attention, as a share between least and most."""
        assert self.words is not None
        word_map = torch.stack(self.maps).mean(0)[row, :, self.words[row - 2]].sum(1)
        share = (word_map - word_map.min()) / (word_map.max() - word_map.min())
        side = int(positions**0.5)
        mask = F.interpolate(share.view(1, 1, 4, 4), size=(side, side)).flatten() >= THRESHOLD
        assert 0 < mask.sum() < positions
        return mask


def edited(
    sheet: Sheet, words: Words | None, put_back: Literal["", "source", "both"] = ""
) -> Tensor:
    trajectory = sheet.inverted(STEPS)
    source = target = trajectory[-1]
    texts = [sheet.empty, sheet.empty, sheet.source, sheet.target]
    for i, (t, here, there) in enumerate(pairs(STEPS)):
        noise = sheet.net(
            [source, target, source, target], t, texts, Mutual(i >= FIRST_STEP, words)
        )
        source = ddim(source, cfg(noise[0], noise[2], W), here, there)
        target = ddim(target, cfg(noise[1], noise[3], W), here, there)
        off = trajectory[STEPS - i - 1] - source
        if put_back:
            source = source + off
        if put_back == "both":
            target = target + off
    return target


@torch.no_grad()
@pytest.mark.parametrize("masked", [False, True])
def test_mutual_self_attention(edits: Both, masked: bool) -> None:
    method = MasaCtrl(STEPS, W, FIRST_STEP, masked=masked, mask_threshold=THRESHOLD)
    ours = edits.edit(method, DDIMInversion())
    words = WORDS if masked else [None, None]
    agree(ours, [edited(s, w) for s, w in zip(edits.sheets, words, strict=True)])
    differ(ours, edits.edit(MasaCtrl(STEPS, W, first_step=STEPS), DDIMInversion()))


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("moves", ["source", "both"])
def test_direct_inversion(edits: Both, moves: Literal["source", "both"]) -> None:
    """`z_src += z* - z_src` after every step; the edit attends to the corrected source."""
    method = MasaCtrl(STEPS, W, FIRST_STEP)
    ours = edits.edit(method, DirectInversion(moves=moves))
    agree(ours, [edited(sheet, None, moves) for sheet in edits.sheets])
    differ(ours, edits.edit(method, DDIMInversion()))

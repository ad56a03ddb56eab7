"""DDIM inversion, word swap and SDEdit, written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.parity.rules import Both, Sheet, agree, cfg, ddim, differ, noised, pairs
from zerocon.inversions.ddim import DDIMInversion
from zerocon.inversions.none import NoInversion
from zerocon.methods.ddim import DDIM
from zerocon.methods.sdedit import SDEdit

STEPS, W = 4, 7.5


def sampled(sheet: Sheet, z: Tensor, last: int) -> Tensor:
    """The last steps of guided sampling under the target prompt."""
    for t, here, there in pairs(STEPS)[-last:]:
        empty, text = sheet.net([z, z], t, [sheet.empty, sheet.target])
        z = ddim(z, cfg(empty, text, W), here, there)
    return z


@torch.no_grad()
@pytest.mark.parametrize("prompt", ["source", "empty"])
def test_word_swap(edits: Both, prompt: str) -> None:
    inversion = DDIMInversion(prompt)  # pyright: ignore[reportArgumentType]
    ours = edits.edit(DDIM(STEPS, W), inversion)
    told = [s.source if prompt == "source" else s.empty for s in edits.sheets]
    starts = [s.inverted(STEPS, text)[-1] for s, text in zip(edits.sheets, told, strict=True)]
    agree(ours, [sampled(s, z, STEPS) for s, z in zip(edits.sheets, starts, strict=True)])
    differ(ours, edits.clean)


@torch.no_grad()
def test_a_model_that_predicts_v_is_inverted_and_sampled(v_edits: Both) -> None:
    ours = v_edits.edit(DDIM(STEPS, W), DDIMInversion())
    agree(ours, [sampled(s, s.inverted(STEPS)[-1], STEPS) for s in v_edits.sheets])
    differ(ours, v_edits.clean)


@torch.no_grad()
def test_refined_inversion_repeats_each_step_at_its_result(edits: Both) -> None:
    ours = DDIMInversion(refinements=2)(
        edits.backbone, edits.clean, edits.conditions, STEPS, edits.draws
    )
    for row, sheet in enumerate(edits.sheets):
        z = sheet.clean
        for t, noisier, here in reversed(pairs(STEPS)):
            ahead = z
            for _ in range(3):
                (noise,) = sheet.net([ahead], t, [sheet.source])
                ahead = ddim(z, noise, here, noisier)
            z = ahead
        agree(ours.start[row : row + 1], [z])


@torch.no_grad()
def test_sdedit(edits: Both) -> None:
    """Strength 0.7 of 4 steps: noised to the third last time."""
    ours = edits.edit(SDEdit(STEPS, W, strength=0.7), NoInversion())
    theirs: list[Tensor] = []
    for sheet in edits.sheets:
        noise = sheet.draws.normal_like(sheet.clean, "sdedit")
        theirs.append(sampled(sheet, noised(sheet.clean, noise, pairs(STEPS)[-3][1]), 3))
    agree(ours, theirs)

"""zeroCon, DDS and CDS, written out: cross-attention and contrastive loss, and their steps."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from tests.parity.rules import Both, Control, Layer, Sheet, agree, alpha, cfg, ddim, differ, noised
from tests.parity.rules import pairs as pairs_of
from tests.tiny import losses
from zerocon.core.conditions import Draws
from zerocon.inversions.ddim import DDIMInversion
from zerocon.inversions.none import NoInversion
from zerocon.methods.cds import CDS
from zerocon.methods.ddim import DDIM
from zerocon.methods.dds import DDS
from zerocon.methods.zerocon import ZeroCon

STEPS, W, TAU = 2, 7.5, 0.07
XA, CUT = 0.1, 0.02
RATE, SCALE, CDS_WEIGHT = 0.1, 2000 / 16**2, 3.0


@dataclass
class Kept(Control):
    """The losses' inputs: all cross-attention maps, the decoder's self-attention outputs."""

    maps: list[Tensor] = field(default_factory=list[Tensor])
    features: list[Tensor] = field(default_factory=list[Tensor])

    def probs(self, layer: Layer, probs: Tensor) -> Tensor:
        if layer.cross:
            self.maps.append(probs)
        return probs

    def output(self, layer: Layer, output: Tensor) -> None:
        if layer.side == "up_blocks" and not layer.cross:
            self.features.append(output)


def cross_attention(edit: Kept, reference: Kept) -> Tensor:
    """`Σ_layers mean_heads Σ (M - M_ref)²`."""
    pairs = zip(edit.maps, reference.maps, strict=True)
    return torch.stack([((m - ref)[0] ** 2).sum((1, 2)).mean() for m, ref in pairs]).sum()


def contrastive(query: list[Tensor], answers: list[Tensor], chosen: dict[str, Tensor]) -> Tensor:
    """`mean_s -log( exp(q_s·a_s/τ) / Σ_j exp(q_s·a_j/τ) )`, of patches of 1 and of 2 × 2.

    `chosen`: the places of the patches, by layer and size; all, if there are none.
    """
    total = torch.zeros((), dtype=torch.float64)
    for layer, (q, a) in enumerate(zip(query, answers, strict=True)):
        for size in (1, 2):
            places = chosen.get(f"{layer}/{size}", slice(None))
            q_s, a_s = (patches(x, size)[places] for x in (q, a))
            likeness = (q_s @ a_s.T / TAU).exp()
            total = total - (likeness.diag() / likeness.sum(1)).log().mean()
    return total


def patches(features: Tensor, size: int) -> Tensor:
    """[patch, width], of length 1; `features` is [1, position, width]."""
    side = int(features.shape[1] ** 0.5) // size
    means = features[0].reshape(side, size, side, size, -1).mean((1, 3)).flatten(0, 1)
    return means / means.norm(dim=1, keepdim=True)


def zerocon(sheet: Sheet, xa: float, cut: float, drawn: int | None) -> Tensor:
    source = target = sheet.inverted(STEPS)[-1]
    for i, (t, here, there) in enumerate(pairs_of(STEPS)):
        reference = Kept()
        with torch.no_grad():
            (source_noise,) = sheet.net([source], t, [sheet.source], reference)
        edit, moving = Kept(), target.clone().requires_grad_()
        with torch.enable_grad():
            sheet.net([moving], t, [sheet.target], edit)
            places = {} if drawn is None else chosen_patches(sheet, reference, i, drawn)
            loss = xa * cross_attention(edit, reference)
            loss = loss + cut * contrastive(edit.features, reference.features, places)
        (slope,) = torch.autograd.grad(loss, moving)
        target = target - slope
        empty, text = sheet.net([target, target], t, [sheet.empty, sheet.target])
        source = ddim(source, source_noise, here, there)
        target = ddim(target, cfg(empty, text, W), here, there)
    return target


def chosen_patches(sheet: Sheet, seen: Kept, step: int, count: int) -> dict[str, Tensor]:
    """The random places that the sheet's seed gives for this step."""
    found: dict[str, Tensor] = {}
    for layer, features in enumerate(seen.features):
        for size in (1, 2):
            length = features.shape[1] // size**2
            if length > count:
                purpose = f"patches/{step}/{layer}/{size}"
                found[f"{layer}/{size}"] = sheet.draws.permutations(length, count, purpose)[0]
    return found


@torch.no_grad()
@pytest.mark.parametrize(
    ("xa", "cut", "drawn"), [(XA, 0.0, None), (0.0, CUT, None), (XA, CUT, 10)], ids=str
)
def test_zerocon(edits: Both, xa: float, cut: float, drawn: int | None) -> None:
    terms = losses(xa_weight=xa, weight=cut, n_patches=drawn or 256)
    ours = edits.edit(ZeroCon(terms, STEPS, W), DDIMInversion())
    agree(ours, [zerocon(sheet, xa, cut, drawn) for sheet in edits.sheets])
    differ(ours, edits.edit(DDIM(STEPS, W), DDIMInversion()))


def descended(sheet: Sheet, steps: int, weight: float) -> Tensor:
    """DDS; with a weight, CDS."""
    z = sheet.clean
    for i in range(steps):
        generator = Draws(0, ()).generator("every case", f"time/{i}")
        t = int(torch.randint(50, 949, (1,), generator=generator))
        noise = sheet.draws.normal_like(z, f"noise/{i}")
        before = noised(sheet.clean, noise, alpha(t))
        reference, edit, moving = Kept(), Kept(), z.clone().requires_grad_()
        with torch.no_grad():
            empty, text = sheet.net([before] * 2, t, [sheet.empty, sheet.source])
            sheet.net([before], t, [sheet.source], reference)
            after = noised(z, noise, alpha(t))
            empty_after, text_after = sheet.net([after] * 2, t, [sheet.empty, sheet.target])
        slope = SCALE * (cfg(empty_after, text_after, W) - cfg(empty, text, W))
        if weight:
            with torch.enable_grad():
                sheet.net([noised(moving, noise, alpha(t))], t, [sheet.target], edit)
                loss = weight * contrastive(reference.features, edit.features, {})
            slope = slope + torch.autograd.grad(loss, moving)[0]
        z = z - RATE * slope
    return z


@torch.no_grad()
def test_dds(edits: Both) -> None:
    ours = edits.edit(DDS(steps=3), NoInversion())
    agree(ours, [descended(sheet, 3, 0.0) for sheet in edits.sheets])
    differ(ours, edits.clean)


@torch.no_grad()
def test_cds(edits: Both) -> None:
    """The source's patch is the query (CDS's orientation)."""
    terms = losses(xa_weight=0.0, weight=CDS_WEIGHT, query="reference")
    ours = edits.edit(CDS(steps=2, loss=terms), NoInversion())
    agree(ours, [descended(sheet, 2, CDS_WEIGHT) for sheet in edits.sheets])
    differ(ours, edits.edit(DDS(steps=2), NoInversion()))

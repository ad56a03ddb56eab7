"""zeroCon, DDS and CDS, written out: cross-attention and contrastive loss, and their steps."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.marks import every
from tests.parity.rules import Both, Control, Layer, Sheet, agree, alpha, cfg, ddim, differ, noised
from tests.parity.rules import pairs as pairs_of
from tests.tiny import losses
from zerocon.core.conditions import Draws
from zerocon.inversions.ddim import DDIMInversion
from zerocon.inversions.none import NoInversion
from zerocon.losses import Losses, ZeCon
from zerocon.methods.cds import CDS
from zerocon.methods.ddim import DDIM
from zerocon.methods.dds import DDS
from zerocon.methods.zerocon import ZeroCon

STEPS, W, TAU = 2, 7.5, 0.07
XA, CUT, BELOW = 0.1, 0.02, 0.6
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


def cross_attention(edit: Kept, reference: Kept, row: int = 0) -> Tensor:
    """`Σ_layers mean_heads Σ (M - M_ref)²`."""
    pairs = zip(edit.maps, reference.maps, strict=True)
    return torch.stack([((m - ref)[row] ** 2).sum((1, 2)).mean() for m, ref in pairs]).sum()


def background(maps: list[Tensor], words: list[int], below: float) -> Tensor:
    """1 where the words get less than a share of the most attention, [16, 16]."""
    heat = torch.zeros(16, 16, dtype=torch.float64)
    for layer in maps:  # [1, head, position, token]
        of_words = layer[0].mean(0)[:, words].sum(1)
        side = int(len(of_words) ** 0.5)
        laid_out = of_words.reshape(1, 1, side, side)
        heat += F.interpolate(laid_out, size=(16, 16), mode="bilinear")[0, 0] / len(maps)
    return (heat < below * heat.max()).double()


def contrastive(
    query: list[Tensor],
    answers: list[Tensor],
    chosen: dict[str, Tensor],
    counted: Tensor | None = None,
) -> Tensor:
    """`mean_s -log( exp(q_s·a_s/τ) / Σ_j exp(q_s·a_j/τ) )`, of patches of 1 and of 2 × 2.

    `chosen`: the places of the patches, by layer and size; all, if there are none. `counted`: a
    patch counts as much as its share of a mask, [16, 16].
    """
    counted = torch.ones(16, 16, dtype=torch.float64) if counted is None else counted
    total = torch.zeros((), dtype=torch.float64)
    for layer, (q, a) in enumerate(zip(query, answers, strict=True)):
        for size in (1, 2):
            places = chosen.get(f"{layer}/{size}", slice(None))
            q_s, a_s = (patches(x, size)[places] for x in (q, a))
            likeness = (q_s @ a_s.T / TAU).exp()
            each = -(likeness.diag() / likeness.sum(1)).log()
            side = int(q.shape[1] ** 0.5) // size
            shares = counted.reshape(side, 16 // side, side, 16 // side).mean((1, 3))
            weights = shares.flatten()[places]
            if weights.any():  # else none of the patches is counted
                total = total + (each * weights).sum() / weights.sum()
    return total


def patches(features: Tensor, size: int) -> Tensor:
    """[patch, width], of length 1; `features` is [1, position, width]."""
    side = int(features.shape[1] ** 0.5) // size
    means = features[0].reshape(side, size, side, size, -1).mean((1, 3)).flatten(0, 1)
    return means / means.norm(dim=1, keepdim=True)


def zerocon(
    sheet: Sheet, xa: float, cut: float, drawn: int | None, words: list[int] | None = None
) -> Tensor:
    """`words`: the places of what changes; then the contrastive loss is of the background."""
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
            mask = None if words is None else background(reference.maps, words, BELOW)
            loss = loss + cut * contrastive(edit.features, reference.features, places, mask)
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
    ("xa", "cut", "drawn"),
    every(3, [(XA, CUT, 10), (XA, 0.0, None), (0.0, CUT, None)]),
    ids=str,
)
def test_zerocon(edits: Both, xa: float, cut: float, drawn: int | None) -> None:
    terms = losses(xa_weight=xa, weight=cut, n_patches=drawn or 256)
    ours = edits.edit(ZeroCon(terms, STEPS, W), DDIMInversion())
    agree(ours, [zerocon(sheet, xa, cut, drawn) for sheet in edits.sheets])
    differ(ours, edits.edit(DDIM(STEPS, W), DDIMInversion()))


@pytest.mark.slow
@torch.no_grad()
def test_contrastive_loss_of_the_background(edits: Both) -> None:
    """`red` changes to `blue`; `green star` (spelled in four tokens) to something else."""
    terms = losses(
        xa_weight=0.0, weight=CUT, n_patches=10, positions="background", background_below=BELOW
    )
    ours = edits.edit(ZeroCon(terms, STEPS, W), DDIMInversion())
    words = [[3], [3, 4, 5, 6]]
    theirs = [zerocon(s, 0.0, CUT, 10, own) for s, own in zip(edits.sheets, words, strict=True)]
    agree(ours, theirs)
    differ(ours, torch.cat([zerocon(sheet, 0.0, CUT, 10) for sheet in edits.sheets]))


def pix2pix_zero(sheet: Sheet, xa: float) -> Tensor:
    """As published: ∅'s and the text's copy of the latent move apart, and ∅'s one is kept.

    The source, too, is guided. The loss is the mean of both copies' losses.
    """
    source = target = sheet.inverted(STEPS)[-1]
    for t, here, there in pairs_of(STEPS):
        reference, edit = Kept(), Kept()
        with torch.no_grad():
            noise = sheet.net([source] * 2, t, [sheet.empty, sheet.source], reference)
        copies = [target.clone().requires_grad_() for _ in range(2)]
        with torch.enable_grad():
            sheet.net(copies, t, [sheet.empty, sheet.target], edit)
            loss = xa * sum(cross_attention(edit, reference, row) for row in range(2)) / 2
        assert isinstance(loss, Tensor)
        slopes = torch.autograd.grad(loss, copies)
        moved = [target - slope for slope in slopes]
        empty, text = sheet.net(moved, t, [sheet.empty, sheet.target])
        source = ddim(source, cfg(noise[0], noise[1], W), here, there)
        target = ddim(moved[0], cfg(empty, text, W), here, there)
    return target


@torch.no_grad()
def test_pix2pix_zero_as_published(edits: Both) -> None:
    method = ZeroCon(losses(xa_weight=XA), STEPS, W, source_guidance=W, update="per_branch")
    ours = edits.edit(method, DDIMInversion())
    agree(ours, [pix2pix_zero(sheet, XA) for sheet in edits.sheets])
    one_latent = ZeroCon(losses(xa_weight=XA), STEPS, W, source_guidance=W)
    differ(ours, edits.edit(one_latent, DDIMInversion()))


ZECON = 0.5


def encoder(sheet: Sheet, x: Tensor) -> list[Tensor]:
    """ZeCon's features at time 0, under the empty prompt: after the first convolution, and after
    the last layer of each level; [width, position]."""
    unet = sheet.net.unet
    told = unet.time_embedding(unet.time_proj(torch.zeros(1)).to(x))
    h = unet.conv_in(x)
    found = [h]
    for block in unet.down_blocks:
        for number, resnet in enumerate(block.resnets):
            h = resnet(h, told)
            if hasattr(block, "attentions"):
                h = block.attentions[number](h, encoder_hidden_states=sheet.empty).sample
        found.append(h)
        for down in block.downsamplers or ():
            h = down(h)
    return [features[0].flatten(1) for features in found]


def by_zecon(sheet: Sheet) -> Tensor:
    """zeroCon with ZeCon's loss: both sides on `√(1-ā) · z0 + (1 - √(1-ā)) · z_t`."""
    source = target = sheet.inverted(STEPS)[-1]

    def mixture(z: Tensor, noise: Tensor, a: float) -> Tensor:
        share = (1 - a) ** 0.5
        return share * (z - (1 - a) ** 0.5 * noise) / a**0.5 + (1 - share) * z

    for t, here, there in pairs_of(STEPS):
        with torch.no_grad():
            (source_noise,) = sheet.net([source], t, [sheet.source])
            reference = encoder(sheet, mixture(source, source_noise, here))
        moving = target.clone().requires_grad_()
        with torch.enable_grad():
            (noise,) = sheet.net([moving], t, [sheet.target])
            loss = torch.zeros((), dtype=torch.float64)
            for q, k in zip(encoder(sheet, mixture(moving, noise, here)), reference, strict=True):
                q_s, k_s = (x / (x.norm(dim=0) + 1e-7) for x in (q, k))
                likeness = q_s.T @ k_s / TAU
                loss = loss + (likeness.exp().sum(1).log() - likeness.diag()).mean()
        (slope,) = torch.autograd.grad(loss, moving)
        target = target - ZECON * slope
        empty, text = sheet.net([target, target], t, [sheet.empty, sheet.target])
        source = ddim(source, source_noise, here, there)
        target = ddim(target, cfg(empty, text, W), here, there)
    return target


@torch.no_grad()
def test_zerocon_by_zecons_reading(edits: Both) -> None:
    ours = edits.edit(ZeroCon(Losses(zecon=ZeCon(weight=ZECON)), STEPS, W), DDIMInversion())
    agree(ours, [by_zecon(sheet) for sheet in edits.sheets])
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


@torch.no_grad()
def test_cds_by_zecons_reading_is_held_by_it(edits: Both) -> None:
    """The source is shown a second time, in a pass of its own."""
    terms = Losses(zecon=ZeCon(weight=CDS_WEIGHT))
    differ(
        edits.edit(CDS(steps=2, loss=terms), NoInversion()), edits.edit(DDS(steps=2), NoInversion())
    )

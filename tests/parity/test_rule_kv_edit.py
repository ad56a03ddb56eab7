"""KV-Edit: within a mask, attention to the keys and values of the source's background."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from tests.marks import every, slow_but_for
from tests.parity.joint import KINDS, Control, Edits, Layer, Stream, agree, differ, edits
from zerocon.backbones.loading import Parts
from zerocon.inversions.by_solver import EulerInversion
from zerocon.methods.kv_edit import KVEdit

STEPS = 3


@pytest.fixture(scope="module", params=KINDS)
def both(
    request: pytest.FixtureRequest, parts: Parts, tmp_path_factory: pytest.TempPathFactory
) -> Edits:
    made = edits(request.param, parts, tmp_path_factory.mktemp("parity"))
    side = made.clean.shape[3] * 8
    masks = torch.zeros(2, 1, side, side, dtype=torch.float64)
    masks[0, :, side // 4 : side // 2 + 5, side // 3 : side - 9] = 1
    masks[1, :, : side // 2, : side // 4] = 1
    return replace(made, conditions=replace(made.conditions, masks=masks))


def latents_inside(both: Edits) -> Tensor:
    """1 where a latent's value, read between the four pixels at its centre, is above zero."""
    masks = both.conditions.masks
    assert masks is not None
    means = sum(masks[:, :, y::8, x::8] for y in (3, 4) for x in (3, 4))
    assert isinstance(means, Tensor)
    return (means > 0).double()


@dataclass
class Keeping(Control):
    """Keeps the image's keys and values of an evaluation of the inversion."""

    kept: dict[Layer, Stream] = field(default_factory=dict[Layer, Stream])

    def streams(self, layer: Layer, image: Stream, text: Stream | None) -> None:
        if layer.kind != "cross":
            self.kept[layer] = Stream(image.q, image.k, image.v)  # before they are rotated


@dataclass
class Reading(Control):
    """Reads the kept ones off the mask, [case, 1, y, x]."""

    inside: Tensor
    kept: dict[Layer, Stream]

    def streams(self, layer: Layer, image: Stream, text: Stream | None) -> None:
        if layer.kind == "cross":
            return
        case, side = self.inside.shape[0], round(image.k.shape[2] ** 0.5)
        cell = self.inside.shape[3] // side
        cells = self.inside.reshape(case, 1, side, cell, side, cell).amax((3, 5))
        share = cells.reshape(case, 1, side * side, 1)
        image.k = share * image.k + (1 - share) * self.kept[layer].k
        image.v = share * image.v + (1 - share) * self.kept[layer].v


@torch.no_grad()
def rule(both: Edits, w: float, up: float, *, fresh: bool = False, late: bool = True) -> Tensor:
    net, c, ts = both.net, both.conditions, both.net.times(STEPS)
    inside = latents_inside(both)
    assert 0.05 < inside.mean() < 0.9
    x = both.clean / net.scale(ts[-1])
    latents, kept = [x], list[Keeping]()
    for t, above in pairwise(reversed(ts)):
        kept.append(Keeping())
        x = x + (above - t) * both.guided(x, t, c.source, up, (kept[-1], None))
        latents.append(x)
    latents.reverse()
    kept.reverse()
    z = x
    if fresh:
        noise = both.draws.normal_like(both.clean, "kv_edit")
        z = (1 - ts[0]) * both.clean / net.scale(ts[-1]) + ts[0] * noise
    for step, (t, there) in enumerate(pairwise(ts)):
        source, seen = (latents[step + 1], kept[step]) if late else (latents[step], Keeping())
        if not late:
            net.v(source, t, c.source, up, seen)
        z = inside * z + (1 - inside) * source * (net.scale(there if late else t) / net.scale(t))
        reading = Reading(inside, seen.kept)
        z = z + (there - t) * both.guided(z, t, c.target, w, (reading, reading))
    return net.scale(ts[-1]) * (inside * z) + (1 - inside) * both.clean


@pytest.mark.parametrize("fresh", slow_but_for([False], [False, True]))
@pytest.mark.parametrize(("w", "up"), every(2, [(5.5, 1.5), (1.0, 1.0)]))
def test_kv_edit(both: Edits, w: float, up: float, *, fresh: bool) -> None:
    if fresh and both.kind == "unet":
        pytest.skip("what is drawn is mixed in the diffusion model's own scale there")
    method = KVEdit(STEPS, w, fresh_start=fresh)
    ours = both.ours(method, EulerInversion(guidance=up))
    agree(ours, rule(both, w, up, fresh=fresh))
    differ(ours, both.ours(replace(method, sites="self#0"), EulerInversion(guidance=up)))


@pytest.mark.slow
def test_the_source_of_the_edits_own_level(both: Edits) -> None:
    method = KVEdit(STEPS, 4.0, source="trajectory")
    ours = both.ours(method, EulerInversion())
    agree(ours, rule(both, 4.0, 1.0, late=False))
    differ(ours, both.ours(replace(method, source="late"), EulerInversion()))


def test_off_the_mask_the_picture_stays(both: Edits) -> None:
    off = latents_inside(both) == 0
    edited = both.ours(KVEdit(STEPS, 4.0), EulerInversion())
    same = off.expand_as(edited)
    assert torch.equal(edited[same], both.clean[same])


def test_a_transformer_sees_nothing_of_the_edits_own_background(
    both: Edits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The published code leaves these tokens out; here they pass, and no other attends to them."""
    if both.kind == "unet":
        pytest.skip("its convolutions reach over the mask's edge")
    tokens = torch.nn.functional.max_pool2d(latents_inside(both), both.net.patch)
    inside = torch.nn.functional.interpolate(tokens, scale_factor=both.net.patch) > 0
    before = both.ours(KVEdit(STEPS, 4.0), EulerInversion())
    predict = both.backbone.predict

    def disturbed(z: Tensor, *rest: object) -> object:
        if len(z) > 2:
            edit = z[2:].unflatten(0, (-1, 2))
            z = torch.cat([z[:2], torch.where(inside, edit, 9.0).flatten(0, 1)])
        return predict(z, *rest)

    monkeypatch.setattr(both.backbone, "predict", disturbed)
    after = both.ours(KVEdit(STEPS, 4.0), EulerInversion())
    seen = latents_inside(both).bool().expand_as(after)
    torch.testing.assert_close(after[seen], before[seen], rtol=1e-9, atol=1e-9)

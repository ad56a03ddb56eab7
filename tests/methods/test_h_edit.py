"""h-Edit against its authors' rule, in all its forms."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from dataclasses import replace as with_fields
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.marks import every
from tests.methods.edits import Given, given
from tests.methods.published import controlled, ddpm_mean, global_align, in_double
from zerocon.backbones.loading import Parts
from zerocon.backbones.stable_diffusion import StableDiffusionBackbone
from zerocon.core.checks import ConfigError
from zerocon.inversions.base import Inversion
from zerocon.inversions.ddim import DDIMInversion
from zerocon.inversions.direct import DirectInversion
from zerocon.inversions.edit_friendly import EditFriendlyInversion
from zerocon.methods.ddim import DDIM
from zerocon.methods.h_edit import HEdit

STEPS = 6
MAPS = EditFriendlyInversion(guidance=1.0, skip=0.0)
PUBLISHED = HEdit(
    steps=STEPS,
    cross=0.5,
    self_sites="self@1/2,self@1/4,self@1/8",
    blend_weight=2.0,
    blend_threshold=0.8,
)
PLAIN = with_fields(PUBLISHED, cross=0.0, self_attention=0.0, local_blend=False)


@pytest.fixture(scope="module")
def double(parts: Parts) -> StableDiffusionBackbone:
    return in_double(parts)


@dataclass
class Ptp:
    """Refinement with a factor for the blend word, and local blend: the repository's controller."""

    steps: int
    source: list[int]
    target: list[int]
    words: tuple[list[int], list[int]]  # places of the blend words
    method: HEdit
    on: bool = False
    keeps: bool = False
    step: int = 0
    blends: int = 0
    fresh: list[Tensor] = field(default_factory=list[Tensor])
    stored: list[Tensor] = field(default_factory=list[Tensor])

    def __post_init__(self) -> None:
        mapper = global_align(self.source, self.target)
        self.alphas = torch.ones(77, dtype=torch.float64)
        self.alphas[: len(mapper)] = (torch.tensor(mapper) != -1).double()
        self.mapper = torch.tensor([*mapper, *range(len(self.target), 77)])
        self.equalizer = torch.ones(77, dtype=torch.float64)
        self.equalizer[self.words[1]] = self.method.blend_weight
        self.masks: list[Tensor] = []

    def self_qkv(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return q, k, v

    def probs(self, probs: Tensor, *, is_cross: bool, place: str) -> Tensor:
        if not self.on:
            return probs
        base, target = probs[2], probs[3]
        if is_cross and self.step < int(self.method.cross * (self.steps + 1)):
            edited = base[..., self.mapper] * self.alphas + target * (1 - self.alphas)
            target = edited * self.equalizer
        positions = probs.shape[2]
        if not is_cross and self.step < int(self.method.self_attention * self.steps):
            target = base if positions <= 64 else target
        probs = torch.cat([probs[:3], target[None]])
        if is_cross and place != "mid" and positions == 16 and self.keeps:
            self.fresh.append(probs[2:])
        return probs

    def end_pass(self) -> None:
        self.on = False
        if self.keeps:
            stored = torch.cat(self.fresh, dim=1)
            self.stored.append(stored)
            self.fresh, self.step, self.keeps = [], self.step + 1, False

    def blend(self, x: Tensor) -> Tensor:
        """`x`: source and edit."""
        self.blends += 1
        if self.blends <= int(self.method.blend_start * self.steps) or not self.words[0]:
            return x
        maps = torch.stack(self.stored).sum(0)  # [row, map, position, token]
        picked = [maps[row][..., self.words[row]].sum(-1).mean(0) for row in range(2)]
        word_map = torch.stack(picked).view(2, 1, 4, 4)
        mask = F.interpolate(F.max_pool2d(word_map, 3, 1, 1), size=x.shape[2:])
        mask = mask / mask.amax((2, 3), keepdim=True) > self.method.blend_threshold
        mask = (mask[:1] | mask[1:]).double()
        self.masks.append(mask)
        return x[:1] + mask * (x - x[:1])


def places(tokens: tuple[int, ...], words: tuple[int, ...]) -> list[int]:
    assert all(0 < word < len(tokens) for word in words)
    return list(words)


@dataclass
class Published:
    """The authors' loops for one picture: with and without maps, implicit and explicit."""

    backbone: StableDiffusionBackbone
    begun: Given
    row: int
    method: HEdit
    ddim: bool = False  # h-Edit-D
    skip: int = 0

    def __post_init__(self) -> None:
        one = slice(self.row, self.row + 1)
        texts, self.clean = self.begun.conditions, self.begun.trajectory.clean[one]
        self.src, self.tar, self.null = (
            c.tokens[one] for c in (texts.source, texts.target, texts.negative)
        )
        words = texts.words[self.row]
        self.controller = Ptp(
            self.method.steps - self.skip,
            list(words.source),
            list(words.target),
            (places(words.source, words.source_blend), places(words.target, words.target_blend)),
            self.method,
        )
        self.unet: Any = controlled(self.backbone, self.controller)
        stride = 1000 // self.method.steps
        self.times = [i * stride + 1 for i in reversed(range(self.method.steps))]
        alphas = self.backbone._alphas.tolist()
        self.alpha = {time: alphas[max(time, 0)] for time in (*self.times, 0)}

    def eps(self, x: Tensor, time: int, text: Tensor) -> Tensor:
        return self.unet(x, time, text, return_dict=False)[0]

    def invert(self) -> tuple[list[Tensor], list[Tensor]]:
        """(latents starting with the picture, residuals of the steps), least noisy first."""
        times = [0, *reversed(self.times)]
        xts = [self.clean]
        if self.ddim:
            for before, time in itertools.pairwise(times):
                eps = self.eps(xts[-1], time, self.src)
                start, end = self.alpha[before], self.alpha[time]
                x0 = (xts[-1] - (1 - start) ** 0.5 * eps) / start**0.5
                xts.append(end**0.5 * x0 + (1 - end) ** 0.5 * eps)
        else:
            (generator,) = [self.begun.draws.generators("edit_friendly")[self.row]]
            for time in times[1:]:
                noise = torch.randn(self.clean.shape[1:], generator=generator).double()[None]
                a = self.alpha[time]
                xts.append(a**0.5 * self.clean + (1 - a) ** 0.5 * noise)
        added: list[Tensor] = []
        for number, (before, time) in enumerate(itertools.pairwise(times)):
            x = xts[number + 1]
            added.append(xts[number] - self.mean(self.eps(x, time, self.src), x, time, before))
        return xts, added

    def mean(self, eps: Tensor, x: Tensor, time: int, before: int) -> Tensor:
        alpha, alpha_prev = self.alpha[time], self.alpha[before]
        return ddpm_mean(eps, x, alpha, alpha_prev, eta=0.0 if self.ddim else 1.0)

    def coeff(self, t: int, tt: int) -> float:
        a, a_prev = self.alpha[t], self.alpha[tt]
        omega = ((1 - a_prev) / ((1 - a) * a_prev)) ** 0.5 * (a_prev - a) ** 0.5
        omega = 0.0 if self.ddim else omega
        full = (1 - a_prev - omega**2) ** 0.5
        return full - (1 - a) ** 0.5 * (a_prev / a) ** 0.5

    def noises(self, x: Tensor, original: Tensor | None, time: int, *, keeps: bool) -> Tensor:
        """`noise_pred_tar - noise_pred_src_edit` at `x`."""
        cond_src = self.eps(x, time, self.src)
        if original is None:
            uncond, cond_tar = self.eps(x, time, self.null), self.eps(x, time, self.tar)
        else:
            self.controller.on, self.controller.keeps = True, keeps
            texts = torch.cat([self.null, self.null, self.src, self.tar])
            out = self.eps(torch.cat([original, x] * 2), time, texts)
            self.controller.end_pass()
            _, uncond, _, cond_tar = out.split(1)
        source = uncond + self.method.correction_guidance * (cond_src - uncond)
        return uncond + self.method.guidance * (cond_tar - uncond) - source

    def __call__(self) -> Tensor:
        xts, added = self.invert()
        after_skip = self.method.steps - self.skip
        original = edit = xts[after_skip]
        op = self.times[self.skip :]
        with_maps = self.method.controls
        if self.skip and self.method.ahead:
            ahead = self.times[self.skip - 1]
            edit = edit + self.coeff(ahead, op[0]) * self.noises(edit, None, op[0], keeps=False)
        for i, t in enumerate(op):
            tt = op[i + 1] if i + 1 < len(op) else 0
            z = added[after_skip - 1 - i]
            before = edit
            original_prev, base = (
                self.mean(self.guided_source(x, t), x, t, tt) + z for x in (original, edit)
            )
            coeff, moved = self.coeff(t, tt), base
            if self.method.form == "explicit":
                near = original if with_maps else None
                moved = base + coeff * self.noises(before, near, t, keeps=True)
            else:
                moved = self.optimised(base, original_prev if with_maps else None, tt, coeff)
            original, edit = original_prev, moved
            if with_maps:
                original, edit = self.controller.blend(torch.cat([original, edit])).split(1)
        return edit

    def guided_source(self, x: Tensor, t: int) -> Tensor:
        scale = self.method.base_guidance
        uncond = self.eps(x, t, self.null)
        return uncond + scale * (self.eps(x, t, self.src) - uncond)

    def optimised(self, base: Tensor, original: Tensor | None, tt: int, coeff: float) -> Tensor:
        moved = base
        for k in range(self.method.corrections):
            last = k == self.method.corrections - 1
            correction = self.noises(moved, original, tt, keeps=last)
            rec_term = moved
            if k > 0:
                leaf = moved.clone().requires_grad_()
                with torch.enable_grad():
                    (grad,) = torch.autograd.grad(F.l1_loss(leaf, base), leaf)
                norm = (correction * correction).mean().sqrt()
                grad_norm = (grad * grad).mean().sqrt()
                rec_term = moved - norm / (grad_norm + 1e-8) * self.method.reconstruction * grad
            moved = rec_term + coeff * correction
        return moved


FORMS: dict[str, tuple[HEdit, Inversion, dict[str, Any]]] = {
    "implicit with maps": (PUBLISHED, MAPS, {}),
    "implicit, corrected three times": (with_fields(PUBLISHED, corrections=3), MAPS, {}),
    "explicit with maps": (with_fields(PUBLISHED, form="explicit"), MAPS, {}),
    "explicit": (with_fields(PLAIN, form="explicit"), MAPS, {}),
    "implicit": (with_fields(PLAIN, corrections=2), MAPS, {}),
    "implicit, start not corrected": (PLAIN, with_fields(MAPS, skip=0.34), {"skip": 2}),
    "implicit, start corrected": (
        with_fields(PLAIN, ahead=True),
        with_fields(MAPS, skip=0.34),
        {"skip": 2},
    ),
    "h-Edit-D": (
        with_fields(PUBLISHED, self_attention=0.6),
        DirectInversion(moves="both"),
        {"ddim": True},
    ),
}


LONG = {*FORMS} - {"explicit"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in LONG else n for n in FORMS]
)
@torch.no_grad()
def test_agrees_with_the_authors_rule(double: StableDiffusionBackbone, name: str) -> None:
    method, invert, other = FORMS[name]
    begun = given(double, method, [0, 1], invert)  # case 1 has no blend words
    ours = begun.run(method)
    for row in range(2):
        theirs = Published(double, begun, row, method, **other)
        torch.testing.assert_close(ours[row : row + 1], theirs(), rtol=0, atol=1e-9)
        if method.controls and row == 0:
            assert any(0 < mask.mean() < 1 for mask in theirs.controller.masks)


@torch.no_grad()
@pytest.mark.slow
def test_a_base_step_may_be_guided(double: StableDiffusionBackbone) -> None:
    """Both forms' base steps, with the noise maps of the unguided source."""
    for form in ("implicit", "explicit"):
        method = with_fields(PUBLISHED, source_guidance=2.0, form=form)
        begun = given(double, method, [0], MAPS)
        theirs = Published(double, begun, 0, method)()
        torch.testing.assert_close(begun.run(method), theirs, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "method", every(3, [PUBLISHED, PLAIN, with_fields(PUBLISHED, form="explicit")])
)
def test_without_a_difference_the_picture_is_reconstructed(
    double: StableDiffusionBackbone, method: HEdit
) -> None:
    begun = given(double, method, [0, 1], MAPS)
    words = [with_fields(w, target=w.source) for w in begun.conditions.words]
    source = begun.conditions.source
    begun.conditions = with_fields(begun.conditions, target=source, words=words)
    same = with_fields(method, correction_guidance=method.guidance, blend_weight=1.0)
    torch.testing.assert_close(begun.run(same), begun.trajectory.clean, rtol=0, atol=1e-9)


@pytest.mark.slow
def test_the_last_correction_of_a_step_counts_for_blending(
    double: StableDiffusionBackbone,
) -> None:
    """Otherwise the sum would have three times as many maps, which the mask would not show."""
    method = with_fields(PUBLISHED, corrections=3)
    begun = given(double, method, [0], MAPS)
    theirs = Published(double, begun, 0, method)
    theirs()
    assert len(theirs.controller.stored) == STEPS


@pytest.mark.parametrize(
    ("method", "rows"),
    [
        (PUBLISHED, 2 + 4),  # published 9, of which 3 have no effect or are asked for twice
        (with_fields(PUBLISHED, form="explicit"), 4),
        (PLAIN, 1 + 3),
        (with_fields(PLAIN, form="explicit"), 3),
    ],
)
def test_rows_through_the_network(
    double: StableDiffusionBackbone, method: HEdit, rows: int
) -> None:
    begun = given(double, method, [0], MAPS)
    before = double.evaluations.forward
    begun.run(method)
    assert double.evaluations.forward - before == rows * STEPS


def test_what_it_uses() -> None:
    assert PLAIN.uses == {"trajectory", "target", "negative"}
    assert PUBLISHED.uses == PLAIN.uses | {"source_row", "target_words"}
    silent = with_fields(PLAIN, guidance=1.0, correction_guidance=1.0)
    assert silent.uses == {"trajectory", "target"}


def test_at_guidance_one_it_is_word_swap(double: StableDiffusionBackbone) -> None:
    """Explicitly, base and correction then are the target prompt's step."""
    method = with_fields(PLAIN, form="explicit", guidance=1.0, correction_guidance=1.0)
    for invert in (MAPS, DDIMInversion()):
        begun = given(double, method, [0], invert)
        swapped = begun.run(DDIM(steps=STEPS, guidance=1.0))
        torch.testing.assert_close(begun.run(method), swapped, rtol=0, atol=1e-9)


def test_settings_are_checked() -> None:
    for other in ({"corrections": 2}, {"ahead": True}):
        with pytest.raises(ConfigError, match=r"are for method\.form=implicit"):
            HEdit(form="explicit", **other)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match=r"method.corrections is 0"):
        HEdit(corrections=0)

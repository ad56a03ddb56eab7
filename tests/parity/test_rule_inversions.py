"""Null-text, negative-prompt, edit-friendly and regularized inversion, written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.parity.rules import Both, Sheet, agree, cfg, ddim, differ, noised, pairs
from zerocon.inversions.ddim import DDIMInversion
from zerocon.inversions.edit_friendly import EditFriendlyInversion
from zerocon.inversions.negative_prompt import NegativePromptInversion
from zerocon.inversions.null_text import NullTextInversion
from zerocon.inversions.regularized import RegularizedInversion
from zerocon.methods.ddim import DDIM

STEPS, W = 3, 7.5
ITERATIONS = 4


def null_text(sheet: Sheet) -> Tensor:
    """An ∅ for each step by Adam; then sampling under the target prompt with them."""
    trajectory = sheet.inverted(STEPS)
    z, null, nulls = trajectory[-1], sheet.empty, list[Tensor]()
    for i, (t, here, there) in enumerate(pairs(STEPS)):
        null = null.clone().requires_grad_()
        adam = torch.optim.Adam([null], lr=1e-2 * (1 - i / 100))
        with torch.no_grad():
            (text,) = sheet.net([z], t, [sheet.source])
        for _ in range(ITERATIONS):
            (empty,) = sheet.net([z], t, [null])
            loss = F.mse_loss(ddim(z, cfg(empty, text, W), here, there), trajectory[STEPS - i - 1])
            adam.zero_grad()
            loss.backward()
            adam.step()
            if loss.item() < 1e-5 + i * 2e-5:
                break
        null = null.detach()
        nulls.append(null)
        with torch.no_grad():
            (empty,) = sheet.net([z], t, [null])
        z = ddim(z, cfg(empty, text, W), here, there)
    z = trajectory[-1]
    with torch.no_grad():
        for (t, here, there), null in zip(pairs(STEPS), nulls, strict=True):
            empty, text = sheet.net([z, z], t, [null, sheet.target])
            z = ddim(z, cfg(empty, text, W), here, there)
    return z


@pytest.mark.slow
def test_null_text(edits: Both) -> None:
    """Four iterations at most: each passes the network forward and back."""
    inversion = NullTextInversion(guidance=W, iterations=ITERATIONS)
    ours = edits.edit(DDIM(STEPS, W), inversion)
    agree(ours, [null_text(sheet) for sheet in edits.sheets])
    differ(ours, edits.edit(DDIM(STEPS, W), DDIMInversion()))


def negative_prompt(sheet: Sheet, quantile: float | None, shrink: bool) -> Tensor:
    """The source prompt in place of ∅; proximal: small differences count as none."""
    z = sheet.inverted(STEPS)[-1]
    for t, here, there in pairs(STEPS):
        source, target = sheet.net([z, z], t, [sheet.source, sheet.target])
        difference = target - source
        if quantile is not None:
            limit = difference.abs().flatten().quantile(quantile)
            kept = torch.where(difference.abs() > limit, difference, 0.0)
            difference = kept - kept.sign() * limit if shrink else kept
        z = ddim(z, source + W * difference, here, there)
    return z


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize(("proximal", "shrink"), [(None, False), (0.5, False), (0.7, True)])
def test_negative_prompt(edits: Both, proximal: float | None, shrink: bool) -> None:
    ours = edits.edit(DDIM(STEPS, W), NegativePromptInversion(proximal, shrink))
    agree(ours, [negative_prompt(sheet, proximal, shrink) for sheet in edits.sheets])
    differ(ours, edits.edit(DDIM(STEPS, W), DDIMInversion()))


def ddpm(z: Tensor, noise: Tensor, a: float, b: float) -> tuple[Tensor, float]:
    """Mean and σ of the step with η = 1 from ā = a to ā = b."""
    sigma = ((1 - b) / (1 - a) * (1 - a / b)) ** 0.5
    clean = (z - (1 - a) ** 0.5 * noise) / a**0.5
    return b**0.5 * clean + (1 - b - sigma**2) ** 0.5 * noise, sigma


def edit_friendly(sheet: Sheet, steps: int, left_out: int, last_noise: bool) -> Tensor:
    """Noise maps of independently drawn latents, extracted at 3.5, walked again at 15."""
    walked = pairs(steps)[left_out:]
    (generator,) = sheet.draws.generators("edit_friendly")
    drawn = [sheet.clean]
    for _, a, _ in reversed(walked):
        noise = torch.randn(4, 16, 16, generator=generator).double()
        drawn.insert(0, noised(sheet.clean, noise, a))
    noises = list[Tensor]()
    for (t, a, b), z, goal in zip(walked, drawn[:-1], drawn[1:], strict=True):
        empty, text = sheet.net([z, z], t, [sheet.empty, sheet.source])
        mean, sigma = ddpm(z, cfg(empty, text, 3.5), a, b)
        noises.append((goal - mean) / sigma)
    if not last_noise:
        noises[-1] = torch.zeros_like(sheet.clean)
    z = drawn[0]
    for (t, a, b), noise in zip(walked, noises, strict=True):
        empty, text = sheet.net([z, z], t, [sheet.empty, sheet.target])
        mean, sigma = ddpm(z, cfg(empty, text, 15.0), a, b)
        z = mean + sigma * noise
    return z


@torch.no_grad()
@pytest.mark.parametrize("last_noise", [True, False])
def test_edit_friendly(edits: Both, last_noise: bool) -> None:
    """36 % of 5 steps are 1.8: two are left out."""
    ours = edits.edit(DDIM(5, 15.0), EditFriendlyInversion(last_noise=last_noise))
    agree(ours, [edit_friendly(sheet, 5, 2, last_noise) for sheet in edits.sheets])
    differ(ours, edits.edit(DDIM(5, 15.0), DDIMInversion()))


def correlation(noise: Tensor, generator: torch.Generator) -> Tensor:
    """Squared means of noise × rolled noise over both axes, channels and a pyramid down to 8."""
    total = torch.zeros((), dtype=torch.float64)
    for channel in range(4):
        level = noise[:, channel : channel + 1]
        while True:
            by = int(torch.randint(level.shape[2] // 2, (1,), generator=generator))
            for axis in (2, 3):
                total = total + (level * level.roll(by, axis)).mean() ** 2
            if level.shape[2] <= 8:
                break
            level = F.avg_pool2d(level, 2)
    return total


def divergence(noise: Tensor) -> Tensor:
    variance = noise.var()
    return variance + noise.mean() ** 2 - 1 - (variance + 1e-7).log()


def slope(loss: Tensor, of: Tensor) -> Tensor:
    return torch.autograd.grad(loss, of)[0]


def regularized(sheet: Sheet) -> Tensor:
    (generator,) = sheet.draws.generators("rolls")
    z = sheet.clean
    for t, noisier, here in reversed(pairs(STEPS)):
        with torch.no_grad():
            (noise,) = sheet.net([z], t, [sheet.source])
        for _ in range(5):
            for _ in range(5):
                noise = noise.detach().requires_grad_()
                noise = noise - 20 / 5 * slope(correlation(noise, generator), noise)
            noise = noise.detach().requires_grad_()
            noise = noise - 20 * slope(divergence(noise), noise)
        z = ddim(z, noise.detach(), here, noisier)
    return z


def test_regularized(edits: Both) -> None:
    given = edits.backbone, edits.clean, edits.conditions, STEPS, edits.draws
    ours = RegularizedInversion()(*given).start
    agree(ours, [regularized(sheet) for sheet in edits.sheets])
    differ(ours, DDIMInversion()(*given).start)

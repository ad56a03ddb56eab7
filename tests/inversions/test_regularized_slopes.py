"""The regularisation's written-out gradients, against autograd's."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from zerocon.core.conditions import Draws
from zerocon.inversions.regularized import auto_correlation_slope, draw_shifts, kl_slope, rolls_by


def auto_correlation(noise: Tensor, shifts: Tensor) -> Tensor:
    """Squared mean of noise × shifted noise, over both axes and a pyramid of scales."""
    total = torch.zeros((), dtype=noise.dtype)
    for level in range(shifts.shape[2]):
        for case, channel in itertools.product(range(noise.shape[0]), range(noise.shape[1])):
            plane, shift = noise[case, channel], int(shifts[case, channel, level])
            for axis in (0, 1):
                total = total + (plane * plane.roll(shift, axis)).mean().square()
        noise = F.avg_pool2d(noise, 2)
    return total


def kl_divergence(noise: Tensor) -> Tensor:
    """From N(0, 1), of a normal with each case's mean and variance."""
    mean, variance = noise.mean((1, 2, 3)), noise.var((1, 2, 3))
    return (variance + mean.square() - 1 - (variance + 1e-7).log()).sum()


@pytest.mark.parametrize("side", [8, 16, 64, 90])
def test_shifts_are_the_published_codes_draws(side: int) -> None:
    """It draws one at a time, channel by channel, each below half of its level's side."""
    noise = torch.zeros(2, 3, side, side)
    drawn = draw_shifts(noise, Draws(0, ["a", "b"]).generators("rolls"), times=2)
    for case, generator in enumerate(Draws(0, ["a", "b"]).generators("rolls")):
        for time, channel in itertools.product(range(2), range(3)):
            level, here = 0, side
            while True:
                one = torch.randint(here // 2, (1,), generator=generator)
                assert drawn[time, case, channel, level] == one
                if here <= 8:
                    break
                level, here = level + 1, here // 2


def test_a_picture_on_its_side_has_the_same_shifts() -> None:
    """Both axes are shifted by them: beyond the shorter one, noise would meet itself."""
    high, wide = torch.zeros(1, 64, 64, 16), torch.zeros(1, 64, 16, 64)
    of_high, of_wide = (
        draw_shifts(noise, Draws(0, ["a"]).generators("rolls"), 1)[0] for noise in (high, wide)
    )
    assert torch.equal(of_high, of_wide)
    assert of_high.shape == (1, 64, 2)
    assert of_high.amax((0, 1)).tolist() == [7, 3]


@pytest.mark.parametrize("shape", [(2, 4, 16, 16), (1, 4, 64, 64), (2, 3, 18, 30), (1, 1, 8, 8)])
def test_the_slopes_are_autograds(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
    generators = Draws(0, ["a", "b"][: shape[0]]).generators("rolls")
    shifts = draw_shifts(noise, generators, 1)
    (rolls,) = rolls_by(shifts, noise)
    for loss, slope in (
        (auto_correlation(noise, shifts[0]), auto_correlation_slope(noise.detach(), rolls)),
        (kl_divergence(noise), kl_slope(noise.detach())),
    ):
        (expected,) = torch.autograd.grad(loss, noise)
        torch.testing.assert_close(slope, expected, rtol=1e-12, atol=1e-15)
        assert slope.abs().max() > 0

"""The regularisation's written-out gradients, against autograd's."""

from __future__ import annotations

import pytest
import torch

from zerocon.core.conditions import Draws
from zerocon.inversions.regularized import (
    auto_correlation,
    auto_correlation_slope,
    draw_shifts,
    kl_divergence,
    kl_slope,
)


def test_a_picture_on_its_side_has_the_same_shifts() -> None:
    """Both axes are shifted by them: beyond the shorter one, noise would meet itself."""
    high, wide = torch.zeros(1, 64, 64, 16), torch.zeros(1, 64, 16, 64)
    of_high, of_wide = (
        draw_shifts(noise, Draws(0, ["a"]).generators("rolls")) for noise in (high, wide)
    )
    assert torch.equal(of_high, of_wide)
    assert of_high.shape == (1, 64, 2)
    assert of_high.amax((0, 1)).tolist() == [7, 3]


@pytest.mark.parametrize("shape", [(2, 4, 16, 16), (1, 4, 64, 64), (2, 3, 18, 30), (1, 1, 8, 8)])
def test_the_slopes_are_autograds(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
    shifts = draw_shifts(noise, Draws(0, ["a", "b"][: shape[0]]).generators("rolls"))
    for loss, slope in (
        (auto_correlation(noise, shifts), auto_correlation_slope(noise.detach(), shifts)),
        (kl_divergence(noise), kl_slope(noise.detach())),
    ):
        (expected,) = torch.autograd.grad(loss.sum(), noise)
        torch.testing.assert_close(slope, expected, rtol=1e-12, atol=1e-15)
        assert slope.abs().max() > 0

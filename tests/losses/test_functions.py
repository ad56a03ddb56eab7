"""The losses against their written-out formulas, and gradients against finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from zerocon.losses.cross_attention import cross_attention_loss
from zerocon.losses.patch_nce import Orientation, as_positions, patch_nce, pooled


def randn(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def formula(v: Tensor, ref: Tensor, tau: float, query: str) -> float:
    """PatchNCE of one case, patch by patch, as in the formula."""
    v, ref = (x / x.norm(dim=1, keepdim=True) for x in (v, ref))
    total = 0.0
    for s in range(len(v)):
        positive = math.exp(float(v[s] @ ref[s]) / tau)
        others = [
            math.exp(float(v[s] @ ref[j] if query == "edit" else ref[s] @ v[j]) / tau)
            for j in range(len(v))
            if j != s
        ]
        total -= math.log(positive / (positive + sum(others)))
    return total / len(v)


@pytest.mark.parametrize("query", ["edit", "reference"])
@pytest.mark.parametrize("tau", [0.07, 1.0])
def test_patch_nce_is_its_formula(query: Orientation, tau: float) -> None:
    v, ref = randn(3, 7, 5), randn(3, 7, 5, seed=1)
    expected = torch.tensor([formula(v[i], ref[i], tau, query) for i in range(3)])
    torch.testing.assert_close(patch_nce(v, ref, tau, query).double(), expected.double())


def test_the_two_orientations_differ() -> None:
    v, ref = randn(1, 7, 5), randn(1, 7, 5, seed=1)
    assert not torch.allclose(patch_nce(v, ref), patch_nce(v, ref, query="reference"))


def test_patch_nce_of_equal_and_of_shuffled_patches() -> None:
    ref = torch.eye(4)[None]
    hit = -math.log(math.exp(1 / 0.5) / (math.exp(1 / 0.5) + 3))
    assert patch_nce(ref, ref, tau=0.5).item() == pytest.approx(hit, abs=1e-6)
    shuffled = -math.log(1 / (math.exp(1 / 0.5) + 3))  # each resembles another's place
    assert patch_nce(ref.roll(1, 1), ref, tau=0.5).item() == pytest.approx(shuffled, abs=1e-6)


def test_weighted_patches() -> None:
    v, ref = randn(2, 6, 5), randn(2, 6, 5, seed=1)
    weight = torch.tensor([[1.0, 0, 0, 0, 0, 1.0], [0, 0, 0, 0, 0, 0]])
    apart = patch_nce(v[:, [0, 5]], ref[:, [0, 5]])
    weighted = patch_nce(v, ref, weight=weight)
    assert weighted[1] == 0  # nothing to hold on to
    assert weighted[0] != apart[0]  # the others still are negatives
    torch.testing.assert_close(patch_nce(v, ref, weight=torch.ones(2, 6)), patch_nce(v, ref))


def test_patch_nce_has_the_gradient_of_its_values() -> None:
    v, ref = randn(1, 5, 4).requires_grad_(), randn(1, 5, 4, seed=1).requires_grad_()
    patch_nce(v, ref, tau=0.3).sum().backward()
    assert ref.grad is None  # the reference is a constant
    slope, step = v.grad, 1e-3
    assert slope is not None
    for place in [(0, 0, 0), (0, 2, 3), (0, 4, 1)]:
        shift = torch.zeros_like(v)
        shift[place] = step
        with torch.no_grad():
            ahead, behind = patch_nce(v + shift, ref, 0.3), patch_nce(v - shift, ref, 0.3)
        estimated = (ahead - behind).item() / (2 * step)
        assert slope[place].item() == pytest.approx(estimated, rel=0.02, abs=2e-4)


def test_cross_attention_loss_by_hand() -> None:
    edit = [torch.ones(2, 4, 3, 5), torch.ones(2, 2, 6, 5)]
    reference = [torch.zeros(2, 4, 3, 5), torch.full((2, 2, 6, 5), 0.5)]
    # 3 × 5 ones, and 6 × 5 quarters; heads are averaged.
    assert cross_attention_loss(edit, reference).tolist() == [15 + 7.5, 15 + 7.5]
    assert cross_attention_loss(edit, reference, "mean").tolist() == [5 + 1.25, 5 + 1.25]


def test_losses_are_computed_per_case() -> None:
    maps, others = [randn(3, 2, 4, 5)], [randn(3, 2, 4, 5, seed=1)]
    v, ref = randn(3, 8, 5), randn(3, 8, 5, seed=1)
    for row in range(3):
        one = slice(row, row + 1)
        alone = cross_attention_loss([maps[0][one]], [others[0][one]])
        torch.testing.assert_close(cross_attention_loss(maps, others)[one], alone)
        torch.testing.assert_close(patch_nce(v, ref)[one], patch_nce(v[one], ref[one]))


def test_pooling_takes_means_of_squares_of_positions() -> None:
    features = torch.arange(16.0)[None, :, None]
    assert pooled(features, 2, (4, 4)).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert pooled(features, 2, (2, 8)).flatten().tolist() == [4.5, 6.5, 8.5, 10.5]
    assert pooled(features, 1, (4, 4)) is features
    with pytest.raises(ValueError, match="don't fill a grid"):
        pooled(features[:, :15], 2, (4, 4))


def test_activations_as_positions() -> None:
    heads = torch.arange(24.0).reshape(1, 2, 4, 3)  # [case, head, position, width]
    joined = as_positions(heads, "queries")
    assert joined.shape == (1, 4, 6)
    assert joined[0, 1].tolist() == [3, 4, 5, 15, 16, 17]
    grid = torch.arange(12.0).reshape(1, 3, 2, 2)
    assert as_positions(grid, "features")[0, 1].tolist() == [1, 5, 9]

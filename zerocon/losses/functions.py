"""Losses between an edit's activations and the reference's: pure functions, one value a case.

The reference is a constant: no gradient goes into it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from zerocon.core.diffusion import at_least_single
from zerocon.core.taps import What

Reduction = Literal["sum", "mean"]
Orientation = Literal["edit", "reference"]


def cross_attention_loss(
    edit: Sequence[Tensor], reference: Sequence[Tensor], reduction: Reduction = "sum"
) -> Tensor:
    """`Σ_l mean_heads Σ_{positions,tokens} (M_l - M_l^ref)²`, [case].

    Maps are [case, head, position, token]. `mean` takes the mean over positions, so that a
    layer's say does not grow with its size.
    """
    total = torch.zeros((), device=edit[0].device)
    for maps, reference_maps in zip(edit, reference, strict=True):
        squares = (maps - reference_maps.detach()).square().sum(-1).mean(1)  # [case, position]
        total = total + (squares.sum(1) if reduction == "sum" else squares.mean(1))
    return total


def patch_nce(
    edit: Tensor,
    reference: Tensor,
    tau: float = 0.07,
    query: Orientation = "edit",
    weight: Tensor | None = None,
) -> Tensor:
    """Each patch should resemble the reference's patch at its place, and no other, [case].

    `mean_s -log( exp(v_s·v_s^ref/τ) / Σ_j exp(v_s·v_j^ref/τ) )` over normalised features
    [case, patch, width]; all patches are of the same picture. `query="edit"` asks for each
    edited patch which reference patch it is (CUT); `"reference"` asks the other way round
    (CDS). `weight` [case, patch] says how much each patch counts.
    """
    v = F.normalize(at_least_single(edit), dim=-1)
    v_ref = F.normalize(at_least_single(reference.detach()), dim=-1)
    similar = v @ v_ref.transpose(1, 2) / tau  # [case, edited patch, reference patch]
    if query == "reference":
        similar = similar.transpose(1, 2)
    losses = torch.logsumexp(similar, -1) - similar.diagonal(dim1=1, dim2=2)  # [case, patch]
    if weight is None:
        return losses.mean(1)
    return (losses * weight).sum(1) / weight.sum(1).clamp(min=1e-6)


def pooled(features: Tensor, size: int) -> Tensor:
    """Patches of `size` × `size` positions by their mean, [case, position, width]."""
    if size == 1:
        return features
    side = grid_side(features)
    grid = features.transpose(1, 2).unflatten(2, (side, side))
    return F.avg_pool2d(grid, size).flatten(2).transpose(1, 2)


def grid_side(features: Tensor) -> int:
    """The side of the square that the positions of [case, position, …] fill."""
    side = round(features.shape[1] ** 0.5)
    if side * side != features.shape[1]:
        raise ValueError(f"{features.shape[1]} positions don't fill a square")
    return side


def as_positions(activation: Tensor, what: What) -> Tensor:
    """Any tapped activation as [case, position, width]: heads joined, grids flattened."""
    if what == "output":
        return activation
    if what == "features":  # [case, channel, y, x]
        return activation.flatten(2).transpose(1, 2)
    return activation.transpose(1, 2).flatten(2)  # [case, head, position, width]

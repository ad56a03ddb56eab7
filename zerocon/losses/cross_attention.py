"""Cross-attention guidance (pix2pix-zero, Parmar et al. 2023): the edit keeps its source's maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from zerocon.core.checks import one_of
from zerocon.losses.base import Moment, Read, Term, View

Reduction = Literal["sum", "mean"]
Maps = Float[Tensor, "case _head _position token"]  # of one site; sites differ in head, position


@dataclass(frozen=True, kw_only=True)
class CrossAttention(Term):
    """`reduction` over positions: `sum`, or `mean`, so that large layers do not count more."""

    key: ClassVar[str] = "xa"

    weight: float = 0.1
    sites: str = "cross"
    reduction: Reduction = "sum"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("loss.xa.reduction", self.reduction, ("sum", "mean"))

    @property
    def reads(self) -> Sequence[Read]:
        return [(self.sites, "probs")]

    def __call__(self, edit: View, reference: View, moment: Moment) -> Float[Tensor, " case"]:
        (read,) = self.reads
        ours, theirs = ([maps for _, maps in view[read]] for view in (edit, reference))
        return cross_attention_loss(ours, theirs, self.reduction)


def cross_attention_loss(
    edit: Sequence[Maps], reference: Sequence[Maps], reduction: Reduction = "sum"
) -> Float[Tensor, " case"]:
    """`Σ_layers mean_heads Σ_{positions,tokens} (M - M_ref)²`."""
    total = torch.zeros(len(edit[0]), device=edit[0].device)
    for maps, reference_maps in zip(edit, reference, strict=True):
        squares = F.mse_loss(maps, reference_maps.detach(), reduction="none")
        squares = squares.sum(-1).mean(1)  # [case, position]
        total = total + (squares.sum(1) if reduction == "sum" else squares.mean(1))
    return total

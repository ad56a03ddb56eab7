"""The patch-wise contrastive loss as ZeCon (Yang et al. 2023) reads it: features of the encoder.

What is compared are whole hidden states, not attention, and not at the level of the step: the
network is run again at time 0 on a mixture of the predicted clean latent and the noisy one
(`Losses.seen`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from zerocon.core.checks import in_range
from zerocon.core.devices import sent
from zerocon.core.levels import at_least_single
from zerocon.losses.base import Moment, Read, Term, View
from zerocon.losses.patch_nce import as_positions, picked

MASKED = -10.0  # similarity that stands for the positive among the negatives


@dataclass(frozen=True, kw_only=True)
class ZeCon(Term):
    """Each sampled position of the edit should resemble the source's at its place.

    The edit's positions ask (CUT's orientation). `sites` are blocks, whose hidden states are
    read; the places are drawn anew for each case, step and site.
    """

    key: ClassVar[str] = "zecon"

    weight: float = 1.0
    sites: str = "in.*.block,down.*.1.block"
    n_patches: int = 256
    tau: float = 0.07

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range("loss.zecon.n_patches", self.n_patches, 2)
        in_range("loss.zecon.tau", self.tau, 1e-4)

    @property
    def reads(self) -> Sequence[Read]:
        return ()

    @property
    def reads_at_zero(self) -> Sequence[Read]:
        return [(self.sites, "hidden")]

    def __call__(self, edit: View, reference: View, moment: Moment) -> Float[Tensor, " case"]:
        """Summed over sites."""
        (read,) = self.reads_at_zero
        pairs = zip(edit.at_zero[read], reference.at_zero[read], strict=True)
        values = [
            self._at_site(number, ours, theirs, moment)
            for number, ((_, ours), (_, theirs)) in enumerate(pairs)
        ]
        return torch.stack(values).sum(0)

    def _at_site(
        self,
        number: int,
        ours: Float[Tensor, "case channel y x"],
        theirs: Float[Tensor, "case channel y x"],
        moment: Moment,
    ) -> Float[Tensor, " case"]:
        edit, reference = (as_positions(hidden, "hidden") for hidden in (ours, theirs))
        places = sent(self._places(edit.shape[1], number, moment), edit)
        return zecon_nce(picked(edit, places), picked(reference, places), self.tau)

    def _places(self, count: int, number: int, moment: Moment) -> Int[Tensor, "case patch"]:
        if count <= self.n_patches:
            return torch.arange(count).expand(len(moment.draws.case_ids), -1)
        purpose = f"zecon/{moment.step}/{number}"
        return moment.draws.permutations(count, self.n_patches, purpose)


def zecon_nce(
    edit: Float[Tensor, "case patch width"],
    reference: Float[Tensor, "case patch width"],
    tau: float = 0.07,
) -> Float[Tensor, " case"]:
    """`mean_s -log( exp(q_s·k_s/τ) / (exp(q_s·k_s/τ) + exp(-10/τ) + Σ_{j≠s} exp(q_s·k_j/τ)) )`.

    As in the published code: the positive is one more logit, and its place among the negatives
    holds -10.
    """
    q, k = _unit(edit), _unit(reference.detach())
    similar = q @ k.transpose(1, 2)  # [case, edited patch, reference patch]
    positive = similar.diagonal(dim1=1, dim2=2)[..., None]
    own = torch.eye(similar.shape[1], dtype=torch.bool, device=similar.device)
    logits = torch.cat([positive, similar.masked_fill(own, MASKED)], -1) / tau
    return (logits.logsumexp(-1) - logits[..., 0]).mean(1)


def _unit(x: Tensor) -> Tensor:
    x = at_least_single(x)
    return x / (x.norm(dim=-1, keepdim=True) + 1e-7)

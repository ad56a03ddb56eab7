"""The patch-wise contrastive loss (CUT, Park et al. 2020) as CDS (Nam et al. 2024) reads it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from zerocon.core.checks import ConfigError, in_range, one_of
from zerocon.core.devices import sent
from zerocon.core.levels import at_least_single
from zerocon.core.taps import Site, What, read_patterns
from zerocon.losses.base import Moment, Read, Term, View

Orientation = Literal["edit", "reference"]
Grid = tuple[int, int]
Positions = Float[Tensor, "case position width"]

FEATURES = ("output", "queries", "keys", "values", "features")


@dataclass(frozen=True, kw_only=True)
class PatchNCE(Term):
    """Each sampled patch of the edit should resemble the reference's patch at its place.

    `patch_sizes`: positions on a patch's side. `shared_patches`: the same places at all sites of
    one size. `query`: whose patch asks, the edit's (CUT) or the reference's (CDS). `positions`:
    all, or the background, where the edited words get less than the share `background_below` of
    their largest attention at `attention_sites`.
    """

    key: ClassVar[str] = "cut"

    weight: float = 1.0
    sites: str = "up.*.self"
    features: Literal["output", "queries", "keys", "values", "features"] = "output"
    n_patches: int = 256
    patch_sizes: tuple[int, ...] = (1, 2)
    shared_patches: bool = False
    tau: float = 0.07
    query: Orientation = "edit"
    positions: Literal["all", "background"] = "all"
    background_below: float = 0.5
    attention_sites: str = "cross"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("loss.cut.features", self.features, FEATURES)
        one_of("loss.cut.query", self.query, ("edit", "reference"))
        one_of("loss.cut.positions", self.positions, ("all", "background"))
        in_range("loss.cut.n_patches", self.n_patches, 2)
        in_range("loss.cut.tau", self.tau, 1e-4)
        in_range("loss.cut.background_below", self.background_below, 0, 1)
        read_patterns(self.attention_sites)
        if not self.patch_sizes or not all(size >= 1 for size in self.patch_sizes):
            raise ConfigError(
                f"loss.cut.patch_sizes is {list(self.patch_sizes)}; give sizes from 1 up"
            )

    @property
    def reads(self) -> Sequence[Read]:
        maps: list[Read] = [self._maps] if self.positions == "background" else []
        return [*maps, (self.sites, self.features)]

    @property
    def _maps(self) -> Read:
        return self.attention_sites, "probs"

    def __call__(self, edit: View, reference: View, moment: Moment) -> Float[Tensor, " case"]:
        """Summed over sites and patch sizes."""
        read: Read = (self.sites, self.features)
        background = self._background(reference, moment)
        total: Tensor | None = None
        for number, ((site, ours), (_, theirs)) in enumerate(
            zip(edit[read], reference[read], strict=True)
        ):
            v, v_ref = (as_positions(f, self.features) for f in (ours, theirs))
            here = self._at_site(site, number, v, v_ref, background, moment)
            total = here if total is None else total + here
        assert total is not None  # `choose` refuses patterns without a site
        return total

    def _at_site(
        self,
        site: Site,
        number: int,
        edit: Positions,
        reference: Positions,
        background: Float[Tensor, "case 1 y x"] | None,
        moment: Moment,
    ) -> Float[Tensor, " case"]:
        """Summed over patch sizes."""
        total = torch.zeros(len(edit), device=edit.device)
        for size in self.patch_sizes:
            v, v_ref = (pooled(f, size, site.grid) for f in (edit, reference))
            if v.shape[1] < 2:  # one patch has no other to be told from
                continue
            places = sent(self._places(v.shape[1], f"{number}/{size}", moment), v)
            grid = (site.grid[0] // size, site.grid[1] // size)
            weight = None if background is None else _at(background, grid, places)
            total = total + patch_nce(
                picked(v, places), picked(v_ref, places), self.tau, self.query, weight
            )
        return total

    def _places(self, count: int, where: str, moment: Moment) -> Int[Tensor, "case patch"]:
        """The sampled patches of each case; all of them if there are no more."""
        if count <= self.n_patches:
            return torch.arange(count).expand(len(moment.draws.case_ids), -1)
        purpose = f"patches/{moment.step}/{count if self.shared_patches else where}"
        return moment.draws.permutations(count, self.n_patches, purpose)

    def _background(self, reference: View, moment: Moment) -> Float[Tensor, "case 1 y x"] | None:
        """1 where the words that change get little attention."""
        if self.positions == "all" or moment.edited_tokens is None:
            return None
        maps = reference[self._maps]
        words = moment.edited_tokens.to(maps[0][1])[:, : maps[0][1].shape[-1], None]
        finest = max(site.grid for site, _ in maps)
        attention = torch.stack(
            [_resized((m.mean(1) @ words).squeeze(-1), site.grid, finest) for site, m in maps]
        ).mean(0)
        largest = attention.amax((2, 3), keepdim=True)
        return (attention < self.background_below * largest).to(attention.dtype)


def patch_nce(
    edit: Float[Tensor, "case patch width"],
    reference: Float[Tensor, "case patch width"],
    tau: float = 0.07,
    query: Orientation = "edit",
    weight: Float[Tensor, "case patch"] | None = None,
) -> Float[Tensor, " case"]:
    """Each patch should resemble the reference's patch at its place, and no other.

    `mean_s -log( exp(v_s·v_s^ref/τ) / Σ_j exp(v_s·v_j^ref/τ) )` over normalised features;
    all patches are of the same picture. `query="edit"` asks for each edited patch which reference
    patch it is (CUT); `"reference"` asks the other way round (CDS). `weight` says how much each
    patch counts.
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


def pooled(features: Positions, size: int, grid: Grid) -> Float[Tensor, "case patch width"]:
    """Patches of `size` × `size` positions by their mean."""
    if size == 1:
        return features
    if features.shape[1] != math.prod(grid):
        raise ValueError(f"{features.shape[1]} positions don't fill a grid of {list(grid)}")
    laid_out = features.transpose(1, 2).unflatten(2, grid)
    return F.avg_pool2d(laid_out, size).flatten(2).transpose(1, 2)


def as_positions(activation: Float[Tensor, "case ..."], what: What) -> Positions:
    """Any tapped activation: heads joined, grids flattened."""
    if what == "output":
        return activation
    if what in ("features", "hidden"):  # [case, channel, y, x]
        return activation.flatten(2).transpose(1, 2)
    return activation.transpose(1, 2).flatten(2)  # [case, head, position, width]


def picked(
    features: Positions, places: Int[Tensor, "case patch"]
) -> Float[Tensor, "case patch width"]:
    return features.gather(1, places[:, :, None].expand(-1, -1, features.shape[2]))


def _resized(
    attention: Float[Tensor, "case position"], grid: Grid, to: Grid
) -> Float[Tensor, "case 1 y x"]:
    laid_out = attention.unflatten(1, grid)[:, None]
    return F.interpolate(laid_out, size=to, mode="bilinear", align_corners=False)


def _at(
    background: Float[Tensor, "case 1 y x"], grid: Grid, places: Int[Tensor, "case patch"]
) -> Float[Tensor, "case patch"]:
    """Each sampled patch's share of background."""
    return F.adaptive_avg_pool2d(background, grid).flatten(1).gather(1, places)

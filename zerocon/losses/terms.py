"""The losses that hold an edit to its source: what they look at, and how much they count when."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from zerocon.core.checks import ConfigError, in_range, one_of
from zerocon.core.conditions import Draws
from zerocon.core.taps import Seen, Taps, What, choose, read_patterns, record
from zerocon.losses.functions import (
    Orientation,
    Reduction,
    as_positions,
    cross_attention_loss,
    grid_side,
    patch_nce,
    pooled,
)

Fade = Literal["constant", "linear", "cosine"]


@dataclass(frozen=True)
class Moment:
    """Which step of how many, and whose random numbers to draw."""

    step: int
    steps: int
    draws: Draws
    edited_tokens: Tensor | None = None  # of the source prompt, 1 where it differs, [case, token]


@dataclass(frozen=True)
class View:
    """What the losses look at, of the rows of one role."""

    maps: Sequence[Tensor]  # cross-attention probabilities, [case, head, position, token]
    features: Sequence[Tensor]  # [case, position, width]


class Watch(Protocol):
    def __call__(self, role: str) -> View: ...


@dataclass(frozen=True)
class Losses:
    """Cross-attention guidance (`xa`) and the patch-wise contrastive loss (`cut`).

    A `window` is the share of the steps, first to last, in which a loss acts; its `fade` how
    its weight goes to zero over the window. Sites are patterns as in `zerocon.core.taps`.
    """

    xa_weight: float = 0.1
    xa_sites: str = "cross"
    xa_reduction: Reduction = "sum"
    xa_window: tuple[float, float] = (0.0, 1.0)
    xa_fade: Fade = "constant"

    cut_weight: float = 0.0
    cut_sites: str = "up.*.self"
    cut_features: Literal["output", "queries", "keys", "values", "features"] = "output"
    cut_window: tuple[float, float] = (0.0, 1.0)
    cut_fade: Fade = "constant"
    n_patches: int = 256
    patch_sizes: tuple[int, ...] = (1, 2)
    shared_patches: bool = False  # the same places at all sites of one size
    tau: float = 0.07
    query: Orientation = "edit"
    positions: Literal["all", "background"] = "all"
    # Background: where the edited words get less than this share of their largest attention.
    background_below: float = 0.5

    def __post_init__(self) -> None:
        for name in ("xa", "cut"):
            in_range(f"loss.{name}_weight", getattr(self, f"{name}_weight"), 0)
            read_patterns(getattr(self, f"{name}_sites"))
            one_of(f"loss.{name}_fade", getattr(self, f"{name}_fade"), ("constant", *_FADES))
            _check_window(f"loss.{name}_window", getattr(self, f"{name}_window"))
        in_range("loss.n_patches", self.n_patches, 2)
        in_range("loss.tau", self.tau, 1e-4)
        in_range("loss.background_below", self.background_below, 0, 1)
        if not self.patch_sizes or min(self.patch_sizes) < 1:
            raise ConfigError(f"loss.patch_sizes is {list(self.patch_sizes)}; give sizes from 1 up")

    def weights(self, step: int, steps: int) -> tuple[float, float]:
        """(of cross-attention, of CUT) at a step."""
        done = (step + 0.5) / steps
        return (
            self.xa_weight * _share(done, self.xa_window, self.xa_fade),
            self.cut_weight * _share(done, self.cut_window, self.cut_fade),
        )

    @contextmanager
    def watching(self, taps: Taps, weights: tuple[float, float], *, stop: bool) -> Generator[Watch]:
        """Record what the losses with a weight need. `stop`: and end the pass after the last."""
        xa, cut = weights
        maps, features = Seen([]), Seen([])
        watched: dict[str, tuple[str, What]] = {}
        if xa or self._needs_maps(cut):
            watched["maps"] = (self.xa_sites, "probs")
        if cut:
            watched["features"] = (self.cut_sites, self.cut_features)
        last = max(watched, key=lambda k: _last(taps, *watched[k]), default="")
        with ExitStack() as open_taps:
            for name, (sites, what) in watched.items():
                seen = open_taps.enter_context(
                    record(taps, sites, what, stop=stop and name == last)
                )
                maps, features = (seen, features) if name == "maps" else (maps, seen)
            yield lambda role: View(
                maps.of(role), [as_positions(f, self.cut_features) for f in features.of(role)]
            )

    def __call__(
        self, edit: View, reference: View, weights: tuple[float, float], moment: Moment
    ) -> Tensor:
        """The weighted sum, [case]."""
        xa, cut = weights
        total = torch.zeros((), device=(*edit.maps, *edit.features)[0].device)
        if xa:
            total = total + xa * cross_attention_loss(edit.maps, reference.maps, self.xa_reduction)
        if cut:
            total = total + cut * self._cut(edit, reference, moment)
        return total

    def _needs_maps(self, cut: float) -> bool:
        return bool(cut) and self.positions == "background"

    def _cut(self, edit: View, reference: View, moment: Moment) -> Tensor:
        """PatchNCE summed over sites and patch sizes."""
        total = torch.zeros((), device=edit.features[0].device)
        background = self._background(reference, moment)  # [case, 1, y, x]
        for site, (ours, theirs) in enumerate(zip(edit.features, reference.features, strict=True)):
            for size in self.patch_sizes:
                v, v_ref = pooled(ours, size), pooled(theirs, size)
                if v.shape[1] < 2:  # one patch has no other to be told from
                    continue
                places = self._places(v.shape[1], f"{site}/{size}", moment).to(v.device)
                weight = None if background is None else _at(background, grid_side(v), places)
                total = total + patch_nce(
                    _picked(v, places), _picked(v_ref, places), self.tau, self.query, weight
                )
        return total

    def _places(self, count: int, where: str, moment: Moment) -> Tensor:
        """The sampled patches of each case, [case, patch]; all of them if there are no more."""
        if count <= self.n_patches:
            return torch.arange(count).expand(len(moment.draws.case_ids), -1)
        purpose = f"patches/{moment.step}/{count if self.shared_patches else where}"
        return moment.draws.permutations(count, self.n_patches, purpose)

    def _background(self, reference: View, moment: Moment) -> Tensor | None:
        """1 where the words that change get little attention, [case, 1, y, x]."""
        if self.positions == "all" or moment.edited_tokens is None:
            return None
        # A condition may have more rows than the tokens that cross-attention sees.
        words = moment.edited_tokens.to(reference.maps[0])[:, : reference.maps[0].shape[-1]]
        sides = [grid_side(m.mean(1)) for m in reference.maps]
        finest = max(sides)
        heat = torch.stack(
            [
                _resized((m.mean(1) @ words[:, :, None]).squeeze(-1), side, finest)
                for m, side in zip(reference.maps, sides, strict=True)
            ]
        ).mean(0)
        return (heat < self.background_below * heat.amax((2, 3), keepdim=True)).to(heat.dtype)


@dataclass(frozen=True)
class NoLosses:
    """For methods that descend none."""


_FADES: dict[str, Callable[[float], float]] = {
    "linear": lambda x: 1 - x,
    "cosine": lambda x: 0.5 * (1 + math.cos(math.pi * x)),
}


def _share(done: float, window: tuple[float, float], fade: Fade) -> float:
    first, last = window
    if not first <= done <= last:
        return 0.0
    if fade == "constant":
        return 1.0
    return _FADES[fade]((done - first) / (last - first))


def _check_window(name: str, window: Sequence[float]) -> None:
    if len(window) != 2 or not 0 <= window[0] < window[1] <= 1:
        raise ConfigError(f"{name} is {list(window)}; give the first and last share, as [0, 0.5]")


def _last(taps: Taps, sites: str, what: What) -> int:
    return max(taps.sites.index(site) for site in choose(taps.sites, sites, what))


def _picked(features: Tensor, places: Tensor) -> Tensor:
    return features.gather(1, places[:, :, None].expand(-1, -1, features.shape[2]))


def _resized(heat: Tensor, side: int, to: int) -> Tensor:
    grid = heat.unflatten(1, (side, side))[:, None]
    return F.interpolate(grid, size=(to, to), mode="bilinear", align_corners=False)


def _at(background: Tensor, side: int, places: Tensor) -> Tensor:
    """Each sampled patch's share of background, [case, patch]."""
    return F.adaptive_avg_pool2d(background, side).flatten(1).gather(1, places)

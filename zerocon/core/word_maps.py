"""Where words get attention, and what is done there: local blending, grounds apart.

A word's heat is the attention to its tokens over some layers; `marks` are the tokens' places.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional as F

from zerocon.core.alignment import TOKENS
from zerocon.core.conditions import Words
from zerocon.core.taps import Seen, Site, Taps, record
from zerocon.core.words import places_of
from zerocon.losses.functions import grid_side


class LocalBlend:
    """Puts the source back where the blend words got little attention in the steps so far.

    And where the words `spared` (each as its tokens) got much.
    """

    def __init__(
        self,
        words: Sequence[Words],
        spared: Sequence[Sequence[int]],
        sites: str,
        threshold: float,
        start: int,
    ) -> None:
        blend = [w.source_blend for w in words], [w.target_blend for w in words]
        spare = [
            [_places(spared, w.source) for w in words],
            [_places(spared, w.target) for w in words],
        ]
        self.marks = {
            (use, role): marks(places)
            for use, both in (("blend", blend), ("spare", spare))
            for role, places in zip(("source", "target"), both, strict=True)
        }
        self.sites, self.threshold, self.start = sites, threshold, start
        self.heat: dict[tuple[str, str], Tensor] = {}  # summed over the steps, [case, 1, y, x]

    @contextmanager
    def looking(self, taps: Taps) -> Generator[None]:
        """Add up the maps of the step inside, as they are after the edit."""
        if not self.marks["blend", "source"].any() and not self.marks["blend", "target"].any():
            yield
            return
        with record(taps, self.sites, "probs") as seen:
            yield
        for key, words in self.marks.items():
            heat = word_heat(seen.of(key[1]), words)
            self.heat[key] = self.heat[key] + heat if key in self.heat else heat

    def __call__(self, step: int, source: Tensor, edited: Tensor) -> Tensor:
        if step < self.start or not self.heat:
            return edited
        blend, spare = (
            (self.heat[use, "source"], self.heat[use, "target"]) for use in ("blend", "spare")
        )
        inside = blend_mask(*blend, self.threshold, edited.shape[-1])
        inside &= ~hot(*spare, self.threshold, edited.shape[-1])
        return torch.where(inside, edited, source)


class Grounds:
    """Keeps the attention of the rows `roles` between foregrounds and between backgrounds."""

    def __init__(
        self, words: Sequence[Words], seen: Seen, threshold: float, roles: Sequence[str]
    ) -> None:
        self.source = marks([w.source_blend for w in words])
        self.target = marks([w.target_blend for w in words])
        self.seen, self.threshold, self.roles = seen, threshold, roles

    def __call__(self, _site: Site, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        ran = self.seen.sites[: len(self.seen)]  # in this pass, before this site
        if not ran:
            return {}
        side = round(rows["target"].shape[-1] ** 0.5)
        theirs = self._foreground("source", self.source, ran, side)
        ours = self._foreground("target", self.target, ran, side)
        kept = ours[:, :, None] == theirs[:, None, :]  # [case, edit's position, source's position]
        named = self.source.any(1) & self.target.any(1)
        kept = kept | ~named[:, None, None].to(kept.device)
        return {role: within(rows[role], kept[:, None]) for role in self.roles}

    def _foreground(self, role: str, words: Tensor, ran: Sequence[Site], side: int) -> Tensor:
        """Where the words get attention, [case, position]."""
        heat = word_heat([self.seen[site.name][role] for site in ran], words)
        low, high = heat.amin((2, 3), keepdim=True), heat.amax((2, 3), keepdim=True)
        share = (heat - low) / (high - low).clamp(min=1e-12)
        return F.interpolate(share, size=(side, side)).flatten(1) >= self.threshold


def within(probs: Tensor, kept: Tensor) -> Tensor:
    """Attention among the kept positions only; evenly to all where none is kept."""
    limits = torch.finfo(probs.dtype)
    return probs.clamp(min=limits.tiny).log().masked_fill(~kept, limits.min).softmax(-1)


def _places(phrases: Sequence[Sequence[int]], tokens: Sequence[int]) -> list[int]:
    """Where any of the phrases stands."""
    return [place for phrase in phrases for place in places_of(phrase, tokens)]


def marks(places: Sequence[Sequence[int]], length: int = TOKENS) -> Tensor:
    """1 at each case's places, [case, token]."""
    marked = torch.zeros(len(places), length)
    for row, own in enumerate(places):
        for place in own:
            marked[row, place] = 1.0
    return marked


def word_heat(maps: Sequence[Tensor], words: Tensor) -> Tensor:
    """The attention to the marked tokens, over heads and layers of one size, [case, 1, y, x]."""
    columns = words[:, None, :, None].to(maps[0])
    heat = torch.cat([(m @ columns).squeeze(-1) for m in maps], dim=1).mean(1)  # [case, position]
    side = grid_side(heat)
    return heat.unflatten(1, (1, side, side))


def blend_mask(source: Tensor, target: Tensor, threshold: float, side: int) -> Tensor:
    """1 at and beside where either heat is large, [case, 1, side, side]; everywhere without any."""
    nowhere = (source.amax((1, 2, 3)) <= 0) & (target.amax((1, 2, 3)) <= 0)
    near = hot(_widened(source), _widened(target), threshold, side)
    return near | nowhere[:, None, None, None]


def hot(source: Tensor, target: Tensor, threshold: float, side: int) -> Tensor:
    """1 where either heat is large, [case, 1, side, side]."""
    larger = [F.interpolate(heat, size=(side, side)) for heat in (source, target)]
    # Of no heat at all the share is not a number, and that is not large.
    shares = [heat / heat.amax((2, 3), keepdim=True) for heat in larger]
    return (shares[0] > threshold) | (shares[1] > threshold)


def _widened(heat: Tensor) -> Tensor:
    return F.max_pool2d(heat, 3, stride=1, padding=1)

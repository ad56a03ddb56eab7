"""Attention maps of words, and local blending and foreground masks based on them.

A word map is the attention to the word's tokens in some layers; `marks` are tokens' positions.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from zerocon.core.conditions import Words
from zerocon.core.prompts import places_of
from zerocon.core.taps import Seen, Site, Taps, record

WordMap = Float[Tensor, "case 1 row column"]
Latents = Float[Tensor, "case channel y x"]
Marks = Float[Tensor, "case marked"]


class LocalBlend:
    """Restores the source where the blend words got little attention so far.

    Also where the words `spared` (each as its tokens) got much.
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
        # Asked once: on a device the answer would have to be waited for.
        self.named = any(bool(self.marks["blend", role].any()) for role in ("source", "target"))
        self.sites, self.threshold, self.start = sites, threshold, start
        self.maps: dict[tuple[str, str], WordMap] = {}  # summed over steps

    @contextmanager
    def recording(self, taps: Taps) -> Generator[None]:
        """Add the word maps of the enclosed forward pass, as edited."""
        if not self.named:
            yield
            return
        with record(taps, self.sites, "probs", roles=("source", "target")) as seen:
            yield
        for key, words in self.marks.items():
            maps = seen.of(key[1])
            self.marks[key] = words.to(maps[0])  # copied to the device in the first step only
            found = word_map(maps, self.marks[key], seen.sites[0].grid)
            self.maps[key] = self.maps[key] + found if key in self.maps else found

    def __call__(self, step: int, source: Latents, edited: Latents) -> Latents:
        if step < self.start or not self.maps:
            return edited
        blend, spare = (
            (self.maps[use, "source"], self.maps[use, "target"]) for use in ("blend", "spare")
        )
        size = edited.shape[-2:]
        inside = blend_mask(*blend, self.threshold, size)
        inside &= ~attended(*spare, self.threshold, size)
        return torch.where(inside, edited, source)


class ForegroundAttention:
    """Restricts attention to within foreground and within background, in the rows `roles`."""

    def __init__(
        self, words: Sequence[Words], seen: Seen, threshold: float, roles: Sequence[str]
    ) -> None:
        self.source = marks([w.source_blend for w in words])
        self.target = marks([w.target_blend for w in words])
        self.seen, self.threshold, self.roles = seen, threshold, roles

    def __call__(self, site: Site, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        ran = self.seen.sites[: len(self.seen)]  # sites before this one, in this pass
        if not ran:
            return {}
        theirs = self._foreground("source", self.source, ran, site.grid)
        ours = self._foreground("target", self.target, ran, site.grid)
        kept = ours[:, :, None] == theirs[:, None, :]  # [case, edit's position, source's position]
        named = self.source.any(1) & self.target.any(1)
        kept = kept | ~named[:, None, None].to(kept.device)
        return {role: within(rows[role], kept[:, None]) for role in self.roles if role in rows}

    def _foreground(
        self, role: str, words: Marks, ran: Sequence[Site], grid: tuple[int, int]
    ) -> Bool[Tensor, "case position"]:
        """Positions where the words get attention."""
        found = word_map([self.seen[site.name][role] for site in ran], words, ran[0].grid)
        low, high = found.amin((2, 3), keepdim=True), found.amax((2, 3), keepdim=True)
        share = (found - low) / (high - low).clamp(min=1e-12)
        return F.interpolate(share, size=grid).flatten(1) >= self.threshold


def within(
    probs: Float[Tensor, "case head position key"], kept: Bool[Tensor, "case 1 position key"]
) -> Float[Tensor, "case head position key"]:
    """Attention restricted to the kept positions; uniform if none is kept.

    In joint attention, the image tokens' total share is preserved.
    """
    limits = torch.finfo(probs.dtype)
    among = probs.clamp(min=limits.tiny).log().masked_fill(~kept, limits.min).softmax(-1)
    return among * probs.sum(-1, keepdim=True)


def _places(phrases: Sequence[Sequence[int]], tokens: Sequence[int]) -> list[int]:
    """Positions of all the phrases' tokens."""
    return [place for phrase in phrases for place in places_of(phrase, tokens)]


def marks(places: Sequence[Sequence[int]]) -> Marks:
    """1 at each case's positions; as many tokens as the last position needs."""
    marked = torch.zeros(len(places), 1 + max((p for own in places for p in own), default=0))
    for row, own in enumerate(places):
        for place in own:
            marked[row, place] = 1.0
    return marked


def word_map(
    maps: Sequence[Float[Tensor, "case _head position token"]], words: Marks, grid: tuple[int, int]
) -> WordMap:
    """The mean attention to the marked tokens over heads and layers."""
    columns = words[:, None, :, None].to(maps[0])
    marked = [m[..., : words.shape[1]] @ columns for m in maps]
    found = torch.cat([m.squeeze(-1) for m in marked], dim=1).mean(1)  # [case, position]
    return found.unflatten(1, (1, *grid))


def blend_mask(
    source: WordMap, target: WordMap, threshold: float, size: Sequence[int]
) -> Bool[Tensor, "case 1 y x"]:
    """True where either map is large, and next to it; everywhere if both are 0."""
    nowhere = (source.amax((1, 2, 3)) <= 0) & (target.amax((1, 2, 3)) <= 0)
    near = attended(_widened(source), _widened(target), threshold, size)
    return near | nowhere[:, None, None, None]


def attended(
    source: WordMap, target: WordMap, threshold: float, size: Sequence[int]
) -> Bool[Tensor, "case 1 y x"]:
    """True where either map exceeds the share `threshold` of its maximum."""
    larger = [F.interpolate(found, size=tuple(size)) for found in (source, target)]
    # For a map of zeros the share is nan, which exceeds no threshold.
    shares = [found / found.amax((2, 3), keepdim=True) for found in larger]
    return (shares[0] > threshold) | (shares[1] > threshold)


def _widened(found: WordMap) -> WordMap:
    return F.max_pool2d(found, 3, stride=1, padding=1)

"""Prompt-to-Prompt (Hertz et al. 2022): the source's attention maps, word by word."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeVar

import torch
from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.core.checks import ConfigError, in_range, one_of
from zerocon.core.conditions import Conditions, Draws, Words
from zerocon.core.devices import placed
from zerocon.core.forward import branch_rows, predict
from zerocon.core.levels import Level
from zerocon.core.prompts import (
    Alignment,
    bare,
    places_of,
    refined,
    replaced,
    same_places,
    word_schedule,
)
from zerocon.core.sampling import Branches, Guesses
from zerocon.core.taps import Site, Taps, read_patterns, replace, shared
from zerocon.core.word_maps import LocalBlend
from zerocon.inversions.base import Trajectory
from zerocon.methods.base import Used

T = TypeVar("T")
BRANCHES = "source", "target"  # the rows whose maps the edit is made of


@dataclass(frozen=True, eq=False)
class Edit:
    """What happens to the cross-attention maps of a batch."""

    alignment: Alignment
    scales: Tensor  # what the target's maps are multiplied by, [case, token]
    alphas: Tensor  # 1 where and when the edited maps are taken, [step, case, token]
    last: int  # the first step without any

    def maps(self, step: int, source: Tensor, target: Tensor) -> Tensor:
        scales = self.scales.to(target)[:, None, None, :]
        edited = self.alignment.applied(source, target) * scales
        alpha = self.alphas[step][:, None, None, :]
        return edited * alpha + target * (1 - alpha)


@dataclass(frozen=True, eq=False)
class Control:
    """What happens at a batch's forward passes: the row "target" gets the maps of "source"."""

    taps: Taps
    edit: Edit
    blend: LocalBlend
    self_sites: str
    self_steps: int

    @contextmanager
    def active(self, step: int) -> Generator[None]:
        """The step's taps, all on the conditional rows only."""

        def edited(_site: Site, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {"target": self.edit.maps(step, rows["source"], rows["target"])}

        with ExitStack() as open_taps:
            if step < self.edit.last:
                open_taps.enter_context(
                    replace(self.taps, "cross", "probs", edited, roles=BRANCHES)
                )
            if step < self.self_steps:  # the same maps, from what makes them
                for what in ("queries", "keys"):
                    take = shared("source", "target")
                    open_taps.enter_context(replace(self.taps, self.self_sites, what, take))
            yield

    @contextmanager
    def blending(self) -> Generator[None]:
        """The word maps of the passes inside, as the other taps leave them, count for blending."""
        with self.blend.recording(self.taps):
            yield

    def blended(self, step: int, z: Branches) -> Branches:
        return z | {"edit": self.blend(step, z["source"], z["edit"])}


@dataclass(frozen=True)
class P2P:
    """Source and target run side by side, each guided by its own empty-prompt row.

    `edit`: `replace` words one for one; `refine` a prompt by new words; `reweight` the words of
    one prompt. `cross_words` gives words of the target their own first and last share of the
    steps, `reweight` a factor; `blend_weight` is the factor of the case's blend word. The edit
    stays where the blend words get attention (`local_blend`), but off the words `blend_spares`.
    `shares`: where an inversion leaves out the first steps, whether a share of the steps is one of
    those that are `left`, or, as in the published runs with edit-friendly inversion, of `all`
    (counted from the first that is left).
    """

    needs_inversion: ClassVar[bool] = True
    uses_mask: ClassVar[bool] = False

    steps: int = 50
    guidance: float = 7.5
    source_guidance: float | None = None  # none: the same
    edit: Literal["replace", "refine", "reweight"] = "refine"
    shares: Literal["left", "all"] = "left"
    cross: float = 0.4
    cross_words: dict[str, list[float]] | None = None
    self_attention: float = 0.6
    self_sites: str = "self@1/4,self@1/8"
    reweight: dict[str, float] | None = None
    blend_weight: float = 1.0
    local_blend: bool = True
    blend_spares: list[str] | None = None
    blend_sites: str = "down.*.cross@1/4,up.*.cross@1/4"
    blend_threshold: float = 0.3
    blend_start: float = 0.2

    def __post_init__(self) -> None:
        in_range("method.steps", self.steps, 1, 1000)
        in_range("method.guidance", self.guidance, 0, 100)
        in_range("method.source_guidance", self.source_guidance or 0.0, 0, 100)
        one_of("method.edit", self.edit, ("replace", "refine", "reweight"))
        one_of("method.shares", self.shares, ("left", "all"))
        for name in ("cross", "self_attention", "blend_threshold", "blend_start"):
            in_range(f"method.{name}", getattr(self, name), 0, 1)
        read_patterns(self.self_sites)
        read_patterns(self.blend_sites)
        for word, factor in (self.reweight or {}).items():
            in_range(f"method.reweight.{word}", factor)
        for word, window in (self.cross_words or {}).items():
            if len(window) != 2 or not 0 <= window[0] <= window[1] <= 1:
                raise ConfigError(
                    f"method.cross_words.{word} is {window}; give first and last share: [0, 0.8]"
                )

    @property
    def uses(self) -> frozenset[Used]:
        used: set[Used] = {"trajectory", "source_row", "target", "target_words"}
        if {self.guidance, self._source_guidance} != {1.0}:
            used.add("negative")
        return frozenset(used)

    @property
    def _source_guidance(self) -> float:
        return self.guidance if self.source_guidance is None else self.source_guidance

    @torch.no_grad()
    def __call__(
        self, backbone: Backbone, trajectory: Trajectory, conditions: Conditions, draws: Draws
    ) -> Tensor:
        control = self.control(backbone, conditions, len(trajectory.path))

        def evaluate(step: int, z: Branches, level: Level) -> Guesses:
            negative = trajectory.negative(step, conditions.negative)
            with control.active(step), control.blending():
                texts = negative, conditions.source, conditions.target
                rows = branch_rows(backbone, z, texts, self.guidance, self._source_guidance)
                found = predict(backbone, level, rows)
            return trajectory.both_guided(found, self.guidance, self._source_guidance)

        start = trajectory.starts("source", "edit")
        return trajectory.sample(start, evaluate, after=control.blended)

    def control(self, backbone: Backbone, conditions: Conditions, left: int) -> Control:
        steps = left if self.shares == "left" else self.steps
        blend = LocalBlend(
            conditions.words if self.local_blend else (),
            [bare(backbone, word) for word in self.blend_spares or ()],
            self.blend_sites,
            self.blend_threshold,
            start=int(self.blend_start * steps),
        )
        return Control(
            backbone.taps,
            self._edit(backbone, conditions, steps),
            blend,
            self.self_sites,
            self_steps=int(self.self_attention * steps),
        )

    def _edit(self, backbone: Backbone, conditions: Conditions, steps: int) -> Edit:
        if len(conditions.words) != len(conditions.target):
            raise ValueError("P2P aligns the prompts' tokens: Conditions.words must have them")
        device, length = conditions.target.tokens.device, conditions.target.tokens.shape[1]
        every = conditions.words
        by_case = [self._alphas(backbone, words, steps, length) for words in every]
        alphas = torch.stack(by_case, dim=1)
        return Edit(
            Alignment.stacked([self._aligned(words).widened(length) for words in every], device),
            placed(torch.stack([self._scales(backbone, words, length) for words in every]), device),
            placed(alphas, device),
            last=1 + max((i for i in range(steps) if alphas[i].any()), default=-1),
        )

    def _alphas(self, backbone: Backbone, words: Words, steps: int, length: int) -> Tensor:
        own = _at_places(backbone, self.cross_words or {}, words)
        return word_schedule(steps, (0.0, self.cross), own, length)

    def _scales(self, backbone: Backbone, words: Words, length: int) -> Tensor:
        scales = torch.ones(length, dtype=torch.float64)
        scales[list(words.target_blend)] = self.blend_weight
        for place, factor in _at_places(backbone, self.reweight or {}, words).items():
            scales[place] = factor
        return scales

    def _aligned(self, words: Words) -> Alignment:
        if self.edit == "replace":
            split = words.source_split, words.target_split
            return replaced(*split, words.length, words.start)
        if self.edit == "refine":
            return refined(words.source, words.target, words.length)
        return same_places(words.length)


def _at_places(backbone: Backbone, by_word: Mapping[str, T], words: Words) -> dict[int, T]:
    """Values given for words of the target prompt, by the places of their tokens."""
    return {
        place: value
        for word, value in by_word.items()
        for place in places_of(bare(backbone, word), words.target)
    }

"""MasaCtrl (Cao et al. 2023): mutual self-attention, the edit looks things up in the source."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.core.checks import in_range, one_of
from zerocon.core.conditions import Conditions, Draws, Words
from zerocon.core.forward import branch_rows, predict
from zerocon.core.levels import Level
from zerocon.core.sampling import Branches, Guesses
from zerocon.core.taps import Site, Taps, read_patterns, record, replace
from zerocon.core.word_maps import ForegroundAttention
from zerocon.inversions.base import Trajectory
from zerocon.methods.base import Used

# Whose keys and values each of the edit's rows attends to.
TAKEN_FROM = {"negative": "source_negative", "target": "source"}


@dataclass(frozen=True)
class MasaCtrl:
    """From step `first_step` on, at `sites`, the edit asks with its own queries for the source's
    keys and values.

    `masked`: its foreground asks in the source's foreground only, its background in the source's
    background. Foreground is where a case's blend words get attention.
    """

    needs_inversion: ClassVar[bool] = True
    uses_mask: ClassVar[bool] = False

    steps: int = 50
    guidance: float = 7.5
    first_step: int = 4
    sites: str = "self#10..15"
    source_prompt: Literal["source", "empty"] = "source"
    masked: bool = False
    mask_sites: str = "cross@1/4"
    mask_threshold: float = 0.1

    def __post_init__(self) -> None:
        in_range("method.steps", self.steps, 1, 1000)
        in_range("method.guidance", self.guidance, 0, 100)
        in_range("method.first_step", self.first_step, 0, 1000)
        in_range("method.mask_threshold", self.mask_threshold, 0, 1)
        one_of("method.source_prompt", self.source_prompt, ("source", "empty"))
        read_patterns(self.sites)
        read_patterns(self.mask_sites)

    @property
    def uses(self) -> frozenset[Used]:
        used: set[Used] = {"trajectory", "source_row", "target"}
        if self.guidance != 1.0:
            used.add("negative")
        if self.masked:
            used.add("target_words")
        return frozenset(used)

    @torch.no_grad()
    def __call__(
        self, backbone: Backbone, trajectory: Trajectory, conditions: Conditions, draws: Draws
    ) -> Tensor:
        text = conditions.source if self.source_prompt == "source" else conditions.negative

        def evaluate(step: int, z: Branches, level: Level) -> Guesses:
            negative = trajectory.negative(step, conditions.negative)
            with self._mutual(backbone.taps, step, conditions.words):
                texts = negative, text, conditions.target
                rows = branch_rows(backbone, z, texts, self.guidance, self.guidance)
                found = predict(backbone, level, rows)
            return trajectory.both_guided(found, self.guidance, self.guidance)

        return trajectory.sample(trajectory.starts("source", "edit"), evaluate)

    @contextmanager
    def _mutual(self, taps: Taps, step: int, words: Sequence[Words]) -> Generator[None]:
        with ExitStack() as open_taps:
            if step >= self.first_step:
                for what in ("keys", "values"):
                    open_taps.enter_context(replace(taps, self.sites, what, _the_sources))
                if self.masked and words:
                    seen = open_taps.enter_context(
                        record(taps, self.mask_sites, "probs", roles=("source", "target"))
                    )
                    apart = ForegroundAttention(words, seen, self.mask_threshold, tuple(TAKEN_FROM))
                    open_taps.enter_context(
                        replace(taps, self.sites, "probs", apart, roles=TAKEN_FROM)
                    )
            yield


def _the_sources(_site: Site, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {role: rows[whose] for role, whose in TAKEN_FROM.items() if role in rows}

"""FTEdit (Xu et al. 2025): what both prompts say is told to the edit as it was told to the source.

The text tokens that both prompts share take the source's after their adaptive norm, at every
block, so that only the new words act. In the first steps the edit has the source's values.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.core.checks import in_range
from zerocon.core.conditions import Conditions, Draws
from zerocon.core.forward import branch_rows, predict
from zerocon.core.levels import Level
from zerocon.core.prompts import Alignment, refined_throughout
from zerocon.core.sampling import Branches, Guesses
from zerocon.core.taps import Site, Taps, read_patterns, replace, shared
from zerocon.inversions.base import Trajectory
from zerocon.methods.base import Used


@dataclass(frozen=True)
class FTEdit:
    """In the first share `text` of the steps, at `text_sites`, the target's tokens that also stand
    in the source prompt take the source's; in the first share `values`, at `value_sites`, all of
    the target's values are the source's. Rows under the empty prompt are left alone.

    The paper inverts by fixed point and puts the source back after each step (`inversion=ftedit`).
    """

    needs_inversion: ClassVar[bool] = True
    uses_mask: ClassVar[bool] = False

    steps: int = 30
    guidance: float = 2.0
    text: float = 1.0
    text_sites: str = "joint.*.cross"
    values: float = 0.15
    value_sites: str = "joint.*.self,joint.*.cross,!*.dual.*"

    def __post_init__(self) -> None:
        in_range("method.steps", self.steps, 1, 1000)
        in_range("method.guidance", self.guidance, 0, 100)
        in_range("method.text", self.text, 0, 1)
        in_range("method.values", self.values, 0, 1)
        read_patterns(self.text_sites)
        read_patterns(self.value_sites)

    @property
    def uses(self) -> frozenset[Used]:
        used: set[Used] = {"trajectory", "source_row", "target"}
        if self.guidance != 1.0:
            used.add("negative")
        if self.text:
            used.add("target_words")
        return frozenset(used)

    @torch.no_grad()
    def __call__(
        self, backbone: Backbone, trajectory: Trajectory, conditions: Conditions, draws: Draws
    ) -> Tensor:
        steps, alignment = len(trajectory.path), self._alignment(conditions)

        def evaluate(step: int, z: Branches, level: Level) -> Guesses:
            negative = trajectory.negative(step, conditions.negative)
            texts = negative, conditions.source, conditions.target
            rows = branch_rows(backbone, z, texts, self.guidance, self.guidance)
            with self._controlled(backbone.taps, step, steps, alignment):
                found = predict(backbone, level, rows)
            return trajectory.both_guided(found, self.guidance, self.guidance)

        return trajectory.sample(trajectory.starts("source", "edit"), evaluate)

    @contextmanager
    def _controlled(
        self, taps: Taps, step: int, steps: int, alignment: Alignment
    ) -> Generator[None]:
        def aligned(_site: Site, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {"target": alignment.tokens(rows["source"], rows["target"])}

        with ExitStack() as open_taps:
            if step < int(self.text * steps):
                open_taps.enter_context(replace(taps, self.text_sites, "text", aligned))
            if step < int(self.values * steps):
                take = shared("source", "target")
                open_taps.enter_context(replace(taps, self.value_sites, "values", take))
            yield

    def _alignment(self, conditions: Conditions) -> Alignment:
        device, length = conditions.target.tokens.device, conditions.target.tokens.shape[1]
        found = [refined_throughout(words).widened(length) for words in conditions.words]
        if len(found) != len(conditions.target):
            raise ValueError("FTEdit aligns the prompts' tokens: Conditions.words must have them")
        return Alignment.stacked(found, device)

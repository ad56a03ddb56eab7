"""RF-Edit (RF-Solver, Wang et al. 2024) and FireFlow (Deng et al. 2024): the values of inversion.

While the picture is inverted, self-attention passes values that know what is where. The first
steps of sampling take these values in place of the edit's own.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.core.checks import in_range
from zerocon.core.conditions import Conditions, Draws
from zerocon.core.forward import needs_negative, predict, told
from zerocon.core.levels import Level
from zerocon.core.sampling import Branches, Guesses
from zerocon.core.taps import Change, Seen, Site, Taps, What, read_patterns, record, replace
from zerocon.inversions.base import Trajectory
from zerocon.methods.base import Used

Given = Mapping[What, Seen]  # of one evaluation of the inversion


@dataclass(frozen=True)
class ValueInjection:
    """In the first share `inject` of the steps, each evaluation takes at `sites` the values that
    the inversion's evaluation of the same step had, under the source prompt; with `keys`, its
    keys as well.

    The published code keeps the values while it inverts. Here the inversion's evaluations of
    these steps are made again.
    """

    needs_inversion: ClassVar[bool] = True
    uses_mask: ClassVar[bool] = False

    steps: int = 25
    guidance: float = 2.0
    inject: float = 0.12
    sites: str = "single.2?.*,single.3?.*"
    keys: bool = False

    def __post_init__(self) -> None:
        in_range("method.steps", self.steps, 1, 1000)
        in_range("method.guidance", self.guidance, 0, 100)
        in_range("method.inject", self.inject, 0, 1)
        read_patterns(self.sites)

    @property
    def uses(self) -> frozenset[Used]:
        used: set[Used] = {"trajectory", "target"}
        if self.guidance != 1.0:
            used.add("negative")
        return frozenset(used)

    @property
    def taken(self) -> Sequence[What]:
        return ("keys", "values") if self.keys else ("values",)

    @torch.no_grad()
    def __call__(
        self, backbone: Backbone, trajectory: Trajectory, conditions: Conditions, draws: Draws
    ) -> Tensor:
        injected = round(self.inject * len(trajectory.path))
        kept = dict[Level, Given]()

        def before(step: int, z: Branches) -> Branches:
            kept.clear()
            if step < injected:
                kept.update(self._kept(backbone, trajectory, conditions, step))
            return z

        def evaluate(step: int, z: Branches, level: Level) -> Guesses:
            text = told(backbone, conditions.target, self.guidance)
            rows = {"target": (z["edit"], text)}
            if needs_negative(backbone, self.guidance):
                negative = trajectory.negative(step, conditions.negative)
                rows = {"negative": (z["edit"], negative)} | rows
            with self._given(backbone.taps, kept.get(level, {})):
                found = predict(backbone, level, rows)
            return {"edit": trajectory.guided_role(found, "target", "negative", self.guidance)}

        return trajectory.sample(trajectory.starts("edit"), evaluate, before=before)

    def _kept(
        self, backbone: Backbone, trajectory: Trajectory, conditions: Conditions, step: int
    ) -> dict[Level, Given]:
        """What the inversion's evaluations of the step had, by the level of the edit's that takes
        it: the middle's in the middle, the one at the step's end in the one at its start."""
        here, there = trajectory.path.steps[step]
        text = told(backbone, conditions.source, trajectory.guidance)
        kept = dict[Level, Given]()

        def watched(z: Branches, level: Level) -> Guesses:
            with ExitStack() as open_taps:
                kept[here if level == there else level] = {
                    what: open_taps.enter_context(record(backbone.taps, self.sites, what))
                    for what in self.taken
                }
                return predict(backbone, level, {"source": (z["source"], text)})

        trajectory.retrace(step, watched)
        return kept

    @contextmanager
    def _given(self, taps: Taps, given: Given) -> Generator[None]:
        with ExitStack() as open_taps:
            for what, seen in given.items():
                open_taps.enter_context(replace(taps, self.sites, what, _from(seen)))
            yield


def _from(seen: Seen) -> Change:
    """Every row takes what the source's had."""

    def change(site: Site, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return dict.fromkeys(rows, seen[site.name]["source"])

    return change

"""Plug-and-Play (Tumanyan et al. 2023): features and self-attention of the inverted source."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.core.checks import in_range, one_of
from zerocon.core.conditions import Condition, Conditions, Draws
from zerocon.core.forward import needs_negative, predict, told
from zerocon.core.levels import Level
from zerocon.core.sampling import Branches, Guesses, unchanged
from zerocon.core.taps import Site, Taps, read_patterns, replace
from zerocon.inversions.base import Trajectory
from zerocon.methods.base import Used


@dataclass(frozen=True)
class PnP:
    """The source runs beside the edit on its own trajectory, under the empty prompt.

    For the first share `attention` of the steps the edit attends with the source's queries and
    keys, for the first share `features` it has the source's features. `source`: the latents that
    inversion passed (`trajectory`), or those that sampling under the source prompt passes on its
    way back (`replayed`); then it matters whether inversion pins it. PIE-Bench's DDIM runs have
    these one step `late`: every step, and with the first the edit's own start, takes the latent
    that replaying the step has led to.
    """

    needs_inversion: ClassVar[bool] = True
    uses_mask: ClassVar[bool] = False

    steps: int = 50
    guidance: float = 7.5
    attention: float = 0.5
    features: float = 0.8
    attention_sites: str = "up.1.1.self,up.1.2.self,up.2.*.self,up.3.*.self"
    feature_sites: str = "up.1.1.res"
    negative_prompt: str = ""
    source: Literal["trajectory", "replayed", "late"] = "trajectory"

    def __post_init__(self) -> None:
        in_range("method.steps", self.steps, 1, 1000)
        in_range("method.guidance", self.guidance, 0, 100)
        in_range("method.attention", self.attention, 0, 1)
        in_range("method.features", self.features, 0, 1)
        one_of("method.source", self.source, ("trajectory", "replayed", "late"))
        read_patterns(self.attention_sites)
        read_patterns(self.feature_sites)

    @property
    def uses(self) -> frozenset[Used]:
        used: set[Used] = {"trajectory", "source_row", "target"}
        if self.guidance != 1.0 and not self.negative_prompt:
            used.add("negative")
        return frozenset(used)

    @property
    def own_negative(self) -> str | None:
        """The setting that asks for a negative condition of its own."""
        return "method.negative_prompt" if self.negative_prompt else None

    @property
    def asks_at_levels_only(self) -> bool:
        """A source that is a step late is on none of the levels between."""
        return self.source == "late"

    @torch.no_grad()
    def __call__(
        self, backbone: Backbone, trajectory: Trajectory, conditions: Conditions, draws: Draws
    ) -> Tensor:
        own = None
        if self.negative_prompt:
            own = backbone.embed([self.negative_prompt] * len(conditions.negative))

        def plain(text: Condition) -> Condition:
            return told(backbone, text, 1.0)

        ahead_by = trajectory.solver

        def replay(z: Branches, level: Level) -> Guesses:
            rows = {"replay": (z["source"], plain(conditions.source))}
            return {"source": predict(backbone, level, rows)["replay"]}

        def one_ahead(step: int, z: Branches) -> Branches:
            """The source a step ahead of the edit; the first step moves the edit's start along."""
            alone = {"source": z["source"]}
            ahead = trajectory.settled(step, ahead_by.step(step, alone, replay))["source"]
            return {"source": ahead, "edit": z["edit"] if step else ahead}

        def evaluate(step: int, z: Branches, level: Level) -> Guesses:
            negative = trajectory.negative(step, conditions.negative) if own is None else own
            own_path = self.source == "trajectory"
            source = trajectory.source_at(step, level) if own_path else z["source"]
            rows = {"source": (source, plain(conditions.negative))}
            if needs_negative(backbone, self.guidance):
                rows["negative"] = z["edit"], negative
            rows["target"] = z["edit"], told(backbone, conditions.target, self.guidance)
            if self.source == "replayed":
                rows["replay"] = z["source"], plain(conditions.source)
            with self._injected(backbone.taps, step, len(trajectory.path)):
                found = predict(backbone, level, rows)
            edit = trajectory.guided_role(found, "target", "negative", self.guidance)
            return {"edit": edit} | ({"source": found["replay"]} if "replay" in found else {})

        sampled = ("edit",) if self.source == "trajectory" else ("source", "edit")
        before = one_ahead if self.source == "late" else unchanged
        return trajectory.sample(trajectory.starts(*sampled), evaluate, before=before)

    @contextmanager
    def _injected(self, taps: Taps, step: int, steps: int) -> Generator[None]:
        """The edit's rows take from the source's what this step takes."""
        take = _the_sources
        with ExitStack() as open_taps:
            if step < int(self.attention * steps):
                for what in ("queries", "keys"):
                    open_taps.enter_context(replace(taps, self.attention_sites, what, take))
            if step < int(self.features * steps):
                open_taps.enter_context(replace(taps, self.feature_sites, "features", take))
            yield


def _the_sources(_site: Site, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {role: rows["source"] for role in ("negative", "target") if role in rows}

"""KV-Edit (Zhu et al. 2025): inside a given mask the edit attends to the source's background.

Only the mask's part of the picture is sampled. Where its tokens look for the rest, they find the
keys and values that the source's background had while it was inverted.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from zerocon.backbones.base import Backbone
from zerocon.core.checks import in_range, one_of
from zerocon.core.conditions import Conditions, Draws
from zerocon.core.forward import needs_negative, predict, told
from zerocon.core.levels import Level
from zerocon.core.sampling import Branches, Guesses
from zerocon.core.taps import Site, Taps, read_patterns, replace
from zerocon.inversions.base import Trajectory
from zerocon.methods.base import Used, given_masks


@dataclass(frozen=True)
class KVEdit:
    """At `sites` the keys and values off the mask are the source's, at every step; the latent off
    the mask is the source's, too, and at the end the picture's own.

    `source`: whose latents these are. `late`, as published, takes those at each step's end, where
    Euler's inversion evaluates the network; `trajectory` those of the edit's own level. The
    published code keeps the keys and values while it inverts; here the source's row is run again.
    `fresh_start`: the mask's part of the start is drawn anew instead of inverted.
    """

    needs_inversion: ClassVar[bool] = True
    uses_mask: ClassVar[bool] = True

    steps: int = 28
    guidance: float = 5.5
    sites: str = "self"
    source: Literal["late", "trajectory"] = "late"
    fresh_start: bool = False

    def __post_init__(self) -> None:
        in_range("method.steps", self.steps, 1, 1000)
        in_range("method.guidance", self.guidance, 0, 100)
        one_of("method.source", self.source, ("late", "trajectory"))
        read_patterns(self.sites)

    @property
    def uses(self) -> frozenset[Used]:
        used: set[Used] = {"trajectory", "target"}
        if self.guidance != 1.0:
            used.add("negative")
        return frozenset(used)

    @torch.no_grad()
    def __call__(
        self, backbone: Backbone, trajectory: Trajectory, conditions: Conditions, draws: Draws
    ) -> Tensor:
        inside = latent_masks(given_masks(conditions), trajectory.clean)
        path = trajectory.path

        def pasted(z: Tensor, source: Tensor) -> Tensor:
            return torch.where(inside > 0, z, source)

        def source_of(step: int, level: Level) -> tuple[Tensor, Level]:
            if self.source == "late":
                return trajectory.before(step + 1), path.steps[step][1]
            return trajectory.source_at(step, level), level

        def before(step: int, z: Branches) -> Branches:
            source, _ = source_of(step, path.levels[step])
            return {"edit": pasted(z["edit"], source)}

        def evaluate(step: int, z: Branches, level: Level) -> Guesses:
            source, its_level = source_of(step, level)
            text = told(backbone, conditions.source, trajectory.guidance)
            rows = {"source": (source, text)}
            if needs_negative(backbone, self.guidance):
                rows["negative"] = z["edit"], trajectory.negative(step, conditions.negative)
            rows["target"] = z["edit"], told(backbone, conditions.target, self.guidance)
            levels = {role: its_level if role == "source" else level for role in rows}
            with self._attended(backbone.taps, inside):
                found = predict(backbone, levels, rows)
            return {"edit": trajectory.guided_role(found, "target", "negative", self.guidance)}

        start = trajectory.starts("edit")
        if self.fresh_start:
            noise = draws.normal_like(trajectory.clean, "kv_edit")
            start = {"edit": path.levels[0].mix(trajectory.clean, noise)}
        return pasted(trajectory.sample(start, evaluate, before=before), trajectory.clean)

    @contextmanager
    def _attended(self, taps: Taps, inside: Tensor) -> Generator[None]:
        change = Background(inside)
        with replace(taps, self.sites, "keys", change), replace(taps, self.sites, "values", change):
            yield


@dataclass(frozen=True, eq=False)
class Background:
    """A change that puts the source's image tokens off the mask into the edit's."""

    inside: Tensor  # the mask, [case, 1, y, x]

    def __call__(self, site: Site, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        # A position belongs to the mask if any of the latents under it does.
        inside = F.adaptive_max_pool2d(self.inside, site.grid).flatten(2)[..., None] > 0
        return {
            role: torch.where(inside, activation, rows["source"])
            for role, activation in rows.items()
            if role != "source"
        }


def latent_masks(masks: Tensor, z: Tensor) -> Tensor:
    """1 at the latents of which any part lies in the mask, as published, [case, 1, y, x]."""
    size = z.shape[2:]
    small = F.interpolate(masks.to(z), size=size, mode="bilinear", align_corners=False)
    return (small > 0).to(z)

"""Deterministic DDIM inversion (Song et al. 2020; Dhariwal & Nichol 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.core.checks import ConfigError, in_range, one_of
from zerocon.core.conditions import Conditions, Draws
from zerocon.core.levels import Path
from zerocon.inversions.base import Provided, Trajectory


@dataclass(frozen=True)
class DDIMInversion:
    """The sampler's steps in reverse, at guidance 1.

    `prompt`: the source condition, or the empty one (Plug-and-Play). `refinements`: how often
    each step is repeated with the prediction at its result, towards the fixed point from which
    sampling reconstructs exactly. `steps`: number of inversion steps if larger than the sampler's
    (Plug-and-Play: 1000 and 50); the trajectory has the latents at the sampler's levels. `every`:
    how many steps one evaluation serves, the latents between lying on its way: an approximation.
    """

    provides: ClassVar[frozenset[Provided]] = frozenset({"trajectory"})
    uses_draws: ClassVar[bool] = False  # the same for every seed and case id

    prompt: Literal["source", "empty"] = "source"
    refinements: int = 0
    steps: int | None = None  # None: as the sampler
    every: int = 1

    def __post_init__(self) -> None:
        one_of("inversion.prompt", self.prompt, ("source", "empty"))
        in_range("inversion.refinements", self.refinements, 0, 100)
        in_range("inversion.every", self.every, 1, 1000)
        if self.steps is not None:
            in_range("inversion.steps", self.steps, 1, 1000)

    @torch.no_grad()
    def __call__(
        self, backbone: Backbone, clean: Tensor, conditions: Conditions, steps: int, draws: Draws
    ) -> Trajectory:
        cond = conditions.source if self.prompt == "source" else conditions.negative
        path = backbone.path(steps)
        walk = self._finer(backbone, path)
        z, latents = clean, [clean]
        steps_up = walk.steps[::-1]
        for first in range(0, len(steps_up), self.every):
            served = steps_up[first : first + self.every]
            here, end = served[0][1], served[-1][0]
            # As in all published implementations, the network gets the time at the step's *end*.
            guess = backbone.predict(z, end, cond).seen_from(z, here)
            for _ in range(self.refinements):
                guess = backbone.predict(guess.at(end), end, cond).seen_from(z, here)
            latents += [guess.at(noisier) for noisier, _ in served if noisier in path.levels]
            z = guess.at(end)
        return Trajectory(path, torch.stack(latents))

    def _finer(self, backbone: Backbone, path: Path) -> Path:
        """The path of the inversion's own steps, up to the level at which sampling starts."""
        if self.steps is None:
            return path
        finer = backbone.path(self.steps)
        missing = [level.time for level in path.levels if level not in finer.levels]
        if missing:
            raise ConfigError(
                f"inversion.steps is {self.steps}, and its times do not include {missing[0]:g}, "
                f"one of the sampler's {len(path)} times; use a multiple of method.steps"
            )
        return Path(finer.levels[finer.levels.index(path.levels[0]) :])

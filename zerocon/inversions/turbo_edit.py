"""TurboEdit's inversion (Deutch et al. 2024): edit-friendly noise maps at shifted noise levels."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.core.checks import ConfigError, in_range
from zerocon.core.conditions import Conditions, Draws
from zerocon.core.levels import Path, noisy_mean, vp_level
from zerocon.core.timesteps import TRAINED_TIMES
from zerocon.inversions.base import Provided, Trajectory


@dataclass(frozen=True)
class TurboEditInversion:
    """For models distilled to a few steps, for which edit-friendly latents are too noisy.

    Each step's latent is drawn as in edit-friendly inversion, but at the noise level of a time
    `shift` timesteps smaller than the network's time input. `skip`: share of the steps omitted,
    noisiest first; or `times` lists the timesteps explicitly. `last_rms`: upper limit of the root
    mean square of the noise added in the last step.
    """

    provides: ClassVar[frozenset[Provided]] = frozenset({"trajectory"})
    diffusion_only: ClassVar[bool] = True  # η = 1 steps are those of diffusion models

    skip: float = 0.2
    shift: float = 1.0
    times: list[int] | None = None
    last_rms: float | None = 15.5 / 128  # a norm of 15.5 for 4 x 64 x 64 numbers

    def __post_init__(self) -> None:
        in_range("inversion.skip", self.skip, 0, 1)
        in_range("inversion.shift", self.shift, 0, TRAINED_TIMES)
        if self.skip == 1:
            raise ConfigError("inversion.skip is 1, which leaves no step; it must be below 1")
        if self.last_rms is not None:
            in_range("inversion.last_rms", self.last_rms, 0)
        if self.times is not None:
            self._check_times(self.times)

    def _check_times(self, times: list[int]) -> None:
        if not times or any(a <= b for a, b in pairwise([TRAINED_TIMES, *times, 0])):
            raise ConfigError(
                f"inversion.times is {times}; give timesteps between 1 and {TRAINED_TIMES - 1}, "
                "the largest first: [799, 499, 199]"
            )
        if self.skip:
            raise ConfigError(
                f"inversion.skip is {self.skip}, but inversion.times lists the timesteps: "
                "set only one of the two (inversion.skip=0)"
            )

    @property
    def fitted_steps(self) -> int | None:
        return None if self.times is None else len(self.times)

    @torch.no_grad()
    def __call__(
        self, backbone: Backbone, clean: Tensor, conditions: Conditions, steps: int, draws: Draws
    ) -> Trajectory:
        path = self._path(backbone, steps)
        drawn = self._drawn(backbone, clean, path, draws)
        residuals: list[Tensor] = []
        for (here, there), (z, goal) in zip(path.steps, pairwise(drawn), strict=True):
            guess = backbone.predict(z, here, conditions.source)
            residuals.append(goal - noisy_mean(guess, here, there))
        if self.last_rms is not None:
            residuals[-1] = _limited(residuals[-1], self.last_rms)
        return Trajectory(path, torch.stack(drawn[::-1]), residuals=torch.stack(residuals))

    def _path(self, backbone: Backbone, steps: int) -> Path:
        """The path; it ends at the clean latent, independent of the scheduler's last ā."""
        if self.times is None:
            left = max(1, steps - round(self.skip * steps))
            levels = backbone.path(steps).tail(left).levels[:-1]
        else:
            levels = tuple(backbone.level(time / TRAINED_TIMES) for time in self.times)
        return Path((*levels, vp_level(0, 1.0)))

    def _drawn(self, backbone: Backbone, clean: Tensor, path: Path, draws: Draws) -> list[Tensor]:
        """An independent draw for each step, noisiest first, and the picture."""
        first, second = path.levels[:2]
        shift = round(self.shift * (first.time - second.time))
        drawn: list[Tensor] = []
        for number, level in enumerate(path.levels[:-1]):
            time = round(level.time) - shift
            noise = draws.normal_like(clean, f"turbo_edit/{number}")
            seen = backbone.level(time / TRAINED_TIMES).mix(clean, noise) if time > 0 else clean
            drawn.append(seen)
        return [*drawn, clean]


def _limited(residual: Tensor, most: float) -> Tensor:
    """Scale down cases whose root mean square is larger than `most`."""
    size = residual.square().mean((1, 2, 3), keepdim=True).sqrt()
    return residual * (most / size.clamp(min=most)) if most else torch.zeros_like(residual)

"""Delta Denoising Score (Hertz et al. 2023): descends the picture's own latent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.core.checks import ConfigError, in_range
from zerocon.core.conditions import Conditions, Draws
from zerocon.core.forward import branch_rows, predict
from zerocon.core.levels import Level, at_least_single
from zerocon.core.timesteps import TRAINED_TIMES
from zerocon.inversions.base import Trajectory
from zerocon.methods.base import Used


@dataclass(frozen=True, eq=False)
class Noising:
    """One iteration's level and noise, the same for source and edit."""

    number: int
    level: Level
    noise: Tensor

    def __call__(self, z: Tensor) -> Tensor:
        return self.level.mix(z, self.noise.to(z)).to(self.noise)


@dataclass(frozen=True, kw_only=True)
class DDS:
    """`steps` counts the descents. `scale` is of the score's difference, over a latent's area.

    Each case has its own noise. The time of an iteration is drawn from the run's seed and is
    the same for all cases, so that a batch passes the network together.
    """

    needs_inversion: ClassVar[bool] = False
    uses_mask: ClassVar[bool] = False
    uses: ClassVar[frozenset[Used]] = frozenset({"target"})

    steps: int = 200
    guidance: float = 7.5
    learning_rate: float = 0.1
    scale: float = 2000.0
    first_time: int = 50
    last_time: int = 949

    def __post_init__(self) -> None:
        in_range("method.steps", self.steps, 1, 1000)
        in_range("method.guidance", self.guidance, 0, 100)
        in_range("method.learning_rate", self.learning_rate, 0)
        in_range("method.scale", self.scale, 0)
        in_range("method.first_time", self.first_time, 1, TRAINED_TIMES - 1)
        in_range("method.last_time", self.last_time, 1, TRAINED_TIMES - 1)
        if self.last_time <= self.first_time:
            raise ConfigError(
                f"method.last_time is {self.last_time}; it must be more than "
                f"method.first_time, which is {self.first_time}"
            )

    @torch.no_grad()
    def __call__(
        self, backbone: Backbone, trajectory: Trajectory, conditions: Conditions, draws: Draws
    ) -> Tensor:
        z = at_least_single(trajectory.clean)
        for number in range(self.steps):
            level = backbone.level(self._time(number, draws.seed) / TRAINED_TIMES)
            noising = Noising(number, level, draws.normal_like(trajectory.clean, f"noise/{number}"))
            slope = self._slope(backbone, trajectory, conditions, draws, z, noising)
            z = z - self.learning_rate * slope
        return z.to(trajectory.clean)

    def _time(self, number: int, seed: int) -> int:
        generator = Draws(seed, ()).generator("every case", f"time/{number}")
        return int(torch.randint(self.first_time, self.last_time, (1,), generator=generator))

    def _slope(
        self,
        backbone: Backbone,
        trajectory: Trajectory,
        conditions: Conditions,
        draws: Draws,
        z: Tensor,
        noising: Noising,
    ) -> Tensor:
        """`ε̂(z_t, t, c_tgt) - ε̂(z_t^src, t, c_src)`, scaled as the published code does."""
        noisy = {"source": noising(trajectory.clean), "edit": noising(z)}
        texts = conditions.negative, conditions.source, conditions.target
        rows = branch_rows(backbone, noisy, texts, self.guidance, self.guidance)
        found = predict(backbone, noising.level, rows)
        guess = trajectory.both_guided(found, self.guidance, self.guidance)
        delta = guess["edit"].noise - guess["source"].noise
        return self.scale / z[0, 0].numel() * at_least_single(delta)

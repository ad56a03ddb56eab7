"""Delta Denoising Score (Hertz et al. 2023): descends the picture's own latent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.core.checks import ConfigError, in_range
from zerocon.core.conditions import Conditions, Draws
from zerocon.core.diffusion import add_noise, at_least_single
from zerocon.core.forward import predict
from zerocon.inversions.base import Trajectory
from zerocon.methods.base import Used

TRAINED_TIMES = 1000


@dataclass(frozen=True, eq=False)
class Noising:
    """One iteration's time and noise, the same for source and edit."""

    number: int
    time: int
    alpha: float
    noise: Tensor

    def __call__(self, z: Tensor) -> Tensor:
        return add_noise(z, self.noise.to(z), self.alpha).to(self.noise)


@dataclass(frozen=True, kw_only=True)
class DDS:
    """`steps` counts the descents. `scale` is of the score's difference, over a latent's area.

    Noise is each case's own. The time of an iteration is drawn from the run's seed and shared
    by all cases, so that a batch passes the network together.
    """

    needs_inversion: ClassVar[bool] = False
    uses_mask: ClassVar[bool] = False
    uses: ClassVar[frozenset[Used]] = frozenset({"target"})

    steps: int = 200
    guidance: float = 7.5
    learning_rate: float = 0.1
    scale: float = 2000.0
    first_time: int = 50
    last_time: int = 950

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
        every = backbone.schedule(TRAINED_TIMES)
        alphas = dict(zip(every.times, every.alphas[:-1], strict=True))
        z = at_least_single(trajectory.clean)
        for number in range(self.steps):
            time = self._time(number, draws.seed)
            noise = draws.normal_like(trajectory.clean, f"noise/{number}")
            noising = Noising(number, time, alphas[time], noise)
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
        noisy, source = noising(z), noising(trajectory.clean)
        rows = {
            "source_negative": (source, conditions.negative),
            "negative": (noisy, conditions.negative),
            "source": (source, conditions.source),
            "target": (noisy, conditions.target),
        }
        eps = predict(backbone, noising.time, rows)
        ours = trajectory.guided(eps["negative"], eps["target"], self.guidance)
        theirs = trajectory.guided(eps["source_negative"], eps["source"], self.guidance)
        return self.scale / z[0, 0].numel() * at_least_single(ours - theirs)

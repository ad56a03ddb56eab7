"""pix2pix-zero's inversion: DDIM inversion with predicted noise regularised to white noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from zerocon.backbones.base import Backbone
from zerocon.core.checks import in_range, one_of
from zerocon.core.conditions import Conditions, Draws
from zerocon.core.devices import sent
from zerocon.core.levels import Guess, Level, Path, at_least_single
from zerocon.core.timesteps import TRAINED_TIMES
from zerocon.inversions.base import Provided, Trajectory

COARSEST = 8  # smallest side in the pyramid

Grid = Literal["diffusers", "authors", "pie_bench"]
Step = tuple[Level, Level, Level]  # level of the evaluation, and the step's two ends


@dataclass(frozen=True)
class RegularizedInversion:
    """`iterations` per step, each with `rolls` gradient steps on the auto-correlation, one on KL.

    `grid`: `diffusers` evaluates the network at the time at the step's end, as its pipeline does.
    The authors' code evaluates at the time t at the step's start and steps from ā[t-1] to
    ā[t-1+stride]; it omits the first and the last time (`authors`). PIE-Bench's runs use all
    times (`pie_bench`).
    """

    provides: ClassVar[frozenset[Provided]] = frozenset({"trajectory"})

    auto_correlation: float = 20.0
    kl: float = 20.0
    iterations: int = 5
    rolls: int = 5
    grid: Grid = "diffusers"

    @property
    def diffusion_only(self) -> bool:
        return self.grid != "diffusers"

    def __post_init__(self) -> None:
        in_range("inversion.auto_correlation", self.auto_correlation, 0)
        in_range("inversion.kl", self.kl, 0)
        in_range("inversion.iterations", self.iterations, 0, 1000)
        in_range("inversion.rolls", self.rolls, 1, 1000)
        one_of("inversion.grid", self.grid, get_args(Grid))

    @torch.no_grad()
    def __call__(
        self, backbone: Backbone, clean: Tensor, conditions: Conditions, steps: int, draws: Draws
    ) -> Trajectory:
        path = backbone.path(steps)
        generators = draws.generators("rolls")
        z, latents = clean, [clean]
        for step in self._steps(backbone, path):
            if step is not None:
                asked, here, there = step
                guess = backbone.predict(z, asked, conditions.source)
                noise = self._whitened(at_least_single(guess.noise), generators).to(z)
                z = Guess(guess.clean, noise).seen_from(z, here).at(there)
            latents.append(z)
        return Trajectory(path, torch.stack(latents))

    def _steps(self, backbone: Backbone, path: Path) -> Iterator[Step | None]:
        """The steps towards noise; None where the grid omits a time."""
        if self.grid == "diffusers":
            yield from ((noisier, here, noisier) for noisier, here in reversed(path.steps))
            return
        levels, stride = path.levels[-2::-1], TRAINED_TIMES // len(path)
        for number, level in enumerate(levels):
            left_out = self.grid == "authors" and number in (0, len(levels) - 1)
            before = round(level.time) - 1
            after = min(before + stride, TRAINED_TIMES - 1)
            ends = [backbone.level(time / TRAINED_TIMES) for time in (before, after)]
            yield None if left_out else (level, ends[0], ends[1])

    def _whitened(self, eps: Tensor, generators: list[torch.Generator]) -> Tensor:
        for _ in range(self.iterations):
            if self.auto_correlation:
                for _ in range(self.rolls):
                    shifts = draw_shifts(eps, generators)
                    slope = auto_correlation_slope(eps, shifts)
                    eps = eps - self.auto_correlation / self.rolls * slope
            if self.kl:
                eps = eps - self.kl * kl_slope(eps)
        return eps


def auto_correlation(noise: Tensor, shifts: Tensor) -> Tensor:
    """Squared mean of noise × shifted noise, over both axes and a pyramid of scales, [case].

    `shifts` [case, channel, level]: the shift at each level of the pyramid.
    """
    total = noise.new_zeros(len(noise))
    for level in range(shifts.shape[2]):
        if level:
            noise = F.avg_pool2d(noise, 2)
        for axis in (2, 3):
            rolled = rolled_by(noise, shifts[:, :, level], axis)
            total = total + (noise * rolled).mean((2, 3)).square().sum(1)
    return total


def auto_correlation_slope(noise: Tensor, shifts: Tensor) -> Tensor:
    """The gradient of `auto_correlation`'s sum by the noise.

    Written out, as autograd takes most of its time for tensors as small as these. With `m` the mean
    of `n · roll(n, s)` over a channel's N positions, that of `m²` is
    `2 m (roll(n, s) + roll(n, -s)) / N`.
    """
    pyramid = [noise]
    for _ in range(1, shifts.shape[2]):
        pyramid.append(F.avg_pool2d(pyramid[-1], 2))
    slope: Tensor | None = None
    for level in reversed(range(shifts.shape[2])):
        here = _slope_of_level(pyramid[level], shifts[:, :, level])
        slope = here if slope is None else here + _unpooled(slope, here)
    assert slope is not None  # a pyramid has its finest level
    return slope


def _slope_of_level(noise: Tensor, shifts: Tensor) -> Tensor:
    count = noise.shape[2] * noise.shape[3]
    total = torch.zeros_like(noise)
    for axis in (2, 3):
        ahead, back = (rolled_by(noise, s, axis) for s in (shifts, -shifts))
        mean = (noise * ahead).mean((2, 3), keepdim=True)
        total.addcmul_(mean, ahead + back, value=2 / count)
    return total


def _unpooled(slope: Tensor, like: Tensor) -> Tensor:
    """The gradient before pooling in twos; an odd last row or column has none."""
    wide = slope.repeat_interleave(2, 2).repeat_interleave(2, 3) / 4
    missing = like.shape[3] - wide.shape[3], like.shape[2] - wide.shape[2]
    return F.pad(wide, (0, missing[0], 0, missing[1]))


def draw_shifts(noise: Tensor, generators: list[torch.Generator]) -> Tensor:
    """Draw shifts from each case's generator, in the published order, [case, channel, level].

    They are below half of the shorter side, as both axes are shifted by them.
    """
    sides = [min(noise.shape[2:])]
    while sides[-1] > COARSEST:
        sides.append(sides[-1] // 2)
    rows = [
        [[int(torch.randint(s // 2, (1,), generator=g)) for s in sides] for _ in noise[0]]
        for g in generators
    ]
    return sent(torch.tensor(rows), noise)


def rolled_by(noise: Tensor, shifts: Tensor, axis: int) -> Tensor:
    """`torch.roll` along one axis, with a shift per case and channel."""
    size = noise.shape[axis]
    ticks = torch.arange(size, device=noise.device)
    index = (ticks - shifts[:, :, None]) % size  # [case, channel, size]
    index = index[:, :, :, None] if axis == 2 else index[:, :, None, :]
    return noise.gather(axis, index.expand_as(noise))


def kl_divergence(noise: Tensor) -> Tensor:
    """KL divergence from N(0, 1) of a normal with each case's mean and variance, [case]."""
    mean, variance = noise.mean((1, 2, 3)), noise.var((1, 2, 3))
    return variance + mean.square() - 1 - (variance + 1e-7).log()


def kl_slope(noise: Tensor) -> Tensor:
    """The gradient of `kl_divergence`'s sum by the noise."""
    count = noise[0].numel()
    mean = noise.mean((1, 2, 3), keepdim=True)
    variance = noise.var((1, 2, 3), keepdim=True)
    spread = (1 - 1 / (variance + 1e-7)) * (2 / (count - 1))
    return (noise - mean) * spread + mean * (2 / count)

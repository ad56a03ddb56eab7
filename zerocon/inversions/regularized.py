"""pix2pix-zero's inversion: DDIM inversion with predicted noise regularised to white noise."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
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
        times = self.iterations * self.rolls if self.auto_correlation else 0
        rolls = iter(rolls_by(draw_shifts(eps, generators, times), eps))
        for _ in range(self.iterations):
            for roll in islice(rolls, self.rolls):
                slope = auto_correlation_slope(eps, roll)
                eps = eps - self.auto_correlation / self.rolls * slope
            if self.kl:
                eps = eps - self.kl * kl_slope(eps)
        return eps


def draw_shifts(noise: Tensor, generators: list[torch.Generator], times: int) -> Tensor:
    """Draw `times` sets of shifts from each case's generator, [time, case, channel, level].

    Both axes are shifted by them, so they are below half of the shorter side. The published code
    draws them one by one, each below a bound of its own. A generator takes the same number modulo
    the bound, so numbers below a common multiple of the bounds give the same shifts.
    """
    sides = [min(noise.shape[2:])]
    while sides[-1] > COARSEST:
        sides.append(sides[-1] // 2)
    bounds = [side // 2 for side in sides]
    shape = times, noise.shape[1], len(sides)
    drawn = [torch.randint(math.lcm(*bounds), shape, generator=g) for g in generators]
    return sent(torch.stack(drawn, 1) % torch.tensor(bounds), noise)


@dataclass(frozen=True)
class Roll:
    """Which rows and columns a level takes when rolled, [case, channel, (ahead, back), place]."""

    rows: Tensor
    columns: Tensor


def rolls_by(shifts: Tensor, noise: Tensor) -> list[list[Roll]]:
    """What each time's shifts take at each level of the pyramid over `noise`."""
    levels = []
    for level, by in enumerate(shifts.unbind(3)):
        both = torch.stack([by, -by], 3)[..., None]
        rows, columns = (
            (torch.arange(side >> level, device=noise.device) - both) % (side >> level)
            for side in noise.shape[2:]
        )
        levels.append([Roll(*places) for places in zip(rows, columns, strict=True)])
    return [list(time) for time in zip(*levels, strict=True)]


def auto_correlation_slope(noise: Tensor, rolls: list[Roll]) -> Tensor:
    """The gradient of the noise's auto-correlation, summed over cases, by the noise.

    The auto-correlation is the squared mean of noise × rolled noise, summed over channels, both
    axes and the levels of a pyramid. Written out, as autograd takes most of its time for tensors
    as small as these.
    """
    pyramid = [noise]
    for _ in rolls[1:]:
        pyramid.append(F.avg_pool2d(pyramid[-1], 2))
    slope = _slope_of_level(pyramid[-1], rolls[-1])
    for finer, roll in zip(pyramid[-2::-1], rolls[-2::-1], strict=True):
        slope = _slope_of_level(finer, roll) + _unpooled(slope, finer)
    return slope


def _slope_of_level(noise: Tensor, roll: Roll) -> Tensor:
    """With `m` the mean of `n · roll(n, s)` over a channel's N positions, that of `m²` is
    `2 m (roll(n, s) + roll(n, -s)) / N`.
    """
    total = torch.zeros_like(noise)
    twice = noise[:, :, None].expand(-1, -1, 2, -1, -1)
    for axis, places in ((3, roll.rows[..., None]), (4, roll.columns[..., None, :])):
        ahead, back = twice.gather(axis, places.expand_as(twice)).unbind(2)
        mean = (noise * ahead).mean((2, 3), keepdim=True)
        total.addcmul_(mean, ahead + back, value=2 / noise[0, 0].numel())
    return total


def _unpooled(slope: Tensor, like: Tensor) -> Tensor:
    """The gradient before pooling in twos; an odd last row or column has none."""
    height, width = slope.shape[2:]
    wide = (slope / 4)[:, :, :, None, :, None].expand(-1, -1, -1, 2, -1, 2)
    wide = wide.reshape(*slope.shape[:2], 2 * height, 2 * width)
    return F.pad(wide, (0, like.shape[3] - 2 * width, 0, like.shape[2] - 2 * height))


def kl_slope(noise: Tensor) -> Tensor:
    """The gradient of the KL divergence from N(0, 1), summed over cases, by the noise.

    Of a normal with each case's mean and variance: `variance + mean² - 1 - log(variance + 1e-7)`.
    """
    count = noise[0].numel()
    mean = noise.mean((1, 2, 3), keepdim=True)
    variance = noise.var((1, 2, 3), keepdim=True)
    spread = (1 - 1 / (variance + 1e-7)) * (2 / (count - 1))
    return (noise - mean) * spread + mean * (2 / count)

"""A trajectory, and what makes one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.diffusion import Schedule


@dataclass(frozen=True, eq=False)
class Trajectory:
    """The source's latents under an inversion, cleanest first.

    `latents` is [steps + 1, case, channel, row, column]: `latents[0]` is the encoded
    picture, `latents[-1]` what sampling starts from.
    """

    schedule: Schedule
    latents: Tensor

    @property
    def clean(self) -> Tensor:
        return self.latents[0]

    @property
    def start(self) -> Tensor:
        return self.latents[-1]


class Inversion(Protocol):
    def __call__(self, backbone: Backbone, clean: Tensor, source: Tensor, steps: int) -> Trajectory:
        """The trajectory of `clean`, [case, …], under `source`, [case, token, width]."""
        ...

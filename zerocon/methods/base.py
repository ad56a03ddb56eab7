"""What a method declares, and what it is given."""

from __future__ import annotations

from typing import ClassVar, Protocol

from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.conditions import Conditions, Draws
from zerocon.inversions.base import Trajectory


class Method(Protocol):
    """A sampler; its fields are its settings."""

    needs_inversion: ClassVar[bool]  # does it use more of the trajectory than the clean latent?
    uses_mask: ClassVar[bool]  # does it look at the benchmark's edit mask?
    steps: int
    guidance: float

    def __call__(
        self, backbone: Backbone, trajectory: Trajectory, conditions: Conditions, draws: Draws
    ) -> Tensor:
        """The edited latents, [case, channel, row, column]."""
        ...

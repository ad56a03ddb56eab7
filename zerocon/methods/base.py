"""What a method declares, and what it is given."""

from __future__ import annotations

from typing import ClassVar, Literal, Protocol

from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.core.conditions import Conditions, Draws
from zerocon.inversions.base import Provided, Trajectory

# What a method makes use of: what inversions provide, the target condition, and the places that
# the target prompt's words have in it.
Used = Provided | Literal["target", "target_words"]


class Method(Protocol):
    """A sampler; its fields are its settings."""

    needs_inversion: ClassVar[bool]  # does it use more of the trajectory than the clean latent?
    uses_mask: ClassVar[bool]  # does it look at the benchmark's edit mask?
    steps: int
    guidance: float

    @property
    def uses(self) -> frozenset[Used]:
        """At these settings. What would have no effect is refused before a run begins."""
        ...

    def __call__(
        self, backbone: Backbone, trajectory: Trajectory, conditions: Conditions, draws: Draws
    ) -> Tensor:
        """The edited latents, [case, channel, row, column]."""
        ...


def given_masks(conditions: Conditions) -> Tensor:
    """The masks, [case, 1, row, column] in pixels, of a method that declares that it uses them."""
    if conditions.masks is None:
        raise ValueError("this method edits within a mask, and no mask is given")
    return conditions.masks

"""What a method is given, and what it declares."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.inversions.base import Trajectory


@dataclass(frozen=True, eq=False)
class Conditions:
    """Text conditions, each [case, token, width]."""

    source: Tensor
    target: Tensor
    negative: Tensor


@dataclass(frozen=True)
class Draws:
    """Random numbers that belong to a case, not to its place in a batch."""

    seed: int
    case_ids: Sequence[str]

    def normal_like(self, z: Tensor, purpose: str) -> Tensor:
        """Standard normal noise of the shape of `z`, one independent draw a case."""
        rows = [
            torch.randn(z.shape[1:], generator=self.generator(case_id, purpose))
            for case_id in self.case_ids
        ]
        return torch.stack(rows).to(z.device, z.dtype)

    def generator(self, case_id: str, purpose: str) -> torch.Generator:
        key = f"{self.seed}/{case_id}/{purpose}".encode()
        seed = int.from_bytes(hashlib.sha256(key).digest()[:7], "big")
        return torch.Generator().manual_seed(seed)


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

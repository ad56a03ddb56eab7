"""What every backbone answers. Prediction types, schedulers and classes stop here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from zerocon.core.diffusion import Schedule
from zerocon.core.taps import Taps


class BackboneError(Exception):
    """The model can't be loaded or used. The message says what to do."""


@dataclass
class Evaluations:
    """How many rows have gone through the U-Net, and how many came back for a gradient.

    `reference`: those of the rows forward that were a source beside its edit.
    """

    forward: int = 0
    backward: int = 0
    reference: int = 0


class Backbone(Protocol):
    name: str
    fingerprint: str  # a digest of the weights and the scheduler; part of a run's name
    side: int  # pixels
    device: torch.device
    dtype: torch.dtype
    taps: Taps  # the sites of the U-Net, and who reads or replaces what passes them
    evaluations: Evaluations

    def schedule(self, steps: int) -> Schedule:
        """The times a sampler of that many steps visits."""
        ...

    def encode(self, images: Tensor) -> Tensor:
        """Pictures 0..1, [case, 3, side, side], to latents of about unit variance."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Latents to pictures 0..1."""
        ...

    def embed(self, prompts: Sequence[str]) -> Tensor:
        """The text condition, [case, token, width]."""
        ...

    def tokens(self, prompt: str) -> tuple[int, ...]:
        """The token numbers of the condition's rows, with start and end, without padding."""
        ...

    def too_long(self, prompt: str) -> bool:
        """Does the prompt lose words to the text encoder's limit?"""
        ...

    def eps(self, z: Tensor, time: int, cond: Tensor) -> Tensor:
        """The noise in `z` at `time` under `cond`, whatever the network itself predicts."""
        ...


class BackboneSettings(Protocol):
    """A backbone that is described but not loaded: what `conf/backbone/*.yaml` makes."""

    def load(self) -> Backbone: ...

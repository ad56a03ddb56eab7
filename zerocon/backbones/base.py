"""What every backbone answers. Prediction types, schedulers and classes stop here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from zerocon.core.conditions import Condition
from zerocon.core.forward import Evaluations
from zerocon.core.levels import Guess, Level, Path
from zerocon.core.taps import Taps


class BackboneError(Exception):
    """The model can't be loaded or used. The message says what to do."""


class Backbone(Protocol):
    name: str
    fingerprint: str  # a digest of the weights and the scheduler; part of a run's name
    side: int  # pixels
    device: torch.device
    dtype: torch.dtype
    taps: Taps  # the network's sites, and who reads or replaces what passes them
    evaluations: Evaluations
    prompt_tokens: int  # of a condition, from the first: those that `tokens` numbers, padded

    def path(self, steps: int) -> Path:
        """The levels that a sampler of that many steps visits."""
        ...

    def level(self, share: float) -> Level:
        """The level at a share of the training times: 0 is clean, 1 noise."""
        ...

    def encode(self, images: Tensor) -> Tensor:
        """Pictures 0..1, [case, 3, side, side], to latents of about unit variance."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Latents to pictures 0..1."""
        ...

    def embed(self, prompts: Sequence[str]) -> Condition:
        """The text condition of each prompt."""
        ...

    def tokens(self, prompt: str) -> tuple[int, ...]:
        """The numbers of the condition's first tokens, with start and end, without padding."""
        ...

    def too_long(self, prompt: str) -> bool:
        """Does the prompt lose words to the text encoder's limit?"""
        ...

    def predict(self, z: Tensor, level: Level, condition: Condition) -> Guess:
        """What is clean and what is noise in `z`, whatever the network itself predicts.

        The network runs inside `taps.forward_pass()`, which notices a tap that nothing passes.
        """
        ...


class BackboneSettings(Protocol):
    """A backbone that is described but not loaded: what `conf/backbone/*.yaml` makes."""

    flow: ClassVar[bool]  # a flow model, not a diffusion model

    def load(self) -> Backbone: ...

"""What every backbone answers. Prediction types, schedulers and classes stop here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from zerocon.core.conditions import Condition
from zerocon.core.forward import Evaluations
from zerocon.core.levels import Guess, Level, Path
from zerocon.core.taps import Taps

# The levels of a sampler: those of the model's own schedule, or evenly in flow time.
Times = Literal["model", "even"]


class BackboneError(Exception):
    """The model can't be loaded or used. The message says what to do."""


class Backbone(Protocol):
    name: str
    fingerprint: str  # a digest of the weights and the scheduler; part of a run's name
    device: torch.device
    dtype: torch.dtype
    taps: Taps  # the network's sites, and who reads or replaces what passes them
    evaluations: Evaluations
    prompt_tokens: int  # of a condition, from the first: those that `tokens` numbers, padded
    start_tokens: int  # how many of them stand before a prompt's first word

    @property
    def side(self) -> int:
        """Pixels on a side of the pictures that are edited."""
        ...

    def path(self, steps: int) -> Path:
        """The levels that a sampler of that many steps visits."""
        ...

    def level(self, share: float) -> Level:
        """The level at a share of the training times: 0 is clean, 1 noise."""
        ...

    def level_at(self, t: float) -> Level:
        """The level at a flow time, of a diffusion model too: 0 is clean, 1 noise."""
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


def path_of(backbone: Backbone, steps: int, times: Times) -> Path:
    """The levels of a sampler: the model's own, or evenly in flow time down to clean."""
    if times == "model":
        return backbone.path(steps)
    top = backbone.level(1.0).t
    return Path(tuple(backbone.level_at(top * (1 - i / steps)) for i in range(steps + 1)))


def middles_of(backbone: Backbone, path: Path) -> tuple[Level, ...]:
    """The level halfway through each step, in flow time."""
    return tuple(backbone.level_at((here.t + there.t) / 2) for here, there in path.steps)


class BackboneSettings(Protocol):
    """A backbone that is described but not loaded: what `conf/backbone/*.yaml` makes."""

    flow: ClassVar[bool]  # a flow model, not a diffusion model

    def load(self) -> Backbone: ...

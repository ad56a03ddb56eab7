"""The interface of backbones, independent of prediction types, schedulers and libraries."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import ClassVar, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from zerocon.core.conditions import Condition
from zerocon.core.forward import Evaluations
from zerocon.core.levels import At, Guess, Level, Path
from zerocon.core.size import Size
from zerocon.core.taps import Taps

# A sampler's levels: the model's own schedule, or uniform in flow time.
Times = Literal["model", "even"]


class BackboneError(Exception):
    """The model can't be loaded or used. The message says what to do."""


class Backbone(Protocol):
    name: str
    fingerprint: str  # digest of the weights and the scheduler; part of a run's name
    device: torch.device
    dtype: torch.dtype
    taps: Taps  # the network's sites and active taps
    evaluations: Evaluations
    prompt_tokens: int  # a condition's first tokens: the padded length of `tokens`
    start_tokens: int  # of these, the tokens before a prompt's first word

    @property
    def size(self) -> Size:
        """Height and width of the pictures that are edited."""
        ...

    def path(self, steps: int) -> Path:
        """The levels that a sampler of that many steps visits."""
        ...

    def level(self, share: float) -> Level:
        """The level at a fraction of the training times: 0 is clean, 1 noise."""
        ...

    def level_at(self, t: float) -> Level:
        """The level at a flow time, also for diffusion models: 0 is clean, 1 noise."""
        ...

    def encode(self, images: Tensor) -> Tensor:
        """Encode pictures 0..1, [case, 3, y, x], to latents of about unit variance."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents to pictures 0..1."""
        ...

    def embed(self, prompts: Sequence[str]) -> Condition:
        """The text condition of each prompt."""
        ...

    def tokens(self, prompt: str) -> tuple[int, ...]:
        """The ids of the condition's first tokens, with start and end, without padding."""
        ...

    def too_long(self, prompt: str) -> bool:
        """Whether the text encoder cuts the prompt."""
        ...

    def predict(self, z: Tensor, level: At, condition: Condition) -> Guess:
        """Predict the clean and the noise part of `z`, for any prediction type.

        The rows are all at one `Level`, or each at its own (`Levels`).

        The network runs inside `taps.forward_pass()`, which checks that all taps had activations.
        """
        ...


def path_of(backbone: Backbone, steps: int, times: Times) -> Path:
    """A sampler's levels: the model's own, or uniform in flow time down to clean."""
    if times == "model":
        return backbone.path(steps)
    top = backbone.level(1.0).t
    return Path(tuple(backbone.level_at(top * (1 - i / steps)) for i in range(steps + 1)))


def middles_of(backbone: Backbone, path: Path) -> tuple[Level, ...]:
    """The level at each step's midpoint in flow time."""
    return tuple(backbone.level_at((here.t + there.t) / 2) for here, there in path.steps)


@runtime_checkable
class Prepares(Protocol):
    """A backbone that prepares for the size of a run: it compiles its network, or does not."""

    def expect(self, cases: int) -> None: ...

    @property
    def compiled(self) -> bool: ...

    def uncompiled(self) -> AbstractContextManager[None]: ...


def uncompiled(backbone: Backbone) -> AbstractContextManager[None]:
    """Inside, no pass is compiled: for a pass or two, and for tools that look at operations."""
    return backbone.uncompiled() if isinstance(backbone, Prepares) else nullcontext()


def is_compiled(backbone: Backbone) -> bool:
    """Whether forward passes are compiled, which changes numbers in their last digits."""
    return isinstance(backbone, Prepares) and backbone.compiled


class BackboneSettings(Protocol):
    """Settings of a backbone that is not yet loaded, as in `conf/backbone/*.yaml`."""

    flow: ClassVar[bool]  # a flow model, not a diffusion model

    def load(self) -> Backbone: ...

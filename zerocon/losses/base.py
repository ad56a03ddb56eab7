"""Losses between an edit's activations and its source's: a list of terms, each with its sites.

A term says what it reads (sites, and what passes them) and gives one value per case; its weight
may act in a window of the steps only, and fade over it. The reference is a constant: no gradient
goes into it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from zerocon.core.checks import ConfigError, in_range, one_of
from zerocon.core.conditions import Draws
from zerocon.core.taps import Seen, Site, Taps, What, read_patterns, record

Fade = Literal["constant", "linear", "cosine"]
Read = tuple[str, What]  # a pattern of sites, and which of their activations
Weights = Mapping[str, float]  # of each term at one step, by its name


@dataclass(frozen=True)
class Moment:
    """Which step of how many, and whose random numbers to draw."""

    step: int
    steps: int
    draws: Draws
    edited_tokens: Tensor | None = None  # of the source prompt, 1 where it differs, [case, token]


class View:
    """What a forward pass showed of the rows of one role."""

    def __init__(self, recordings: Mapping[Read, Seen], role: str) -> None:
        # Taken now: a recording holds the last forward pass only.
        self._found = {
            read: list(zip(seen.sites, seen.of(role), strict=True))
            for read, seen in recordings.items()
        }

    def __getitem__(self, read: Read) -> list[tuple[Site, Tensor]]:
        """Each site with its activation, in the order they run."""
        return self._found[read]


class Watch(Protocol):
    def __call__(self, role: str) -> View: ...


@dataclass(frozen=True, kw_only=True)
class Term:
    """One loss. `window` is the share of the steps, first to last, in which it acts; `fade` how
    its weight goes to zero over the window. `sites` are patterns as in `zerocon.core.taps`."""

    key: ClassVar[str]  # its usual name in `loss`, for messages

    weight: float
    sites: str
    window: tuple[float, float] = (0.0, 1.0)
    fade: Fade = "constant"

    def __post_init__(self) -> None:
        in_range(f"loss.{self.key}.weight", self.weight, 0)
        read_patterns(self.sites)
        one_of(f"loss.{self.key}.fade", self.fade, ("constant", *_FADES))
        if len(self.window) != 2 or not 0 <= self.window[0] < self.window[1] <= 1:
            raise ConfigError(
                f"loss.{self.key}.window is {list(self.window)}; give the first and the last "
                "share of the steps, as [0, 0.5]"
            )

    def weight_at(self, step: int, steps: int) -> float:
        done = (step + 0.5) / steps
        first, last = self.window
        if not first <= done <= last:
            return 0.0
        if self.fade == "constant":
            return self.weight
        return self.weight * _FADES[self.fade]((done - first) / (last - first))

    @property
    def reads(self) -> Sequence[Read]:
        raise NotImplementedError

    def __call__(self, edit: View, reference: View, moment: Moment) -> Tensor:
        """[case]"""
        raise NotImplementedError


class Losses:
    """The weighted sum of terms with names."""

    def __init__(self, **terms: Term) -> None:
        if not terms:
            raise ConfigError("loss has no terms; loss=none is for methods without losses")
        self.terms = terms

    def weights(self, step: int, steps: int) -> Weights:
        return {name: term.weight_at(step, steps) for name, term in self.terms.items()}

    @contextmanager
    def watching(self, taps: Taps, weights: Weights, *, stop: bool) -> Generator[Watch]:
        """Record what the terms with a weight read. `stop`: and end the pass after the last."""
        reads = dict.fromkeys(r for n, t in self.terms.items() if weights[n] for r in t.reads)
        with ExitStack() as open_taps:
            recordings = {
                read: open_taps.enter_context(record(taps, *read, stop=stop)) for read in reads
            }
            yield lambda role: View(recordings, role)

    def __call__(self, edit: View, reference: View, weights: Weights, moment: Moment) -> Tensor:
        """[case]"""
        values = [
            weights[name] * term(edit, reference, moment)
            for name, term in self.terms.items()
            if weights[name]
        ]
        return torch.stack(values).sum(0)


@dataclass(frozen=True)
class NoLosses:
    """For methods that descend none."""


_FADES: dict[str, Callable[[float], float]] = {
    "linear": lambda x: 1 - x,
    "cosine": lambda x: 0.5 * (1 + math.cos(math.pi * x)),
}

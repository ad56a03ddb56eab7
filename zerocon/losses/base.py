"""Losses between an edit's activations and its source's: a list of terms, each with its sites.

A term says what it reads (sites, and what passes them) and gives one value per case; its weight
may act in a window of the steps only, and fade over it. The reference is a constant: no gradient
goes into it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.core.checks import ConfigError, in_range, one_of
from zerocon.core.conditions import Condition, Draws
from zerocon.core.forward import Rows, predict, run_for_taps, told
from zerocon.core.levels import Guess, Level
from zerocon.core.taps import Roles, Seen, Site, Taps, What, read_patterns, record

Fade = Literal["constant", "linear", "cosine"]
Read = tuple[str, What]  # a pattern of sites, and which of their activations
Weights = Mapping[str, float]  # of each term at one step, by its name
Watcher = Callable[[int, Mapping[str, Tensor]], None]  # is told each term's values, by the step


@dataclass(frozen=True)
class Moment:
    """Which step of how many, and whose random numbers to draw."""

    step: int
    steps: int
    draws: Draws
    edited_tokens: Tensor | None = None  # of the source prompt, 1 where it differs, [case, token]


class View:
    """What a forward pass showed of the rows of one role; `at_zero`: what a second pass did."""

    at_zero: View

    def __init__(self, recordings: Mapping[Read, Seen], role: str) -> None:
        # Taken now: a recording holds the last forward pass only.
        self._found = {
            read: list(zip(seen.sites, seen.of(role), strict=True))
            for read, seen in recordings.items()
        }

    def __getitem__(self, read: Read) -> list[tuple[Site, Tensor]]:
        """Each site with its activation, in the order they run."""
        return self._found[read]


@dataclass(frozen=True, eq=False)
class Look:
    """One step's rows for the losses: where on the path they are, and what counts there."""

    level: Level
    rows: Rows
    weights: Weights
    empty: Condition  # of the empty prompt, as many rows as there are cases


Seeing = tuple[dict[str, Guess], dict[str, View]]  # by role; no guesses of a pass that stopped


@dataclass(frozen=True, eq=False)
class Beside:
    """Rows that take the same pass as a `Look`'s, at a level of their own, unseen by the losses."""

    level: Level
    rows: Rows


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

    @property
    def reads_at_zero(self) -> Sequence[Read]:
        """What it reads of the second pass, at time 0 (`Losses.seen`)."""
        return ()

    def __call__(self, edit: View, reference: View, moment: Moment) -> Tensor:
        """[case]"""
        raise NotImplementedError


class Losses:
    """The weighted sum of terms with names."""

    def __init__(self, **terms: Term) -> None:
        if not terms:
            raise ConfigError("loss has no terms; loss=none is for methods without losses")
        self.terms = terms
        self.watcher: Watcher | None = None

    def weights(self, step: int, steps: int) -> Weights:
        return {name: term.weight_at(step, steps) for name, term in self.terms.items()}

    def watching(
        self, taps: Taps, weights: Weights, *, stop: bool, roles: Roles = None
    ) -> AbstractContextManager[Watch]:
        """Record what the terms with a weight read of the rows `roles`, or of all.

        `stop`: and end the pass after the last.
        """
        reads = [r for term in self._with_a(weights) for r in term.reads]
        return _watching(taps, reads, stop, roles)

    def look_at_zero(self, weights: Weights) -> list[Read]:
        """What the terms with a weight read of a second pass, at time 0."""
        return [read for term in self._with_a(weights) for read in term.reads_at_zero]

    def seen(
        self, backbone: Backbone, look: Look, *, whole: bool, beside: Beside | None = None
    ) -> Seeing:
        """Run a step's rows through the network, and show what the terms read of them.

        `beside`: further rows of the same pass, of which no term reads.

        `whole`: the pass must reach its end for its guesses; otherwise it may stop after the last
        site. If a term reads at time 0, each role is shown a second time: there, on
        `√(1-ā) · clean + (1 - √(1-ā)) · z` of its predicted clean latent and its noisy one (a
        flow model's noise takes the place of √(1-ā)), under the empty prompt.
        """
        again = self.look_at_zero(look.weights)
        whole = whole or bool(again or beside)
        found: dict[str, Guess] = {}
        roles = tuple(look.rows)
        with self.watching(backbone.taps, look.weights, stop=not whole, roles=roles) as watch:
            if whole:
                found = _predicted(backbone, look, beside)
            else:
                run_for_taps(backbone, look.level, look.rows)
            views = {role: watch(role) for role in look.rows}
        if again:
            self._look_again(backbone, look, found, views, again)
        return found, views

    def _look_again(
        self,
        backbone: Backbone,
        look: Look,
        found: Mapping[str, Guess],
        views: dict[str, View],
        reads: Sequence[Read],
    ) -> None:
        empty = told(backbone, look.empty, 1.0)
        rows = {
            role: (torch.lerp(z, found[role].clean, look.level.noise), empty)
            for role, (z, _) in look.rows.items()
        }
        with _watching(backbone.taps, reads, stop=True) as watch:
            run_for_taps(backbone, backbone.level(0.0), rows)
            for role, view in views.items():
                view.at_zero = watch(role)

    def _with_a(self, weights: Weights) -> list[Term]:
        return [term for name, term in self.terms.items() if weights[name]]

    def __call__(self, edit: View, reference: View, weights: Weights, moment: Moment) -> Tensor:
        """[case]"""
        values = {
            name: weights[name] * term(edit, reference, moment)
            for name, term in self.terms.items()
            if weights[name]
        }
        if self.watcher is not None:
            self.watcher(moment.step, {name: value.detach() for name, value in values.items()})
        return torch.stack([*values.values()]).sum(0)


def _predicted(backbone: Backbone, look: Look, beside: Beside | None) -> dict[str, Guess]:
    if beside is None:
        return predict(backbone, look.level, look.rows)
    levels = dict.fromkeys(beside.rows, beside.level) | dict.fromkeys(look.rows, look.level)
    return predict(backbone, levels, {**beside.rows, **look.rows})


@contextmanager
def _watching(
    taps: Taps, reads: Sequence[Read], stop: bool, roles: Roles = None
) -> Generator[Watch]:
    with ExitStack() as open_taps:
        recordings = {
            read: open_taps.enter_context(record(taps, *read, stop=stop, roles=roles))
            for read in dict.fromkeys(reads)
        }
        yield lambda role: View(recordings, role)


@dataclass(frozen=True)
class NoLosses:
    """For methods that descend none."""


_FADES: dict[str, Callable[[float], float]] = {
    "linear": lambda x: 1 - x,
    "cosine": lambda x: 0.5 * (1 + math.cos(math.pi * x)),
}

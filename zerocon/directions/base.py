"""The interface of directions, and shared arithmetic."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from zerocon.backbones.base import Backbone
from zerocon.core.cases import Case
from zerocon.core.checks import in_range
from zerocon.core.conditions import Condition
from zerocon.core.levels import at_least_single
from zerocon.core.memory import NO_MEMORY, Memory

CHUNK = 64  # sentences encoded together


class Direction(Protocol):
    """Makes the target condition of each case."""

    @property
    def keeps_target_words(self) -> bool:
        """Whether token k of the target condition corresponds to token k of the target prompt."""
        ...

    def __call__(
        self, backbone: Backbone, cases: Sequence[Case], memory: Memory = NO_MEMORY
    ) -> Condition:
        """Return the target condition; `memory` caches expensive values."""
        ...


@dataclass(frozen=True)
class SentenceSets:
    """The sentences that the direction of one case is computed from."""

    base: str  # the direction is added to this sentence's embedding
    sources: tuple[str, ...]
    targets: tuple[str, ...]


@runtime_checkable
class MadeOfSentences(Protocol):
    """A direction that is a difference of sentences."""

    def sentence_sets(self, cases: Sequence[Case], memory: Memory) -> list[SentenceSets]: ...


@runtime_checkable
class DescribesSources(Protocol):
    """A direction that captions the pictures to get source prompts."""

    def source_prompts(self, cases: Sequence[Case], memory: Memory) -> list[str]: ...


def with_sources(
    direction: Direction, cases: Sequence[Case], memory: Memory = NO_MEMORY
) -> list[Case]:
    """The cases with the direction's own source prompts, if it has some, so that inversion and
    sampler use the same condition."""
    if not isinstance(direction, DescribesSources):
        return list(cases)
    prompts = direction.source_prompts(cases, memory)
    return [
        dataclasses.replace(case, source_prompt=prompt)
        for case, prompt in zip(cases, prompts, strict=True)
    ]


def check_strength(strength: float) -> None:
    in_range("direction.strength", strength, -10, 10)


def steered(source: Condition, delta: Condition, strength: float, *, pooled: bool) -> Condition:
    """c + α Δc; `pooled`: add the mean of Δc over tokens to all tokens.

    At least in single precision, because differences of embeddings are small.
    """
    if pooled:
        delta = dataclasses.replace(delta, tokens=delta.tokens.mean(-2, keepdim=True))
    return source.with_(
        delta, lambda c, d: (at_least_single(c) + strength * at_least_single(d).to(c.device)).to(c)
    )


def difference_of(target: Condition, source: Condition) -> Condition:
    """Δc, at least in single precision."""
    return target.with_(
        source, lambda after, before: at_least_single(after) - at_least_single(before)
    )


def mean_embedding(backbone: Backbone, sentences: Sequence[str]) -> Condition:
    """The mean over a set of sentences, per token: tokens [token, width].

    The result is independent of order and repetition, to the bit.
    """
    distinct = sorted(set(sentences))
    chunks = (distinct[i : i + CHUNK] for i in range(0, len(distinct), CHUNK))
    sums = [
        backbone.embed(chunk).map(lambda part: at_least_single(part).sum(0)) for chunk in chunks
    ]
    return Condition.stack(sums).map(lambda part: part.sum(0) / len(distinct))

"""What a direction is, and the arithmetic that all of them share."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.core.cases import Case
from zerocon.core.checks import in_range

CHUNK = 64  # sentences that go through the text encoder together


class Direction(Protocol):
    """The target condition of each case, [case, token, width]."""

    @property
    def keeps_target_words(self) -> bool:
        """Is row k of the target condition about word k of the target prompt?"""
        ...

    def __call__(self, backbone: Backbone, cases: Sequence[Case]) -> Tensor: ...


@dataclass(frozen=True)
class Said:
    """What the direction of one case is made from, in words."""

    base: str  # the direction is added to this sentence's embedding
    sources: tuple[str, ...]
    targets: tuple[str, ...]


@runtime_checkable
class MadeOfSentences(Protocol):
    """A direction that is a difference of sentences, and can tell which."""

    def said(self, cases: Sequence[Case]) -> list[Said]: ...


@runtime_checkable
class DescribesSources(Protocol):
    """A direction that looks at the picture and says what the source prompt is."""

    def source_prompts(self, cases: Sequence[Case]) -> list[str]: ...


@runtime_checkable
class HasOrigin(Protocol):
    """A direction whose numbers depend on more than its settings: on files or on models."""

    @property
    def fingerprint(self) -> str: ...


def with_sources(direction: Direction, cases: Sequence[Case]) -> list[Case]:
    """The cases as inversion and sampler should see them: with the direction's own source
    prompts, where it writes some, so that everything begins at the same condition."""
    if not isinstance(direction, DescribesSources):
        return list(cases)
    prompts = direction.source_prompts(cases)
    return [
        dataclasses.replace(case, source_prompt=prompt)
        for case, prompt in zip(cases, prompts, strict=True)
    ]


def check_strength(strength: float) -> None:
    in_range("direction.strength", strength, -10, 10)


def steered(source: Tensor, delta: Tensor, strength: float, *, pooled: bool) -> Tensor:
    """c + α Δc, [case, token, width]; `pooled`: the mean over the tokens of Δc, for all tokens.

    Computed in single precision: the difference of two half-precision embeddings is small.
    """
    delta = delta.to(source.device, torch.float32)
    if pooled:
        delta = delta.mean(-2, keepdim=True)
    return (source.float() + strength * delta).to(source.dtype)


def mean_embedding(backbone: Backbone, sentences: Sequence[str]) -> Tensor:
    """The mean over a set of sentences, position by position, [token, width].

    A set: neither order nor repetition changes a bit of it.
    """
    distinct = sorted(set(sentences))
    chunks = (distinct[i : i + CHUNK] for i in range(0, len(distinct), CHUNK))
    total = torch.stack([backbone.embed(chunk).float().sum(0) for chunk in chunks]).sum(0)
    return total / len(distinct)

"""A sampler's inputs for a batch: text conditions, words, and random numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from zerocon.core.devices import sent


@dataclass(frozen=True, eq=False)
class Condition:
    """A network's text condition of its rows. Operations apply to all parts alike."""

    tokens: Tensor  # [row, token, width]
    pooled: Tensor | None = (
        None  # embedding of the whole prompt, [row, width], for models that use one
    )
    guidance: Tensor | None = None  # guidance scale, [row], for models with it as an input

    @property
    def parts(self) -> dict[str, Tensor]:
        parts = {"tokens": self.tokens, "pooled": self.pooled, "guidance": self.guidance}
        return {name: part for name, part in parts.items() if part is not None}

    def with_guidance(self, guidance: float) -> Condition:
        """The same texts, with the guidance scale as a model's input."""
        rows = self.tokens.new_full((len(self),), guidance)
        return replace(self, guidance=rows)

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, rows: int | slice | Tensor | list[int]) -> Condition:
        return self.map(lambda part: part[rows])

    def map(self, change: Callable[[Tensor], Tensor]) -> Condition:
        return Condition(**{name: change(part) for name, part in self.parts.items()})

    def with_(self, other: Condition, change: Callable[[Tensor, Tensor], Tensor]) -> Condition:
        """Combine two conditions part by part."""
        theirs = other.parts
        return Condition(**{name: change(p, theirs[name]) for name, p in self.parts.items()})

    @classmethod
    def cat(cls, conditions: Sequence[Condition]) -> Condition:
        """Concatenate rows."""
        return cls._joined(conditions, torch.cat)

    @classmethod
    def stack(cls, conditions: Sequence[Condition]) -> Condition:
        """Stack along a new first axis."""
        return cls._joined(conditions, torch.stack)

    @classmethod
    def _joined(
        cls, conditions: Sequence[Condition], join: Callable[[list[Tensor]], Tensor]
    ) -> Condition:
        names = conditions[0].parts
        if any(c.parts.keys() != names.keys() for c in conditions):
            have = " / ".join(", ".join(c.parts) for c in conditions)
            raise ValueError(f"conditions with different parts can't be joined: {have}")
        return cls(**{name: join([c.parts[name] for c in conditions]) for name in names})


@dataclass(frozen=True)
class Words:
    """A case's prompts as token ids without padding."""

    source: tuple[int, ...]
    target: tuple[int, ...]
    # Token positions of the case's blend words (PIE-Bench's `blended_word`).
    source_blend: tuple[int, ...] = ()
    target_blend: tuple[int, ...] = ()
    # Each prompt split at spaces, each word as its tokens.
    source_split: tuple[tuple[int, ...], ...] = ()
    target_split: tuple[tuple[int, ...], ...] = ()
    # These are a condition's first tokens; another encoder's may follow.
    length: int = 77
    start: int = 1  # how many tokens stand before a prompt's first word: CLIP has one, T5 none
    # As that other encoder reads the same prompts; its tokens begin at place `length`.
    behind: Words | None = None


@dataclass(frozen=True, eq=False)
class Conditions:
    """A batch's text conditions, the words they encode, and masks for methods that use them."""

    source: Condition
    target: Condition
    negative: Condition
    words: Sequence[Words] = ()
    masks: Tensor | None = None  # where to edit, [case, 1, row, column] in pixels


@dataclass(frozen=True)
class Draws:
    """Random numbers per case, independent of its position in a batch."""

    seed: int
    case_ids: Sequence[str]

    def normal_like(self, z: Tensor, purpose: str) -> Tensor:
        """Standard normal noise in the shape of `z`, drawn separately for each case."""
        rows = [torch.randn(z.shape[1:], generator=g) for g in self.generators(purpose)]
        return sent(torch.stack(rows), z).to(z.dtype)

    def permutations(self, length: int, count: int, purpose: str) -> Tensor:
        """`count` distinct numbers below `length` for each case, [case, count]."""
        rows = [torch.randperm(length, generator=g)[:count] for g in self.generators(purpose)]
        return torch.stack(rows)

    def generators(self, purpose: str) -> list[torch.Generator]:
        return [self.generator(case_id, purpose) for case_id in self.case_ids]

    def generator(self, case_id: str, purpose: str) -> torch.Generator:
        key = f"{self.seed}/{case_id}/{purpose}".encode()
        seed = int.from_bytes(hashlib.sha256(key).digest()[:7], "big")
        return torch.Generator().manual_seed(seed)

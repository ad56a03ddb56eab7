"""What a sampler is told of a batch: its text conditions, its words, its random numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Words:
    """A case's prompts as the text encoder reads them: token numbers without padding."""

    source: tuple[int, ...]
    target: tuple[int, ...]
    # Where the words stand that a case says its edit is about (PIE-Bench's `blended_word`).
    source_blend: tuple[int, ...] = ()
    target_blend: tuple[int, ...] = ()
    # The prompts' words, between spaces, each as its tokens.
    source_split: tuple[tuple[int, ...], ...] = ()
    target_split: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, eq=False)
class Conditions:
    """Text conditions, each [case, token, width], and the words they were made from."""

    source: Tensor
    target: Tensor
    negative: Tensor
    words: Sequence[Words] = ()


@dataclass(frozen=True)
class Draws:
    """Random numbers that belong to a case, not to its place in a batch."""

    seed: int
    case_ids: Sequence[str]

    def normal_like(self, z: Tensor, purpose: str) -> Tensor:
        """Standard normal noise of the shape of `z`, one independent draw a case."""
        rows = [torch.randn(z.shape[1:], generator=g) for g in self.generators(purpose)]
        return torch.stack(rows).to(z.device, z.dtype)

    def permutations(self, length: int, count: int, purpose: str) -> Tensor:
        """`count` different numbers below `length` for each case, [case, count]."""
        rows = [torch.randperm(length, generator=g)[:count] for g in self.generators(purpose)]
        return torch.stack(rows)

    def generators(self, purpose: str) -> list[torch.Generator]:
        return [self.generator(case_id, purpose) for case_id in self.case_ids]

    def generator(self, case_id: str, purpose: str) -> torch.Generator:
        key = f"{self.seed}/{case_id}/{purpose}".encode()
        seed = int.from_bytes(hashlib.sha256(key).digest()[:7], "big")
        return torch.Generator().manual_seed(seed)

"""Small batches to measure."""

from __future__ import annotations

import torch
from torch import Tensor

from zerocon.cases import Case
from zerocon.metrics.base import Pictures

SIDE = 64


def noise(count: int, seed: int = 0, side: int = SIDE) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def left_half(side: int = SIDE) -> Tensor:
    mask = torch.zeros(1, side, side)
    mask[:, :, : side // 2] = 1
    return mask


def batch(source: Tensor, edited: Tensor, mask: Tensor | None = None, **case: object) -> Pictures:
    cases = [
        Case(f"case-{i}", image, "a circle", "a square", mask=mask, **case)  # pyright: ignore[reportArgumentType]
        for i, image in enumerate(source)
    ]
    return Pictures.of(cases, edited)

"""Small batches to measure."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import CLIPModel

from zerocon.core.cases import Case
from zerocon.metrics.base import Pictures
from zerocon.metrics.encoders import _features

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


class Unwrapped(torch.nn.Module):
    """torchmetrics expects bare features of a CLIPModel; transformers 5 wraps them."""

    def __init__(self, model: CLIPModel) -> None:
        super().__init__()
        self.model, self.config = model, model.config

    def get_image_features(self, pixel_values: Tensor) -> Tensor:
        return _features(self.model.get_image_features(pixel_values=pixel_values))

    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return _features(
            self.model.get_text_features(input_ids=input_ids, attention_mask=attention_mask)
        )

"""Conversion between tensors and pictures."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from zerocon.core.cases import Case


def to_uint8(images: Tensor) -> NDArray[np.uint8]:
    """Convert 0..1, [n, 3, y, x], to bytes, [n, y, x, 3]."""
    return images.float().mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def from_uint8(pixels: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(255)


def case_pictures(case: Case) -> dict[str, Image.Image]:
    """A case's pictures other than its edit: source, ground truth, mask."""
    found = {"source": case.image, "truth": case.ground_truth, "mask": case.mask}
    return {
        name: Image.fromarray(to_uint8(t[None].expand(1, 3, -1, -1))[0])
        for name, t in found.items()
        if t is not None
    }

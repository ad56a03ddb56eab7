"""Copies to the network's device."""

from __future__ import annotations

import torch
from torch import Tensor


def sent(tensor: Tensor, like: Tensor) -> Tensor:
    """The tensor on `like`'s device. A GPU is not waited for: it copies when it gets there."""
    if like.device.type != "cuda":
        return tensor.to(like.device)
    pinned = tensor.contiguous().pin_memory()  # an expanded tensor can't be pinned
    return pinned.to(like.device, non_blocking=True)


def placed(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device; in single precision on Apple's GPUs, which have no double."""
    single = device.type == "mps" and tensor.dtype == torch.float64
    return (tensor.float() if single else tensor).to(device)

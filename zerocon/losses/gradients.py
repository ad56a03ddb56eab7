"""The gradient of a loss by the latents that were sent through the network."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from zerocon.core.levels import at_least_single

Latents = dict[str, Tensor]  # role -> its latents


def gradients(loss_at: Callable[[Latents], Tensor], latents: Latents) -> Latents:
    """∂ loss / ∂ latents, at least in single precision; zero for a case whose loss overflows.

    In half precision the loss is scaled up on its way back, so that small slopes survive.
    """
    half = any(x.dtype == torch.float16 for x in latents.values())
    scale = 256.0 if half else 1.0
    leaves = {role: x.detach().requires_grad_() for role, x in latents.items()}
    with torch.enable_grad():
        total = loss_at(leaves).sum() * scale
    slopes = torch.autograd.grad(total, list(leaves.values()))
    return {
        role: _finite(at_least_single(s) / scale) for role, s in zip(leaves, slopes, strict=True)
    }


def _finite(slope: Tensor) -> Tensor:
    whole = slope.isfinite().flatten(1).all(1)[:, None, None, None]
    return torch.where(whole, slope, torch.zeros_like(slope))

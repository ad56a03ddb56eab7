"""The gradient of a loss by the latents that were sent through the network."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from zerocon.core.levels import at_least_single

Latents = dict[str, Tensor]  # role -> its latents


def gradients(
    loss_at: Callable[[Latents], Tensor], latents: Latents, network: torch.dtype
) -> Latents:
    """∂ loss / ∂ latents, at least in single precision; zero for a case whose loss overflows.

    Where the network computes in half precision (its latents may be finer), the loss is scaled up
    on its way back, so that small slopes survive.
    """
    scale = 256.0 if network == torch.float16 else 1.0
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

"""Muon: orthogonalised momentum for matrices and convolutions; Adam for everything else.

Keller Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/. With
it the autoencoder needed a third of AdamW's steps (numbers in docs/shapes.md).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


@functools.cache
def has_fast_bfloat16() -> bool:
    """Whether the CPU has bfloat16; emulated, it is twenty times slower than float32."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001 - no public name


def orthogonalised(matrix: Tensor, steps: int = 5) -> Tensor:
    """Approximate U V^T of the matrix's SVD by Newton-Schulz iterations."""
    a, b, c = COEFFICIENTS
    wide = matrix.shape[0] <= matrix.shape[1]
    x = matrix if wide else matrix.T
    if matrix.is_cuda or has_fast_bfloat16():
        x = x.bfloat16()
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x if wide else x.T).float()


class Muon(torch.optim.Optimizer):
    """`lr` is Adam's; matrices' updates are scaled to the root mean square of Adam's.

    Groups with `orthogonal=False` use Adam.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
    ) -> None:
        super().__init__(
            params, {"lr": lr, "momentum": momentum, "betas": betas, "weight_decay": 0.0}
        )

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                p.mul_(1 - group["lr"] * group["weight_decay"])
                matrix = p.ndim >= 2 and min(p.shape[0], p[0].numel()) >= 16
                if matrix and group.get("orthogonal", True):
                    self._matrix_step(p, p.grad, group)
                else:
                    self._adam_step(p, p.grad, group)

    def _matrix_step(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state = self.state[p]
        if not state:
            state["momentum"] = torch.zeros_like(p)
        momentum = state["momentum"].lerp_(grad, 1 - group["momentum"])
        update = grad.lerp(momentum, group["momentum"]).reshape(len(p), -1)
        update = orthogonalised(update)
        # An orthogonal m×n matrix has entries of root mean square 1/sqrt(max(m, n)).
        scale = 0.2 * max(update.shape) ** 0.5
        p.add_(update.reshape(p.shape), alpha=-group["lr"] * scale)

    def _adam_step(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state = self.state[p]
        if not state:
            state["mean"] = torch.zeros_like(p)
            state["square"] = torch.zeros_like(p)
            state["count"] = torch.zeros(())
        state["count"] += 1
        first, second = group["betas"]
        mean = state["mean"].lerp_(grad, 1 - first)
        square = state["square"].lerp_(grad.square(), 1 - second)
        count = state["count"].item()
        bottom = (square / (1 - second**count)).sqrt_().add_(1e-8)
        p.addcdiv_(mean, bottom, value=-group["lr"] / (1 - first**count))

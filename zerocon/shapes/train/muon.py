"""Muon: orthogonalised momentum for matrices and convolutions; Adam for everything else.

Keller Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/. With
it the autoencoder needed a third of AdamW's steps (numbers in docs/shapes.md).
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


@functools.cache
def has_fast_bfloat16() -> bool:
    """Whether the CPU has bfloat16; emulated, it is twenty times slower than float32."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001 - no public name


def orthogonalised(matrices: Tensor, steps: int = 5) -> Tensor:
    """Approximate U V^T of each matrix's SVD by Newton-Schulz iterations."""
    a, b, c = COEFFICIENTS
    wide = matrices.shape[-2] <= matrices.shape[-1]
    x = matrices if wide else matrices.mT
    if matrices.is_cuda or has_fast_bfloat16():
        x = x.bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x if wide else x.mT).float()


class Muon(torch.optim.Optimizer):
    """`lr` is Adam's; matrices' updates are scaled to the root mean square of Adam's.

    Groups with `orthogonal=False` use Adam. Matrices of one shape are treated together: on a GPU
    the many small products cost less than their launches.
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
            with_gradient = [p for p in group["params"] if p.grad is not None]
            if group["weight_decay"] and with_gradient:
                torch._foreach_mul_(with_gradient, 1 - group["lr"] * group["weight_decay"])
            matrices: dict[torch.Size, list[Tensor]] = defaultdict(list)
            others: list[Tensor] = []
            for p in with_gradient:
                matrix = p.ndim >= 2 and min(p.shape[0], p[0].numel()) >= 16
                if matrix and group.get("orthogonal", True):
                    matrices[p.shape].append(p)
                else:
                    others.append(p)
            for alike in matrices.values():
                self._matrix_step(alike, group)
            if others:
                self._adam_step(others, group)

    def _kept(self, params: list[Tensor], name: str) -> list[Tensor]:
        for p in params:
            self.state[p].setdefault(name, torch.zeros_like(p))
        return [self.state[p][name] for p in params]

    def _matrix_step(self, params: list[Tensor], group: dict[str, Any]) -> None:
        momenta = self._kept(params, "momentum")
        grads = [p.grad for p in params if p.grad is not None]
        torch._foreach_lerp_(momenta, grads, 1 - group["momentum"])
        mixed = [g.lerp(m, group["momentum"]) for g, m in zip(grads, momenta, strict=True)]
        updates = orthogonalised(torch.stack([u.reshape(len(u), -1) for u in mixed]))
        # An orthogonal m×n matrix has entries of root mean square 1/sqrt(max(m, n)).
        scale = 0.2 * max(updates.shape[1:]) ** 0.5
        shaped = [u.reshape(p.shape) for u, p in zip(updates, params, strict=True)]
        torch._foreach_add_(params, shaped, alpha=-group["lr"] * scale)

    def _adam_step(self, params: list[Tensor], group: dict[str, Any]) -> None:
        means, squares = self._kept(params, "mean"), self._kept(params, "square")
        grads = [p.grad for p in params if p.grad is not None]
        group["count"] = count = group.get("count", 0) + 1
        first, second = group["betas"]
        torch._foreach_lerp_(means, grads, 1 - first)
        torch._foreach_lerp_(squares, [grad.square() for grad in grads], 1 - second)
        bottoms = [square / (1 - second**count) for square in squares]
        torch._foreach_sqrt_(bottoms)
        torch._foreach_add_(bottoms, 1e-8)
        torch._foreach_addcdiv_(params, means, bottoms, -group["lr"] / (1 - first**count))

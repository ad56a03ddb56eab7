"""Parts of the published code outside its loops: attention processors, word alignment, DDPM."""

from __future__ import annotations

import copy
from typing import Any, Protocol

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor

from zerocon.backbones.loading import Parts, fingerprint_of
from zerocon.backbones.stable_diffusion import StableDiffusionBackbone


def in_double(parts: Parts) -> StableDiffusionBackbone:
    """With attention that is not nearly uniform, as a random model's is."""
    ours = copy.deepcopy(parts)
    for name, weight in ours.unet.named_parameters():
        if "to_q" in name or "to_k" in name:
            weight.data.mul_(3.0)
    cpu = torch.device("cpu")
    return StableDiffusionBackbone(ours, "double", cpu, torch.float64, fingerprint_of(ours))


class Controller(Protocol):
    """Gets all rows of a pass: first those of the empty prompts, then the others."""

    def self_qkv(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]: ...

    def probs(self, probs: Tensor, *, is_cross: bool, place: str) -> Tensor: ...


class Processor:
    """Attention by its formula; queries, keys, values and maps are [row, head, position, …]."""

    def __init__(self, place: str, controller: Controller) -> None:
        self.place, self.controller = place, controller

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        **_other: Any,
    ) -> Tensor:
        text = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        is_cross = encoder_hidden_states is not None
        q, k, v = attn.to_q(hidden_states), attn.to_k(text), attn.to_v(text)
        q, k, v = (x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in (q, k, v))
        if not is_cross:
            q, k, v = self.controller.self_qkv(q, k, v)
        probs = (q @ k.transpose(-1, -2) * attn.scale).softmax(-1)
        probs = self.controller.probs(probs, is_cross=is_cross, place=self.place)
        return attn.to_out[0]((probs @ v).transpose(1, 2).flatten(2))


def controlled(backbone: StableDiffusionBackbone, controller: Controller) -> Any:
    """A copy of the U-Net whose attention the controller changes."""
    unet = copy.deepcopy(backbone.unet)
    for name, module in unet.named_modules():
        if isinstance(module, Attention):
            module.set_processor(Processor(name.split("_")[0], controller))
    return unet


def global_align(x: list[int], y: list[int]) -> list[int]:
    """The place in x of each token of y, or -1: match 1, mismatch -1, gap 0."""
    matrix = [[0] * (len(y) + 1) for _ in range(len(x) + 1)]
    back = [[0] * (len(y) + 1) for _ in range(len(x) + 1)]
    back[0] = [4] + [1] * len(y)
    for i in range(1, len(x) + 1):
        back[i][0] = 2
        for j in range(1, len(y) + 1):
            left, up = matrix[i][j - 1], matrix[i - 1][j]
            diag = matrix[i - 1][j - 1] + (1 if x[i - 1] == y[j - 1] else -1)
            matrix[i][j] = max(left, up, diag)
            back[i][j] = 1 if matrix[i][j] == left else 2 if matrix[i][j] == up else 3
    i, j, mapper = len(x), len(y), list[int]()
    while back[i][j] != 4:
        if back[i][j] == 3:
            i, j = i - 1, j - 1
            mapper.append(i)
        elif back[i][j] == 1:
            j -= 1
            mapper.append(-1)
        else:
            i -= 1
    return mapper[::-1]


def ddpm_mean(
    eps: Tensor, x: Tensor, alpha: float, alpha_prev: float, *, eta: float = 1.0
) -> Tensor:
    """Formula (12) of DDIM's paper without its noise: η = 1 is DDPM."""
    variance = (1 - alpha_prev) / (1 - alpha) * (1 - alpha / alpha_prev)
    clean = (x - (1 - alpha) ** 0.5 * eps) / alpha**0.5
    return alpha_prev**0.5 * clean + (1 - alpha_prev - eta**2 * variance) ** 0.5 * eps

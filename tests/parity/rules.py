"""Tools for transcriptions of the papers' update rules: plain tensors and diffusers' own U-Net.

Neither these tools nor the rules use zerocon, except for the inputs of both sides: prompts'
embeddings and random numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from zerocon.backbones.stable_diffusion import StableDiffusionBackbone
from zerocon.core.cases import Case
from zerocon.core.conditions import Conditions, Draws
from zerocon.core.prompts import words_of
from zerocon.inversions.base import Inversion

TRAINED = 1000
# Stable Diffusion's: β from 0.00085 to 0.012, its root evenly spaced.
ALPHAS = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, TRAINED) ** 2, 0).double()


def times(steps: int) -> list[int]:
    """The times that sampling visits, noisiest first: 1, 1 + 1000 // steps, ... reversed."""
    return [i * (TRAINED // steps) + 1 for i in reversed(range(steps))]


def alpha(time: int) -> float:
    """ā of a time; before the first time, that of time 0."""
    return float(ALPHAS[max(time, 0)])


def pairs(steps: int) -> list[tuple[int, float, float]]:
    """(t, ā_t, ā of the time before) of each sampling step."""
    return [(t, alpha(t), alpha(t - TRAINED // steps)) for t in times(steps)]


def ddim(z: Tensor, noise: Tensor, a: float, b: float) -> Tensor:
    """From ā = a to ā = b: `z0 = (z - √(1-a) ε) / √a`, `√b z0 + √(1-b) ε`."""
    return b**0.5 * (z - (1 - a) ** 0.5 * noise) / a**0.5 + (1 - b) ** 0.5 * noise


def noised(clean: Tensor, noise: Tensor, a: float) -> Tensor:
    return a**0.5 * clean + (1 - a) ** 0.5 * noise


def cfg(empty: Tensor, text: Tensor, w: float) -> Tensor:
    return empty + w * (text - empty)


@dataclass
class Layer:
    """One attention: its U-Net block, and its index among those of its kind."""

    side: str  # down_blocks, mid_block or up_blocks
    block: int
    attention: int
    cross: bool
    number: int = 0


class Control:
    """Gets every attention of a forward pass; a rule overrides what it changes.

    Activations are [row, head, position, …], `output` is [row, position, width].
    """

    def qkv(self, layer: Layer, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return q, k, v

    def probs(self, layer: Layer, probs: Tensor) -> Tensor:
        return probs

    def output(self, layer: Layer, output: Tensor) -> None:
        pass


@dataclass
class Net:
    """diffusers' U-Net, whose attention is written out below."""

    unet: Any
    control: Control = field(default_factory=Control)
    ran: dict[bool, int] = field(default_factory=dict[bool, int])  # attentions so far, by kind

    def __post_init__(self) -> None:
        names = self.unet.attn_processors
        self.unet.set_attn_processor({name: Attention(self, _layer(name)) for name in names})

    def __call__(
        self,
        z: Sequence[Tensor],
        time: int,
        texts: Sequence[Tensor],
        control: Control | None = None,
    ) -> list[Tensor]:
        """The noise in each latent under its text, all in one pass."""
        self.control, self.ran = control or Control(), {False: 0, True: 0}
        noise = self.unet(torch.cat(list(z)), time, torch.cat(list(texts))).sample
        return list(noise.split(1))


class VNet(Net):
    """A U-Net that says `v = √ā ε - √(1-ā) z0`. With `z = √ā z0 + √(1-ā) ε` that is a noise."""

    def __call__(
        self,
        z: Sequence[Tensor],
        time: int,
        texts: Sequence[Tensor],
        control: Control | None = None,
    ) -> list[Tensor]:
        a, said = alpha(time), super().__call__(z, time, texts, control)
        return [a**0.5 * v + (1 - a) ** 0.5 * x for v, x in zip(said, z, strict=True)]


@dataclass
class Attention:
    """`softmax(q kᵀ / √d) v`."""

    net: Net
    layer: Layer

    def __call__(
        self, attn: Any, x: Tensor, encoder_hidden_states: Tensor | None = None, **_: Any
    ) -> Tensor:
        self.layer.number = self.net.ran[self.layer.cross]
        self.net.ran[self.layer.cross] += 1
        context = x if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = (
            to(y).unflatten(2, (attn.heads, -1)).transpose(1, 2)
            for to, y in ((attn.to_q, x), (attn.to_k, context), (attn.to_v, context))
        )
        control = self.net.control
        q, k, v = control.qkv(self.layer, q, k, v)
        probs = (q @ k.transpose(2, 3) / q.shape[3] ** 0.5).softmax(3)
        mixed = control.probs(self.layer, probs) @ v
        output = attn.to_out[0](mixed.transpose(1, 2).flatten(2))
        control.output(self.layer, output)
        return output


def _layer(name: str) -> Layer:
    """`up_blocks.1.attentions.2.transformer_blocks.0.attn1.processor`, or in `mid_block`."""
    side, *rest = name.split(".")
    numbers = [int(part) for part in rest if part.isdecimal()]
    block, attention = (0, numbers[0]) if side == "mid_block" else numbers[:2]
    return Layer(side, block, attention, "attn2" in name)


@dataclass
class Sheet:
    """A rule's inputs for one edit: a network, a clean latent, three texts."""

    net: Net
    clean: Tensor  # [1, 4, 16, 16]
    source: Tensor  # [1, 77, 32]
    target: Tensor
    empty: Tensor
    draws: Draws

    @torch.no_grad()
    def inverted(self, steps: int, text: Tensor | None = None) -> list[Tensor]:
        """DDIM's steps backwards; the network sees the time that each goes to. Noisiest last."""
        text = self.source if text is None else text
        z = [self.clean]
        for t, noisier, here in reversed(pairs(steps)):
            (noise,) = self.net([z[-1]], t, [text])
            z.append(ddim(z[-1], noise, here, noisier))
        return z


@dataclass
class Both:
    """The same edits for zerocon, all in one batch, and as sheets, one by one."""

    backbone: StableDiffusionBackbone
    clean: Tensor
    conditions: Conditions
    draws: Draws
    sheets: list[Sheet]

    def edit(self, method: Any, inversion: Inversion) -> Tensor:
        """zerocon's result for this method and inversion."""
        trajectory = inversion(self.backbone, self.clean, self.conditions, method.steps, self.draws)
        return method(self.backbone, trajectory, self.conditions, self.draws)


def both(
    backbone: StableDiffusionBackbone,
    net: Net,
    prompts: Sequence[tuple[str, str]],
    blend: Sequence[tuple[str, str]] | None = None,
) -> Both:
    """Edits from each first to each second prompt; `blend` are their blend words."""
    generator = torch.Generator().manual_seed(7)
    clean = torch.randn(len(prompts), 4, 16, 16, dtype=torch.float64, generator=generator)
    sources, targets = [p[0] for p in prompts], [p[1] for p in prompts]
    source, target, empty = (backbone.embed(p) for p in (sources, targets, [""] * len(prompts)))
    cases = [
        Case(str(i), torch.zeros(3, 32, 32), *p, blend_words=blend[i] if blend else None)
        for i, p in enumerate(prompts)
    ]
    words = [words_of(backbone, case) for case in cases]
    sheets = [
        Sheet(
            net,
            clean[i : i + 1],
            source.tokens[i : i + 1],
            target.tokens[i : i + 1],
            empty.tokens[i : i + 1],
            Draws(0, [str(i)]),
        )
        for i in range(len(prompts))
    ]
    draws = Draws(0, [case.id for case in cases])
    return Both(backbone, clean, Conditions(source, target, empty, words), draws, sheets)


def agree(ours: Tensor, theirs: Sequence[Tensor]) -> None:
    """To 1e-9 of the latents' size."""
    expected = torch.cat(list(theirs))
    error = ((ours - expected).abs().max() / expected.abs().max()).item()
    assert error < 1e-9, f"the largest difference is {error:.1e} of the largest value"


def differ(one: Tensor, other: Tensor) -> None:
    """Differ by more than a thousandth; otherwise agreement would not test the difference."""
    assert (one - other).abs().max() > 1e-3 * other.abs().max()

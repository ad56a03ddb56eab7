"""What rules for transformers are written out with: diffusers' networks, attention by its formula.

As in `rules.py`, nothing here comes from zerocon but what both sides are given: the small network,
its times, prompts' embeddings, random numbers. A U-Net is seen in the same way, so that a rule runs
on both.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from tests.tiny_transformers import tiny_flux, tiny_flux_parts, tiny_sd3, tiny_sd3_parts
from zerocon.backbones.flux import FluxBackbone
from zerocon.backbones.loading import Parts
from zerocon.backbones.sd3 import SD3Backbone
from zerocon.backbones.stable_diffusion import StableDiffusionBackbone
from zerocon.core.cases import Case
from zerocon.core.conditions import Condition, Conditions, Draws
from zerocon.core.prompts import words_of

PROMPTS = [
    ("a big red circle on a gray background", "a big blue circle on a gray background"),
    ("a small green star at the beach", "a small white striped heart at the beach"),
]
WORDS = [("circle", "circle"), ("star", "heart")]
KINDS: dict[str, dict[str, Any]] = {
    "sd3": {},
    "sd35": {"qk_norm": "rms_norm", "dual_attention_layers": (0, 1)},
    "flux": {},
    "unet": {},
}


@dataclass(frozen=True)
class Layer:
    """One attention: `joint` (two streams), `single` (one), `dual` (image tokens alone); of a U-Net
    `self` or `cross`. `number` counts the attentions of its kind in the order they run."""

    kind: str
    number: int


@dataclass
class Stream:
    """Queries, keys and values of image or of text tokens, [row, head, token, width]."""

    q: Tensor
    k: Tensor
    v: Tensor


class Control:
    """Sees every attention of a forward pass; a rule overrides what it changes."""

    def text(self, layer: Layer, states: Tensor) -> Tensor:
        """The text tokens' states after their norm, [row, token, width]."""
        return states

    def streams(self, layer: Layer, image: Stream, text: Stream | None) -> None:
        """Change what they hold. There are no text tokens in an attention over the image alone."""

    def allowed(self, layer: Layer, image: int, text: int) -> Tensor | None:
        """Which key (last axis) each query may attend to, [row, 1, query, key]: text, then image.

        `image` and `text` are the numbers of tokens.
        """
        return None

    def probs(self, layer: Layer, probs: Tensor) -> None:
        """The image tokens' probabilities for the text tokens, [row, head, image, text]."""


class Net(Protocol):
    """A network as a rule sees it: its latents are `(1-t) clean + t noise`."""

    guidance: bool  # whether the network is told the guidance scale
    grid: tuple[int, int]  # of its image tokens, in the layers that a rule masks
    patch: int

    def times(self, steps: int) -> list[float]: ...

    def scale(self, t: float) -> float:
        """What a latent of this coordinate is multiplied with to be the model's own."""
        ...

    def v(
        self, z: Tensor, t: float, text: Condition, w: float = 1.0, control: Control | None = None
    ) -> Tensor:
        """The velocity; `w` is told to a network that takes it."""
        ...


def attended(layer: Layer, control: Control, image: Stream, text: Stream | None) -> list[Tensor]:
    """`softmax(q kᵀ / √d) v` of image and text tokens, [row, token, width]."""
    if text is None:
        return [_mixed(layer, control, image, 0)]
    joined = Stream(*(torch.cat([getattr(text, n), getattr(image, n)], 2) for n in "qkv"))
    length = text.q.shape[2]
    out = _mixed(layer, control, joined, length)
    return [out[:, length:], out[:, :length]]


def _mixed(layer: Layer, control: Control, x: Stream, text: int) -> Tensor:
    scores = x.q @ x.k.transpose(2, 3) / x.q.shape[3] ** 0.5
    allowed = control.allowed(layer, x.q.shape[2] - text, text)
    if allowed is not None:
        scores = scores.masked_fill(~allowed, float("-inf"))
    probs = scores.softmax(3)
    if text:
        control.probs(layer, probs[:, :, text:, :text])
    return (probs @ x.v).transpose(1, 2).flatten(2)


def turned(x: Tensor) -> Tensor:
    """(-b, a) for each pair of channels (a, b)."""
    pairs = torch.stack([-x[..., 1::2], x[..., ::2]], -1)
    return pairs.flatten(3)


def heads(attn: Any, x: Tensor) -> Tensor:
    return x.unflatten(2, (attn.heads, -1)).transpose(1, 2)


def normed(norm: Any, x: Tensor) -> Tensor:
    return x if norm is None else norm(x)


@dataclass
class Attention:
    """diffusers' processors for SD3 and FLUX, written out."""

    net: TransformerNet
    layer: Layer

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: None = None,
        image_rotary_emb: Any = None,
        **_: Any,
    ) -> Any:
        control, states = self.net.control, hidden_states
        if self.layer.kind == "single":
            length = self.net.text_tokens
            text_states = control.text(self.layer, states[:, :length])
            image = self._stream(attn, states[:, length:], "to_q to_k to_v norm_q norm_k")
            text = self._stream(attn, text_states, "to_q to_k to_v norm_q norm_k")
        else:
            image = self._stream(attn, states, "to_q to_k to_v norm_q norm_k")
            text = None
        if encoder_hidden_states is not None:
            text_states = control.text(self.layer, encoder_hidden_states)
            names = "add_q_proj add_k_proj add_v_proj norm_added_q norm_added_k"
            text = self._stream(attn, text_states, names)
        control.streams(self.layer, image, text)
        if image_rotary_emb is not None:
            assert text is not None
            self._rotate(image, text, image_rotary_emb)
        out = attended(self.layer, control, image, text)
        if self.layer.kind == "single":
            return torch.cat(out[::-1], 1)
        if text is None:
            return attn.to_out[0](out[0])
        text_out = out[1] if getattr(attn, "context_pre_only", False) else attn.to_add_out(out[1])
        return attn.to_out[0](out[0]), text_out

    def _stream(self, attn: Any, states: Tensor, names: str) -> Stream:
        q, k, v, norm_q, norm_k = (getattr(attn, name, None) for name in names.split())
        made = [heads(attn, project(states)) for project in (q, k, v)]  # type: ignore[misc]
        return Stream(normed(norm_q, made[0]), normed(norm_k, made[1]), made[2])

    def _rotate(self, image: Stream, text: Stream, angles: tuple[Tensor, Tensor]) -> None:
        length = text.q.shape[2]
        for stream, part in ((text, slice(length)), (image, slice(length, None))):
            cos, sin = angles[0][part].double(), angles[1][part].double()
            stream.q, stream.k = (x * cos + turned(x) * sin for x in (stream.q, stream.k))


class TransformerNet:
    """diffusers' SD3 or FLUX transformer."""

    def __init__(self, backbone: SD3Backbone | FluxBackbone) -> None:
        self.flux = isinstance(backbone, FluxBackbone)
        self.guidance, self.control = self.flux, Control()
        self.grid, self.patch = backbone.layout.grid, 2
        self.text_tokens = backbone.layout.text_tokens
        self.path = backbone.path
        self.net: Any = copy.deepcopy(backbone.transformer)
        self._own_attention("joint", "attn", self.net.transformer_blocks)
        self._own_attention("dual", "attn2", self.net.transformer_blocks)
        self._own_attention("single", "attn", getattr(self.net, "single_transformer_blocks", ()))

    def _own_attention(self, kind: str, name: str, blocks: Sequence[Any]) -> None:
        for number, block in enumerate(blocks):
            block._forward_hooks.clear()
            if getattr(block, name, None) is not None:
                getattr(block, name).set_processor(Attention(self, Layer(kind, number)))

    def times(self, steps: int) -> list[float]:
        """Both sides are given them: single precision is too coarse to agree from two formulas."""
        return [level.t for level in self.path(steps).levels]

    def scale(self, t: float) -> float:
        return 1.0

    def v(
        self, z: Tensor, t: float, text: Condition, w: float = 1.0, control: Control | None = None
    ) -> Tensor:
        self.control = control or Control()
        time = torch.full((len(z),), t, dtype=z.dtype)
        if not self.flux:
            return self.net(z, text.tokens, text.pooled, 1000 * time, return_dict=False)[0]
        return self._flux(z, time, text, torch.full_like(time, w))

    def _flux(self, z: Tensor, time: Tensor, text: Condition, w: Tensor) -> Tensor:
        (h, width), rows = self.grid, len(z)
        tokens = z.reshape(rows, 16, h, 2, width, 2).permute(0, 2, 4, 1, 3, 5).reshape(rows, -1, 64)
        y, x = torch.meshgrid(torch.arange(h), torch.arange(width), indexing="ij")
        ids = torch.stack([torch.zeros_like(y), y, x], -1).reshape(-1, 3).float()
        found = self.net(
            tokens,
            text.tokens,
            text.pooled,
            time,
            img_ids=ids,
            txt_ids=torch.zeros(text.tokens.shape[1], 3),
            guidance=w,
            return_dict=False,
        )[0]
        parts = found.reshape(rows, h, width, 16, 2, 2).permute(0, 3, 1, 4, 2, 5)
        return parts.reshape(rows, 16, 2 * h, 2 * width)


@dataclass
class UNetAttention:
    """`softmax(q kᵀ / √d) v` of a U-Net."""

    net: UNet
    layer: Layer

    def __call__(
        self, attn: Any, x: Tensor, encoder_hidden_states: Tensor | None = None, **_: Any
    ) -> Tensor:
        states = x if encoder_hidden_states is None else encoder_hidden_states
        made = (attn.to_q(x), attn.to_k(states), attn.to_v(states))
        q, k, v = (heads(attn, part) for part in made)
        if encoder_hidden_states is None:
            stream = Stream(q, k, v)
            self.net.control.streams(self.layer, stream, None)
            return attn.to_out[0](attended(self.layer, self.net.control, stream, None)[0])
        probs = (q @ k.transpose(2, 3) / q.shape[3] ** 0.5).softmax(3)
        self.net.control.probs(self.layer, probs)
        return attn.to_out[0]((probs @ v).transpose(1, 2).flatten(2))


@dataclass
class UNet:
    """diffusers' U-Net, asked in the common coordinate."""

    unet: Any
    guidance: bool = False
    grid: tuple[int, int] = (16, 16)
    patch: int = 1
    control: Control = field(default_factory=Control)

    def __post_init__(self) -> None:
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float32) ** 2
        alphas = (1 - betas).cumprod(0).double().numpy()
        self.known = np.sqrt(1 - alphas) / (np.sqrt(1 - alphas) + np.sqrt(alphas))
        numbers = {"self": 0, "cross": 0}
        for name in _in_running_order(list(self.unet.attn_processors)):
            kind = "cross" if "attn2" in name else "self"
            module = self.unet.get_submodule(name.removesuffix(".processor"))
            module.set_processor(UNetAttention(self, Layer(kind, numbers[kind])))
            numbers[kind] += 1

    def times(self, steps: int) -> list[float]:
        visited = [self.known[i * (1000 // steps) + 1] for i in reversed(range(steps))]
        return [float(t) for t in (*visited, self.known[0])]

    def scale(self, t: float) -> float:
        return 1 / (t**2 + (1 - t) ** 2) ** 0.5

    def v(
        self, z: Tensor, t: float, text: Condition, w: float = 1.0, control: Control | None = None
    ) -> Tensor:
        self.control = control or Control()
        told = float(np.interp(t, self.known, np.arange(1000)))
        x, size = self.scale(t) * z, self.scale(t)
        eps = self.unet(x, told, text.tokens, return_dict=False)[0]
        return eps - (x - size * t * eps) / (size * (1 - t))


def _in_running_order(names: list[str]) -> list[str]:
    """Down, middle, up; within each as the names are numbered."""
    sides = ["down_blocks", "mid_block", "up_blocks"]
    return sorted(names, key=lambda n: (sides.index(n.split(".")[0]), n))


@dataclass
class Edits:
    """Two edits for both sides: our backbone and its inputs, and the network for the rule."""

    kind: str
    backbone: Any
    net: Net
    clean: Tensor
    conditions: Conditions
    draws: Draws
    cases: list[Case]

    def ours(self, method: Any, inversion: Any) -> Tensor:
        trajectory = inversion(self.backbone, self.clean, self.conditions, method.steps, self.draws)
        return method(self.backbone, trajectory, self.conditions, self.draws)

    def guided(
        self,
        z: Tensor,
        t: float,
        text: Condition,
        w: float,
        controls: tuple[Control | None, Control | None] = (None, None),
    ) -> Tensor:
        """The guided velocity. `controls`: of the row with the text, and of the one without."""
        if self.net.guidance or w == 1.0:
            return self.net.v(z, t, text, w, controls[0])
        with_text = self.net.v(z, t, text, 1.0, controls[0])
        without = self.net.v(z, t, self.conditions.negative, 1.0, controls[1])
        return without + w * (with_text - without)


def edits(kind: str, parts: Parts, folder: Path) -> Edits:
    backbone = _backbone(kind, parts, folder)
    net: Any
    if isinstance(backbone, StableDiffusionBackbone):
        net, shape = UNet(copy.deepcopy(backbone.unet)), (4, 16, 16)
    else:
        net = TransformerNet(backbone)
        shape = (16, 2 * backbone.layout.grid[0], 2 * backbone.layout.grid[1])
    generator = torch.Generator().manual_seed(7)
    clean = torch.randn(2, *shape, dtype=torch.float64, generator=generator)
    cases = [
        Case(str(i), torch.zeros(3, 8, 8), *prompts, blend_words=words)
        for i, (prompts, words) in enumerate(zip(PROMPTS, WORDS, strict=True))
    ]
    texts = ([c.source_prompt for c in cases], [c.target_prompt for c in cases], ["", ""])
    words = [words_of(backbone, case) for case in cases]
    source, target, negative = (backbone.embed(text) for text in texts)
    conditions = Conditions(source, target, negative, words)
    return Edits(kind, backbone, net, clean, conditions, Draws(0, ["0", "1"]), cases)


def _backbone(kind: str, parts: Parts, folder: Path) -> Any:
    if kind == "unet":
        ours = copy.deepcopy(parts)
        for module in ours.modules:
            module.double()
        _sharpen(ours.unet)
        cpu = torch.device("cpu")
        return StableDiffusionBackbone(ours, "precise", cpu, torch.float64, "precise")
    if kind == "flux":
        flux = tiny_flux_parts(folder, num_single_layers=3)
        _sharpen(flux.transformer)
        return tiny_flux(flux, dtype=torch.float64)
    sd3 = tiny_sd3_parts(folder, **KINDS[kind])
    _sharpen(sd3.transformer)
    return tiny_sd3(sd3, dtype=torch.float64)


def _sharpen(network: Any) -> None:
    """Attention that is not nearly even."""
    for name, weight in network.named_parameters():
        if any(part in name for part in ("to_q", "to_k", "add_q_proj", "add_k_proj")):
            weight.data.mul_(3.0)


def agree(ours: Tensor, expected: Tensor) -> None:
    """To 1e-9 of the latents' size."""
    error = ((ours - expected).abs().max() / expected.abs().max()).item()
    assert error < 1e-9, f"the largest difference is {error:.1e} of the largest value"


def differ(one: Tensor, other: Tensor) -> None:
    """By more than a thousandth, or agreement would say nothing of what makes the difference."""
    assert (one - other).abs().max() > 1e-3 * other.abs().max()

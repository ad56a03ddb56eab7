"""Taps in diffusers' U-Nets. Only this module depends on the internals of its attention.

Every attention gets a processor and every residual block a hook, once, when the backbone is made.
They consult the backbone's `taps.Taps`, so that nothing is installed or removed around a tap,
compiled or not. Attention stays fused unless its probabilities are needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zerocon.core.levels import at_least_single
from zerocon.core.taps import Kind, Site, Taps


def install(unet: Any, grid: tuple[int, int]) -> Taps:
    """Install taps in the U-Net. `grid`: height and width of the latents."""
    found = list(_find_sites(unet, grid))
    taps = Taps(tuple(site for site, _ in found))
    for site, module in found:
        if site.kind == "block":
            module.register_forward_hook(_hidden_hook(site, taps))
        elif site.kind == "res":
            module.conv2.register_forward_hook(_features_hook(site, taps))
        else:
            _listen(module, Processor(site, taps))
    return taps


def _listen(attention: Any, processor: Processor) -> None:
    attention.set_processor(processor)
    attention.__class__ = _direct(type(attention))


@cache
def _direct(kind: type[Any]) -> type[Any]:
    """diffusers' attention, without the look at its processor's parameters in every call.

    That look takes 6 % of a pass of one row through the shapes world's U-Net.
    """

    def forward(self: Any, *given: Any, **named: Any) -> Any:
        if isinstance(self.processor, Processor):
            return self.processor(self, *given, **named)
        return kind.forward(self, *given, **named)

    return type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})


def _find_sites(unet: Any, grid: tuple[int, int]) -> Iterator[tuple[Site, Any]]:
    """Yield all residual blocks, attentions and whole layers in execution order."""
    numbers: dict[Kind, int] = {"res": 0, "self": 0, "cross": 0, "block": 0}

    def site(place: str, kind: Kind, scale: int) -> Site:
        numbers[kind] += 1
        height, width = (side // scale for side in grid)
        return Site(f"{place}.{kind}", kind, scale, numbers[kind] - 1, (height, width))

    yield site("in.0.0", "block", 1), unet.conv_in
    for (place, scale), layer in groupby(_blocks(unet), key=lambda found: found[:2]):
        modules = [module for _, _, module in layer]
        for module in modules:
            for deeper, kind, part in _parts(place, module):
                yield site(deeper, kind, scale), part
        yield site(place, "block", scale), modules[-1]


def _parts(place: str, module: Any) -> Iterator[tuple[str, Kind, Any]]:
    """A residual block, or the attentions of a transformer."""
    if hasattr(module, "conv2"):
        yield place, "res", module
        return
    for depth, block in enumerate(module.transformer_blocks):
        deeper = f"{place}.d{depth}" if depth else place
        yield deeper, "self", block.attn1
        if block.attn2 is not None:
            yield deeper, "cross", block.attn2


def _blocks(unet: Any) -> Iterator[tuple[str, int, Any]]:
    """(side.level.layer, scale, residual block or transformer), in execution order."""
    levels = len(unet.down_blocks)
    for level, block in enumerate(unet.down_blocks):
        yield from _layers(f"down.{level}", 2**level, block)
    middle = unet.mid_block
    yield "mid.0.0", 2 ** (levels - 1), middle.resnets[0]
    for layer, (attention, resnet) in enumerate(
        zip(middle.attentions, middle.resnets[1:], strict=True)
    ):
        yield f"mid.0.{layer}", 2 ** (levels - 1), attention
        yield f"mid.0.{layer + 1}", 2 ** (levels - 1), resnet
    for level, block in enumerate(unet.up_blocks):
        yield from _layers(f"up.{level}", 2 ** (levels - 1 - level), block)


def _layers(place: str, scale: int, block: Any) -> Iterator[tuple[str, int, Any]]:
    attentions = getattr(block, "attentions", None) or [None] * len(block.resnets)
    for layer, (resnet, attention) in enumerate(zip(block.resnets, attentions, strict=True)):
        yield f"{place}.{layer}", scale, resnet
        if attention is not None:
            yield f"{place}.{layer}", scale, attention


def _features_hook(site: Site, taps: Taps) -> Any:
    def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        return taps.through(site, "features", output)

    return hook


def _hidden_hook(site: Site, taps: Taps) -> Any:
    """A transformer gives its hidden state in a tuple, the others give it alone."""

    def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (taps.through(site, "hidden", output[0]),)
        return taps.through(site, "hidden", output)

    return hook


class Processor:
    """`diffusers.models.attention_processor.AttnProcessor2_0` with taps."""

    def __init__(self, site: Site, taps: Taps) -> None:
        self.site, self.taps = site, taps

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        if attention_mask is not None:
            raise NotImplementedError("attention masks: no backbone here uses them")
        states = hidden_states
        if encoder_hidden_states is not None:
            states = self._tapped("text", encoder_hidden_states)
        queries = self._tapped("queries", _heads(attn, attn.to_q(hidden_states)))
        keys = self._tapped("keys", _heads(attn, attn.to_k(states)))
        values = self._tapped("values", _heads(attn, attn.to_v(states)))
        mixed = self._attended(attn, queries, keys, values)
        out = attn.to_out[0](mixed.transpose(1, 2).flatten(2))  # [row, position, width]
        return self._tapped("output", out)

    def _attended(self, attn: Any, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Fused, but for the rows whose probabilities a tap wants."""
        rows = self.taps.wanted_rows(self.site, "probs", len(queries))
        if rows is None:
            return F.scaled_dot_product_attention(queries, keys, values, scale=attn.scale)
        mixed = [
            self._by_probabilities(attn, queries, keys, values, part)
            if part == rows
            else F.scaled_dot_product_attention(
                queries[part], keys[part], values[part], scale=attn.scale
            )
            for part in _around(rows, len(queries))
        ]
        return mixed[0] if len(mixed) == 1 else torch.cat(mixed)

    def _by_probabilities(
        self, attn: Any, queries: Tensor, keys: Tensor, values: Tensor, rows: slice
    ) -> Tensor:
        probs = _probabilities(attn, queries[rows], keys[rows])
        probs = self.taps.through(self.site, "probs", probs, rows)
        return probs.to(values.dtype) @ values[rows]

    def _tapped(self, what: Any, activation: Tensor) -> Tensor:
        return self.taps.through(self.site, what, activation)


def _around(rows: slice, count: int) -> list[slice]:
    """All rows in order: those before, these, and those behind."""
    parts = slice(0, rows.start), rows, slice(rows.stop, count)
    return [part for part in parts if part.start < part.stop]


def _heads(attn: Any, projected: Tensor) -> Tensor:
    """[row, position, width] to [row, head, position, width of a head]."""
    return projected.unflatten(-1, (attn.heads, -1)).transpose(1, 2)


def _probabilities(attn: Any, queries: Tensor, keys: Tensor) -> Tensor:
    """[row, head, position, token], at least in single precision, as losses sum over them."""
    if attn.upcast_attention:
        queries, keys = queries.float(), keys.float()
    scores = queries @ keys.transpose(-1, -2) * attn.scale
    return torch.softmax(at_least_single(scores), dim=-1)

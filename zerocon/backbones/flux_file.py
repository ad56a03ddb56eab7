"""FLUX's transformer under the names of its authors' checkpoints, given diffusers' names.

diffusers' own converter works for FLUX's full width only; this one takes the width from the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

PREFIX = "model.diffusion_model."  # of files that hold more than the transformer

# The authors' module -> diffusers', without "weight" or "bias".
_ENDS = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
}
_DOUBLE = {
    "img_mod.lin": "norm1.linear",
    "txt_mod.lin": "norm1_context.linear",
    "img_attn.norm.query_norm": "attn.norm_q",
    "img_attn.norm.key_norm": "attn.norm_k",
    "txt_attn.norm.query_norm": "attn.norm_added_q",
    "txt_attn.norm.key_norm": "attn.norm_added_k",
    "img_attn.proj": "attn.to_out.0",
    "txt_attn.proj": "attn.to_add_out",
    "img_mlp.0": "ff.net.0.proj",
    "img_mlp.2": "ff.net.2",
    "txt_mlp.0": "ff_context.net.0.proj",
    "txt_mlp.2": "ff_context.net.2",
}
_SINGLE = {
    "modulation.lin": "norm.linear",
    "norm.query_norm": "attn.norm_q",
    "norm.key_norm": "attn.norm_k",
    "linear2": "proj_out",
}
# One matrix in the file, several in diffusers.
_QKV = {
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
}
_LINEAR1 = ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
_BLOCK = re.compile(r"(double|single)_blocks\.(\d+)\.(.+)")


def flux_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The transformer's tensors by diffusers' names; what is not the transformer's is left out."""
    converted: dict[str, Tensor] = {}
    for key, value in state.items():
        module, _, leaf = key.removeprefix(PREFIX).rpartition(".")
        own = "weight" if leaf == "scale" else leaf
        for name, part in _named(module, value):
            converted[f"{name}.{own}"] = part
    return converted


def _named(module: str, value: Tensor) -> list[tuple[str, Tensor]]:
    """The parts of one tensor, each with the name of its module in diffusers."""
    block = _BLOCK.fullmatch(module)
    if block is None:
        if module not in _ENDS:
            return []
        swap = module == "final_layer.adaLN_modulation.1"  # shift and scale, in the other order
        return [(_ENDS[module], _swapped(value) if swap else value)]
    kind, number, inner = block.groups()
    place = f"transformer_blocks.{number}"
    if kind == "single":
        place = f"single_{place}"
    if kind == "single" and inner == "linear1":
        names, width = _LINEAR1, value.shape[0] // 7  # the last one is four times as wide
        parts = value.split([width, width, width, value.shape[0] - 3 * width])
    elif kind == "double" and inner in _QKV:
        names, parts = _QKV[inner], value.chunk(3)
    else:
        known = (_DOUBLE if kind == "double" else _SINGLE).get(inner)
        return [] if known is None else [(f"{place}.{known}", value)]
    return [(f"{place}.{name}", part) for name, part in zip(names, parts, strict=True)]


def _swapped(value: Tensor) -> Tensor:
    return torch.cat(value.chunk(2)[::-1])

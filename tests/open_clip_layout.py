"""A text encoder's weights under the names of open_clip, as Stable Diffusion 2 and XL have them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

PARTS = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
ENDS = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}


def open_clip_layout(text_encoder: Any, prefix: str) -> dict[str, Tensor]:
    named = text_encoder.state_dict().items()
    state = {name.removeprefix("text_model."): value for name, value in named}
    found = {ENDS[name]: value for name, value in state.items() if name in ENDS}
    if "text_projection.weight" in state:
        found["text_projection"] = state["text_projection.weight"].T
    layers = {n.split(".")[2] for n in state if n.startswith("encoder.layers.")}
    for number in sorted(layers):
        found |= _layer(state, f"encoder.layers.{number}.", f"transformer.resblocks.{number}.")
    return {prefix + name: value.contiguous().clone() for name, value in found.items()}


def _layer(state: dict[str, Tensor], ours: str, theirs: str) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for end in ("weight", "bias"):
        for part, name in PARTS.items():
            found[f"{theirs}{name}.{end}"] = state[f"{ours}{part}.{end}"]
        joined = [state[f"{ours}self_attn.{x}_proj.{end}"] for x in "qkv"]
        found[f"{theirs}attn.in_proj_{end}"] = torch.cat(joined)
    return found

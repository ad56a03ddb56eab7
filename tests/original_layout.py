"""A diffusers model's weights under the names of the original Stable Diffusion checkpoints."""

from __future__ import annotations

import re

from torch import Tensor

from zerocon.backbones.loading import Parts

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
ENDS = {
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
}
VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}


def original_layout(parts: Parts) -> dict[str, Tensor]:
    unet = {unet_name(k): v for k, v in parts.unet.state_dict().items()}
    vae = dict(vae_entry(k, v) for k, v in parts.vae.state_dict().items())
    text = {f"text_model.{k}": v for k, v in parts.text_encoder.state_dict().items()}
    named = {
        **{f"model.diffusion_model.{k}": v for k, v in unet.items()},
        **{f"first_stage_model.{k}": v for k, v in vae.items()},
        **{f"cond_stage_model.transformer.{k}": v for k, v in text.items()},
    }
    return {k: v.contiguous().clone() for k, v in named.items()}


def unet_name(key: str) -> str:
    for ours, theirs in ENDS.items():
        if key.startswith(ours + "."):
            return theirs + key.removeprefix(ours)
    kind, *numbers = re.split(r"\.", key)
    if kind == "mid_block":
        part, index, *rest = numbers
        place = 1 if part == "attentions" else 2 * int(index)
        return f"middle_block.{place}." + _inner(part, rest)
    block, part, index, *rest = numbers
    if kind == "down_blocks":
        if part == "downsamplers":
            return f"input_blocks.{3 * int(block) + 3}.0.op." + ".".join(rest[1:])
        number = 3 * int(block) + 1 + int(index)
        return f"input_blocks.{number}.{int(part == 'attentions')}." + _inner(part, rest)
    if part == "upsamplers":
        place = 1 if block == "0" else 2
        return f"output_blocks.{3 * int(block) + 2}.{place}.conv." + ".".join(rest[1:])
    number = 3 * int(block) + int(index)
    return f"output_blocks.{number}.{int(part == 'attentions')}." + _inner(part, rest)


def _inner(part: str, rest: list[str]) -> str:
    if part == "attentions":
        return ".".join(rest)
    return ".".join([RESNET[rest[0]], *rest[1:]])


def vae_entry(key: str, value: Tensor) -> tuple[str, Tensor]:
    key = key.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    key = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
    key = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", key)
    key = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", key)
    key = re.sub(r"up_blocks\.(\d)\.resnets", lambda m: f"up.{1 - int(m[1])}.block", key)
    key = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{1 - int(m[1])}.upsample", key)
    if "mid_block.attentions.0" in key:
        for ours, theirs in VAE_ATTENTION.items():
            key = key.replace(f"attentions.0.{ours}.", f"attentions.0.{theirs}.")
        key = key.replace("mid_block.attentions.0", "mid.attn_1")
        if value.ndim == 2:  # a linear layer here, a 1x1 convolution there
            value = value[:, :, None, None]
    return key, value

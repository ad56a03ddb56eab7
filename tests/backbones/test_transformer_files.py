"""Stable Diffusion 3 and FLUX from one file, in the layouts that their authors publish."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.backbones.test_flux import pipeline_of as flux_pipeline_of
from tests.backbones.test_sd3 import pipeline_of as sd3_pipeline_of
from tests.original_layout import vae_entry
from tests.tiny_transformers import tiny_flux_parts, tiny_sd3_parts
from zerocon.backbones.base import BackboneError
from zerocon.backbones.flux import Flux, FluxParts
from zerocon.backbones.flux_file import _DOUBLE, _ENDS, _LINEAR1, _QKV, _SINGLE
from zerocon.backbones.sd3 import SD3, SD3PartsWithoutT5

State = dict[str, Tensor]
SD3_ENDS = {
    "pos_embed.proj": "x_embedder.proj",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
    "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
    "context_embedder": "context_embedder",
    "proj_out": "final_layer.linear",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
}
SD3_BLOCK = {
    "attn.norm_q": "x_block.attn.ln_q",
    "attn.norm_k": "x_block.attn.ln_k",
    "attn.norm_added_q": "context_block.attn.ln_q",
    "attn.norm_added_k": "context_block.attn.ln_k",
    "attn.to_out.0": "x_block.attn.proj",
    "attn2.norm_q": "x_block.attn2.ln_q",
    "attn2.norm_k": "x_block.attn2.ln_k",
    "attn2.to_out.0": "x_block.attn2.proj",
    "attn.to_add_out": "context_block.attn.proj",
    "norm1.linear": "x_block.adaLN_modulation.1",
    "norm1_context.linear": "context_block.adaLN_modulation.1",
    "ff.net.0.proj": "x_block.mlp.fc1",
    "ff.net.2": "x_block.mlp.fc2",
    "ff_context.net.0.proj": "context_block.mlp.fc1",
    "ff_context.net.2": "context_block.mlp.fc2",
}
SD3_JOINED = {
    "x_block.attn2.qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
    "x_block.attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "context_block.attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
}


def swapped(value: Tensor) -> Tensor:
    return torch.cat(value.chunk(2)[::-1])


def joined(state: State, block: str, joins: dict[str, tuple[str, ...]], to: str) -> State:
    """Matrices that are one in the file."""
    return {
        f"{to}.{name}.{leaf}": torch.cat([state[f"{block}.{part}.{leaf}"] for part in parts])
        for name, parts in joins.items()
        for leaf in ("weight", "bias")
        if f"{block}.{parts[0]}.{leaf}" in state
    }


def renamed(state: State, block: str, names: dict[str, str], to: str) -> State:
    """`names`: diffusers' -> the file's."""
    return {
        f"{to}.{theirs}.{leaf}": state[f"{block}.{ours}.{leaf}"]
        for ours, theirs in names.items()
        for leaf in ("weight", "bias")
        if f"{block}.{ours}.{leaf}" in state
    }


def sd3_layout(state: State) -> State:
    found: State = {"pos_embed": state["pos_embed.pos_embed"]}
    for ours, theirs in SD3_ENDS.items():
        for leaf in ("weight", "bias"):
            value = state[f"{ours}.{leaf}"]
            found[f"{theirs}.{leaf}"] = swapped(value) if ours == "norm_out.linear" else value
    blocks = sorted({int(k.split(".")[1]) for k in state if k.startswith("transformer_blocks")})
    for i in blocks:
        place, to = f"transformer_blocks.{i}", f"joint_blocks.{i}"
        found |= renamed(state, place, SD3_BLOCK, to) | joined(state, place, SD3_JOINED, to)
    last = f"joint_blocks.{blocks[-1]}.context_block.adaLN_modulation.1"
    found |= {f"{last}.{leaf}": swapped(found[f"{last}.{leaf}"]) for leaf in ("weight", "bias")}
    return found


def flux_layout(state: State) -> State:
    found: State = {}
    for theirs, ours in _ENDS.items():
        for leaf in ("weight", "bias"):
            if f"{ours}.{leaf}" in state:
                value = state[f"{ours}.{leaf}"]
                swap = theirs == "final_layer.adaLN_modulation.1"
                found[f"{theirs}.{leaf}"] = swapped(value) if swap else value
    double, single = ({v: k for k, v in names.items()} for names in (_DOUBLE, _SINGLE))
    for kind, names, joins in (
        ("double", double, dict(_QKV)),
        ("single", single, {"linear1": _LINEAR1}),
    ):
        blocks = "transformer_blocks" if kind == "double" else "single_transformer_blocks"
        for i in range(2):
            place, to = f"{blocks}.{i}", f"{kind}_blocks.{i}"
            found |= renamed(state, place, names, to) | joined(state, place, joins, to)
    return {re.sub(r"_norm\.weight$", "_norm.scale", k): v for k, v in found.items()}


def vae_layout(parts: Any, prefix: str) -> State:
    entries = (vae_entry(k, v) for k, v in parts.vae.state_dict().items())
    return {f"{prefix}{k}": v for k, v in entries}


def text_layout(model: Any, name: str) -> State:
    prefix = f"text_encoders.{name}.transformer."
    text = {k: v for k, v in model.state_dict().items() if k != "encoder.embed_tokens.weight"}
    wrapped = name.startswith("clip") and not any(k.startswith("text_model.") for k in text)
    return {f"{prefix}{'text_model.' if wrapped else ''}{k}": v for k, v in text.items()}


def write(state: State, file: Path) -> str:
    save_file({k: v.contiguous().clone() for k, v in state.items()}, file)
    return str(file)


def sd3_file(parts: SD3PartsWithoutT5) -> State:
    transformer = sd3_layout(parts.transformer.state_dict())
    state = {f"model.diffusion_model.{k}": v for k, v in transformer.items()}
    clip_l = text_layout(parts.text_encoder, "clip_l")
    del clip_l["text_encoders.clip_l.transformer.text_projection.weight"]  # published files' way
    return (
        state
        | vae_layout(parts, "first_stage_model.")
        | clip_l
        | text_layout(parts.text_encoder_2, "clip_g")
    )


@pytest.mark.parametrize(
    "changes", [{}, {"qk_norm": "rms_norm", "dual_attention_layers": (0, 1)}], ids=["sd3", "sd35"]
)
def test_sd3_from_one_file(tmp_path: Path, changes: dict[str, Any]) -> None:
    """With T5 in the file, without it, and with T5 from the folder of the configs."""
    parts = tiny_sd3_parts(tmp_path / "parts", **changes)
    parts.text_encoder.text_projection.weight.data.copy_(torch.eye(12))
    sd3_pipeline_of(parts).save_pretrained(tmp_path / "model")
    settings: dict[str, Any] = {"device": "cpu", "config": str(tmp_path / "model")}
    folder = SD3(str(tmp_path / "model"), device="cpu").load()
    state = sd3_file(parts)
    with_t5 = state | text_layout(parts.text_encoder_3, "t5xxl")
    whole = write(with_t5, tmp_path / "whole.safetensors")
    clips = write(state, tmp_path / "clips.safetensors")
    assert SD3(whole, **settings).load().fingerprint == folder.fingerprint
    assert SD3(clips, **settings).load().fingerprint == folder.fingerprint
    without = SD3(str(tmp_path / "model"), device="cpu", t5=False).load()
    for file in (whole, clips):
        assert SD3(file, t5=False, **settings).load().fingerprint == without.fingerprint


@pytest.mark.parametrize("schnell", [False, True])
def test_flux_from_one_file(tmp_path: Path, schnell: bool) -> None:
    """The authors' file holds the transformer only; others hold all."""
    parts: FluxParts = tiny_flux_parts(tmp_path / "parts", schnell=schnell)
    flux_pipeline_of(parts).save_pretrained(tmp_path / "model")
    guidance = "classifier_free" if schnell else "embedded"
    settings: dict[str, Any] = {"device": "cpu", "guidance": guidance}
    folder = Flux(str(tmp_path / "model"), **settings).load()
    settings["config"] = str(tmp_path / "model")
    alone = flux_layout(parts.transformer.state_dict())
    authors = write(alone, tmp_path / "flux1.safetensors")
    assert Flux(authors, **settings).load().fingerprint == folder.fingerprint
    state = {f"model.diffusion_model.{k}": v for k, v in alone.items()}
    state |= vae_layout(parts, "vae.") | text_layout(parts.text_encoder, "clip_l")
    state |= text_layout(parts.text_encoder_2, "t5xxl")
    whole = write(state, tmp_path / "whole.safetensors")
    assert Flux(whole, **settings).load().fingerprint == folder.fingerprint
    damaged = write(
        {k: v for k, v in alone.items() if "img_mlp.0" not in k}, tmp_path / "damaged.safetensors"
    )
    with pytest.raises(BackboneError, match="missing"):
        Flux(damaged, **settings).load()
    del settings["config"]
    with pytest.raises(BackboneError, match=r"does not hold the text_encoder, .*backbone\.config"):
        Flux(authors, **settings).load()

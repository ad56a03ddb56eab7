"""Small random models with Stable Diffusion's topology."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from zerocon.backbones.base import Backbone
from zerocon.backbones.loading import Parts, fingerprint_of
from zerocon.backbones.stable_diffusion import StableDiffusionBackbone
from zerocon.core.conditions import Condition
from zerocon.losses import CrossAttention, Losses, PatchNCE
from zerocon.shapes.tokenizer import write_clip_tokenizer


def tiny_parts(folder: Path, prediction_type: str = "epsilon", seed: int = 0) -> Parts:
    """Four levels, two layers per block, sixteen cross-attentions, but narrow."""
    torch.manual_seed(seed)
    tokenizer = write_clip_tokenizer(folder / "tokenizer")
    end = tokenizer.eos_token_id
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        bos_token_id=end - 1,
        eos_token_id=end,
        pad_token_id=end,
    )
    return Parts(
        vae=AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 8),
            layers_per_block=1,
            norm_num_groups=4,
            sample_size=32,
            scaling_factor=0.5,
        ),
        unet=UNet2DConditionModel(
            sample_size=16,
            block_out_channels=(8, 16, 16, 16),
            layers_per_block=2,
            down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
            cross_attention_dim=32,
            attention_head_dim=2,
            norm_num_groups=4,
        ),
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
            prediction_type=prediction_type,
        ),
    )


def eps(backbone: Backbone, z: Tensor, time: int, condition: Condition) -> Tensor:
    """The noise in `z` at one of a diffusion model's times."""
    return backbone.predict(z, backbone.level(time / 1000), condition).noise


def losses(**changes: Any) -> Losses:
    """Both terms; `xa_…` is a setting of cross-attention guidance, the others of PatchNCE.

    PatchNCE has no weight unless one is given.
    """
    own = {name.removeprefix("xa_"): v for name, v in changes.items() if name.startswith("xa_")}
    others = {n.removeprefix("cut_"): v for n, v in changes.items() if not n.startswith("xa_")}
    cut = {"weight": 0.0} | others
    return Losses(xa=CrossAttention(**own), cut=PatchNCE(**cut))


def tiny_backbone(parts: Parts) -> StableDiffusionBackbone:
    cpu = torch.device("cpu")
    return StableDiffusionBackbone(parts, "tiny", cpu, torch.float32, fingerprint_of(parts))

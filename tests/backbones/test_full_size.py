"""Stable Diffusion 3 medium at its full size, with random weights: one edit at 512 pixels.

It takes minutes and about 13 GB, so it runs only if asked for, with the number of blocks to build
(all are 24): `ZEROCON_FULL_SIZE=24 pytest -n 0 -s --timeout 0 tests/backbones/test_full_size.py`.
"""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from zerocon.backbones.sd3 import SD3Backbone, SD3PartsWithoutT5
from zerocon.core.conditions import Conditions, Draws
from zerocon.inversions.ddim import DDIMInversion
from zerocon.methods.ddim import DDIM
from zerocon.shapes.tokenizer import write_clip_tokenizer

ASKED = os.environ.get("ZEROCON_FULL_SIZE", "")
ALL_BLOCKS = 24
TRANSFORMER: dict[str, Any] = {
    "sample_size": 128,
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 16,
    "attention_head_dim": 64,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "caption_projection_dim": 1536,
    "pooled_projection_dim": 2048,
    "pos_embed_max_size": 192,
}
VAE: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 16,
    "sample_size": 1024,
    "scaling_factor": 1.5305,
    "shift_factor": 0.0609,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
TEXT = ((768, 12, 12), (1280, 32, 20))  # width, layers, heads of the two CLIP text encoders


def text_encoder(width: int, layers: int, heads: int) -> CLIPTextModelWithProjection:
    config = CLIPTextConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
    )
    return CLIPTextModelWithProjection(config)


def parts(folder: Path, blocks: int) -> SD3PartsWithoutT5:
    tokenizer = write_clip_tokenizer(folder)
    first, second = (text_encoder(*sizes) for sizes in TEXT)
    return SD3PartsWithoutT5(
        vae=AutoencoderKL(**VAE),
        transformer=SD3Transformer2DModel(num_layers=blocks, **TRANSFORMER),
        text_encoder=first,
        tokenizer=tokenizer,
        text_encoder_2=second,
        tokenizer_2=tokenizer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


def test_the_sizes_are_the_published_ones(tmp_path: Path) -> None:
    """Counted without memory: 2.03 billion parameters in SD3-medium's transformer."""
    with torch.device("meta"):
        whole = SD3Transformer2DModel(num_layers=ALL_BLOCKS, **TRANSFORMER)
        encoders = [text_encoder(*sizes) for sizes in TEXT]
    assert round(count(whole) / 1e9, 2) == 2.03
    assert [round(count(encoder) / 1e6) for encoder in encoders] == [124, 695]


def count(model: nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())


@pytest.mark.skipif(not ASKED, reason="only if ZEROCON_FULL_SIZE says how many blocks to build")
def test_one_edit_at_full_size(tmp_path: Path) -> None:
    began = time.perf_counter()
    device, size = torch.device("cpu"), (512, 512)
    backbone = SD3Backbone(
        parts(tmp_path, int(ASKED)), "full size", device, torch.float32, "random", size
    )
    built = time.perf_counter()
    prompts = "a photograph of a cat", "a photograph of a dog", ""
    conditions = Conditions(*(backbone.embed([prompt]) for prompt in prompts))
    clean, draws = backbone.encode(torch.rand(1, 3, *size)), Draws(0, ["a"])
    trajectory = DDIMInversion()(backbone, clean, conditions, 2, draws)
    edited = DDIM(steps=2, guidance=7.0)(backbone, trajectory, conditions, draws)
    picture = backbone.decode(edited)
    done = time.perf_counter()
    assert picture.shape == (1, 3, *size)
    assert picture.isfinite().all()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"\n{ASKED} blocks, {backbone.evaluations.forward} rows of the network: built in "
        f"{built - began:.0f} s, edited in {done - built:.0f} s, peak memory {peak:.1f} GB"
    )

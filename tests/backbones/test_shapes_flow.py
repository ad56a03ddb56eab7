"""The packaged flow transformer, here and in diffusers' own pipeline."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from torch import Tensor

import zerocon
from zerocon.backbones.sd3 import SD3Backbone
from zerocon.backbones.shapes import FLOW, ShapesFlow
from zerocon.shapes.generate import generate
from zerocon.shapes.reader import read

PROMPT = "a big red circle on a gray background"
ASKED = ((("circle", "red", "plain", "big", "solid", "upright"),), "gray", "photo")


@pytest.fixture(scope="module")
def backbone() -> SD3Backbone:
    return ShapesFlow(device="cpu", dtype="float32").load()


@pytest.fixture(scope="module")
def pipeline() -> Any:
    pipe = StableDiffusion3Pipeline.from_pretrained(
        FLOW, text_encoder_3=None, tokenizer_3=None, dtype=torch.float32
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def noise(seed: int) -> Tensor:
    return torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(seed))


def described(picture: Tensor) -> object:
    """What the reader sees on a picture in 0..1, [3, y, x]."""
    return read(picture.mul(255).round().byte().permute(1, 2, 0).numpy()).described()


def drawn(pipe: Any, z: Tensor, steps: int, output: str) -> Any:
    return pipe(
        PROMPT, num_inference_steps=steps, guidance_scale=4.0, latents=z, output_type=output
    ).images


def test_the_plain_pipeline_samples_the_same_latents(backbone: SD3Backbone, pipeline: Any) -> None:
    theirs = backbone.decode(drawn(pipeline, noise(0), 2, "latent"))
    ours = generate(backbone, [PROMPT], noise(0), steps=2)
    assert torch.allclose(ours, theirs, atol=1e-4)


@pytest.mark.slow
def test_the_plain_pipeline_draws_what_it_is_asked(pipeline: Any) -> None:
    pictures = [drawn(pipeline, noise(seed), 28, "np")[0] for seed in range(8)]
    right = [read((p * 255).round().astype(np.uint8)).described() == ASKED for p in pictures]
    assert sum(right) >= 7


@pytest.mark.slow
def test_it_draws_what_it_is_asked(backbone: SD3Backbone) -> None:
    z = torch.cat([noise(seed) for seed in range(3)])
    pictures = generate(backbone, [PROMPT] * 3, z, steps=14)
    assert [described(picture) for picture in pictures].count(ASKED) >= 2


def test_it_is_loaded_by_its_name(backbone: SD3Backbone) -> None:
    loaded = zerocon.load("shapes_flow")
    assert loaded.fingerprint == backbone.fingerprint
    assert loaded.size == (64, 64)
    assert backbone.layout.grid == (16, 16)
    assert backbone.layout.copies == 256  # the tokens in T5's place

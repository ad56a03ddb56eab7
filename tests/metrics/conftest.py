"""Judges of random weights, in the layouts of the published ones."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTextConfig,
    CLIPVisionConfig,
)

from zerocon.shapes.tokenizer import clip_vocabulary, write_clip_tokenizer


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A CLIP's folder in transformers' layout."""
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    ids = clip_vocabulary()[0]
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    text = CLIPTextConfig(
        **small,
        num_attention_heads=2,
        vocab_size=len(ids),
        max_position_embeddings=77,
        bos_token_id=len(ids) - 2,
        eos_token_id=len(ids) - 1,
        pad_token_id=len(ids) - 1,
    )
    vision = CLIPVisionConfig(**small, num_attention_heads=2, image_size=32, patch_size=8)
    config = CLIPConfig(
        text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=8
    )
    CLIPModel(config).save_pretrained(folder)
    sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    CLIPProcessor(CLIPImageProcessor(**sizes), write_clip_tokenizer(folder)).save_pretrained(folder)
    return str(folder)

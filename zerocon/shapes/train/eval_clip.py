"""The evaluator's CLIP: an open_clip model, independent of the generator.

Its image tower is CLIP's ModifiedResNet, its text tower open_clip's transformer. The generator's
text encoder was trained with a plain convolutional network and another seed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from open_clip import CLIP
from torch import Tensor
from transformers import CLIPTokenizer

from zerocon.shapes.packaged import save_half
from zerocon.shapes.tokenizer import clip_vocabulary, write_clip_tokenizer
from zerocon.shapes.train.data import SIDE, SceneData
from zerocon.shapes.train.loop import Budget, Log, Recipe, train
from zerocon.shapes.train.text import contrastive, pairs_of

RECIPE = Recipe(
    "eval_clip", steps=3000, batch=128, lr=2e-3, seed=15, weight_decay=0.01, ema=0.995, muon=True
)
CONTEXT = 32  # the longest caption has 29 tokens
WEIGHTS_FILE = "open_clip_model.safetensors"
CONFIG_FILE = "open_clip_config.json"


def model_config() -> dict[str, Any]:
    """The model's config in open_clip's format."""
    return {
        "embed_dim": 128,
        "vision_cfg": {
            "image_size": SIDE,
            "layers": [1, 2, 2, 1],
            "width": 16,
            "head_width": 64,
        },
        "text_cfg": {
            "hf_tokenizer_name": "the folder of this file",
            "context_length": CONTEXT,
            "vocab_size": len(clip_vocabulary()[0]),
            "width": 128,
            "heads": 4,
            "layers": 3,
        },
    }


def build() -> CLIP:
    return CLIP(**model_config())


def tokens_of(tokenizer: CLIPTokenizer, sentences: list[str]) -> Tensor:
    """[sentence, CONTEXT]; sentences cut for length keep their end token."""
    tokens = tokenizer(
        sentences,
        padding="max_length",
        truncation=True,
        max_length=CONTEXT,
        return_tensors="pt",
    )
    return tokens.input_ids


def train_eval_clip(data: SceneData, folder: Path, budget: Budget, recipe: Recipe = RECIPE) -> CLIP:
    torch.manual_seed(recipe.seed)
    model = build()
    tokenizer = write_clip_tokenizer(folder / "tokenizer")

    def loss_of(step: int, generator: torch.Generator) -> tuple[Tensor, Log]:
        rows = pairs_of(torch.randint(len(data) // 2, (recipe.batch // 2,), generator=generator))
        text = model.encode_text(tokens_of(tokenizer, data.captions(rows, f"eval-clip-{step}")))
        return contrastive(model.encode_image(data.images(rows)), text, model.logit_scale)

    trained, _ = train(model, loss_of, recipe, folder, budget)
    assert isinstance(trained, CLIP)
    return trained


def export(model: CLIP, folder: Path) -> None:
    """Save in the layout that `open_clip.create_model_and_transforms("local-dir:…")` reads."""
    save_half(model, folder / WEIGHTS_FILE)
    write_clip_tokenizer(folder)
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"}
    config = {"model_cfg": model_config(), "preprocess_cfg": preprocess}
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")

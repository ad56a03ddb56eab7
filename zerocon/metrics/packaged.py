"""The shapes world's judges, whose weights come with the package.

None of them was used to train the generator. They are loaded by the classes of open_clip,
transformers and lpips, without code of the shapes world. All compute in float32 and are frozen;
each is loaded once.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from lpips import LPIPS
from open_clip import CLIP
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTokenizer, ViTModel

from zerocon.core.weights import (
    PACKAGED,
    WeightsError,
    folder_fingerprint,
    load_beside,
    load_pretrained,
    load_strictly,
    read_tensors,
)
from zerocon.metrics.base import check_range

CLIP_FOLDER = PACKAGED / "eval_clip"
STRUCTURE_FOLDER = PACKAGED / "eval_structure"
LPIPS_FOLDER = PACKAGED / "eval_lpips"

# Heads that a ViT's file may contain and no distance uses.
VIT_HEADS = ("pooler.*", "classifier.*")

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True, eq=False)
class ShapesClip:
    """The evaluator's CLIP, for pictures in 0..1 and sentences."""

    model: CLIP
    tokenizer: CLIPTokenizer
    side: int  # of the training pictures, in pixels
    context: int  # tokens
    fingerprint: str
    title: str = "open_clip ModifiedResNet of the shapes world"

    @torch.no_grad()
    def images(self, pictures: Tensor) -> Tensor:
        """Features of the pictures in 256 levels, [picture, 128]."""
        check_range("the pictures for CLIP", pictures)
        pictures = (pictures.float() * 255).round() / 255
        pictures = _centre_square(pictures, self.side)
        return self.model.to(pictures.device).encode_image(2 * pictures - 1)

    @torch.no_grad()
    def texts(self, sentences: Sequence[str], *, cut_end: bool = False) -> Tensor:
        """[sentence, 128]; sentences cut for length keep the end token unless `cut_end`."""
        tokens = padded_tokens(self.tokenizer, sentences, self.context, cut_end=cut_end)
        return self.model.encode_text(tokens.to(self.model.logit_scale.device))

    def too_long(self, sentence: str) -> bool:
        return len(self.tokenizer(sentence).input_ids) > self.context


def _centre_square(pictures: Tensor, side: int) -> Tensor:
    """The shorter side resized, and the centre cut out, as for the published CLIPs."""
    height, width = pictures.shape[-2:]
    shorter = min(height, width)
    if shorter != side:
        size = (height * side // shorter, width * side // shorter)
        pictures = F.interpolate(pictures, size, mode="bilinear", antialias=True)
        height, width = size
    top, left = (height - side) // 2, (width - side) // 2
    return pictures[..., top : top + side, left : left + side]


def padded_tokens(
    tokenizer: CLIPTokenizer, sentences: Sequence[str], context: int, *, cut_end: bool
) -> Tensor:
    """[sentence, context]"""
    if cut_end:
        rows = [tokenizer(sentence).input_ids[:context] for sentence in sentences]
    else:
        rows = tokenizer(list(sentences), truncation=True, max_length=context).input_ids
    padded: Any = tokenizer.pad(
        {"input_ids": rows}, padding="max_length", max_length=context, return_tensors="pt"
    )
    return padded.input_ids


@cache
def load_clip(folder: Path = CLIP_FOLDER) -> ShapesClip:
    try:
        config = json.loads((folder / "open_clip_config.json").read_text("utf-8"))["model_cfg"]
        model = CLIP(**config)
        side = int(config["vision_cfg"]["image_size"])
        context = int(config["text_cfg"]["context_length"])
    except Exception as error:  # a damaged config may contain anything
        raise WeightsError(f"the CLIP can't be loaded from {folder}: {error!r}") from error
    file = folder / "open_clip_model.safetensors"
    load_strictly(model, read_tensors(file, "the CLIP"), "the CLIP", file)
    return ShapesClip(
        channels_last(model.eval().requires_grad_(False)),
        load_beside(CLIPTokenizer.from_pretrained, str(folder), "the CLIP's tokenizer"),
        side=side,
        context=context,
        fingerprint=folder_fingerprint(folder),
    )


@cache
def load_structure(folder: Path = STRUCTURE_FOLDER) -> ViTModel:
    # On a CPU, unfused attention takes two thirds of the fused kernel's time for this ViT's 65
    # positions. For the 785 of a DINO ViT it would need far more memory.
    vit: ViTModel = load_pretrained(
        ViTModel.from_pretrained,
        str(folder),
        "the ViT",
        harmless=VIT_HEADS,
        dtype=torch.float32,
        add_pooling_layer=False,
        attn_implementation="eager" if folder == STRUCTURE_FOLDER else "sdpa",
    )
    return vit.eval().requires_grad_(False)


@cache
def load_lpips(folder: Path | None = None) -> LPIPS:
    file = (folder or LPIPS_FOLDER) / "lpips_squeeze.safetensors"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lpips calls torchvision with deprecated arguments
        model = LPIPS(
            net="squeeze", pretrained=False, pnet_rand=True, use_dropout=False, verbose=False
        )
    load_strictly(model, read_tensors(file, "LPIPS"), "LPIPS", file)
    return channels_last(model.eval().requires_grad_(False))


def channels_last(model: Model) -> Model:
    """Use the memory format with the fastest convolutions."""
    return model.to(memory_format=torch.channels_last)

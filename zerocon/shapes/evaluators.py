"""The packaged models that judge: none of them took part in making the generator.

All compute in float32 and never change; each is loaded once.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from lpips import LPIPS
from open_clip import CLIP
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BlipForConditionalGeneration, BlipProcessor, CLIPTokenizer, ViTModel

from zerocon.metrics.base import check_range
from zerocon.shapes.packaged import WEIGHTS, fingerprint, load_half
from zerocon.shapes.train import captioner, eval_clip, perceptual

CAPTIONER_FOLDER = WEIGHTS / "captioner"
CLIP_FOLDER = WEIGHTS / "eval_clip"
STRUCTURE_FOLDER = WEIGHTS / "eval_structure"
LPIPS_FOLDER = WEIGHTS / "eval_lpips"

Model = TypeVar("Model", bound=nn.Module)

__all__ = ["fingerprint", "load_captioner", "load_clip", "load_lpips", "load_structure"]


@dataclass(frozen=True, eq=False)
class ShapesClip:
    """The evaluator's CLIP, from pictures in 0..1 and sentences to one space."""

    model: CLIP
    tokenizer: CLIPTokenizer
    fingerprint: str

    @torch.no_grad()
    def images(self, pictures: Tensor) -> Tensor:
        """[picture, 128], of what 256 levels keep of the pictures."""
        check_range("the pictures for CLIP", pictures)
        pictures = (pictures.float() * 255).round() / 255
        side = eval_clip.SIDE
        if pictures.shape[-1] != side:
            pictures = F.interpolate(pictures, (side, side), mode="bilinear", antialias=True)
        return self.model.to(pictures.device).encode_image(2 * pictures - 1)

    @torch.no_grad()
    def texts(self, sentences: Sequence[str]) -> Tensor:
        """[sentence, 128]"""
        tokens = eval_clip.tokens_of(self.tokenizer, list(sentences))
        return self.model.encode_text(tokens.to(self.model.logit_scale.device))

    def too_long(self, sentence: str) -> bool:
        return len(self.tokenizer(sentence).input_ids) > eval_clip.CONTEXT


@dataclass(frozen=True, eq=False)
class Captioner:
    """BLIP and what it needs to read pictures and write words."""

    model: BlipForConditionalGeneration
    processor: Any  # a BlipProcessor; what it takes and gives is known at run time only
    fingerprint: str

    @torch.no_grad()
    def __call__(self, pictures: Tensor) -> list[str]:
        """A caption for each of the pictures, which are in 0..1, [picture, 3, side, side]."""
        levels = [picture.cpu() for picture in (pictures * 255).round().to(torch.uint8)]
        pixels = self.processor(images=levels, return_tensors="pt").pixel_values
        tokens = self.model.generate(
            pixel_values=pixels.to(self.model.device),
            max_new_tokens=captioner.CONTEXT - 8,
            num_beams=1,
            do_sample=False,
        )
        return [t.strip() for t in self.processor.batch_decode(tokens, skip_special_tokens=True)]


@cache
def load_clip(folder: Path = CLIP_FOLDER) -> ShapesClip:
    config = json.loads((folder / eval_clip.CONFIG_FILE).read_text())
    model = CLIP(**config["model_cfg"])
    model.load_state_dict(load_half(folder / eval_clip.WEIGHTS_FILE))
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    frozen = model.eval().requires_grad_(False)
    return ShapesClip(channels_last(frozen), tokenizer, fingerprint(folder))


@cache
def load_structure(folder: Path = STRUCTURE_FOLDER) -> ViTModel:
    # With the packaged one's 65 positions plain products take two thirds of the fused kernel's
    # time on a processor; with the 785 of a DINO ViT they would take far more memory.
    vit = ViTModel.from_pretrained(
        folder,
        dtype=torch.float32,
        add_pooling_layer=False,
        attn_implementation="eager" if folder == STRUCTURE_FOLDER else "sdpa",
    )
    return vit.eval().requires_grad_(False)


@cache
def load_lpips(folder: Path | None = None) -> LPIPS:
    model = perceptual.build()
    model.load_state_dict(load_half((folder or LPIPS_FOLDER) / perceptual.WEIGHTS_FILE))
    return channels_last(model.eval().requires_grad_(False))


@cache
def load_captioner(folder: Path = CAPTIONER_FOLDER) -> Captioner:
    model = BlipForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    processor = BlipProcessor.from_pretrained(folder)
    return Captioner(model.eval().requires_grad_(False), processor, fingerprint(folder))


def channels_last(model: Model) -> Model:
    """The order of numbers in memory with which convolutions take the least time."""
    return model.to(memory_format=torch.channels_last)


def read_state(file: Path) -> dict[str, Tensor]:
    """A state dict from a file that holds tensors only."""
    if file.suffix == ".safetensors":
        return load_file(file)
    return torch.load(file, map_location="cpu", weights_only=True)

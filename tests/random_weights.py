"""Stable Diffusion 1.5, its judges and BLIP at their full size, with random weights, as files.

They stand where `zerocon download sd15 judges captioner` puts the published ones, in the same
layouts: 4.3 GB, 2.1 GB and 1 GB.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from PIL import Image
from safetensors.torch import save_file
from torchvision.models import squeezenet1_1
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    BlipProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTextConfig,
    CLIPTextModel,
)

from zerocon.core.weights import PACKAGED
from zerocon.shapes.tokenizer import write_clip_tokenizer

UNET: dict[str, Any] = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
VAE: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 512,
}
TEXT: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
}
SCHEDULER: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
}
VISION: dict[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "patch_size": 14,
    "image_size": 224,
}


def unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(**UNET)


def vae() -> AutoencoderKL:
    return AutoencoderKL(**VAE)


def text_encoder() -> CLIPTextModel:
    return CLIPTextModel(CLIPTextConfig(**TEXT))


def clip() -> CLIPModel:
    return CLIPModel(CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=768))


def write_everything(folder: Path) -> None:
    """All files of `zerocon download sd15 judges captioner`."""
    _write_sd15(folder / "sd15")
    _write_clip(folder / "clip-vit-large-patch14")
    _write_dino(folder / "dino-vitb8")
    torch.save(squeezenet1_1(weights=None).state_dict(), folder / "squeezenet1_1-b8a52dc0.pth")
    _write_blip(folder / "blip-image-captioning-base")


def _write_sd15(folder: Path) -> None:
    for name, make in (("unet", unet), ("vae", vae), ("text_encoder", text_encoder)):
        make().save_pretrained(folder / name)
    write_clip_tokenizer(folder / "tokenizer").save_pretrained(folder / "tokenizer")
    PNDMScheduler(**SCHEDULER).save_pretrained(folder / "scheduler")


def _write_clip(folder: Path) -> None:
    clip().save_pretrained(folder)
    tokenizer = write_clip_tokenizer(folder)
    CLIPProcessor(CLIPImageProcessor(), tokenizer).save_pretrained(folder)


def _write_dino(folder: Path) -> None:
    """DINO ViT-B/8 with timm's names."""
    width, patches = 768, (224 // 8) ** 2
    sizes = {"cls_token": (1, 1, width), "pos_embed": (1, patches + 1, width),
             "patch_embed.proj.weight": (width, 3, 8, 8), "patch_embed.proj.bias": (width,),
             "norm.weight": (width,), "norm.bias": (width,)}  # fmt: skip
    layers = {"norm1": (width,), "attn.qkv": (3 * width, width), "attn.proj": (width, width),
              "norm2": (width,), "mlp.fc1": (4 * width, width),
              "mlp.fc2": (width, 4 * width)}  # fmt: skip
    for block in range(12):
        for name, size in layers.items():
            sizes[f"blocks.{block}.{name}.weight"] = size
            sizes[f"blocks.{block}.{name}.bias"] = size[:1]
    folder.mkdir(parents=True)
    state = {name: 0.02 * torch.randn(size) for name, size in sizes.items()}
    save_file(state, folder / "model.safetensors")


def _write_blip(folder: Path) -> None:
    """Its captions are words of the shapes world, as its tokenizer has no others."""
    tokens = {"bos_token_id": 2, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    model: Any = BlipForConditionalGeneration(BlipConfig(text_config=tokens))
    processor: Any = BlipProcessor.from_pretrained(PACKAGED / "captioner")
    words = [i for word, i in processor.tokenizer.get_vocab().items() if word.isalpha()]
    with torch.no_grad():
        model.text_decoder.cls.predictions.bias[words] += 100
    model.save_pretrained(folder)
    processor.image_processor.size = {"height": 384, "width": 384}
    processor.save_pretrained(folder)


def write_pie_bench(root: Path) -> None:
    """One case in PIE-Bench's format, at its size."""
    picture = root / "annotation_images" / "1_change_object_80" / "1.jpg"
    picture.parent.mkdir(parents=True)
    Image.effect_noise((512, 512), 90).convert("RGB").save(picture)
    entry = {
        "image_path": "1_change_object_80/1.jpg",
        "original_prompt": "a [cat] on a chair",
        "editing_prompt": "a [dog] on a chair",
        "editing_instruction": "change the cat to a dog",
        "editing_type_id": "1",
        "blended_word": "cat dog",
        "mask": [0, 90000],
    }
    (root / "mapping_file.json").write_text(json.dumps({"1": entry}))

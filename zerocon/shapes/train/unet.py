"""The denoiser: Stable Diffusion 1.x's U-Net, only narrower."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from zerocon.shapes.train.auxiliary import PositionClasses, WithHeads
from zerocon.shapes.train.data import SceneData
from zerocon.shapes.train.loop import Budget, Log, Recipe, train
from zerocon.shapes.train.text import WIDTH

RECIPE = Recipe("unet", steps=4600, batch=32, lr=1.5e-3, seed=14, ema=0.999, muon=True)
AUXILIARY_WEIGHT = 0.05  # initial weight of the heads' loss; it falls linearly to 0
AUXILIARY_BLOCKS = (1, 2)  # the decoder levels whose features the heads read
VISIBLE = 600  # below this time the noisy picture shows where things are


def build() -> Any:
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        block_out_channels=(48, 96, 128, 128),
        layers_per_block=2,
        cross_attention_dim=WIDTH,
        attention_head_dim=2,
        norm_num_groups=16,
    )


def scheduler() -> DDIMScheduler:
    """Stable Diffusion's scheduler, except for `beta_end`.

    With 0.012 the last timestep would keep enough of a 16×16 latent for its mean to determine
    the background's colour.
    """
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.02,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="epsilon",
    )


@torch.no_grad()
def encode_all(vae: Any, data: SceneData, file: Path, device: str = "cpu") -> Tensor:
    """The latents of all pictures in half precision, stored in `file`."""
    if file.exists():
        return torch.load(file, weights_only=True)
    rows = torch.arange(len(data))
    vae.to(device=device, memory_format=torch.channels_last)
    latents = torch.cat(
        [
            vae.encode(data.images(r).to(device)).latent_dist.mean.half().cpu()
            for r in rows.split(128)
        ]
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    torch.save(latents.contiguous(), partial)
    partial.replace(file)
    return latents


def timesteps(count: int, generator: torch.Generator) -> Tensor:
    """Training times: a third uniform, the others around the times at which outlines form.

    Early in training, captions are learnt at the noisy end. Later, when features locate the
    things, crosses and houses are still drawn badly, and the error is at these times.
    """
    u, v, w = torch.rand(3, count, generator=generator)
    middle = 0.15 + 0.6 * (v + w) / 2
    return (torch.where(u < 1 / 3, v, middle) * 1000).long().clamp(max=999)


def loss_weight(alpha_bar: Tensor) -> Tensor:
    """Weights that give all ranges of times about the same influence.

    Without them, nearly clean latents, whose noise can't be distinguished from texture, dominate
    the loss, and times at which the caption matters contribute little.
    """
    snr = alpha_bar / (1 - alpha_bar)
    return snr.clamp(max=5.0) / snr * alpha_bar.reciprocal().clamp(max=8.0)


def train_unet(
    data: SceneData,
    latents: Tensor,
    text: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    folder: Path,
    budget: Budget,
    recipe: Recipe = RECIPE,
    start: Any = None,
) -> UNet2DConditionModel:
    torch.manual_seed(recipe.seed)
    model = start or build()
    model.to(memory_format=torch.channels_last)
    model.set_attn_processor(AttnProcessor())  # faster than fused attention for heads this small
    text.requires_grad_(False)
    widths = model.config.block_out_channels
    blocks = [(model.up_blocks[level], widths[-1 - level]) for level in AUXILIARY_BLOCKS]
    with_heads, classes = WithHeads(model, blocks), PositionClasses(data.scenes)
    odds = classes.odds()
    alpha_bars = scheduler().alphas_cumprod

    def loss_of(step: int, generator: torch.Generator) -> tuple[Tensor, Log]:
        rows, captions = data.drawn(odds, recipe.batch, f"unet-{step}", generator)
        tokens = tokenizer(captions, padding="max_length", return_tensors="pt").input_ids
        states = text(tokens).last_hidden_state
        clean = latents[rows].float()
        noise = torch.randn(clean.shape, generator=generator)
        t = timesteps(recipe.batch, generator)
        a = alpha_bars[t][:, None, None, None]
        noisy = (a.sqrt() * clean + (1 - a).sqrt() * noise).contiguous(
            memory_format=torch.channels_last
        )
        predicted = with_heads(noisy, t, states).float()
        squared = (predicted - noise).square()
        error = classes.error(squared, rows, t < VISIBLE)
        auxiliary = with_heads.loss(classes, rows)
        share = AUXILIARY_WEIGHT * max(0.0, 1 - step / recipe.steps)
        return (error * loss_weight(alpha_bars[t])).mean() + share * auxiliary, {
            "error": error.mean().item(),
            "wrong": auxiliary.item(),
            "noisy": error[t >= 600].mean().item(),
            "middle": error[(t >= 300) & (t < 600)].mean().item(),
            "clean": error[t < 300].mean().item(),
        }

    trained, _ = train(with_heads, loss_of, recipe, folder, budget)
    return trained.without_heads()


def write_model_index(generator: Path) -> None:
    """Write the index that `StableDiffusionPipeline.from_pretrained` reads."""
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": diffusers.__version__,
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (generator / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")

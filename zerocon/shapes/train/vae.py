"""The autoencoder: 64×64 pixels to 16×16×4 latents of zero mean and unit variance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from zerocon.shapes.train.data import SIDE, SceneData
from zerocon.shapes.train.loop import Budget, Log, Recipe, train

RECIPE = Recipe("vae", steps=3600, batch=24, lr=2e-3, seed=11, ema=0.995, muon=True)
CROP = 32
KL_WEIGHT = 1e-5


def build() -> Any:
    settings: dict[str, Any] = dict(  # noqa: C408 - keyword arguments of the call below
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(24, 48, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=SIDE,
        scaling_factor=1.0,
        mid_block_add_attention=False,
    )
    return AutoencoderKL(**settings).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def train_vae(
    data: SceneData, folder: Path, budget: Budget, recipe: Recipe = RECIPE
) -> AutoencoderKL:
    torch.manual_seed(recipe.seed)
    model = build()

    def loss_of(step: int, generator: torch.Generator) -> tuple[Tensor, Log]:
        rows = torch.randint(len(data), (recipe.batch,), generator=generator)
        top, left = torch.randint((SIDE - CROP) // 4 + 1, (2,), generator=generator).mul(4).tolist()
        images = data.images(rows)[:, :, top : top + CROP, left : left + CROP]
        images = images.contiguous(memory_format=torch.channels_last)
        posterior = model.encode(images).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator)
        decoded = model.decode(posterior.mean + posterior.std * noise).sample.float()
        error = decoded - images
        kl = posterior.kl().mean()
        squared = error.square().mean()
        loss = error.abs().mean() + squared + KL_WEIGHT * kl
        return loss, {"psnr": (10 * torch.log10(4 / squared)).item(), "kl": kl.item()}

    trained, _ = train(model, loss_of, recipe, folder, budget)
    return normalised(trained, data)


@torch.no_grad()
def normalised(model: Any, data: SceneData, count: int = 2048) -> AutoencoderKL:
    """Fold the latents' mean and scale into the convolutions next to them.

    Diffusion needs latents of zero mean and unit variance, but Stable Diffusion's pipelines have
    only one scalar, `scaling_factor`.
    """
    rows = torch.arange(min(count, len(data)))
    latents = torch.cat([model.encode(data.images(r)).latent_dist.mean for r in rows.split(128)])
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    into, out = model.quant_conv, model.post_quant_conv
    # z' = (z - mean) / std for the means; the log-variances lose 2 log std.
    into.weight[:4].div_(std[:, None, None, None])
    into.bias[:4].sub_(mean).div_(std)
    into.bias[4:].sub_(2 * std.log())
    # W z + b = (W std) z' + (W mean + b)
    out.bias.add_(out.weight[:, :, 0, 0] @ mean)
    out.weight.mul_(std[None, :, None, None])
    return model

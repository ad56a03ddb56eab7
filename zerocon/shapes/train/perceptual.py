"""The evaluator's LPIPS: a SqueezeNet trained on the shapes world, in the `lpips` package's class.

The backbone is trained to classify all attributes of a scene. Then the linear heads are fitted as
LPIPS's were: of two distortions of a picture, the stronger one must have the larger distance.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import cast

import lpips
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zerocon.shapes.packaged import save_half
from zerocon.shapes.train.attributes import AttributeHead, attribute_loss, scene_labels
from zerocon.shapes.train.data import SceneData
from zerocon.shapes.train.loop import Budget, Log, Recipe, train

RECIPE = Recipe("perceptual", steps=1800, batch=64, lr=1e-3, seed=17, ema=0.995, muon=True)
HEADS = Recipe("perceptual-heads", steps=200, batch=48, lr=3e-2, seed=18, warmup=10, bf16=False)
WEIGHTS_FILE = "lpips_squeeze.safetensors"
DISTORTIONS = ("noise", "blur", "blend", "shift", "fade", "patch")


def build() -> lpips.LPIPS:
    """The package's class, without its download, with uniform heads."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lpips calls torchvision with deprecated arguments
        model = lpips.LPIPS(
            net="squeeze", pretrained=False, pnet_rand=True, use_dropout=False, verbose=False
        )
    for weight in head_weights(model):
        nn.init.constant_(weight, 1.0)
    return model


def head_weights(model: lpips.LPIPS) -> list[Tensor]:
    """The weights of the seven heads, [1, channel, 1, 1]."""
    return [p for name, p in model.named_parameters() if name.startswith("lin")]


class Namer(nn.Module):
    """The backbone, and the head used to train it."""

    def __init__(self) -> None:
        super().__init__()
        self.lpips = build().requires_grad_(True)
        self.norm = nn.LayerNorm(512)
        self.head = AttributeHead(512 * 9)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        last = self.lpips.net(self.lpips.scaling_layer(images))[-1]  # [n, 512, 3, 3]
        return self.head(self.norm(last.flatten(2).mT).flatten(1))


def train_backbone(data: SceneData, folder: Path, budget: Budget, recipe: Recipe = RECIPE) -> Namer:
    torch.manual_seed(recipe.seed)
    model = Namer()

    def loss_of(_step: int, generator: torch.Generator) -> tuple[Tensor, Log]:
        rows = torch.randint(len(data), (recipe.batch,), generator=generator)
        labels = scene_labels([data.scenes[i] for i in rows.tolist()])
        loss, right = attribute_loss(model(data.images(rows)), labels)
        return loss, {"exact": right.float().mean().item()}

    trained, _ = train(model, loss_of, recipe, folder, budget)
    assert isinstance(trained, Namer)
    return trained


def distorted(images: Tensor, kind: str, strength: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures in -1..1, each distorted with its `strength` (0..1, [n])."""
    s = strength[:, None, None, None]
    if kind == "noise":
        images = images + 0.6 * s * torch.randn(images.shape, generator=generator)
    elif kind == "blur":
        images = images + s * (F.avg_pool2d(images, 7, 1, 3, count_include_pad=False) - images)
    elif kind == "blend":
        images = images + 0.6 * s * (images.roll(1, 0) - images)
    elif kind == "shift":
        images = _shifted(images, 6 * strength)
    elif kind == "fade":
        color = torch.rand(3, generator=generator)[None, :, None, None]
        images = images + 0.6 * s * (color - images)
    else:
        images = _patched(images, strength, generator)
    return images.clamp(-1, 1)


def _shifted(images: Tensor, pixels: Tensor) -> Tensor:
    """Shift to the right by a fractional number of pixels, repeating the edge."""
    theta = torch.eye(2, 3).repeat(len(images), 1, 1)
    theta[:, 0, 2] = -2 * pixels / images.shape[-1]
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _patched(images: Tensor, strength: Tensor, generator: torch.Generator) -> Tensor:
    """Paste a square of another picture; its side grows with the strength."""
    side = images.shape[-1]
    centre = torch.rand(2, generator=generator) * side / 2 + side / 4
    pixel = torch.arange(side) + 0.5
    half = (strength * side / 3)[:, None]
    rows, columns = ((pixel - c).abs()[None] < half for c in centre)
    inside = rows[:, None, :, None] & columns[:, None, None, :]
    return torch.where(inside, images.roll(1, 0), images)


def two_distances(
    model: lpips.LPIPS, images: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Distances to a weaker and a stronger distortion of the same kind, [n] each."""
    kind = DISTORTIONS[int(torch.randint(len(DISTORTIONS), (1,), generator=generator))]
    weak = 0.8 * torch.rand(len(images), generator=generator)
    strong = weak + 0.05 + (0.95 - weak) * torch.rand(len(images), generator=generator)
    seed = int(torch.randint(2**31, (1,), generator=generator))
    pair = [distorted(images, kind, s, torch.Generator().manual_seed(seed)) for s in (weak, strong)]
    far = [model(images, other).flatten() for other in pair]
    return far[0], far[1]


def fit_heads(
    model: lpips.LPIPS, data: SceneData, folder: Path, budget: Budget, recipe: Recipe = HEADS
) -> lpips.LPIPS:
    """Fit non-negative head weights so that the distance grows with a distortion's strength."""
    model.net.requires_grad_(False)

    def loss_of(_step: int, generator: torch.Generator) -> tuple[Tensor, Log]:
        for weight in head_weights(model):
            weight.data.clamp_(min=0)
        rows = torch.randint(len(data), (recipe.batch,), generator=generator)
        weak, strong = two_distances(model, data.images(rows), generator)
        # With the logarithm only the order counts, not the distances' scale.
        margin = (strong + 1e-6).log() - (weak + 1e-6).log()
        return F.softplus(-5 * margin).mean(), {"order": (margin > 0).float().mean().item()}

    train(cast("nn.ModuleList", model.lins), loss_of, recipe, folder, budget)
    return scaled(model, data)


@torch.no_grad()
def scaled(model: lpips.LPIPS, data: SceneData) -> lpips.LPIPS:
    """Clip the heads at zero and scale them: two unrelated pictures then differ by about 0.7."""
    for weight in head_weights(model):
        weight.clamp_(min=0)
    images = data.images(torch.arange(0, min(512, len(data)), 2))
    unrelated = model(images, images.roll(1, 0)).mean()
    for weight in head_weights(model):
        weight.mul_(0.7 / unrelated)
    return model.eval().requires_grad_(False)


def train_perceptual(
    data: SceneData,
    folder: Path,
    budget: Budget,
    recipe: Recipe = RECIPE,
    heads: Recipe = HEADS,
) -> lpips.LPIPS:
    trained = train_backbone(data, folder, budget, recipe)
    return fit_heads(trained.lpips, data, folder / "heads", budget, heads)


@torch.no_grad()
def order_kept_on(model: lpips.LPIPS, images: Tensor, seed: int = 1) -> float:
    """How often the stronger of two distortions of a picture (in -1..1) has the larger distance."""
    generator = torch.Generator().manual_seed(seed)
    kept: list[Tensor] = []
    for part in images.split(16):
        weak, strong = two_distances(model, part, generator)
        kept.append(strong > weak)
    return torch.cat(kept).float().mean().item()


def export(model: lpips.LPIPS, folder: Path) -> None:
    save_half(model, folder / WEIGHTS_FILE)

"""The evaluator's structure encoder: a small ViT for what is where.

It is trained to classify at each patch the thing there (shape, pose, whether hollow), and with the
class token the background. Colour, material and style help with neither.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import ViTConfig, ViTModel

from zerocon.shapes.packaged import plain_float32
from zerocon.shapes.scene import BACKGROUNDS, Scene
from zerocon.shapes.train.attributes import PATCH_CLASSES, patch_labels
from zerocon.shapes.train.data import SIDE, SceneData
from zerocon.shapes.train.loop import Budget, Log, Recipe, train

RECIPE = Recipe("structure", steps=1000, batch=64, lr=2e-3, seed=16, ema=0.995, muon=True)
WIDTH = 96
PATCH = 8
GRID = SIDE // PATCH
BACKGROUND_WEIGHT = 0.15


class Structure(nn.Module):
    """The ViT, and the heads used to train it."""

    def __init__(self) -> None:
        super().__init__()
        self.vit = ViTModel(
            ViTConfig(
                hidden_size=WIDTH,
                intermediate_size=4 * WIDTH,
                num_hidden_layers=4,
                num_attention_heads=4,
                image_size=SIDE,
                patch_size=PATCH,
            ),
            add_pooling_layer=False,
        )
        self.patches = nn.ModuleDict({n: nn.Linear(WIDTH, c) for n, c in PATCH_CLASSES.items()})
        self.background = nn.Linear(WIDTH, len(BACKGROUNDS))

    def forward(self, images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        tokens = self.vit(pixel_values=images).last_hidden_state
        patches = {n: head(tokens[:, 1:]).float() for n, head in self.patches.items()}
        return patches, self.background(tokens[:, 0]).float()


def patch_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy over patches, with less weight for the frequent background."""
    weight = torch.ones(logits.shape[-1])
    weight[0] = BACKGROUND_WEIGHT
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), weight)


def backgrounds(scenes: list[Scene]) -> Tensor:
    return torch.tensor([BACKGROUNDS.index(scene.background) for scene in scenes])


def train_structure(
    data: SceneData, folder: Path, budget: Budget, recipe: Recipe = RECIPE
) -> Structure:
    torch.manual_seed(recipe.seed)
    model = Structure()

    def loss_of(_step: int, generator: torch.Generator) -> tuple[Tensor, Log]:
        rows = torch.randint(len(data), (recipe.batch,), generator=generator)
        scenes = [data.scenes[i] for i in rows.tolist()]
        patches, background = model(data.images(rows))
        labels = patch_labels(scenes, GRID)
        losses = [patch_loss(patches[n], labels[n]) for n in labels]
        place = backgrounds(scenes)
        loss = torch.stack(losses).mean() + 0.3 * F.cross_entropy(background, place)
        things = labels["shape"] > 0
        right = (patches["shape"].argmax(-1) == labels["shape"])[things].float().mean()
        return loss, {"shape": right.item(), "background": _share(background, place)}

    trained, _ = train(model, loss_of, recipe, folder, budget)
    assert isinstance(trained, Structure)
    return trained


def _share(logits: Tensor, labels: Tensor) -> float:
    return (logits.argmax(1) == labels).float().mean().item()


def export(model: Structure, folder: Path) -> None:
    model.vit.half().save_pretrained(folder)
    plain_float32(folder / "config.json")

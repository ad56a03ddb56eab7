"""A scene's attributes as classes, for training the evaluators' backbones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zerocon.shapes.render import coverage
from zerocon.shapes.scene import SCENE_ATTRIBUTES, THING_ATTRIBUTES, Scene, Thing

IGNORED = -100
SLOTS = ("left", "right")
# A shape's first class means that there is no second thing.
CLASSES = {
    f"{slot} {name}": len(values) + (name == "shape")
    for slot in SLOTS
    for name, values in THING_ATTRIBUTES.items()
} | {name: len(values) for name, values in SCENE_ATTRIBUTES.items()}
PATCH_CLASSES = {"shape": 7, "fill": 3, "pose": 3}


def scene_labels(scenes: Sequence[Scene]) -> dict[str, Tensor]:
    """Each scene's class for each head of `CLASSES`, [scene]."""
    rows = [_scene_row(scene) for scene in scenes]
    return {name: torch.tensor([row[name] for row in rows]) for name in CLASSES}


def _scene_row(scene: Scene) -> dict[str, int]:
    things = (*scene.things, None)[:2]
    row = {n: values.index(getattr(scene, n)) for n, values in SCENE_ATTRIBUTES.items()}
    for slot, thing in zip(SLOTS, things, strict=True):
        row |= {f"{slot} {n}": _thing_class(thing, n) for n in THING_ATTRIBUTES}
    return row


def _thing_class(thing: Thing | None, name: str) -> int:
    if thing is None:
        return 0 if name == "shape" else IGNORED
    return THING_ATTRIBUTES[name].index(getattr(thing, name)) + (name == "shape")


class AttributeHead(nn.Module):
    """A linear layer with the concatenated classes of all attributes as outputs."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.read = nn.Linear(width, sum(CLASSES.values()))

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        parts = self.read(features).float().split(list(CLASSES.values()), dim=1)
        return dict(zip(CLASSES, parts, strict=True))


def attribute_loss(logits: dict[str, Tensor], labels: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """(mean cross entropy; for each scene, whether all attributes are right)."""
    losses = [F.cross_entropy(logits[n], labels[n], ignore_index=IGNORED) for n in CLASSES]
    right = [(logits[n].argmax(1) == labels[n]) | (labels[n] == IGNORED) for n in CLASSES]
    return torch.stack(losses).mean(), torch.stack(right).all(0)


def patch_labels(scenes: Sequence[Scene], side: int) -> dict[str, Tensor]:
    """For each head of `PATCH_CLASSES`, [scene, side * side]: class 0 is background."""
    maps = np.stack([_patch_maps(scene, side) for scene in scenes])
    return {n: torch.from_numpy(maps[:, i]).flatten(1) for i, n in enumerate(PATCH_CLASSES)}


def _patch_maps(scene: Scene, side: int) -> np.ndarray[tuple[int, int, int], np.dtype[np.int64]]:
    maps = np.zeros((len(PATCH_CLASSES), side, side), np.int64)
    for thing in scene.things:
        here = coverage(thing, side) > 0.4
        for i, name in enumerate(PATCH_CLASSES):
            maps[i][here] = THING_ATTRIBUTES[name].index(getattr(thing, name)) + 1
    return maps

"""Structure distance: how far the self-similarity of the pictures' patches moved.

Tumanyan et al. 2022 (Splice): the keys of a ViT's last layer, each compared with each
other; the mean squared difference between the two matrices.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import ViTModel

from zerocon.metrics.base import Column, Pictures, ProtocolName
from zerocon.shapes import evaluators

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def self_similarity(keys: Tensor) -> Tensor:
    """Cosines between all positions, [case, position, position]."""
    norms = keys.norm(dim=2, keepdim=True)
    return keys @ keys.mT / (norms @ norms.mT).clamp(min=1e-8)


def structure_distance(keys_a: Tensor, keys_b: Tensor) -> Tensor:
    """Of keys [case, position, width], [case]."""
    difference = self_similarity(keys_a.double()) - self_similarity(keys_b.double())
    return difference.square().flatten(1).mean(1)


def last_keys(vit: ViTModel, pixels: Tensor) -> Tensor:
    """The last layer's keys, heads side by side, class token first, [case, position, width]."""
    sites = [m for n, m in vit.named_modules() if n.endswith((".k_proj", ".key"))]
    if not sites:
        raise ValueError(f"{type(vit).__name__} has no layer named k_proj or key to read keys at")
    found: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        found.append(output)

    handle = sites[-1].register_forward_hook(keep)
    try:
        vit(pixel_values=pixels)
    finally:
        handle.remove()
    return found[0]


class StructureDistance:
    """In 1e-3. Without `path` by the shapes world's own ViT.

    `path` is a DINO ViT in transformers' layout (`facebook/dino-vitb8`): a local folder,
    or a hub id at a fixed `revision`.
    """

    columns = (Column("structure", "1e-3", "lower", 2),)

    def __init__(
        self,
        path: str | None = None,
        revision: str | None = None,
        protocol: ProtocolName = "masked",
        *,
        vit: ViTModel | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        self.protocol = protocol
        own = path is None
        self.vit, self.fingerprint = (vit, "given") if vit else _loaded(path, revision)
        self.mean = torch.tensor(mean or ((0.5,) * 3 if own else IMAGENET_MEAN))[:, None, None]
        self.std = torch.tensor(std or ((0.5,) * 3 if own else IMAGENET_STD))[:, None, None]
        self.side = cast("int", self.vit.config.image_size)

    @torch.no_grad()
    def keys(self, pictures: Tensor) -> Tensor:
        pixels = resized(pictures.float(), self.side)
        if self.protocol == "published":
            # The published evaluation forgets to divide by 255 before it normalises.
            pixels = pixels * 255
        pixels = (pixels - self.mean.to(pixels)) / self.std.to(pixels)
        nn.Module.to(self.vit, pixels.device)
        return last_keys(self.vit, pixels)

    def __call__(self, pictures: Pictures) -> dict[str, Tensor]:
        source, edited = self.keys(pictures.source), self.keys(pictures.edited)
        return {"structure": 1e3 * structure_distance(source, edited)}


def resized(pictures: Tensor, side: int) -> Tensor:
    if pictures.shape[-1] == side:
        return pictures
    return F.interpolate(pictures, (side, side), mode="bilinear", antialias=True)


def _loaded(path: str | None, revision: str | None) -> tuple[ViTModel, str]:
    if path is None:
        return evaluators.load_structure(), evaluators.fingerprint(evaluators.STRUCTURE_FOLDER)
    if Path(path).is_dir():
        return evaluators.load_structure(Path(path)), evaluators.fingerprint(Path(path))
    if revision is None:
        raise ValueError(f"{path!r} is not a folder here; a model from the hub needs a `revision`")
    vit = ViTModel.from_pretrained(path, revision=revision, add_pooling_layer=False)
    return vit.eval().requires_grad_(False), f"{path}@{revision}"

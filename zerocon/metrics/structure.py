"""Structure distance: the change in the self-similarity of the picture's patches.

Tumanyan et al. 2022 (Splice): the mean squared difference between two matrices of cosines
between all pairs of keys in a ViT's last layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor
from transformers import ViTModel

from zerocon.core.cases import World
from zerocon.metrics.base import Column, Pictures, ProtocolName, chosen
from zerocon.metrics.encoders import Shown, given_vit, load_vit, world_of_path


def self_similarity(keys: Tensor) -> Tensor:
    """Cosines between all pairs of positions, [case, position, position]."""
    norms = keys.norm(dim=2, keepdim=True)
    return keys @ keys.mT / (norms @ norms.mT).clamp(min=1e-8)


def structure_distance(keys_a: Tensor, keys_b: Tensor) -> Tensor:
    """The distance between keys [case, position, width], [case]."""
    difference = self_similarity(keys_a.double()) - self_similarity(keys_b.double())
    return difference.square().flatten(1).mean(1)


class StructureDistance:
    """Structure distance in 1e-3; without `path` by the shapes world's ViT.

    `path` is a DINO ViT: `facebook/dino-vitb8` in transformers' layout (a folder, or a hub id at
    a fixed `revision`), or the original checkpoint's file, dino_vitbase8_pretrain.pth. In Python
    any `vit`, with the mean and deviation of the pixels that it was trained with.

    `antialias` applies when scaling down for the ViT; None: yes for `masked`, no for
    `published`. The published numbers were computed with torchvision 0.13.1, which by default
    resized tensors without antialiasing; since 0.17 the default is the opposite.
    """

    known = (Column("structure", "1e-3", "lower", 2, takes="0..1, normalised"),)

    def __init__(
        self,
        path: str | None = None,
        revision: str | None = None,
        protocol: ProtocolName = "masked",
        antialias: bool | None = None,
        *,
        vit: ViTModel | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        # The published evaluation does not divide by 255 before normalising.
        self.levels = protocol == "published"
        self.antialias = protocol == "masked" if antialias is None else antialias
        self.encoder = given_vit(vit, mean, std) if vit else load_vit(path, revision)
        self.fingerprint = self.encoder.fingerprint
        (column,) = chosen(self.known, None, ("structure",), self.encoder)
        takes = "0..255, normalised as if 0..1" if self.levels else column.takes
        takes += "" if self.antialias else "; resized without antialiasing"
        self.columns = (replace(column, takes=takes),)

    @staticmethod
    def world_of(path: str | None = None, **_: object) -> World | None:
        return world_of_path(path)

    def keys(self, pictures: Tensor) -> Tensor:
        return self.encoder(pictures, levels=self.levels, antialias=self.antialias).keys

    def __call__(self, pictures: Pictures) -> dict[str, Tensor]:
        source, edited = self._keys_of(pictures, "source"), self._keys_of(pictures, "edited")
        return {"structure": 1e3 * structure_distance(source, edited)}

    def _keys_of(self, pictures: Pictures, shown: Shown) -> Tensor:
        options = {"levels": self.levels, "antialias": self.antialias}
        return self.encoder.seen(pictures, shown, **options).keys

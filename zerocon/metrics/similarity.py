"""Similarities of source and edited picture in an encoder's space, and directional similarity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import ViTModel

from zerocon.core.cases import World
from zerocon.metrics.base import Column, Pictures, ProtocolName, chosen
from zerocon.metrics.clip import LEVELS, ClipMetric
from zerocon.metrics.encoders import (
    given_vit,
    image_features,
    load_vit,
    text_features,
    world_of_path,
)


def directional_similarity(images: tuple[Tensor, Tensor], texts: tuple[Tensor, Tensor]) -> Tensor:
    """Cosine of the pictures' change with the prompts' change, [case].

    Gal et al. 2022 (StyleGAN-NADA). nan if the prompts do not change.
    """
    image, text = (
        F.normalize(after.double()) - F.normalize(before.double())
        for before, after in (images, texts)
    )
    return F.cosine_similarity(image, text).masked_fill(text.abs().sum(1) == 0, torch.nan)


class ClipChange(ClipMetric):
    """CLIP's similarities of source and edit. All but `clip_image` need a source prompt.

    `clip_direction`: directional similarity, 0 if the picture does not change.
    `clip_accuracy`: 1 if the edited picture matches the target prompt better than the source
    prompt, else 0. `clip_image`: cosine with the source picture. Both protocols agree.
    """

    known = (
        Column("clip_direction", "", "higher", 3, takes=LEVELS),
        Column("clip_accuracy", "", "higher", 3, takes=LEVELS),
        Column("clip_image", "", "higher", 3, takes=LEVELS),
    )
    default = ("clip_direction", "clip_accuracy", "clip_image")
    looks_at: ClassVar = {
        "clip_direction": ("source", "edited"),
        "clip_accuracy": ("edited",),
        "clip_image": ("source", "edited"),
    }

    def value(self, name: str, pictures: Pictures) -> Tensor:
        after = image_features(self.encoder, pictures, "edited")
        if name == "clip_image":
            before = image_features(self.encoder, pictures, "source")
            return F.cosine_similarity(before.double(), after.double())
        source = text_features(self.encoder, pictures, "source")
        target = text_features(self.encoder, pictures, "target")
        if name == "clip_accuracy":
            return _with_prompts(nearer(after, source, target), pictures)
        before = image_features(self.encoder, pictures, "source")
        found = directional_similarity((before, after), (source, target))
        # Two passes over one picture differ by rounding errors, which have a random direction.
        found = found.masked_fill(_unchanged(pictures) & ~found.isnan(), 0.0)
        return _with_prompts(found, pictures)


class DinoSimilarity:
    """Cosine of the class tokens of the whole source and edited pictures.

    Without `path` it uses the shapes world's ViT; `path` is as for the structure distance. Both
    protocols agree.
    """

    known = (Column("dino_image", "", "higher", 3),)

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
        self.encoder = given_vit(vit, mean, std) if vit else load_vit(path, revision)
        self.fingerprint = self.encoder.fingerprint
        self.columns = chosen(self.known, None, ("dino_image",), self.encoder)

    @staticmethod
    def world_of(path: str | None = None, **_: object) -> World | None:
        return world_of_path(path)

    def __call__(self, pictures: Pictures) -> dict[str, Tensor]:
        source = self.encoder.seen(pictures, "source").token
        edited = self.encoder.seen(pictures, "edited").token
        return {"dino_image": F.cosine_similarity(source.double(), edited.double())}


def nearer(images: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """1 if a picture is nearer to its target than to its source, else 0, [case]."""
    to_target = F.cosine_similarity(images.double(), target.double())
    return (to_target > F.cosine_similarity(images.double(), source.double())).double()


def _unchanged(pictures: Pictures) -> Tensor:
    return (pictures.source == pictures.edited).flatten(1).all(1)


def _with_prompts(values: Tensor, pictures: Pictures) -> Tensor:
    """nan if there is no source prompt or the prompts are equal."""
    same = [c.source_prompt.strip() in ("", c.target_prompt.strip()) for c in pictures.cases]
    return values.masked_fill(torch.tensor(same, device=values.device), torch.nan)

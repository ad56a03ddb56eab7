"""CLIP scores: how well a picture, or its edited region, matches its prompt."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import ClassVar, Literal

from torch import Tensor
from torch.nn import functional as F

from zerocon.core.cases import World
from zerocon.metrics.base import Column, Pictures, ProtocolName, chosen, where_measured
from zerocon.metrics.encoders import (
    ClipEncoder,
    Shown,
    image_features,
    load_clip,
    see,
    text_features,
    world_of_path,
)

LEVELS = "256 levels of 0..1"

log = logging.getLogger(__name__)


def clip_score(images: Tensor, texts: Tensor) -> Tensor:
    """100 × cosine, clipped at 0, [case]."""
    cosine = F.cosine_similarity(images.double(), texts.to(images.device).double())
    return (100 * cosine).clamp(min=0)


class ClipMetric:
    """Columns judged by one CLIP; without `path`, by the shapes world's."""

    known: tuple[Column, ...] = ()
    default: tuple[str, ...] = ()
    looks_at: ClassVar[Mapping[str, tuple[Shown, ...]]] = {}  # column -> pictures it needs

    def __init__(
        self,
        path: str | None = None,
        revision: str | None = None,
        protocol: ProtocolName = "masked",
        columns: tuple[str, ...] | None = None,
        encoder: ClipEncoder | None = None,
    ) -> None:
        self.protocol = protocol
        self.encoder = encoder or load_clip(path, revision)
        self.fingerprint = self.encoder.fingerprint
        self.columns = chosen(self.known, columns, self.default, self.encoder)

    @staticmethod
    def world_of(path: str | None = None, **_: object) -> World | None:
        return world_of_path(path)

    def __call__(self, pictures: Pictures) -> dict[str, Tensor]:
        names = [column.name for column in self.columns]
        see(
            self.encoder,
            pictures,
            (shown for name in names for shown in self.looks_at.get(name, ())),
        )
        return {name: self.value(name, pictures) for name in names}

    def value(self, name: str, pictures: Pictures) -> Tensor:
        """The values of one column, [case]."""
        raise NotImplementedError


class ClipScore(ClipMetric):
    """How well a picture matches its prompt.

    `clip_source`, of the source picture and source prompt, is a reference.
    The protocols differ only for prompts with too many tokens: `masked` keeps the end token,
    `published` cuts it off, too, as torchmetrics does.
    """

    known = (
        Column("clip_whole", "", "higher", 2, takes=LEVELS),
        Column("clip_edited", "", "higher", 2, "edited", LEVELS),
        Column("clip_source", "", "", 2, takes=LEVELS),
    )
    default = ("clip_whole", "clip_edited")
    looks_at: ClassVar = {
        "clip_whole": ("edited",),
        "clip_edited": ("region",),
        "clip_source": ("source",),
    }

    def __call__(self, pictures: Pictures) -> dict[str, Tensor]:
        warn_of_cut_prompts(self.encoder, pictures)
        return super().__call__(pictures)

    def value(self, name: str, pictures: Pictures) -> Tensor:
        if name == "clip_source":
            source = image_features(self.encoder, pictures, "source")
            return clip_score(source, self._texts(pictures, "source"))
        target = self._texts(pictures, "target")
        if name == "clip_whole":
            return clip_score(image_features(self.encoder, pictures, "edited"), target)
        region = image_features(self.encoder, pictures, "region")
        return where_measured(clip_score(region, target), pictures.region)

    def _texts(self, pictures: Pictures, which: Literal["source", "target"]) -> Tensor:
        cut_end = self.protocol == "published"
        return text_features(self.encoder, pictures, which, cut_end=cut_end)


def warn_of_cut_prompts(encoder: ClipEncoder, pictures: Pictures) -> None:
    cut = [c.id for c in pictures.cases if encoder.too_long(c.target_prompt)]
    if cut:
        log.warning("CLIP reads only the beginning of the target prompt of %s", ", ".join(cut))

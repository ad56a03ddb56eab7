"""CLIP score: how well the edited picture, or its edited region, fits the target prompt."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPModel, CLIPProcessor

from zerocon.metrics.base import Column, Pictures, ProtocolName, where_measured
from zerocon.shapes import evaluators

log = logging.getLogger(__name__)


class ClipEncoder(Protocol):
    """Pictures (0..1) and sentences into one space; too long a sentence keeps its end token."""

    @property
    def fingerprint(self) -> str: ...
    def images(self, pictures: Tensor) -> Tensor: ...
    def texts(self, sentences: Sequence[str]) -> Tensor: ...
    def too_long(self, sentence: str) -> bool: ...


class PublishedClip:
    """A CLIP in transformers' layout: a local folder, or a hub id at a fixed revision."""

    def __init__(self, path: str, revision: str | None = None) -> None:
        if not Path(path).is_dir() and revision is None:
            raise ValueError(
                f"{path!r} is not a folder here; a model from the hub needs a `revision`, so that "
                "the numbers stay the same when its repository changes"
            )
        local = Path(path).is_dir()
        version = revision or "main"  # a local folder has none
        model = CLIPModel.from_pretrained(path, revision=version, dtype=torch.float32)
        self.model = model.eval().requires_grad_(False)
        # Typed Any: what a processor takes and gives is known at run time only.
        self.processor: Any = CLIPProcessor.from_pretrained(path, revision=version)
        self.context = len(self.model.text_model.embeddings.position_embedding.weight)
        self.fingerprint = evaluators.fingerprint(Path(path)) if local else f"{path}@{revision}"

    @torch.no_grad()
    def images(self, pictures: Tensor) -> Tensor:
        levels = [picture.cpu() for picture in as_uint8(pictures)]
        pixels = self.processor(images=levels, return_tensors="pt").pixel_values
        return _features(self.model.get_image_features(pixel_values=pixels)).to(pictures.device)

    @torch.no_grad()
    def texts(self, sentences: Sequence[str]) -> Tensor:
        tokens = self.processor.tokenizer(
            list(sentences),
            padding=True,
            truncation=True,
            max_length=self.context,
            return_tensors="pt",
        )
        return _features(self.model.get_text_features(**tokens))

    def too_long(self, sentence: str) -> bool:
        return len(self.processor.tokenizer(sentence).input_ids) > self.context


def _loaded(path: str | None, revision: str | None) -> ClipEncoder:
    return evaluators.load_clip() if path is None else PublishedClip(path, revision)


def _features(output: Any) -> Tensor:
    """transformers 5 wraps them, transformers 4 does not."""
    return getattr(output, "pooler_output", output)


def as_uint8(pictures: Tensor) -> Tensor:
    """What a saved picture holds: CLIP scores are of files, so of 256 levels."""
    return (pictures * 255).round().to(torch.uint8)


def clip_score(images: Tensor, texts: Tensor) -> Tensor:
    """100 × cosine, never below 0, [case]."""
    cosine = F.cosine_similarity(images.double(), texts.to(images.device).double())
    return (100 * cosine).clamp(min=0)


class ClipScore:
    """Without `path` by the shapes world's own CLIP. Both protocols do the same."""

    columns = (
        Column("clip_whole", "", "higher", 2),
        Column("clip_edited", "", "higher", 2),
    )

    def __init__(
        self,
        path: str | None = None,
        revision: str | None = None,
        protocol: ProtocolName = "masked",
        encoder: ClipEncoder | None = None,
    ) -> None:
        self.protocol = protocol
        self.encoder = encoder or _loaded(path, revision)
        self.fingerprint = self.encoder.fingerprint

    def __call__(self, pictures: Pictures) -> dict[str, Tensor]:
        prompts = [case.target_prompt for case in pictures.cases]
        cut = [c.id for c in pictures.cases if self.encoder.too_long(c.target_prompt)]
        if cut:
            log.warning("CLIP reads only the beginning of the target prompt of %s", ", ".join(cut))
        texts = self.encoder.texts(prompts)
        region = pictures.region
        whole = clip_score(self.encoder.images(pictures.edited), texts)
        edited = clip_score(self.encoder.images(pictures.edited * region), texts)
        return {"clip_whole": whole, "clip_edited": where_measured(edited, region)}

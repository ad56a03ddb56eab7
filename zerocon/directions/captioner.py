"""BLIP, which captions pictures: the package's, from a folder, or from the hub."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import BlipForConditionalGeneration, BlipProcessor

from zerocon.core.weights import PACKAGED, folder_fingerprint, load_beside, load_pretrained

FOLDER = PACKAGED / "captioner"  # of the shapes world
LONGEST = 56  # tokens
ADVICE = (
    "direction.captioner is a BLIP model's folder (`zerocon download captioner` fetches one) or "
    "hub id (then direction.captioner_revision pins its commit)"
)


@dataclass(frozen=True, eq=False)
class Captioner:
    """BLIP and its processor."""

    model: BlipForConditionalGeneration
    processor: Any  # a BlipProcessor, whose arguments and results are only known at run time
    fingerprint: str

    @torch.no_grad()
    def __call__(self, pictures: Tensor) -> list[str]:
        """Caption the pictures, which are in 0..1, [picture, 3, side, side]."""
        levels = [picture.cpu() for picture in (pictures * 255).round().to(torch.uint8)]
        pixels = self.processor(images=levels, return_tensors="pt").pixel_values
        tokens = self.model.generate(
            pixel_values=pixels.to(self.model.device),
            max_new_tokens=LONGEST,
            num_beams=1,
            do_sample=False,
        )
        return [t.strip() for t in self.processor.batch_decode(tokens, skip_special_tokens=True)]


@cache
def load_captioner(path: str | None = None, revision: str | None = None) -> Captioner:
    """Load a captioning BLIP, on the GPU if there is one; by default the shapes world's."""
    if path is None:
        return _loaded(str(FOLDER), None)
    captioner = _loaded(path, revision)
    captioner.model.to("cuda" if torch.cuda.is_available() else "cpu")  # pyright: ignore[reportArgumentType]
    return captioner


def _loaded(path: str, revision: str | None) -> Captioner:
    options: dict[str, Any] = {"revision": revision} if revision else {}
    model = load_pretrained(
        BlipForConditionalGeneration.from_pretrained,
        path,
        "the captioner",
        advice=ADVICE,
        dtype=torch.float32,
        **options,
    )
    processor = load_beside(
        BlipProcessor.from_pretrained, path, "the captioner's processor", advice=ADVICE, **options
    )
    local = Path(path).is_dir()
    digest = folder_fingerprint(Path(path)) if local else f"{path}@{revision}"
    return Captioner(model.eval().requires_grad_(False), processor, digest)

"""What a tracker is shown of a case beyond its record: loss curves, and attention maps of words.

Neither changes an edit: curves are values that the edit computes anyway, and maps come from
forward passes of their own, after the edit.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.config.settings import RunSettings
from zerocon.core.cases import Case
from zerocon.core.conditions import Draws
from zerocon.core.forward import run_for_taps, told
from zerocon.core.prompts import places_of, words_of
from zerocon.core.size import Size
from zerocon.core.taps import What, record
from zerocon.core.word_maps import marks, word_map
from zerocon.losses.base import Losses

Curves = dict[str, list[float]]  # a loss's name -> its value at each step

SHARE = 0.5  # of the training times: the noise at which attention is read
MOST_WORDS = 6  # mapped, of each prompt


class Shown(dict[str, Image.Image]):
    """A case's pictures by name, and the curves of its losses."""

    curves: Mapping[str, Sequence[float]]

    def __init__(
        self, pictures: Mapping[str, Image.Image], curves: Mapping[str, Sequence[float]]
    ) -> None:
        super().__init__(pictures)
        self.curves = curves


def wanted(settings: RunSettings, what: str, case_ids: Sequence[str]) -> frozenset[str]:
    """The first cases of the run, as many as `tracker.curves` or `tracker.maps` asks for."""
    tracker = settings.config.get("tracker") or {}
    return frozenset(case_ids[: int(tracker.get(what) or 0)])


@dataclass
class Watcher:
    """Keeps the losses' values on their device until the batch is done."""

    steps: dict[int, Mapping[str, Tensor]] = field(default_factory=dict[int, Mapping[str, Tensor]])

    def __call__(self, step: int, values: Mapping[str, Tensor]) -> None:
        self.steps.setdefault(step, values)  # a step's first values: before its descent

    def curves(self, rows: int) -> list[Curves]:
        """Of each case of a batch of that many; nan where a loss has no weight."""
        names = dict.fromkeys(name for values in self.steps.values() for name in values)
        found: list[Curves] = [{} for _ in range(rows)]
        for name in names:
            missing = torch.full((rows,), float("nan"))
            values = [
                step.get(name, missing)[:rows].float().cpu()
                for _, step in sorted(self.steps.items())
            ]
            for row, curve in enumerate(torch.stack(values, 1).tolist()):
                found[row][name] = curve
        return found


@contextmanager
def watching(settings: RunSettings, *, on: bool) -> Generator[Watcher]:
    """Collect what the method's losses are at each step of the edits in the block."""
    watcher, losses = Watcher(), getattr(settings.method, "loss", None)
    if not on or not isinstance(losses, Losses):
        yield watcher
        return
    losses.watcher = watcher
    try:
        yield watcher
    finally:
        losses.watcher = None


@torch.no_grad()
def maps_of(backbone: Backbone, case: Case, edited: Tensor, seed: int) -> dict[str, Any]:
    """Where the source and the edit attend to their prompts' words: name -> pixels, [y, x].

    Read at half of the training times, in all cross-attentions.
    """
    words = words_of(backbone, case)
    asked = {
        "source": (case.image, case.source_prompt, words.source, words.source_split),
        "edited": (edited, case.target_prompt, words.target, words.target_split),
    }
    draws = Draws(seed, [case.id])
    found: dict[str, Any] = {}
    for which, (picture, prompt, tokens, split) in asked.items():
        places = {
            word: places_of(own, tokens) for word, own in zip(prompt.split(), split, strict=False)
        }
        texts = [word for word in places if places[word]][-MOST_WORDS:]
        if not texts:
            continue
        seen = _attention(backbone, picture, prompt, draws)
        for word in texts:
            found[f"map {which}: {word}"] = _pixels(seen, places[word], Size.of_tensor(edited))
    return found


@torch.no_grad()
def similarity_of(backbone: Backbone, case: Case, edited: Tensor, sites: str, seed: int) -> Any:
    """How similar each patch of the edit is to the source's at its place: cosines, [y, x].

    Of the outputs of self-attentions, which the contrastive loss compares: the mean over the
    sites, each at the picture's size; read as the attention maps are.
    """
    draws = Draws(seed, [case.id])
    asked = (case.image, case.source_prompt), (edited, case.target_prompt)
    source, edit = (
        _recorded(backbone, picture, prompt, draws, sites, "output") for picture, prompt in asked
    )
    total = np.zeros(edited.shape[1:], np.float32)
    for site, theirs, ours in zip(
        source.sites, source.of("target"), edit.of("target"), strict=True
    ):
        near = torch.cosine_similarity(theirs.float(), ours.float(), dim=-1)[0]
        total += _resized(near.unflatten(0, site.grid), Size.of_tensor(edited))
    return total / len(source.sites)


def _attention(backbone: Backbone, picture: Tensor, prompt: str, draws: Draws) -> Any:
    return _recorded(backbone, picture, prompt, draws, "cross", "probs")


def _recorded(
    backbone: Backbone, picture: Tensor, prompt: str, draws: Draws, sites: str, what: What
) -> Any:
    """What the sites have of the picture under its prompt."""
    level = backbone.level(SHARE)
    clean = backbone.encode(picture[None])
    noisy = level.mix(clean, draws.normal_like(clean, "maps")).to(clean)
    text = told(backbone, backbone.embed([prompt]), 1.0)
    with record(backbone.taps, sites, what) as seen:
        run_for_taps(backbone, level, {"target": (noisy, text)})
    return seen


def _pixels(seen: Any, places: Sequence[int], size: Size) -> Any:
    """The mean attention over all sites, each at the picture's size; its maximum is white."""
    total = np.zeros(size, np.float32)
    for site, probs in zip(seen.sites, seen.of("target"), strict=True):
        small = word_map([probs], marks([places]).to(probs.device), site.grid)[0, 0]
        total += _resized(small, size)
    scaled = 255 * total / max(float(total.max()), 1e-12)
    return scaled.round().clip(0, 255).astype(np.uint8)


def _resized(values: Tensor, size: Size) -> Any:
    image = Image.fromarray(values.float().cpu().numpy())
    return np.asarray(image.resize((size.width, size.height), Image.Resampling.BILINEAR))

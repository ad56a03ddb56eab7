"""Training scenes and their pictures, rendered once and shared by all stages.

Scenes come in pairs that differ in one named attribute. Batches of whole pairs give a contrastive
loss hard negatives.
"""

from __future__ import annotations

import dataclasses
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zerocon.shapes.captions import caption
from zerocon.shapes.render import render
from zerocon.shapes.scene import (
    SCENE_ATTRIBUTES,
    THING_ATTRIBUTES,
    Scene,
    Thing,
    random_scene,
)

SIDE = 64
DROPPED = 0.1  # share of captions replaced by the empty one, for classifier-free guidance


@dataclass
class SceneData:
    """`len` scenes and their pictures, uint8 [n, 64, 64, 3]."""

    scenes: list[Scene]
    pixels: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.scenes)

    def images(self, rows: Tensor) -> Tensor:
        """Pictures in -1..1, [n, 3, 64, 64]."""
        picked = torch.from_numpy(self.pixels[rows.numpy()])
        return picked.permute(0, 3, 1, 2).float().div(127.5).sub(1)

    def captions(self, rows: Tensor, seed: str) -> list[str]:
        """A random caption for each row, determined by the seed."""
        return [caption(self.scenes[i], Random(f"{seed}-{i}")) for i in rows.tolist()]

    def drawn(
        self, odds: Tensor, count: int, seed: str, generator: torch.Generator
    ) -> tuple[Tensor, list[str]]:
        """A denoiser's batch: rows drawn by their odds, and captions, some replaced by ""."""
        rows = torch.multinomial(odds, count, generator=generator)
        captions = self.captions(rows, seed)
        dropped = torch.rand(count, generator=generator) < DROPPED
        return rows, ["" if d else c for c, d in zip(captions, dropped.tolist(), strict=True)]


def scene_pair(split: str, index: int) -> tuple[Scene, Scene]:
    rng = Random(f"{split}-{index}")
    first = random_scene(rng)
    return first, changed_somewhere(first, rng)


def changed_somewhere(scene: Scene, rng: Random) -> Scene:
    """The scene with one named attribute changed."""
    while True:
        position = rng.randrange(len(scene.things) + 1)
        if position == len(scene.things):
            name, values = rng.choice(list(SCENE_ATTRIBUTES.items()))
            candidate = dataclasses.replace(scene, **{name: rng.choice(values)})
        else:
            name, values = rng.choice(list(THING_ATTRIBUTES.items()))
            thing = _changed_thing(scene.things[position], name, rng.choice(values))
            if thing is None:
                continue
            things = (*scene.things[:position], thing, *scene.things[position + 1 :])
            candidate = dataclasses.replace(scene, things=things)
        if candidate != scene:
            return candidate


def _changed_thing(thing: Thing, name: str, value: str) -> Thing | None:
    try:
        return dataclasses.replace(thing, **{name: value})
    except ValueError:  # an impossible combination
        return None


def scenes_of(split: str, count: int) -> list[Scene]:
    pairs = (scene_pair(split, i) for i in range((count + 1) // 2))
    return [scene for pair in pairs for scene in pair][:count]


def load_scenes(split: str, count: int, cache: Path) -> SceneData:
    """The split's scenes and pictures, rendered on first use and cached in `cache`."""
    scenes = scenes_of(split, count)
    file = cache / f"{split}-{count}.npy"
    if not file.exists():
        cache.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(f".{os.getpid()}.partial")
        with ProcessPoolExecutor() as pool, partial.open("wb") as out:
            np.save(out, np.stack(list(pool.map(render, scenes, chunksize=256))))
        partial.replace(file)
    return SceneData(scenes, np.load(file, mmap_mode="r"))

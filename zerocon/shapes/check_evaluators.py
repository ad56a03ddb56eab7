"""Measure the captioner and the evaluators on held-out scenes."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import torch
from lpips import LPIPS
from torch import Tensor
from torch.nn import functional as F

from zerocon.metrics.encoders import last_layer
from zerocon.metrics.packaged import ShapesClip, load_clip, load_lpips, load_structure
from zerocon.metrics.structure import structure_distance
from zerocon.shapes.captions import CaptionError, caption, parse
from zerocon.shapes.render import render
from zerocon.shapes.scene import Scene
from zerocon.shapes.train.data import scene_pair
from zerocon.shapes.train.perceptual import order_kept_on

SPLIT = "heldout"

CaptionPictures = Callable[[Tensor], list[str]]  # pictures in 0..1 -> captions


def distinct_scenes(count: int) -> list[Scene]:
    """Held-out scenes with distinct descriptions."""
    found: dict[object, Scene] = {}
    index = 0
    while len(found) < count:
        for scene in scene_pair(SPLIT, index):
            found.setdefault(scene.described(), scene)
        index += 1
    return list(found.values())[:count]


def pictures_of(scenes: list[Scene]) -> Tensor:
    """The scenes' pictures in 0..1, [scene, 3, 64, 64]."""
    levels = torch.stack([torch.from_numpy(render(scene)) for scene in scenes])
    return levels.permute(0, 3, 1, 2).float() / 255


def caption_exact(captioner: CaptionPictures, count: int = 500) -> float:
    """How often a generated caption describes the scene exactly."""
    scenes = distinct_scenes(count)
    said = [s for part in pictures_of(scenes).split(100) for s in captioner(part)]
    return sum(map(_says, said, scenes)) / count


def _says(sentence: str, scene: Scene) -> bool:
    try:
        return parse(sentence) == scene.described()
    except CaptionError:
        return False


def clip_retrieval(count: int = 1000, clip: ShapesClip | None = None) -> float:
    """How often a picture's own caption is the nearest of `count` distinct ones."""
    clip = clip or load_clip()
    scenes = distinct_scenes(count)
    sentences = [caption(scene, Random(f"retrieval-{i}")) for i, scene in enumerate(scenes)]
    images = torch.cat([clip.images(part) for part in pictures_of(scenes).split(100)])
    cosines = F.normalize(images) @ F.normalize(clip.texts(sentences)).T
    return (cosines.argmax(1) == torch.arange(count)).double().mean().item()


@torch.no_grad()
def structure_order(count: int = 300) -> float:
    """How often a change of colour has a smaller structure distance than a change of shape."""
    vit = load_structure()
    triples = [_recolored_and_reshaped(scene) for scene in distinct_scenes(count)]
    keys = [
        last_layer(vit, 2 * pictures_of(list(part)) - 1).keys for part in zip(*triples, strict=True)
    ]
    color, shape = (structure_distance(keys[0], other) for other in keys[1:])
    return (color < shape).double().mean().item()


def _recolored_and_reshaped(scene: Scene) -> tuple[Scene, Scene, Scene]:
    data = scene.to_json()
    things = data["things"]
    thing = {**things[0], "fill": "solid", "material": "plain", "pose": "upright"}
    wanted = ({}, {"color": _other(thing["color"])}, {"shape": _other(thing["shape"])})
    first, second, third = (
        Scene.from_json({**data, "things": [{**thing, **change}, *things[1:]]}) for change in wanted
    )
    return first, second, third


def _other(value: str) -> str:
    """A clearly different value of the same attribute."""
    partner = {"red": "blue", "circle": "cross", "house": "triangle", "square": "heart"}
    partner |= {"orange": "purple", "yellow": "pink", "green": "cyan"}
    return (partner | {b: a for a, b in partner.items()})[value]


def lpips_order(count: int = 960, model: LPIPS | None = None) -> float:
    """How often the stronger of two distortions has the larger distance."""
    pictures = 2 * pictures_of(distinct_scenes(count)) - 1
    return order_kept_on(model or load_lpips(), pictures)


def check_evaluators(captioner: CaptionPictures) -> dict[str, float]:
    return {
        "caption_exact": caption_exact(captioner),
        "eval_clip_retrieval_at_1": clip_retrieval(),
        "structure_order": structure_order(),
        "lpips_order": lpips_order(),
    }

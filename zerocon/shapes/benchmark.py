"""ShapesPIE: edits with ground truths, in PIE-Bench's file format.

An edit is a pure function of (split, edit type, number), so smaller benchmarks are subsets of
larger ones: equal cases have equal ids, prompts and bytes.
"""

from __future__ import annotations

import difflib
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zerocon.shapes.captions import PLACE_WORDS, Wording, thing_phrase
from zerocon.shapes.png import encode_png
from zerocon.shapes.render import coverage, render
from zerocon.shapes.scene import (
    BACKGROUNDS,
    COLORS,
    FILLS,
    MATERIALS,
    POSES,
    SHAPES,
    SIZES,
    STYLES,
    Scene,
    Thing,
    random_scene,
    random_thing,
)

Mask = NDArray[np.bool_]

SIDE = 512
REACH = 8  # margin of a mask around the change: one pixel of a 64-pixel picture
# Smaller margin around things that a new background must not touch: a small hollow thing's wall
# is only 18 pixels thick. 5 is the least that masks every mixed pixel of the 64-pixel picture.
BACKGROUND_REACH = 5
SPLITS = ("test", "validation")

# PIE-Bench's folders; the index is the edit type's id.
FOLDERS = (
    "0_random_140",
    "1_change_object_80",
    "2_add_object_80",
    "3_delete_object_80",
    "4_change_attribute_content_40",
    "5_change_attribute_pose_40",
    "6_change_attribute_color_40",
    "7_change_attribute_material_40",
    "8_change_background_80",
    "9_change_style_80",
)
# Cases of each type. 100 has 700's proportions (largest remainders); 20 has all types.
COUNTS = {
    700: (140, 80, 80, 80, 40, 40, 40, 40, 80, 80),
    100: (20, 12, 11, 11, 6, 6, 6, 6, 11, 11),
    20: (3, 2, 2, 2, 2, 1, 2, 2, 2, 2),
}


@dataclass(frozen=True)
class Edit:
    """One case: scenes, prompts and instruction."""

    id: str
    edit_type: int
    source: Scene
    target: Scene
    source_prompt: str
    target_prompt: str
    instruction: str
    blend_words: tuple[str, str] | None


@dataclass(frozen=True)
class _Change:
    source: Scene
    target: Scene
    instruction: str
    blend_words: tuple[str, str] | None = None


class _UnsuitableError(Exception):
    """The drawn scene does not admit this edit; draw another one."""


def edits(size: int, split: str) -> list[Edit]:
    """The benchmark's edits in order; no scene occurs in both splits."""
    if size not in COUNTS:
        raise ValueError(f"ShapesPIE comes in the sizes {sorted(COUNTS)}, not {size!r}")
    if split not in SPLITS:
        raise ValueError(f"ShapesPIE has the splits {SPLITS}, not {split!r}")
    counts = enumerate(COUNTS[size])
    return [edit(split, kind, number) for kind, count in counts for number in range(count)]


def edit(split: str, edit_type: int, number: int) -> Edit:
    rng = Random(f"ShapesPIE {split} {edit_type} {number}")
    change = _drawn(rng, edit_type)
    wording = Wording.draw(rng)
    # A thing keeps its size word if another one appears to its left.
    wording.sizes = (wording.sizes[0], wording.sizes[0])
    return Edit(
        id=f"{111 * edit_type:03d}{number:09d}",
        edit_type=edit_type,
        source=change.source,
        target=change.target,
        source_prompt=wording.caption(change.source),
        target_prompt=wording.caption(change.target),
        instruction=change.instruction,
        blend_words=change.blend_words,
    )


def write_benchmark(root: Path, size: int, split: str) -> None:
    """Write the benchmark's folder atomically, unless it is complete."""
    if (root / "mapping_file.json").exists():
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    try:
        _write_files(draft, edits(size, split))
        draft.chmod(0o755)
        _publish(draft, root)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def bracketed(text: str, other: str) -> str:
    """`text` with square brackets around the words that differ from `other`."""
    words = text.split()
    matcher = difflib.SequenceMatcher(None, words, other.split(), autojunk=False)
    parts = [(tag, " ".join(words[i:j])) for tag, i, j, _, _ in matcher.get_opcodes() if i < j]
    return " ".join(part if tag == "equal" else f"[{part}]" for tag, part in parts)


def encode_rle(mask: Mask) -> list[int]:
    """The mask's runs of ones, row by row: [start, length, start, length, …]."""
    flat = np.concatenate([[False], mask.ravel(), [False]])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    starts, lengths = edges[::2], edges[1::2] - edges[::2]
    return np.stack([starts, lengths], axis=1).ravel().tolist()


def edit_mask(source: Scene, target: Scene) -> Mask:
    """The region that may change, [512, 512]: the difference with a margin."""
    if source.style != target.style:
        return np.ones((SIDE, SIDE), dtype=np.bool_)
    if source.background != target.background:
        kept = _covered(set(source.things) & set(target.things), full=True)
        return _grown(~kept, BACKGROUND_REACH)
    return _grown(_covered(set(source.things) ^ set(target.things)), REACH)


def _covered(things: set[Thing], full: bool = False) -> Mask:
    covered = np.zeros((SIDE, SIDE), dtype=np.bool_)
    for thing in things:
        share = coverage(thing, SIDE)
        covered |= share >= 1 if full else share > 0
    return covered


def _grown(mask: Mask, reach: int) -> Mask:
    """Dilated by a square of 2·reach + 1, one axis after the other."""
    for axis in (0, 1):
        padding = [(0, 0), (0, 0)]
        padding[axis] = (reach, reach)
        padded = np.pad(mask, padding)
        windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, axis)
        mask = np.any(windows, axis=-1, keepdims=True)[..., 0]
    return mask


def _write_files(root: Path, cases: list[Edit]) -> None:
    mapping: dict[str, dict[str, Any]] = {}
    for case in cases:
        name = f"{FOLDERS[case.edit_type]}/{case.id}.png"
        for folder, scene in (("annotation_images", case.source), ("ground_truth", case.target)):
            path = root / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_png(render(scene, SIDE)))
        mapping[case.id] = _entry(case, name)
    text = json.dumps(mapping, sort_keys=True) + "\n"
    (root / "mapping_file.json").write_bytes(text.encode())


def _entry(case: Edit, name: str) -> dict[str, Any]:
    return {
        "image_path": name,
        "original_prompt": bracketed(case.source_prompt, case.target_prompt),
        "editing_prompt": bracketed(case.target_prompt, case.source_prompt),
        "editing_instruction": case.instruction,
        "editing_type_id": str(case.edit_type),
        "blended_word": " ".join(case.blend_words or ()),
        "mask": encode_rle(edit_mask(case.source, case.target)),
        "source_scene": case.source.to_json(),
        "target_scene": case.target.to_json(),
    }


def _publish(draft: Path, root: Path) -> None:
    try:
        draft.rename(root)
    except OSError as error:
        # Another process may have written the same benchmark meanwhile.
        if not (root / "mapping_file.json").exists():
            raise FileExistsError(f"{root} exists but is not a complete benchmark") from error


def _drawn(rng: Random, edit_type: int) -> _Change:
    while True:
        try:
            change = _CHANGES[edit_type](rng)
        except (_UnsuitableError, ValueError):  # ValueError: impossible scene
            continue
        if _plain_to_name(change.source) and _plain_to_name(change.target):
            return change


def _plain_to_name(scene: Scene) -> bool:
    """Whether shapes are unique, as instructions name things by their shape."""
    shapes = [thing.shape for thing in scene.things]
    return len(set(shapes)) == len(shapes)


def _other(rng: Random, values: tuple[str, ...], value: str) -> str:
    return rng.choice([v for v in values if v != value])


def _with_thing(scene: Scene, index: int, thing: Thing) -> Scene:
    things = list(scene.things)
    things[index] = thing
    return replace(scene, things=tuple(things))


def _picked(rng: Random) -> tuple[Scene, int, Thing]:
    scene = random_scene(rng)
    index = rng.randrange(len(scene.things))
    return scene, index, scene.things[index]


def _change_object(rng: Random) -> _Change:
    scene, index, thing = _picked(rng)
    shape = _other(rng, SHAPES, thing.shape)
    target = _with_thing(scene, index, replace(thing, shape=shape))
    words = f"turn the {thing.shape} into a {shape}"
    return _Change(scene, target, words, (thing.shape, shape))


def _add_object(rng: Random) -> _Change:
    two = random_scene(rng, things=2)
    index = rng.randrange(2)
    side = ("left", "right")[index]
    one = replace(two, things=(two.things[1 - index],))
    words = f"add {thing_phrase(two.things[index])} on the {side}"
    return _Change(one, two, words)


def _delete_object(rng: Random) -> _Change:
    added = _add_object(rng)
    (gone,) = set(added.target.things) - set(added.source.things)
    return _Change(added.target, added.source, f"remove the {gone.shape}")


def _attribute(rng: Random, name: str, values: tuple[str, ...], verb: str) -> _Change:
    """Change one attribute of one thing; `verb` is the instruction's template."""
    scene, index, thing = _picked(rng)
    old = getattr(thing, name)
    new = _other(rng, values, old)
    target = _with_thing(scene, index, replace(thing, **{name: new}))
    words = verb.format(shape=thing.shape, old=old, new=new)
    return _Change(scene, target, words, (thing.shape, thing.shape))


def _change_content(rng: Random) -> _Change:
    return _attribute(rng, "fill", FILLS, "make the {shape} {new}")


def _change_pose(rng: Random) -> _Change:
    change = _attribute(rng, "pose", POSES, "{new}")
    shape = change.blend_words[0] if change.blend_words else ""
    verb = "tilt the {}" if change.instruction == "tilted" else "set the {} upright"
    return replace(change, instruction=verb.format(shape))


def _change_color(rng: Random) -> _Change:
    return _attribute(rng, "color", COLORS, "change the color of the {shape} from {old} to {new}")


def _change_material(rng: Random) -> _Change:
    change = _attribute(rng, "material", MATERIALS, "make the {shape} {new}")
    if any(t.fill == "hollow" for t in set(change.source.things) - set(change.target.things)):
        raise _UnsuitableError
    return change


def _change_background(rng: Random) -> _Change:
    scene = random_scene(rng)
    background = _other(rng, BACKGROUNDS, scene.background)
    old, new = (_place_word(name) for name in (scene.background, background))
    words = f"change the background from {_place(scene.background)} to {_place(background)}"
    return _Change(scene, replace(scene, background=background), words, (old, new))


def _place_word(background: str) -> str:
    """The word that both phrasings of the place share."""
    first, second = (phrase.split() for phrase in PLACE_WORDS[background])
    return next(word for word in first if word in second and word == background)


def _place(background: str) -> str:
    return {"meadow": "a meadow", "beach": "a beach", "brick": "bricks"}.get(background, background)


def _change_style(rng: Random) -> _Change:
    scene = random_scene(rng)
    style = _other(rng, STYLES, scene.style)
    return _Change(scene, replace(scene, style=style), _STYLE_INSTRUCTIONS[style])


_STYLE_INSTRUCTIONS = {
    "photo": "make it look like an ordinary photo",
    "pastel": "turn the picture into a pastel drawing",
    "night": "make it a night picture",
    "sepia": "make it look like an old sepia photo",
}


def _change_at_random(rng: Random) -> _Change:
    return rng.choice(_MIXTURES)(rng)


def _change_size(rng: Random) -> _Change:
    scene, index, thing = _picked(rng)
    size = _other(rng, SIZES, thing.size)
    target = _with_thing(scene, index, replace(thing, size=size))
    return _Change(scene, target, f"make the {thing.shape} {size}", (thing.shape, thing.shape))


def _change_color_and_shape(rng: Random) -> _Change:
    scene, index, thing = _picked(rng)
    shape, color = _other(rng, SHAPES, thing.shape), _other(rng, COLORS, thing.color)
    target = _with_thing(scene, index, replace(thing, shape=shape, color=color))
    words = f"replace the {thing.shape} by a {color} {shape}"
    return _Change(scene, target, words, (thing.shape, shape))


def _change_color_and_background(rng: Random) -> _Change:
    change = _change_color(rng)
    background = _other(rng, BACKGROUNDS, change.source.background)
    words = f"{change.instruction} and the background to {_place(background)}"
    return replace(change, target=replace(change.target, background=background), instruction=words)


def _change_everything_of_one(rng: Random) -> _Change:
    """Replace a thing by an entirely different one."""
    scene, index, thing = _picked(rng)
    other = random_thing(rng, thing.x, thing.y)
    if other.shape == thing.shape or other.color == thing.color:
        raise _UnsuitableError
    words = f"put {thing_phrase(other)} in the place of the {thing.shape}"
    return _Change(scene, _with_thing(scene, index, other), words, (thing.shape, other.shape))


_MIXTURES: tuple[Callable[[Random], _Change], ...] = (
    _change_size,
    _change_color_and_shape,
    _change_color_and_background,
    _change_everything_of_one,
)
_CHANGES: tuple[Callable[[Random], _Change], ...] = (
    _change_at_random,
    _change_object,
    _add_object,
    _delete_object,
    _change_content,
    _change_pose,
    _change_color,
    _change_material,
    _change_background,
    _change_style,
)

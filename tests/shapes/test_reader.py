from __future__ import annotations

import io
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from PIL import Image

from zerocon.shapes.benchmark import edits
from zerocon.shapes.reader import attributes, edit_success, read
from zerocon.shapes.render import _background, _grid, _styled, _surface, coverage, render
from zerocon.shapes.scene import Scene, Thing, random_scene

CIRCLE = Thing("circle", "red", "plain", "big", "solid", "upright", 0.26, 0.5)
HOUSE = Thing("house", "blue", "striped", "small", "solid", "tilted", 0.74, 0.4)
BOTH = Scene((CIRCLE, HOUSE), "meadow", "photo", 0.3)


def spoiled(image: np.ndarray, seed: int) -> np.ndarray:
    """As a decoder might leave it: noisy, blurred in colour, blocky."""
    noise = np.random.default_rng(seed).normal(0, 8, image.shape)
    pixels = np.clip(image + noise, 0, 255).round().astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=60)
    return np.asarray(Image.open(file))


def exact(name: str, count: int, spoil: bool = False) -> float:
    right = 0
    for i in range(count):
        scene = random_scene(Random(f"{name} {i}"))
        image = render(scene)
        found = read(spoiled(image, i) if spoil else image)
        right += found.described() == scene.described()
    return right / count


def test_clean_pictures_are_read_exactly() -> None:
    assert exact("reader", 40) == 1


@pytest.mark.slow
def test_two_thousand_clean_pictures_are_read_exactly() -> None:
    assert exact("many", 2000) >= 0.999


def test_noisy_pictures_are_read_too() -> None:
    assert exact("noisy", 25, spoil=True) >= 0.95


@pytest.mark.slow
def test_many_noisy_pictures_are_read_too() -> None:
    assert exact("noisy", 500, spoil=True) >= 0.97


def repainted(scene: Scene, random: Random) -> np.ndarray:
    """Its picture, but with stripes and dots that begin anywhere."""
    x, y = _grid(64)
    picture = _styled(_background(scene.background, scene.layout, x, y, 64), scene.style)
    for thing in scene.things:
        alpha = coverage(thing)[..., None]
        at = replace(
            thing, x=thing.x + random.uniform(0, 0.11), y=thing.y + random.uniform(0, 0.11)
        )
        picture = picture * (1 - alpha) + _styled(_surface(at, x, y, 64), scene.style) * alpha
    return picture.round().astype(np.uint8)


@pytest.mark.slow
def test_stripes_and_dots_may_begin_anywhere() -> None:
    scenes = [random_scene(Random(f"anywhere {i}")) for i in range(60)]
    textured = [s for s in scenes if any(t.material != "plain" for t in s.things)]
    found = [read(repainted(s, Random(i))) for i, s in enumerate(textured)]
    right = [f.described() == s.described() for f, s in zip(found, textured, strict=True)]
    assert len(right) > 25
    assert np.mean(right) >= 0.95


def test_a_thing_with_ragged_edges_is_one_thing() -> None:
    scene = Scene((replace(CIRCLE, x=0.5),), "white", "photo", 0.5)
    blots = [replace(CIRCLE, x=0.5 + dx, y=0.5 + dy, size="small") for dx, dy in OFF_CENTRE]
    picture = np.minimum(render(scene), np.minimum.reduce([render(alone(b)) for b in blots]))
    assert [t.color for t in read(picture).things] == ["red"]


OFF_CENTRE = ((0.13, 0.03), (-0.12, 0.05))


def alone(thing: Thing) -> Scene:
    return Scene((thing,), "white", "photo", 0.5)


def test_places_and_layout_are_found_to_a_part_of_a_pixel() -> None:
    found = read(render(BOTH))
    assert abs(found.layout - BOTH.layout) < 0.02
    for thing, there in zip(found.things, BOTH.things, strict=True):
        assert abs(thing.x - there.x) < 0.3 / 64
        assert abs(thing.y - there.y) < 0.3 / 64


def check_edits(size: int, splits: tuple[str, ...], every: int) -> None:
    for e in [e for split in splits for e in edits(size, split)][::every]:
        assert edit_success(render(e.target), e.source, e.target), e.id
        assert not edit_success(render(e.source), e.source, e.target), e.id


def test_the_right_answer_is_a_success_and_the_source_is_not() -> None:
    check_edits(20, ("test",), 1)


@pytest.mark.slow
def test_it_is_so_for_every_edit_of_both_splits() -> None:
    check_edits(100, ("test", "validation"), 1)


def test_only_the_requested_change_is_checked() -> None:
    target = replace(BOTH, things=(replace(CIRCLE, color="green"), HOUSE))
    besides = replace(target, things=(target.things[0], replace(HOUSE, shape="cross")))
    assert edit_success(render(replace(besides, background="white")), BOTH, target)


def test_an_edit_in_the_wrong_place_fails() -> None:
    wrong = replace(BOTH, things=(CIRCLE, replace(HOUSE, color="green")))
    target = replace(BOTH, things=(replace(CIRCLE, color="green"), HOUSE))
    assert not edit_success(render(wrong), BOTH, target)
    one = replace(BOTH, things=(CIRCLE,))
    moved = replace(BOTH, things=(replace(CIRCLE, color="green", x=0.7),))
    assert not edit_success(render(moved), one, replace(one, things=target.things[:1]))


def test_adding_needs_both_and_deleting_needs_the_other() -> None:
    one, other = (replace(BOTH, things=(t,)) for t in BOTH.things)
    assert edit_success(render(BOTH), one, BOTH)
    assert not edit_success(render(other), one, BOTH)
    other_color = replace(BOTH, things=(CIRCLE, replace(HOUSE, color="red")))
    assert not edit_success(render(other_color), one, BOTH)
    assert edit_success(render(one), BOTH, one)
    assert not edit_success(render(other), BOTH, one)


def test_attributes_are_compared_left_to_right() -> None:
    right = attributes(BOTH, BOTH)
    assert set(right) == {
        "count", "background", "style", "shape", "color", "material", "size", "fill", "pose",
    }  # fmt: skip
    assert all(right.values())
    swapped = attributes(replace(BOTH, things=(HOUSE, CIRCLE)), BOTH)
    assert {k for k, v in swapped.items() if v} == {"count", "background", "style", "fill"}
    fewer = attributes(replace(BOTH, things=(CIRCLE,)), BOTH)
    assert {k for k, v in fewer.items() if v} == {"background", "style"}


def test_an_empty_or_senseless_picture_gives_some_scene() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    for image in (np.zeros((64, 64, 3), np.uint8), noise):
        assert len(read(image).things) >= 1


def test_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected uint8 \[64, 64, 3\]"):
        read(np.zeros((32, 32, 3), np.uint8))

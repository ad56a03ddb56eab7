"""Read a scene from its picture by analysis by synthesis: find the scene that renders closest.

No network is involved. First the background and the style are fitted, with things as outliers;
then one thing at a time, over all looks and places at once (correlations by FFT); then each
attribute and position in turn while the error falls. If the renderer can't explain the picture,
it is searched again with free positions of dots and stripes, as in generated pictures.
"""

from __future__ import annotations

import functools
import heapq
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zerocon.shapes.render import (
    COLOR_RGB,
    DOT_SPACING,
    STRIPE,
    _background,
    _grid,
    _inside,
    _surface,
    thing_distance,
)
from zerocon.shapes.scene import (
    BACKGROUNDS,
    COLORS,
    FILLS,
    MATERIALS,
    POSES,
    RADIUS,
    SHAPES,
    SIZES,
    STYLES,
    THING_ATTRIBUTES,
    Scene,
    Thing,
)

Array = NDArray[np.float32]
Spectra = NDArray[np.complex64]
Place = tuple[float, float]
Look = tuple[str, str, str, str, str]  # shape, pose, fill, material, size

SIDE = 64
PIXEL = 1 / SIDE
LAYOUTS = tuple((i + 0.5) / 26 for i in range(26))  # about one pixel apart
OUTLIER = 3 * 35.0**2  # largest error of a pixel while only the background is fitted
FEW = 8  # up to this many outliers are noise, not a thing
NEARLY = 1.3  # backgrounds with an error up to this factor of the best are also tried
THING_COST = 20_000.0  # reduction of the squared error that an additional thing needs
EXPLAINED = 0.1  # … and as a share of its reduction in a perfect picture
PART = 0.35  # a thing next to another with less than this share is part of the other
NEIGHBOURS = 0.44  # minimum distance between two things in the world
APART = 0.28  # minimum distance between two things in the search
LOW, HIGH = 14, 50  # range of a thing's centre, in pixels
SAME_PLACE = 0.12  # how far an edited thing may move
CANDIDATES = 4
LIKELY = 12  # number of outlines whose position is optimised


@dataclass(frozen=True)
class _Style:
    """A style is an affine map of colours."""

    matrix: Array  # [3, 3], applied to columns
    offset: Array  # [3]

    def __call__(self, colors: NDArray[np.floating]) -> Array:
        return colors.astype(np.float32) @ self.matrix.T + self.offset


def read(image: NDArray[np.uint8], hints: Sequence[Scene] = ()) -> Scene:
    """The scene that fits `image` best, uint8 [64, 64, 3]. Hints are additional guesses."""
    pixels = _checked(image)
    fits = [_improved(pixels, hint) for hint in hints]
    # Searching the whole picture is slow; a hint that explains everything avoids it.
    if not fits or _unexplained(pixels, _best(fits)) > FEW:
        fits += [_improved(pixels, _guess(pixels, *b)) for b in _backgrounds(pixels)]
    best = _best(fits)
    if _unexplained(pixels, best) > FEW:
        best = _repainted(pixels, best)
    return _tidy(best)


def edit_success(image: NDArray[np.uint8], source: Scene, target: Scene) -> bool:
    """Whether the picture has the target's differences from the source, at about the right place.

    What should stay is not checked; other metrics measure preservation.
    """
    found = read(image, (source, target))
    for name in ("background", "style"):
        wanted = getattr(target, name)
        if wanted != getattr(source, name) and getattr(found, name) != wanted:
            return False
    if source.things == target.things:
        return True
    if len(found.things) != len(target.things):
        return False
    return _things_changed(found, source, target)


def attributes(found: Scene, wanted: Scene) -> dict[str, bool]:
    """Which attributes of a picture's scene are those of its caption."""
    checks = {name: getattr(found, name) == getattr(wanted, name) for name in _SCENE_NAMES}
    same = len(found.things) == len(wanted.things)
    pairs = list(zip(found.things, wanted.things, strict=False))
    for name in THING_ATTRIBUTES:
        checks[name] = same and all(getattr(f, name) == getattr(w, name) for f, w in pairs)
    return {"count": same, **checks}


_SCENE_NAMES = ("background", "style")


def _things_changed(found: Scene, source: Scene, target: Scene) -> bool:
    """Compare things left to right; only the requested differences count."""
    if len(source.things) < len(target.things):
        old = {_place(t) for t in source.things}
        news = zip(found.things, target.things, strict=True)
        return all(_looks(f) == _looks(t) for f, t in news if _place(t) not in old)
    if len(source.things) > len(target.things):
        pairs = zip(found.things, target.things, strict=True)
        return all(_near(f, t) for f, t in pairs)
    triples = zip(found.things, source.things, target.things, strict=True)
    return all(s == t or (_near(f, t) and _got(f, s, t)) for f, s, t in triples)


def _got(found: Thing, source: Thing, target: Thing) -> bool:
    changed = [n for n in THING_ATTRIBUTES if getattr(source, n) != getattr(target, n)]
    return all(getattr(found, n) == getattr(target, n) for n in changed)


def _looks(thing: Thing) -> tuple[str, ...]:
    return tuple(getattr(thing, name) for name in THING_ATTRIBUTES)


def _place(thing: Thing) -> Place:
    return thing.x, thing.y


def _near(a: Thing, b: Thing) -> bool:
    return _distance2(a, b) <= SAME_PLACE**2


def _distance2(a: Thing, b: Thing) -> float:
    return (a.x - b.x) ** 2 + (a.y - b.y) ** 2


def _checked(image: NDArray[np.uint8]) -> Array:
    if image.shape != (SIDE, SIDE, 3) or image.dtype != np.uint8:
        raise ValueError(f"expected uint8 [64, 64, 3], got {image.dtype} {image.shape}")
    return image.astype(np.float32)


def _tidy(scene: Scene) -> Scene:
    things = sorted(scene.things, key=lambda t: t.x)
    placed = tuple(replace(t, x=round(t.x, 4), y=round(t.y, 4)) for t in things)
    return replace(scene, things=placed, layout=round(scene.layout, 4))


# Backgrounds and styles, with things as outliers.


@functools.cache
def _styles() -> dict[str, _Style]:
    eye = np.eye(3)
    sepia = 0.4 * eye + np.outer((0.62, 0.5, 0.34), (0.3, 0.59, 0.11))
    night = np.diag((0.5, 0.55, 0.75))
    matrices = {"photo": eye, "pastel": 0.6 * eye, "night": night, "sepia": sepia}
    offsets = {"pastel": 102.0}
    return {
        name: _Style(matrices[name].astype(np.float32), np.full(3, offsets.get(name, 0), "f4"))
        for name in STYLES
    }


@functools.lru_cache(256)  # reading a picture needs the same few many times
def _backdrop(background: str, style: str, layout: float) -> Array:
    return _fixed(_styles()[style](_background(background, layout, *_ticks(), SIDE)))


def _fixed(array: Array) -> Array:
    """Make a shared array read-only."""
    array.setflags(write=False)
    return array


@functools.cache
def _ticks() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return _grid(SIDE)


@functools.cache
def _backdrops() -> tuple[list[tuple[str, str, float]], Array]:
    """All backgrounds in all styles and layouts, at every second pixel: [backdrop, pixel]."""
    names: list[tuple[str, str, float]] = []
    for background, style in itertools.product(BACKGROUNDS, STYLES):
        layouts = (0.5,) if background in ("gray", "white", "black") else LAYOUTS
        names += [(background, style, layout) for layout in layouts]
    return names, np.stack([_backdrop(*name)[::2, 1::2] for name in names])


def _backgrounds(pixels: Array) -> list[tuple[str, str, float]]:
    """The best (background, style, layout), and the second best if it is nearly as good."""
    names, bank = _backdrops()
    errors = np.minimum(((bank - pixels[::2, 1::2]) ** 2).sum(-1), OUTLIER).sum((1, 2))
    best: dict[tuple[str, str], tuple[float, float]] = {}
    for (background, style, layout), error in zip(names, errors.tolist(), strict=True):
        key = background, style
        best[key] = min(best.get(key, (np.inf, 0.0)), (error, layout))
    ranked = sorted(best.items(), key=lambda item: item[1][0])[:2]
    limit = NEARLY * ranked[0][1][0] + 1
    return [
        (*key, _layout(pixels, *key, layout)) for key, (error, layout) in ranked if error <= limit
    ]


def _layout(pixels: Array, background: str, style: str, layout: float) -> float:
    """Fit the layout to a fraction of a pixel, with things as outliers."""
    if background in ("gray", "white", "black"):
        return layout

    def error(value: float) -> float:
        away = ((_backdrop(background, style, value) - pixels) ** 2).sum(-1)
        return float(np.minimum(away, OUTLIER).sum())

    return _minimum(error, layout, (0.02, 0.01, 0.005))


def _minimum(error: Callable[[float], float], value: float, steps: Sequence[float]) -> float:
    least = error(value)
    for step in steps:
        for sign in (-step, step):
            while 0 <= value + sign <= 1 and (now := error(value + sign)) < least:
                value, least = value + sign, now
    return value


# Search for one thing: its place and look.


@dataclass(frozen=True)
class _Patch:
    """A rendered thing: coverage and unstyled colours in a window of the picture."""

    window: tuple[slice, slice]
    alpha: Array  # [height, width, 1]
    colors: Array  # [height, width, 3]

    def over(self, base: Array, style: _Style) -> Array:
        below = base[self.window]
        return np.asarray(below + (style(self.colors) - below) * self.alpha, dtype=np.float32)


@functools.lru_cache(1024)
def _patch(thing: Thing, origin: Place | None = None) -> _Patch:
    """`origin` is where stripes or dots begin; default: the thing's centre."""
    radius = RADIUS[thing.size]
    reach = int(1.2 * radius * SIDE) + 2
    column, row = int(thing.x * SIDE), int(thing.y * SIDE)
    window = tuple(slice(max(c - reach, 0), min(c + reach + 1, SIDE)) for c in (row, column))
    x, y = (ticks[window] for ticks in _ticks())
    distance = thing_distance(thing, (x - thing.x) / radius, (y - thing.y) / radius) * radius
    alpha = _inside(distance, SIDE)[..., None].astype(np.float32)
    if thing.material == "plain":
        colors = np.broadcast_to(np.array(COLOR_RGB[thing.color], np.float32), (*x.shape, 3))
    else:
        at = replace(thing, x=origin[0], y=origin[1]) if origin else thing
        colors = _surface(at, x, y, SIDE).astype(np.float32)
    return _Patch((window[0], window[1]), _fixed(alpha), _fixed(colors))


def _change_in_error(
    pixels: Array, base: Array, thing: Thing, style: _Style, origin: Place | None = None
) -> float:
    """The change of the squared error if the thing is drawn on `base`; negative is better."""
    patch = _patch(thing, origin)
    wanted = pixels[patch.window]
    with_it = wanted - patch.over(base, style)
    without = wanted - base[patch.window]
    return float(np.vdot(with_it, with_it) - np.vdot(without, without))


@dataclass(frozen=True)
class _Templates:
    """All looks, centred on pixel (0, 0), as spectra [look, SIDE, SIDE // 2 + 1].

    `shade` is the brightness of the thing's colour at each pixel, 1 if plain.
    """

    looks: list[Look]
    alpha: Spectra
    alpha_shade: Spectra
    alpha2: Spectra
    alpha2_shade: Spectra
    energy: Array  # [look], Σ alpha² shade²


@functools.cache
def _templates() -> _Templates:
    looks = list(_all_looks())
    drawn = [_alpha_and_shade(look) for look in looks]
    alpha = np.stack([a for a, _ in drawn])
    shade = np.stack([s for _, s in drawn])
    parts = (alpha, alpha * shade, alpha**2, alpha**2 * shade)
    a, a_shade, a2, a2_shade = (_spectrum(part).conj() for part in parts)
    return _Templates(looks, a, a_shade, a2, a2_shade, (parts[1] ** 2).sum((1, 2)))


def _all_looks() -> Iterator[Look]:
    for shape, pose, (fill, material), size in itertools.product(SHAPES, POSES, _FACES, SIZES):
        if shape != "circle" or pose == "upright":
            yield shape, pose, fill, material, size


_FACES = tuple((f, m) for f in FILLS for m in MATERIALS if f == "solid" or m == "plain")


def _alpha_and_shade(look: Look) -> tuple[Array, Array]:
    center = (SIDE // 2 + 0.5) * PIXEL
    patch = _patch(_thing(look, "red", center, center))
    alpha, shade = np.zeros((SIDE, SIDE), np.float32), np.zeros((SIDE, SIDE), np.float32)
    alpha[patch.window] = patch.alpha[..., 0]
    shade[patch.window] = patch.colors[..., 0] / COLOR_RGB["red"][0]
    back = (-(SIDE // 2), -(SIDE // 2))
    return np.roll(alpha, back, (0, 1)), np.roll(shade, back, (0, 1))


def _thing(look: Look, color: str, x: float, y: float) -> Thing:
    shape, pose, fill, material, size = look
    return Thing(shape, color, material, size, fill, pose, x, y)


def _search(pixels: Array, base: Array, style: _Style, taken: Sequence[Thing]) -> list[Thing]:
    """The best few things to draw on `base`, to the pixel.

    With R = pixels - base, a thing of coverage a and colours u·m + b (m its shade, b the
    style's offset) changes the squared error by Σ a²|um + b - base|² - 2 Σ a R·(um + b - base):
    correlations of a, am, a², a²m with pictures, for all places at once.
    """
    t = _templates()
    residual, rest = pixels - base, style.offset - base
    alone = 2 * t.alpha * -_spectrum((residual * rest).sum(-1))
    alone += t.alpha2 * _spectrum((rest * rest).sum(-1))
    pairs = [(_spectrum(rest[..., c]), _spectrum(residual[..., c])) for c in range(3)]
    by_color = np.stack(
        [2 * (t.alpha2_shade * below - t.alpha_shade * left) for below, left in pairs], axis=1
    )  # [look, rgb, SIDE, SIDE // 2 + 1]
    colors = np.array([COLOR_RGB[c] for c in COLORS], np.float32) @ style.matrix.T
    change = np.einsum("kc,lcp->lkp", colors, _inner(by_color), optimize=True)
    change += _inner(alone)[:, None]
    change += ((colors**2).sum(1) * t.energy[:, None])[..., None]
    change[..., _blocked(taken)] = np.inf
    return _best_things(change)


def _spectrum(picture: Array) -> Spectra:
    return np.fft.rfft2(picture).astype(np.complex64)


def _inner(spectra: NDArray[np.complexfloating[Any, Any]]) -> Array:
    """The correlations at possible centres: […, place]."""
    full = np.fft.irfft2(spectra, s=(SIDE, SIDE)).astype(np.float32)
    inner = full[..., LOW:HIGH, LOW:HIGH]
    return inner.reshape(*inner.shape[:-2], -1)


def _places() -> tuple[Array, Array]:
    """x and y of `_inner`'s places."""
    x, y = (ticks[LOW:HIGH, LOW:HIGH].astype(np.float32).ravel() for ticks in _ticks())
    return x, y


def _blocked(taken: Sequence[Thing]) -> NDArray[np.bool_]:
    x, y = _places()
    blocked = np.zeros(x.shape, dtype=np.bool_)
    for thing in taken:
        blocked |= (x - thing.x) ** 2 + (y - thing.y) ** 2 < APART**2
    return blocked


def _best_things(change: Array) -> list[Thing]:
    """`change` is [look, color, place]; one thing per look and colour."""
    x, y = _places()
    places = change.argmin(-1)
    least = np.take_along_axis(change, places[..., None], -1)[..., 0]
    best = np.argsort(least, axis=None)[:CANDIDATES].tolist()
    looks = _templates().looks
    things: list[Thing] = []
    for look, color in (divmod(index, len(COLORS)) for index in best):
        place = places[look, color]
        things.append(_thing(looks[look], COLORS[color], float(x[place]), float(y[place])))
    return things


# From a guess to the nearest local minimum.


def _guess(pixels: Array, background: str, style_name: str, layout: float) -> Scene:
    """Add things greedily, each with the largest reduction of the error."""
    style = _styles()[style_name]
    base = _backdrop(background, style_name, layout)
    things: list[Thing] = []
    for _ in range(2):
        found = [_placed(pixels, base, t, style) for t in _search(pixels, base, style, things)]
        change, thing = min(found, key=lambda item: item[0])
        if things and not _is_there(base, thing, style, change):
            break
        things.append(thing)
        base = _drawn(base, thing, style)
    return Scene(tuple(things), background, style_name, layout)


def _is_there(
    base: Array, thing: Thing, style: _Style, change: float, share: float = EXPLAINED
) -> bool:
    patch = _patch(thing)
    drawn = patch.over(base, style) - base[patch.window]
    return -change > max(THING_COST, share * float(np.vdot(drawn, drawn)))


def _drawn(base: Array, thing: Thing, style: _Style, origin: Place | None = None) -> Array:
    patch = _patch(thing, origin)
    result = base.copy()
    result[patch.window] = patch.over(base, style)
    return result


def _placed(
    pixels: Array,
    base: Array,
    thing: Thing,
    style: _Style,
    steps: Sequence[float] = (0.5, 0.25),
    origin: Place | None = None,
) -> tuple[float, Thing]:
    """Move the thing to where it fits best: (change in error, thing)."""
    least = _change_in_error(pixels, base, thing, style, origin)
    for step in steps:
        moved = True
        while moved:
            moved = False
            for dx, dy in ((step, 0), (-step, 0), (0, step), (0, -step)):
                other = replace(thing, x=_kept(thing.x + dx * PIXEL), y=_kept(thing.y + dy * PIXEL))
                change = _change_in_error(pixels, base, other, style, origin)
                if change < least:
                    least, thing, moved = change, other, True
    return least, thing


def _kept(position: float) -> float:
    return min(max(position, 0.1), 0.9)


def _improved(pixels: Array, scene: Scene, rounds: int = 4) -> tuple[float, Scene]:
    """Improve each attribute and position in turn until the error stays: (error, scene)."""
    error = np.inf
    for _ in range(rounds):
        before = scene
        scene = _with_better_backdrop(pixels, scene)
        for index in range(len(scene.things)):
            scene = _with_better_thing(pixels, scene, index)
        error = _error(pixels, scene)
        if scene.described() == before.described():
            break
    return error, scene


def _best(fits: Sequence[tuple[float, Scene]]) -> Scene:
    return min(fits, key=lambda fit: fit[0])[1]


def _unexplained(pixels: Array, scene: Scene) -> int:
    """Number of pixels that differ much from the scene's picture."""
    away = ((pixels - _picture(scene)) ** 2).sum(-1)
    return int((away > OUTLIER).sum())


def _error(pixels: Array, scene: Scene) -> float:
    away = pixels - _picture(scene)
    return float(np.vdot(away, away)) + THING_COST * len(scene.things)


def _picture(scene: Scene, leave_out: int | None = None) -> Array:
    style = _styles()[scene.style]
    picture = _backdrop(scene.background, scene.style, scene.layout)
    for index, thing in enumerate(scene.things):
        if index != leave_out:
            picture = _drawn(picture, thing, style)
    return picture


def _with_better_backdrop(pixels: Array, scene: Scene) -> Scene:
    pairs = itertools.product(BACKGROUNDS, STYLES)
    others = (replace(scene, background=b, style=s) for b, s in pairs)
    best = min((scene, *others), key=lambda s: _error(pixels, s))
    if best.background in ("gray", "white", "black"):
        return best

    def error(layout: float) -> float:
        return _error(pixels, replace(best, layout=layout))

    return replace(best, layout=_minimum(error, best.layout, (0.02, 0.005)))


def _with_better_thing(pixels: Array, scene: Scene, index: int) -> Scene:
    style, base = _styles()[scene.style], _picture(scene, leave_out=index)
    least, thing = _placed(pixels, base, scene.things[index], style)
    for _ in range(4):
        before = thing
        for other in _variants(thing):
            change = _change_in_error(pixels, base, other, style)
            if change < least:
                least, thing = change, other
        if thing == before:
            break
        least, thing = _placed(pixels, base, thing, style)
    things = list(scene.things)
    things[index] = thing
    return replace(scene, things=tuple(things))


def _variants(thing: Thing) -> Iterator[Thing]:
    """The thing with one attribute changed, and attributes that depend on it."""
    look = (thing.shape, thing.pose, thing.fill, thing.material, thing.size)
    for other in _templates().looks:
        same = (other[:2] == look[:2], other[2:4] == look[2:4], other[4] == look[4])
        if sum(same) == 2:
            yield _thing(other, thing.color, thing.x, thing.y)
    for color in COLORS:
        yield replace(thing, color=color)


# Generated things, whose dots and stripes may lie elsewhere than the renderer's.


@dataclass(frozen=True)
class _Painted:
    thing: Thing
    origin: Place  # of its stripes or dots, independent of its outline

    def on(self, base: Array, style: _Style) -> Array:
        return _drawn(base, self.thing, style, self.origin)


def _repainted(pixels: Array, scene: Scene) -> Scene:
    """Choose each thing's look again; merge two things that are one badly drawn thing."""
    style = _styles()[scene.style]
    base = _backdrop(scene.background, scene.style, scene.layout)
    things = _all_repainted(pixels, base, [_Painted(t, _place(t)) for t in scene.things], style)
    if len(things) == 2 and _distance2(things[0].thing, things[1].thing) < NEIGHBOURS**2:
        for one, other in (things, things[::-1]):
            (alone,) = _all_repainted(pixels, base, [one], style)
            with_it = alone.on(base, style)
            change = _change_in_error(pixels, with_it, other.thing, style, other.origin)
            if not _is_there(with_it, other.thing, style, change, PART):
                things = [alone]
                break
    return replace(scene, things=tuple(painted.thing for painted in things))


def _all_repainted(
    pixels: Array, base: Array, things: Sequence[_Painted], style: _Style
) -> list[_Painted]:
    done = list(things)
    for index in range(len(done)):
        below = base
        for other in done[:index] + done[index + 1 :]:
            below = other.on(below, style)
        done[index] = _best_painted(pixels, below, done[index], style)
    return done


def _best_painted(pixels: Array, base: Array, painted: _Painted, style: _Style) -> _Painted:
    """Fit surface and outline alternately."""

    def error(other: _Painted) -> float:
        return _change_in_error(pixels, base, other.thing, style, other.origin)

    def moved(other: _Painted) -> _Painted:
        _, thing = _placed(pixels, base, other.thing, style, (2.0, 0.5), other.origin)
        return replace(other, thing=thing)

    for _ in range(3):
        before = painted
        painted = min((painted, *_surfaces(painted.thing)), key=error)
        likely = heapq.nsmallest(LIKELY, _outlines(painted), key=error)
        painted = min((painted, *map(moved, likely)), key=error)
        if painted == before:
            break
    return painted


def _surfaces(thing: Thing) -> Iterator[_Painted]:
    materials = MATERIALS if thing.fill == "solid" else ("plain",)
    for color, material in itertools.product(COLORS, materials):
        other = replace(thing, color=color, material=material)
        for right, down in _SHIFTS[material]:
            yield _Painted(other, (thing.x + right, thing.y + down))


def _outlines(painted: _Painted) -> Iterator[_Painted]:
    thing = painted.thing
    for look in _templates().looks:
        if look[2] == "hollow" or look[3] == thing.material:
            yield _Painted(_thing(look, thing.color, thing.x, thing.y), painted.origin)


_QUARTERS = (0.0, 0.25, 0.5, 0.75)
_SHIFTS: dict[str, tuple[Place, ...]] = {
    "plain": ((0.0, 0.0),),
    "striped": tuple((q * STRIPE, 0.0) for q in _QUARTERS),
    "dotted": tuple((q * DOT_SPACING, r * DOT_SPACING) for q in _QUARTERS for r in _QUARTERS),
}

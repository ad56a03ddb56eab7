"""Render a scene, with the same bytes on every machine.

Only operations that IEEE 754 rounds exactly are used (+, -, *, /, sqrt, min, max, floor); sines
and cosines are literals, because `np.sin` differs between processors.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zerocon.shapes.scene import RADIUS, Scene, Thing

Array = NDArray[np.float64]
Image = NDArray[np.uint8]

COLOR_RGB = {
    "red": (215, 35, 35),
    "orange": (245, 130, 20),
    "yellow": (245, 220, 40),
    "green": (25, 130, 45),
    "cyan": (40, 210, 215),
    "blue": (35, 60, 215),
    "purple": (125, 35, 165),
    "pink": (250, 130, 190),
}
GRAY, WHITE, BLACK = (165, 165, 165), (240, 240, 240), (25, 25, 25)
SKY, GRASS = (165, 210, 245), (125, 180, 85)
SEA, SAND = (70, 140, 185), (225, 200, 150)
BRICK, MORTAR = (165, 95, 75), (210, 195, 180)

COS_TILT, SIN_TILT = 0.8090169943749475, 0.5877852522924731  # 36 degrees
HALF_SQRT3 = 0.8660254037844386
HALF_SQRT2 = 0.7071067811865476
WALL = 0.26  # thickness of a hollow thing's outline, in radii
STRIPE = 0.11  # period of the stripes, in picture sides
DOT_SPACING, DOT_RADIUS = 0.11, 0.034
DARK = 0.3  # brightness of stripes and dots relative to the thing's colour


def render(scene: Scene, size: int = 64) -> Image:
    """The picture, [size, size, 3]."""
    x, y = _grid(size)
    picture = _background(scene.background, scene.layout, x, y, size)
    for thing in scene.things:
        alpha = coverage(thing, size)[..., None]
        picture = picture * (1 - alpha) + _surface(thing, x, y, size) * alpha
    return np.floor(_styled(picture, scene.style) + 0.5).astype(np.uint8)


def coverage(thing: Thing, size: int = 64) -> Array:
    """The share of each pixel that the thing covers, [size, size]."""
    x, y = _grid(size)
    radius = RADIUS[thing.size]
    distance = thing_distance(thing, (x - thing.x) / radius, (y - thing.y) / radius)
    return _inside(distance * radius, size)


def thing_distance(thing: Thing, u: Array, v: Array) -> Array:
    """Signed distance to the thing's edge in radii, negative inside; `v` points down."""
    if thing.pose == "tilted":
        u, v = COS_TILT * u + SIN_TILT * v, COS_TILT * v - SIN_TILT * u
    distance = _shape_distance(thing.shape, u, v)
    if thing.fill == "hollow":
        distance = np.maximum(distance, -(distance + WALL))
    return distance


def _shape_distance(shape: str, u: Array, v: Array) -> Array:
    au = np.abs(u)
    if shape == "circle":
        return np.sqrt(u * u + v * v) - 0.92
    if shape == "square":
        return np.maximum(au, np.abs(v)) - 0.8
    if shape == "triangle":
        return np.maximum(HALF_SQRT3 * au - 0.5 * v - 0.55, v - 0.6)
    if shape == "cross":
        av = np.abs(v)
        return np.minimum(np.maximum(au - 0.4, av - 0.95), np.maximum(au - 0.95, av - 0.4))
    if shape == "heart":
        diamond = HALF_SQRT2 * (au + np.abs(v - 0.1)) - 0.6
        lobe_u, lobe_v = au - 0.424, v + 0.324
        lobe = np.sqrt(lobe_u * lobe_u + lobe_v * lobe_v) - 0.6
        return np.minimum(diamond, lobe)
    # A house: walls and a wider roof.
    walls = np.maximum(np.maximum(au - 0.58, v - 0.85), -0.05 - v)
    roof = np.maximum(HALF_SQRT2 * (au - v) - 0.68, v - 0.02)
    return np.minimum(walls, roof)


def _surface(thing: Thing, x: Array, y: Array, size: int) -> Array:
    color = np.array(COLOR_RGB[thing.color], dtype=np.float64)
    if thing.material == "plain":
        return np.broadcast_to(color, (size, size, 3))
    if thing.material == "striped":
        across = (x - thing.x) / STRIPE
        away = np.abs(across - np.floor(across) - 0.5) - 0.25
        dark = _inside(away * STRIPE, size)
    else:
        du = (x - thing.x) / DOT_SPACING
        dv = (y - thing.y) / DOT_SPACING
        du, dv = du - np.floor(du + 0.5), dv - np.floor(dv + 0.5)
        dark = _inside(np.sqrt(du * du + dv * dv) * DOT_SPACING - DOT_RADIUS, size)
    return color * (1 - (1 - DARK) * dark[..., None])


def _background(name: str, layout: float, x: Array, y: Array, size: int) -> Array:
    plain = {"gray": GRAY, "white": WHITE, "black": BLACK}
    if name in plain:
        return np.broadcast_to(np.array(plain[name], dtype=np.float64), (size, size, 3))
    if name == "brick":
        return _bricks(layout, x, y, size)
    top, bottom = (SKY, GRASS) if name == "meadow" else (SEA, SAND)
    horizon = 0.3 + 0.4 * layout
    return _mix(top, bottom, _inside(horizon - y, size))


def _bricks(layout: float, x: Array, y: Array, size: int) -> Array:
    row = y / 0.2 + layout
    course = np.floor(row)
    along = x / 0.4 + 0.5 * (course - 2 * np.floor(course / 2)) + layout
    edge_v = (0.5 - np.abs(row - course - 0.5)) * 0.2
    edge_u = (0.5 - np.abs(along - np.floor(along) - 0.5)) * 0.4
    return _mix(BRICK, MORTAR, _inside(np.minimum(edge_u, edge_v) - 0.018, size))


def _styled(picture: Array, style: str) -> Array:
    if style == "pastel":
        return picture * 0.6 + 102.0
    if style == "night":
        return picture * np.array((0.5, 0.55, 0.75))
    if style == "sepia":
        gray = (picture[..., :1] * 0.3 + picture[..., 1:2] * 0.59) + picture[..., 2:] * 0.11
        return picture * 0.4 + gray * np.array((0.62, 0.5, 0.34))
    return picture


def _mix(first: tuple[int, int, int], second: tuple[int, int, int], share: Array) -> Array:
    a, b = np.array(first, dtype=np.float64), np.array(second, dtype=np.float64)
    return a + (b - a) * share[..., None]


def _inside(distance: Array, size: int) -> Array:
    """Antialiased indicator of `distance < 0`: a ramp one pixel wide."""
    return np.minimum(np.maximum(0.5 - distance * size, 0.0), 1.0)


def _grid(size: int) -> tuple[Array, Array]:
    ticks = (np.arange(size, dtype=np.float64) + 0.5) / size
    y, x = np.meshgrid(ticks, ticks, indexing="ij")
    return x, y

"""What all plots share: styles of curves, labels that do not overlap, and files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Box = tuple[float, float, float, float]  # left, bottom, right, top, in points

# Okabe and Ito's colour-blind safe colours, with different markers in addition.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", "*", ">", "h", "p")
LINES = ("-", "--", ":")
# Reproducible bytes; text stays text.
SVG: dict[Any, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "zerocon", "text.parse_math": False,
}  # fmt: skip
BOTH = (".png", ".svg")
DPI = 150

_NEAR = 7.0  # points between a point and its label
_RINGS = (1.0, 1.8, 3.0, 4.5, 6.5, 9.0, 12.0)  # distances of a label, in multiples of that
_DIRECTIONS = [(1, 1), (1, -1), (-1, 1), (-1, -1), (1, 0), (-1, 0), (0, 1), (0, -1)]
_LEADER = 14.0  # points from which a line leads from the label to its point


@dataclass(frozen=True)
class Style:
    color: str
    marker: str
    line: str
    filled: bool


def style(position: int) -> Style:
    """A curve's style. The first 84 curves have different ones; the first 12 different markers."""
    turn = position // len(COLORS)
    return Style(
        COLORS[position % len(COLORS)],
        MARKERS[position % len(MARKERS)],
        LINES[turn % len(LINES)],
        turn % 2 == 0,
    )


def plain_axes(figure: Figure) -> Axes:
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def save(figure: Figure, path: Path) -> list[Path]:
    """Write the plot. A PNG gets an SVG beside it, and an SVG a PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    others = [path.with_suffix(end) for end in BOTH] if path.suffix in BOTH else []
    files = [path, *(other for other in others if other != path)]
    for file in files:
        with rc_context(SVG):
            if file.suffix == ".svg":
                file.write_bytes(svg(figure))
            else:
                figure.savefig(file, dpi=DPI)
    return files


def svg(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    with rc_context(SVG):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


@dataclass(frozen=True)
class Label:
    """A text at a point of the axes, in the data's units."""

    text: str
    x: float
    y: float
    color: str = "#000000"


def place_labels(axes: Axes, labels: Sequence[Label], lines: Sequence[Floats] = ()) -> list[Box]:
    """Write labels beside their points, away from each other, from points and from lines.

    `lines` are [point, 2] in the data's units. The figure's layout is fixed from here on.
    Returns the labels' boxes in points.
    """
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    figure.canvas.draw()
    figure.set_layout_engine("none")
    scale = 72.0 / figure.dpi
    frame = axes.get_window_extent()
    room = (frame.x0 * scale, frame.y0 * scale, frame.x1 * scale, frame.y1 * scale)
    points = [tuple(scale * axes.transData.transform((one.x, one.y))) for one in labels]
    marks = [(x - 4.0, y - 4.0, x + 4.0, y + 4.0) for x, y in points]
    traces = [scale * axes.transData.transform(line) for line in lines]
    crossed = [_small_boxes(trace) for trace in traces]
    taken: list[Box] = []
    for one, (x, y) in sorted(
        zip(labels, points, strict=True), key=lambda pair: _crowd(pair, points)
    ):
        made = axes.annotate(one.text, (one.x, one.y), xytext=(0, 0), textcoords="offset points",
                             fontsize=8, color=one.color, ha="left", va="bottom", zorder=3,
                             bbox={"facecolor": "white", "alpha": 0.6, "linewidth": 0, "pad": 0.4}
                             )  # fmt: skip
        extent = made.get_window_extent()
        size = extent.width * scale, extent.height * scale
        box = _best((x, y), size, room, taken, marks, crossed)
        taken.append(box)
        made.set_position((box[0] - x, box[1] - y))
        far = max(box[0] - x, x - box[2], box[1] - y, y - box[3])
        if far > _LEADER:
            end = (float(np.clip(x, box[0], box[2])) - x, float(np.clip(y, box[1], box[3])) - y)
            axes.annotate(
                "", (one.x, one.y), xytext=end, textcoords="offset points",
                arrowprops={"arrowstyle": "-", "color": one.color, "linewidth": 0.6},
            )  # fmt: skip
    return taken


def _crowd(pair: tuple[Label, tuple[float, float]], points: Sequence[tuple[float, float]]) -> float:
    """Labels with many neighbours choose their place last."""
    _, (x, y) = pair
    return sum(abs(x - a) < 40 and abs(y - b) < 30 for a, b in points)


def _small_boxes(trace: Floats) -> list[Box]:
    """A line as a row of small boxes."""
    boxes: list[Box] = []
    for (x0, y0), (x1, y1) in pairwise(trace):
        count = max(1, int(max(abs(x1 - x0), abs(y1 - y0)) // 4))
        for share in np.linspace(0, 1, count + 1):
            x, y = x0 + share * (x1 - x0), y0 + share * (y1 - y0)
            boxes.append((x - 1, y - 1, x + 1, y + 1))
    return boxes


def _best(
    point: tuple[float, float],
    size: tuple[float, float],
    room: Box,
    taken: Sequence[Box],
    marks: Sequence[Box],
    crossed: Sequence[Sequence[Box]],
) -> Box:
    """The candidate that covers least; of equal ones the nearest."""
    wide, high = size
    best, least = (point[0], point[1], point[0] + wide, point[1] + high), float("inf")
    for ring, (right, up) in product(_RINGS, _DIRECTIONS):
        left = point[0] + right * _NEAR * ring - (0, wide / 2, wide)[1 - right]
        low = point[1] + up * _NEAR * ring * 0.7 - (0, high / 2, high)[1 - up]
        box = (left, low, left + wide, low + high)
        outside = wide * high - _overlap(box, room)
        cost = 100 * sum(_overlap(_grown(box), other) for other in taken)
        cost += 50 * outside + 20 * sum(_overlap(box, mark) for mark in marks) + 6 * ring
        own = _gap(box, point)
        strangers = sum(_gap(box, ((m[0] + m[2]) / 2, (m[1] + m[3]) / 2)) < own - 1 for m in marks)
        cost += 60 * strangers  # a label must not seem to be another point's
        cost += sum(2 * _overlap(box, part) for trace in crossed for part in trace)
        if cost < least:
            best, least = box, cost
    return best


def _grown(box: Box) -> Box:
    return box[0] - 1.5, box[1] - 0.5, box[2] + 1.5, box[3] + 0.5


def _gap(box: Box, point: tuple[float, float]) -> float:
    """Distance from a box to a point."""
    across = max(box[0] - point[0], point[0] - box[2], 0.0)
    return float(np.hypot(across, max(box[1] - point[1], point[1] - box[3], 0.0)))


def _overlap(one: Box, other: Box) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return wide * high if wide > 0 and high > 0 else 0.0


_FEWEST = 6  # points, to call one an outlier
_FAR = 3.0  # interquartile ranges beyond the quartiles
_MOST_APART = 0.2  # share of the points that can be outliers


def worst_are_far(gains: Floats, errors: Floats) -> NDArray[np.bool_]:
    """Which values are so much worse than the others that they would squash a plot."""
    far = np.zeros(len(gains), bool)
    if len(gains) < _FEWEST:
        return far
    low, high = np.percentile(gains, [25, 75])
    found = gains < low - _FAR * (high - low)
    few = 0 < found.mean() <= _MOST_APART
    if not few or high == low:
        return far
    whole, rest = (np.ptp([(gains - errors)[w], (gains + errors)[w]]) for w in (~far, ~found))
    return found if rest <= whole / 2 else far

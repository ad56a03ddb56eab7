"""Plot of trade-off curves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from zerocon.core.naming import SHORT_NAMES
from zerocon.reports.drawing import (
    DPI,
    SVG,
    Floats,
    Label,
    Style,
    place_labels,
    plain_axes,
    save,
    style,
    worst_are_far,
)
from zerocon.reports.key_metrics import axis_label, in_words
from zerocon.reports.summary import Column

_FRONT = "#555555"
_AROUND = 0.06  # empty share of the range on each side
_WIDTH = 8.5  # of the figure, in inches
_ROWS = 4  # of the legend, where its columns have room
_SHORT = {stored: short.rpartition(".")[2] for short, stored in SHORT_NAMES.items()}


@dataclass(frozen=True)
class Curve:
    """One method over the swept setting, in the metrics' units. All arrays are [point]."""

    name: str
    setting: str  # the swept setting; "" for unconnected points
    values: Sequence[str]
    x: Floats
    y: Floats
    x_error: Floats
    y_error: Floats

    @property
    def points(self) -> Floats:
        return np.stack([self.x, self.y], axis=-1)


def draw(path: Path, curves: Sequence[Curve], x: Column, y: Column, front: Floats) -> list[Path]:
    """Draw with better up and to the right; a PNG and an SVG. Returns the files.

    `front`: the points on the common front, [point, 2].
    """
    return save(frontier_figure(curves, x, y, front), path)


def frontier_figure(curves: Sequence[Curve], x: Column, y: Column, front: Floats) -> Figure:
    with rc_context(SVG):  # names may contain dollar signs
        figure = Figure(figsize=(_WIDTH, 6.0), dpi=DPI, layout="constrained")
        axes = plain_axes(figure)
        everything = np.concatenate([curve.points for curve in curves])
        errors = np.concatenate(
            [np.stack([curve.x_error, curve.y_error], axis=-1) for curve in curves]
        )
        low, high = _limits(axes, everything, np.nan_to_num(errors), x, y)
        _front(axes, front, low, high, x, y)
        for position, curve in enumerate(curves):
            _curve(axes, curve, style(position), low, high)
        axes.set_xlabel(axis_label(x))
        axes.set_ylabel(axis_label(y))
        columns = _legend_columns(axes.get_legend_handles_labels()[1])
        figure.legend(frameon=False, fontsize=9, loc="outside upper center", ncols=columns)
        labels = [
            label
            for position, curve in enumerate(curves)
            for label in _labels(curve, style(position).color, low, high, x, y)
        ]
        lines = [np.clip(curve.points, low, high) for curve in curves if curve.setting]
        lines.append(np.clip(front, low, high))
        place_labels(axes, labels, lines)
    return figure


def _legend_columns(labels: Sequence[str]) -> int:
    """Few rows, but no column beyond the figure's edge."""
    # Inches: a line with its marker and gaps, then the text.
    widest = 0.7 + 0.075 * max(map(len, labels), default=0)
    return max(1, min(max(2, -(-len(labels) // _ROWS)), int(_WIDTH / widest)))


def _limits(
    axes: Axes, points: Floats, errors: Floats, x: Column, y: Column
) -> tuple[Floats, Floats]:
    """Set the axes' ranges; returns the lowest and the highest place of a point, [2].

    A few points that are far worse do not squash the others: they are drawn at the edge.
    """
    ends: list[tuple[float, float]] = []
    setters: list[Callable[[float, float], object]] = [axes.set_xlim, axes.set_ylim]
    for i, (column, set_range) in enumerate(zip((x, y), setters, strict=True)):
        values, lower = points[:, i], column["better"] == "lower"
        far = worst_are_far(-values if lower else values, errors[:, i])
        near, reach = values[~far], errors[~far, i]
        low, high = float((near - reach).min()), float((near + reach).max())
        gap = _AROUND * (high - low) or 0.05 * abs(high) or 1.0
        edge = 0.7 * gap if far.any() else 0.0  # room for what is beyond
        ends.append((low - edge, high + edge))
        bounds = (low - gap, high + gap)
        set_range(*(bounds[::-1] if lower else bounds))
    low, high = np.array(ends).T
    return low, high


def _curve(axes: Axes, curve: Curve, look: Style, low: Floats, high: Floats) -> None:
    at = np.clip(curve.points, low, high)
    inside = (at == curve.points).all(-1)
    name = curve.name
    if curve.setting:
        name += f", by {_SHORT.get(curve.setting, curve.setting.rpartition('.')[2])}"
    axes.errorbar(
        at[inside, 0], at[inside, 1],
        np.nan_to_num(curve.y_error[inside]), np.nan_to_num(curve.x_error[inside]),
        color=look.color, elinewidth=0.8, alpha=0.4, linestyle="", zorder=1.5,
    )  # fmt: skip
    axes.plot(
        at[:, 0], at[:, 1], color=look.color, marker=look.marker, markersize=7,
        linestyle=look.line if curve.setting else "", linewidth=1.8, zorder=2,
        markerfacecolor=look.color if look.filled else "white", markeredgewidth=1.5,
        label=None if _is_point(curve) else name,
    )  # fmt: skip


def _is_point(curve: Curve) -> bool:
    """Whether the curve is one point, which is labelled with its name."""
    return not curve.setting and len(curve.values) == 1


def _labels(
    curve: Curve, color: str, low: Floats, high: Floats, x: Column, y: Column
) -> list[Label]:
    """The curve's name or its points' values. What is beyond an axis is said in the label."""
    labels: list[Label] = []
    texts = [curve.name] if _is_point(curve) else curve.values
    for text, point in zip(texts, curve.points, strict=True):
        at = np.clip(point, low, high)
        beyond = [
            f"{in_words(str(column['name'])).partition(' (')[0]} {value:.{int(column['digits'])}f}"
            for column, value, place in zip((x, y), point, at, strict=True)
            if value != place
        ]
        said = f"{text} ({', '.join(beyond)}, not to scale)" if beyond else text
        labels.append(Label(said, float(at[0]), float(at[1]), color))
    return labels


def _front(axes: Axes, front: Floats, low: Floats, high: Floats, x: Column, y: Column) -> None:
    """Shade what some point dominates, up to the line that no point is beyond."""
    signs = np.array([1.0 if column["better"] == "higher" else -1.0 for column in (x, y)])
    gains = signs * np.clip(front, low, high)
    gains = gains[np.argsort(gains[:, 0], kind="stable")]
    left, bottom = (min(signs[i] * np.array(ends)) for i, ends in enumerate(_ranges(axes)))
    corners = [(left, gains[0, 1])]
    for i, (right, top) in enumerate(gains):
        below = gains[i + 1, 1] if i + 1 < len(gains) else bottom
        corners += [(right, top), (right, below)]
    line = np.array(corners) * signs
    area = np.concatenate([line, [signs * (left, bottom)]])
    axes.fill(area[:, 0], area[:, 1], color="#000000", alpha=0.045, linewidth=0, zorder=0.5)
    axes.plot(
        line[:, 0], line[:, 1], color=_FRONT, linewidth=2.2, zorder=1, label="Pareto front of all"
    )


def _ranges(axes: Axes) -> tuple[tuple[float, float], tuple[float, float]]:
    return axes.get_xlim(), axes.get_ylim()

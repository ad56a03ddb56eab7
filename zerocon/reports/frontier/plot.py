"""Plot of trade-off curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from zerocon.reports.summary import Column

Floats = NDArray[np.float64]

# Okabe and Ito's colour-blind safe colours, with different markers in addition.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


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


def draw(path: Path, curves: Sequence[Curve], x: Column, y: Column, front: Floats) -> None:
    """Draw with better up and to the right. `front`: the points on the common front, [point, 2]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with rc_context({"text.parse_math": False}):  # names may contain dollar signs
        _figure(curves, x, y, front).savefig(path)


def _figure(curves: Sequence[Curve], x: Column, y: Column, front: Floats) -> Figure:
    figure = Figure(figsize=(8, 5.5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.margins(0.08)
    for position, curve in enumerate(curves):
        again, place = divmod(position, len(COLORS))  # a colour used again gets another marker
        _curve(axes, curve, COLORS[place], MARKERS[(place + again) % len(MARKERS)])
    _front(axes, front, x, y)
    for axis, column, turn in (
        (axes.xaxis, x, axes.invert_xaxis),
        (axes.yaxis, y, axes.invert_yaxis),
    ):
        axis.set_label_text(_axis_label(column))
        if column["better"] == "lower":
            turn()
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if len(curves) > len(COLORS):  # a legend inside would cover points
        figure.legend(frameon=False, fontsize=9, loc="outside right upper")
    else:
        axes.legend(frameon=False, fontsize=9, loc="best")
    return figure


def _curve(axes: Axes, curve: Curve, color: str, marker: str) -> None:
    swept = f" over {curve.setting}" if curve.setting else ""
    axes.errorbar(
        curve.x, curve.y, curve.y_error, curve.x_error,
        color=color, marker=marker, markersize=6, elinewidth=0.8, alpha=0.9,
        linewidth=1.8 if curve.setting else 0,
        label=f"{curve.name}{swept}",
    )  # fmt: skip
    for value, at_x, at_y in zip(curve.values, curve.x, curve.y, strict=True):
        axes.annotate(
            value, (at_x, at_y), xytext=(6, 5), textcoords="offset points", fontsize=8, color=color
        )


def _front(axes: Axes, front: Floats, x: Column, y: Column) -> None:
    """Draw a step line along the points that no other point dominates."""
    order = front[np.argsort(front[:, 0] * (1 if x["better"] == "higher" else -1))]
    axes.plot(
        order[:, 0], order[:, 1], drawstyle="steps-pre", color="#888888", linestyle="--",
        linewidth=1.2, zorder=0, label="Pareto front of all",
    )  # fmt: skip


def _axis_label(column: Column) -> str:
    unit = f" ({column['unit']})" if column["unit"] else ""
    return f"{column['name']}{unit}, {column['better']} is better →"

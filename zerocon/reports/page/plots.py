"""Ablation plots: a metric over the swept settings, with intervals of its means."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from zerocon.reports.estimates import Estimate, estimates, gathered
from zerocon.reports.frontier.plot import COLORS, MARKERS
from zerocon.reports.layout import label
from zerocon.reports.page.markup import worded
from zerocon.reports.page.variants import Variants, numeric
from zerocon.reports.runs import short_names
from zerocon.reports.statistics import Floats
from zerocon.reports.summary import Column

Point = tuple[str, ...]  # one value per swept setting
SIZE = (4.2, 3.1)  # inches
_FAR_APART = 100.0  # largest/smallest ratio from which the axis is logarithmic
_DARK = 0.5  # brightness below which a cell has white text
# Reproducible bytes; text stays text.
SVG: dict[Any, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "zerocon", "font.size": 9, "text.parse_math": False,
}  # fmt: skip


@dataclass(frozen=True)
class Sweep:
    """The swept settings and the runs of each combination of their values."""

    settings: Sequence[str]
    values: Sequence[Sequence[str]]  # of each setting
    runs: Mapping[Point, list[int]]


def sweep_of(variants: Variants) -> Sweep:
    points: dict[Point, list[int]] = {}
    for position, run in enumerate(variants.runs):
        point = tuple(run.field(setting) for setting in variants.swept)
        points.setdefault(point, []).append(position)
    return Sweep(variants.swept, [variants.values(s) for s in variants.swept], points)


def sweep_estimates(sweep: Sweep, values: Floats) -> dict[Point, Estimate]:
    """Estimates of one metric, given as [run, case], for each point with runs."""
    found = estimates(gathered(values, sweep.runs.values()))
    return dict(zip(sweep.runs, found, strict=True))


def curves(sweep: Sweep, found: Mapping[Point, Estimate], column: Column) -> bytes:
    """Plot the metric over the first setting, with a curve per value of the second, if any."""
    short = short_names(sweep.settings)
    first, rest = sweep.settings[0], sweep.settings[1:]
    figure, axes = _figure()
    places = _places(axes, sweep.values[0])
    for number, other in enumerate(_others(sweep)):
        there = [(places[v], found[v, *other]) for v in sweep.values[0] if (v, *other) in found]
        name = " ".join([*(short[setting] for setting in rest), *other])
        _curve(
            axes, [(x, one) for x, one in there if one.n], number, name, numeric(sweep.values[0])
        )
    axes.set_xlabel(short[first])
    axes.set_title(label(column), fontsize=10)
    if rest:
        axes.legend(frameon=False, fontsize=8)
    return _svg(figure)


def _others(sweep: Sweep) -> list[Point]:
    """The second setting's values, one per curve; without one, a single curve."""
    return [(value,) for value in sweep.values[1]] if len(sweep.settings) > 1 else [()]


def _places(axes: Axes, values: Sequence[str]) -> dict[str, float]:
    """Each value's position on the axis: numbers to scale, words at equal distances."""
    if not numeric(values):
        axes.set_xticks(range(len(values)), list(values))
        axes.margins(x=0.15)
        return {value: float(i) for i, value in enumerate(values)}
    sizes = {value: float(value) for value in values}
    least, most = min(sizes.values()), max(sizes.values())
    if least > 0 and most / least >= _FAR_APART:
        axes.set_xscale("log")
    axes.set_xticks(list(sizes.values()), list(sizes))
    axes.minorticks_off()
    return sizes


def _curve(
    axes: Axes, points: Sequence[tuple[float, Estimate]], number: int, name: str, joined: bool
) -> None:
    """Draw a line with a band or, if the values are words, points with error bars."""
    color, marker = COLORS[number % len(COLORS)], MARKERS[number % len(MARKERS)]
    x = np.array([place for place, _ in points])
    mean = np.array([one.mean for _, one in points])
    low, high = (np.array([getattr(one, end) for _, one in points]) for end in ("low", "high"))
    if joined:
        axes.plot(x, mean, color=color, marker=marker, markersize=5, label=name)
        axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
    else:
        reach = np.nan_to_num(np.stack([mean - low, high - mean]))
        axes.errorbar(x, mean, reach, color=color, marker=marker, linestyle="", label=name)


def heat_map(sweep: Sweep, found: Mapping[Point, Estimate], column: Column) -> bytes:
    """Draw the metric's mean for each pair of two settings' values; brighter is better."""
    down, across = sweep.values
    means = np.array(
        [[found[a, b].mean if (a, b) in found else np.nan for b in across] for a in down]
    )  # [first setting, second setting]
    short = short_names(sweep.settings)
    figure, axes = _figure()
    colors = "viridis_r" if column["better"] == "lower" else "viridis"
    drawn = axes.pcolormesh(means, cmap=colors, edgecolors="white", linewidth=1.5)
    for (row, place), mean in np.ndenumerate(means):
        red, green, blue, _ = drawn.to_rgba(mean)
        dark = 0.3 * red + 0.59 * green + 0.11 * blue < _DARK and not np.isnan(mean)
        text = worded(mean, column)
        ink = "white" if dark else "black"
        axes.text(place + 0.5, row + 0.5, text, ha="center", va="center", color=ink)
    axes.set_xticks(np.arange(len(across)) + 0.5, list(across))
    axes.set_yticks(np.arange(len(down)) + 0.5, list(down))
    axes.set_xlabel(short[sweep.settings[1]])
    axes.set_ylabel(short[sweep.settings[0]])
    axes.set_title(label(column), fontsize=10)
    axes.grid(visible=False)
    axes.invert_yaxis()  # the gallery's order
    return _svg(figure)


def dots(labels: Sequence[str], found: Sequence[Estimate], column: Column) -> bytes:
    """Plot a row per variant, for runs that are not a sweep."""
    known = [(name, one) for name, one in zip(labels, found, strict=True) if one.n]
    figure, axes = _figure((SIZE[0], 1.1 + 0.27 * len(known)))
    mean = np.array([one.mean for _, one in known])
    reach = np.array([[one.mean - one.low, one.high - one.mean] for _, one in known]).T
    places = np.arange(len(known))
    axes.errorbar(
        mean, places, xerr=np.nan_to_num(reach), color=COLORS[0], marker="o", linestyle=""
    )
    axes.set_yticks(places, [name for name, _ in known])
    axes.invert_yaxis()
    axes.margins(y=0.5 / max(len(known), 1))
    axes.set_title(label(column), fontsize=10)
    return _svg(figure)


def _figure(size: tuple[float, float] = SIZE) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()

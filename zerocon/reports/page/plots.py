"""Ablation plots: a metric over the swept settings, with intervals of its means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from zerocon.core.text import printable
from zerocon.reports.drawing import COLORS, plain_axes, style
from zerocon.reports.estimates import Estimate, estimates, gathered
from zerocon.reports.key_metrics import in_words, unit_label
from zerocon.reports.page.markup import worded
from zerocon.reports.page.variants import Variants, numeric
from zerocon.reports.runs import short_names
from zerocon.reports.statistics import Floats
from zerocon.reports.summary import Column

Point = tuple[str, ...]  # one value per swept setting
SIZE = (4.2, 3.1)  # inches
_FAR_APART = 100.0  # largest/smallest ratio from which the axis is logarithmic
_DARK = 0.5  # brightness below which a cell has white text
_ROOM_FOR_BARS = 6  # variants beside each other; more are a map


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


def curves(sweep: Sweep, found: Mapping[Point, Estimate], column: Column) -> Figure:
    """Plot the metric over the first setting, with a curve per value of the second, if any."""
    short = short_names(sweep.settings)
    first, rest = sweep.settings[0], sweep.settings[1:]
    figure, axes = _figure()
    places = _places(axes, sweep.values[0])
    for number, other in enumerate(_others(sweep)):
        there = [(places[v], found[v, *other]) for v in sweep.values[0] if (v, *other) in found]
        name = "=".join([*(short[setting] for setting in rest), *other])
        _curve(
            axes, [(x, one) for x, one in there if one.n], number, name, numeric(sweep.values[0])
        )
    axes.set_xlabel(short[first])
    _titled(axes, column)
    axes.set_ylabel(unit_label(column))
    if rest:
        figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=3)
    return figure


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
    look = style(number)
    x = np.array([place for place, _ in points])
    mean = np.array([one.mean for _, one in points])
    low, high = (np.array([getattr(one, end) for _, one in points]) for end in ("low", "high"))
    if joined:
        axes.plot(
            x, mean, color=look.color, marker=look.marker, linestyle=look.line, markersize=5,
            markerfacecolor=look.color if look.filled else "white", label=name,
        )  # fmt: skip
        axes.fill_between(x, low, high, color=look.color, alpha=0.15, linewidth=0)
    else:
        reach = np.nan_to_num(np.stack([mean - low, high - mean]))
        axes.errorbar(
            x, mean, reach, color=look.color, marker=look.marker, linestyle="", label=name
        )


def heat_map(sweep: Sweep, found: Mapping[Point, Estimate], column: Column) -> Figure:
    """Draw the metric's mean for each pair of two settings' values; brighter is better."""
    down, across = sweep.values
    means = np.array(
        [[found[a, b].mean if (a, b) in found else np.nan for b in across] for a in down]
    )  # [first setting, second setting]
    short = short_names(sweep.settings)
    figure, axes = _figure()
    _map(axes, means, (down, across), column)
    axes.set_xlabel(short[sweep.settings[1]])
    axes.set_ylabel(short[sweep.settings[0]])
    return figure


def _map(
    axes: Axes, means: Floats, names: tuple[Sequence[str], Sequence[str]], column: Column
) -> None:
    """Draw cells with their numbers, [down, across]; brighter is better."""
    down, across = names
    colors = "viridis_r" if column["better"] == "lower" else "viridis"
    drawn = axes.pcolormesh(means, cmap=colors, edgecolors="white", linewidth=1.5)
    for (row, place), mean in np.ndenumerate(means):
        red, green, blue, _ = drawn.to_rgba(np.asarray(mean))
        dark = 0.3 * red + 0.59 * green + 0.11 * blue < _DARK and not np.isnan(mean)
        text = worded(mean, column)
        ink = "white" if dark else "black"
        axes.text(place + 0.5, row + 0.5, text, ha="center", va="center", color=ink)
    axes.set_xticks(np.arange(len(across)) + 0.5, list(across))
    axes.set_yticks(np.arange(len(down)) + 0.5, list(down))
    _titled(axes, column)
    axes.grid(visible=False)
    axes.invert_yaxis()  # the gallery's order


def dots(labels: Sequence[str], found: Sequence[Estimate], column: Column) -> Figure:
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
    _titled(axes, column)
    axes.set_xlabel(unit_label(column))
    return figure


def bars(
    labels: Sequence[str],
    kinds: Sequence[str],
    found: Sequence[Sequence[Estimate]],
    column: Column,
) -> Figure:
    """Draw a metric by edit type: a bar per variant, or a map of many variants.

    `found` is [edit type][variant].
    """
    labels, kinds = [printable(label) for label in labels], [printable(kind) for kind in kinds]
    if len(labels) > _ROOM_FOR_BARS:
        means = np.array([[one.mean for one in of_kind] for of_kind in found])
        figure, axes = _figure((SIZE[0] + 0.5 * len(labels), 1.2 + 0.35 * len(kinds)))
        _map(axes, means, (kinds, labels), column)
        axes.tick_params(axis="x", rotation=30)
        return figure
    high = 0.8 / len(labels)
    figure, axes = _figure((4.8, 1.3 + len(kinds) * max(0.3, 0.17 * len(labels))))
    for number, name in enumerate(labels):
        ones = [of_kind[number] for of_kind in found]
        mean = np.array([one.mean for one in ones])
        reach = np.array([[one.mean - one.low, one.high - one.mean] for one in ones]).T
        places = np.arange(len(kinds)) + (number - (len(labels) - 1) / 2) * high
        axes.barh(
            places, np.nan_to_num(mean), high * 0.9, xerr=np.nan_to_num(reach), label=name,
            color=style(number).color, alpha=0.85, error_kw={"elinewidth": 0.8, "alpha": 0.6},
        )  # fmt: skip
    axes.set_yticks(range(len(kinds)), list(kinds))
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    _titled(axes, column)
    axes.set_xlabel(unit_label(column))
    if len(labels) > 1:
        figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=3)
    return figure


def _titled(axes: Axes, column: Column) -> None:
    axes.set_title(in_words(str(column["name"])), fontsize=10)


def _figure(size: tuple[float, float] = SIZE) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, layout="constrained")
    return figure, plain_axes(figure)

"""Dot plot of a calibration: how well each column knows success and the true edit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from zerocon.reports.drawing import COLORS, SVG, save

Triple = tuple[float, float, float]  # value and interval


@dataclass(frozen=True)
class Panel:
    """The columns of runs with one evaluation. `within`: correlation within case with `truth`."""

    title: str
    names: Sequence[str]
    auc: Sequence[Triple]
    within: Sequence[Triple]
    truth: str  # "" if only success is known


def draw(path: Path, panels: Sequence[Panel]) -> None:
    """Draw the columns one below the other, the best AUC on top; a PNG and an SVG."""
    with rc_context(SVG):  # names may contain dollar signs
        save(_figure(panels), path)


def _figure(panels: Sequence[Panel]) -> Figure:
    sizes = [max(1, len(panel.names)) + 2.5 for panel in panels]
    figure = Figure(figsize=(9, 0.3 * sum(sizes) + 0.4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(
        len(panels), 2, squeeze=False, sharey="row", height_ratios=sizes,
        gridspec_kw={"wspace": 0.05},
    )  # fmt: skip
    for panel, (left, right) in zip(panels, grid, strict=True):
        order = np.argsort([-value for value, _, _ in panel.auc], kind="stable")
        left.set_yticks(range(len(order)), [panel.names[i] for i in order])
        _dots(left, [panel.auc[i] for i in order], 0.5, COLORS[0])
        _dots(right, [panel.within[i] for i in order], 0.0, COLORS[1])
        left.set_ylim(len(order) - 0.4, -0.6)  # shared with the right side
        left.set_title(panel.title, fontsize=9, loc="left")
        left.set_xlabel("AUC: success against failure (0.5: no knowledge)", fontsize=9)
        right.set_xlabel(_right_label(panel), fontsize=9)
    return figure


def _right_label(panel: Panel) -> str:
    return f"rank correlation with {panel.truth} within case" if panel.truth else "not known"


def _dots(axes: Axes, triples: Sequence[Triple], nothing: float, color: str) -> None:
    """Draw values with their intervals; `nothing` is the value without knowledge."""
    values, low, high = np.array(triples, dtype=np.float64).reshape(-1, 3).T
    places = np.arange(len(values))
    axes.axvline(nothing, color="#888888", linestyle="--", linewidth=1)
    axes.hlines(places, low, high, color=color, linewidth=1.8, alpha=0.7)
    axes.plot(values, places, "o", color=color, markersize=5.5)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.margins(x=0.06)
    axes.tick_params(labelsize=9, left=False)
    axes.spines[["top", "right", "left"]].set_visible(False)

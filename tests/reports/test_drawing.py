"""Plots that people can read: labels apart, curves distinct, outliers at the edge, two files."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

from zerocon.reports.drawing import (
    SVG,
    Label,
    place_labels,
    plain_axes,
    style,
    worst_are_far,
)
from zerocon.reports.estimates import Estimate
from zerocon.reports.frontier.plot import Curve, draw, frontier_figure
from zerocon.reports.page import plots

LPIPS = {"name": "lpips_bg", "unit": "1e-3", "better": "lower", "digits": 1}
SUCCESS = {"name": "edit_success", "unit": "", "better": "higher", "digits": 3}


def test_labels_of_crowded_points_do_not_overprint() -> None:
    figure = Figure(figsize=(8, 6), layout="constrained")
    axes = plain_axes(figure)
    numbers = np.random.default_rng(0).normal(size=(20, 2))
    numbers[:4] = numbers[0]  # four points at one place
    axes.plot(numbers[:, 0], numbers[:, 1], "o")
    boxes = place_labels(axes, [Label(f"a method {i}", *at) for i, at in enumerate(numbers)])
    for a, b in combinations(boxes, 2):
        assert min(a[2], b[2]) <= max(a[0], b[0]) or min(a[3], b[3]) <= max(a[1], b[1])
    frame = axes.get_window_extent()
    scale = 72 / figure.dpi
    assert all(box[0] >= frame.x0 * scale and box[2] <= frame.x1 * scale for box in boxes)


def test_there_are_as_many_styles_as_curves() -> None:
    looks = [style(i) for i in range(84)]
    assert len({(look.color, look.marker) for look in looks}) == 84
    assert len({look.marker for look in looks[:12]}) == 12
    assert style(0).line != style(7).line  # of one colour


def test_only_few_values_far_on_the_worse_side_are_apart() -> None:
    usual = np.array([0.6, 0.7, 0.75, 0.8, 0.82, 0.85, 0.9])
    none = np.zeros(8)
    assert worst_are_far(np.append(usual, 0.0), none).tolist() == [False] * 7 + [True]
    assert not worst_are_far(np.append(usual, 1.6), none).any()  # the best are never apart
    assert not worst_are_far(usual, none[:7]).any()
    assert not worst_are_far(np.append(usual, 0.0), np.full(8, 0.5)).any()  # nothing is squashed


def curve(name: str, x: list[float], y: list[float], setting: str = "") -> Curve:
    none = np.zeros(len(x))
    return Curve(name, setting, [str(v) for v in x], np.array(x), np.array(y), none, none)


def test_an_outlier_is_at_the_edge_and_said_in_its_label() -> None:
    usual = [curve(f"m{i}", [50.0 + i], [0.6 + 0.03 * i]) for i in range(7)]
    curves = [*usual, curve("reconstruct", [8.0], [0.0])]
    front = np.array([[50.0, 0.78], [8.0, 0.0]])
    (axes,) = frontier_figure(curves, LPIPS, SUCCESS, front).axes
    assert min(axes.get_ylim()) > 0.5
    texts = [text.get_text() for text in axes.texts]
    assert any("edit success 0.000" in text and "not to scale" in text for text in texts)
    assert axes.get_xlabel() == "LPIPS of the background (× 10⁻³), lower is better"
    x = axes.get_xlim()
    assert x[0] > x[1]  # better to the right


def test_the_front_is_drawn_from_edge_to_edge() -> None:
    curves = [curve("a", [10.0, 20.0], [0.2, 0.8], "method.guidance")]
    (axes,) = frontier_figure(curves, LPIPS, SUCCESS, np.array([[10, 0.2], [20, 0.8]])).axes
    line = next(line for line in axes.lines if line.get_label() == "Pareto front of all")
    corners = np.column_stack(line.get_data())
    assert corners[1:-1].tolist() == [[20, 0.8], [20, 0.2], [10, 0.2]]
    assert corners[0, 0] == max(axes.get_xlim())
    assert corners[-1, 1] == min(axes.get_ylim())
    assert line.get_linewidth() >= 2


@pytest.mark.parametrize("end", [".png", ".svg"])
def test_every_plot_is_written_as_svg_and_png(tmp_path: Path, end: str) -> None:
    curves = [curve("a $x$", [10.0, 20.0], [0.2, 0.8], "method.guidance")]
    front = np.array([[20, 0.8]])
    files = draw(tmp_path / "new" / f"plot{end}", curves, LPIPS, SUCCESS, front)
    assert {file.name for file in files} == {"plot.png", "plot.svg"}
    with Image.open(tmp_path / "new" / "plot.png") as picture:
        assert picture.width > 1000
    text = (tmp_path / "new" / "plot.svg").read_text()
    assert "a $x$, by guidance" in text  # text stays text
    draw(tmp_path / f"again{end}", curves, LPIPS, SUCCESS, front)
    assert (tmp_path / "again.svg").read_text() == text


def test_edit_types_have_a_bar_for_each_variant_or_a_map() -> None:
    found = [[Estimate(0.5, 0.4, 0.6, 4) for _ in range(2)] for _ in range(3)]
    with rc_context(SVG):
        (axes,) = plots.bars(["a", "b"], ["x", "y", "z"], found, SUCCESS).axes
        assert len(axes.patches) == 6
        assert [text.get_text() for text in axes.get_yticklabels()] == ["x", "y", "z"]
        many = [[Estimate(0.5, 0.4, 0.6, 4) for _ in range(8)] for _ in range(3)]
        names = [f"v{i}" for i in range(8)]
        (axes,) = plots.bars(names, ["x", "y", "z"], many, SUCCESS).axes
        assert not axes.patches
        assert len(axes.texts) == 24

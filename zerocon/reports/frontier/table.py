"""`zerocon frontier`: runs' trade-off curves, printed and drawn."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from zerocon.core.checks import ConfigError, one_of
from zerocon.reports.comparison import same_cases
from zerocon.reports.evaluation import evaluation_of
from zerocon.reports.frontier.curves import CurveRuns, Frontier, curve_runs, frontier_of
from zerocon.reports.frontier.plot import Curve, draw
from zerocon.reports.layout import NOTHING, Cell, Grid, label, listed
from zerocon.reports.names import named
from zerocon.reports.render import to_csv, write
from zerocon.reports.runs import Run, columns_of, find_runs, varying
from zerocon.reports.statistics import Floats
from zerocon.reports.summary import LEVEL, RESAMPLES, Column
from zerocon.reports.table import CHOICES, CSV, TERMINAL

PRESERVATION = ("lpips_bg", "structure", "psnr_bg", "lpips_whole")
SUCCESS = ("edit_success", "clip_accuracy", "clip_edited", "clip_whole")


def frontier(
    patterns: Sequence[str | Path],
    *,
    x: str | None = None,
    y: str | None = None,
    by: Sequence[str] = (),
    along: Sequence[str] = (),
    curve_of: Mapping[str, str] | None = None,
    intersection: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
    plot: Path | None = None,
    form: str = TERMINAL,
) -> None:
    """Print the curves and their hypervolumes, and draw the curves."""
    one_of("--format", form, CHOICES)
    runs = named(find_runs(patterns))
    columns = chosen(runs, x, PRESERVATION, "--x"), chosen(runs, y, SUCCESS, "--y")
    curves = curve_runs(runs, by, along, curve_of)
    cells, notes = same_cases(runs, columns, intersection=intersection)
    made = frontier_of(runs, columns, cells, curves, resamples=resamples, seed=seed)
    if plot is not None:
        draw(plot, made.curves, *columns, front_of(made))
    if form == CSV:
        sys.stdout.write(to_csv(_csv_rows(made)))
        return
    console = Console()
    notes = [*_gathered(runs, curves), *notes, evaluation_of(runs[0]).words()]
    notes += [f"drawn in {plot}"] if plot is not None else []
    write(frontier_grids(made, resamples, seed, notes), form, console)


def chosen(runs: Sequence[Run], name: str | None, usual: Sequence[str], option: str) -> Column:
    known = {str(column["name"]): column for column in columns_of(runs)}
    names = [name] if name else [candidate for candidate in usual if candidate in known]
    if not names or names[0] not in known:
        asked = f"no run measured {name!r}" if name else f"none of {', '.join(usual)} was measured"
        raise ConfigError(f"{asked}; choose with {option} from: {', '.join(known)}")
    column = known[names[0]]
    if not column["better"]:
        raise ConfigError(f"{names[0]} has no better direction, so it can't make a frontier")
    return column


def front_of(made: Frontier) -> Floats:
    all_points = np.concatenate([np.stack([c.x, c.y], axis=-1) for c in made.curves])
    return all_points[made.on_front]


def _gathered(runs: Sequence[Run], curves: Sequence[CurveRuns]) -> list[str]:
    several = [[runs[i] for i in members] for c in curves for members in c.points.values()]
    differ = dict.fromkeys(name for point in several for name in varying(point))
    if not differ:
        return []
    return [f"where a point has several runs, each case is first averaged over {', '.join(differ)}"]


def frontier_grids(made: Frontier, resamples: int, seed: int, notes: Sequence[str]) -> list[Grid]:
    x, y = made.columns
    header = ["curve", "setting", "value", label(y), label(x), "on the front"]
    flags = iter(made.on_front)
    rows = [
        [
            *map(Cell, (c.name, c.setting or NOTHING, value or NOTHING)),
            *_numbers(c, i, x, y, next(flags)),
        ]
        for c in made.curves
        for i, value in enumerate(c.values)
    ]
    points = Grid("", header, rows, _how_many(made), keys=3)
    low, high = made.corners
    corners = (
        f"hypervolume: share of the box from {x['name']} {low[0]:.4g} and {y['name']} {low[1]:.4g} "
        f"to {high[0]:.4g} and {high[1]:.4g} that a curve's points dominate; "
        f"{LEVEL:.0%} intervals from {resamples} resamples of the cases, seed {seed}"
    )
    return [points, Grid("", _VOLUME_HEADER, _volume_rows(made), [corners, *notes])]


def _how_many(made: Frontier) -> list[str]:
    """Note the means' numbers of cases, and the values left out."""
    named = list(zip(made.columns, made.counts.T, made.infinite.T, strict=True))[::-1]
    ns = [f"{listed(n.tolist())} for {column['name']}" for column, n, _ in named]
    alike = made.counts.min() == made.counts.max()
    over = f"n = {made.counts.max()}" if alike else f"n = {', '.join(ns)}"
    infinite = [
        f"{column['name']}: {int(left.sum())} infinite values are left out of the means, which "
        "are therefore too low"
        for column, _, left in named
        if left.any()
    ]
    return [f"means ± standard error over cases: {over}", *infinite]


_VOLUME_HEADER = ["curve", "points", "on the front", "hypervolume", "behind the largest"]


def _numbers(curve: Curve, at: int, x: Column, y: Column, on_front: bool) -> list[Cell]:
    return [
        Cell(_with_error(curve.y[at], curve.y_error[at], y)),
        Cell(_with_error(curve.x[at], curve.x_error[at], x)),
        Cell("yes" if on_front else ""),
    ]


def _with_error(mean: float, error: float, column: Column) -> str:
    digits = int(column["digits"])
    return f"{mean:.{digits}f}" + ("" if np.isnan(error) else f" ± {error:.{digits}f}")


def _volume_rows(made: Frontier) -> list[list[Cell]]:
    rows: list[list[Cell]] = []
    start = 0
    shares = [volume.share for volume in made.volumes]
    for curve, volume in zip(made.curves, made.volumes, strict=True):
        end = start + len(curve.values)
        on_front = int(made.on_front[start:end].sum())
        largest = volume.share == max(shares)
        behind = (
            "the largest"
            if largest
            else _ranged(volume.behind, volume.behind_low, volume.behind_high)
        )
        share = Cell(
            _ranged(volume.share, volume.low, volume.high), int(largest and len(shares) > 1)
        )
        rows.append(
            [Cell(curve.name), Cell(str(end - start)), Cell(str(on_front)), share, Cell(behind)]
        )
        start = end
    return rows


def _ranged(number: float, low: float, high: float) -> str:
    return f"{number:.3f}" + ("" if np.isnan(low) else f" [{low:.3f}, {high:.3f}]")


def _csv_rows(made: Frontier) -> list[dict[str, object]]:
    x, y = (str(column["name"]) for column in made.columns)
    per_point = zip(
        made.on_front.tolist(), made.counts.tolist(), made.infinite.tolist(), strict=True
    )
    rows: list[dict[str, object]] = []
    for curve, volume in zip(made.curves, made.volumes, strict=True):
        for i, value in enumerate(curve.values):
            on_front, (n_x, n_y), (infinite_x, infinite_y) = next(per_point)
            rows.append(
                {
                    "curve": curve.name,
                    "setting": curve.setting,
                    "value": value,
                    x: curve.x[i],
                    f"{x} s.e.": curve.x_error[i],
                    f"{x} n": n_x,
                    f"{x} infinite": infinite_x,
                    y: curve.y[i],
                    f"{y} s.e.": curve.y_error[i],
                    f"{y} n": n_y,
                    f"{y} infinite": infinite_y,
                    "on the front": on_front,
                    "curve's hypervolume": volume.share,
                    "low": volume.low,
                    "high": volume.high,
                }
            )
    return rows

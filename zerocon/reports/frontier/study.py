"""Results of a study: every method's curve on the test cases, and the settings of its points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from rich.console import Console

from zerocon.config.study import Study
from zerocon.reports.comparison import same_cases
from zerocon.reports.evaluation import evaluation_of
from zerocon.reports.frontier.curves import CurveRuns, frontier_of
from zerocon.reports.frontier.plot import draw
from zerocon.reports.frontier.table import chosen, front_of, frontier_grids
from zerocon.reports.layout import Cell, Grid
from zerocon.reports.render import write
from zerocon.reports.runs import find_runs
from zerocon.reports.statistics import Floats
from zerocon.reports.store import Cells
from zerocon.reports.summary import RESAMPLES, Column
from zerocon.reports.table import TERMINAL


class Point(Protocol):
    """One of a method's settings, measured once for each seed."""

    @property
    def method(self) -> str: ...
    @property
    def number(self) -> int: ...
    @property
    def overrides(self) -> Sequence[str]: ...
    @property
    def directories(self) -> Sequence[Path]: ...


def describe_study(
    study: Study,
    points: Sequence[Point],
    plot: Path,
    rows: Mapping[str, int],
    form: str = TERMINAL,
) -> None:
    """Print the curves, their hypervolumes and the points' settings, and draw the curves.

    `rows`: rows through the network that one edit takes, by the point's name, METHOD_NUMBER.
    """
    runs = find_runs([directory for point in points for directory in point.directories])
    place = {run.directory.resolve(): position for position, run in enumerate(runs)}
    x, y = (chosen(runs, name, (), "study.objectives") for name in study.objectives[:2])
    members = {named(p): [place[d.resolve()] for d in p.directories] for p in points}
    curves = [
        CurveRuns(
            name, "point", {str(p.number): members[named(p)] for p in points if p.method == name}
        )
        for name in dict.fromkeys(point.method for point in points)
    ]
    cells, notes = same_cases(runs, (x, y), intersection=False)
    made = frontier_of(runs, (x, y), cells, curves)
    draw(plot, made.curves, x, y, front_of(made))
    notes = [*notes, _budget(study), evaluation_of(runs[0]).words(), f"drawn in {plot}"]
    grids = frontier_grids(made, RESAMPLES, 0, notes)
    write([*grids, _settings(points, members, cells, (x, y), rows)], form, Console())


def named(point: Point) -> str:
    return f"{point.method}_{point.number}"


def _budget(study: Study) -> str:
    seeds = f"{len(study.seeds)} seed" + ("s" if len(study.seeds) > 1 else "")
    return (
        f"{study.trials} trials for each method with {' '.join(study.tune)}; at most "
        f"{study.points} points of its front measured with {' '.join(study.test)}, "
        f"{seeds} each; where a point has several runs, each case is first averaged over the seeds"
    )


def _settings(
    points: Sequence[Point],
    members: Mapping[str, Sequence[int]],
    cells: Cells,
    columns: tuple[Column, Column],
    rows: Mapping[str, int],
) -> Grid:
    header = ["method", "point", "settings", "rows", *(f"{c['name']} over seeds" for c in columns)]
    lines = [
        [
            Cell(point.method),
            Cell(str(point.number)),
            Cell(" ".join(point.overrides)),
            Cell(str(rows.get(named(point), ""))),
            *(
                Cell(_over_seeds(cells.values[str(c["name"])], members[named(point)], c))
                for c in columns
            ),
        ]
        for point in points
    ]
    note = (
        "settings: chosen by the search; rows: through the network for one edit; over seeds: "
        "standard deviation of the seeds' means"
    )
    return Grid("", header, lines, [note], keys=2)


def _over_seeds(values: Floats, runs: Sequence[int], column: Column) -> str:
    means = [
        float(np.mean(row[np.isfinite(row)])) if np.isfinite(row).any() else np.nan
        for row in values[list(runs)]
    ]
    if len(means) < 2:
        return ""
    return f"{np.std(means, ddof=1):.{int(column['digits'])}f}"

"""Summaries as tables, for the terminal and in Markdown.

A few runs stand side by side, a metric per row. When they do not fit beside each other, a
run gets a row and the metrics become columns, in as many tables as the width asks for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from zerocon.reports.summary import Column, Group, Statistic, Summary

ARROWS = {"higher": "↑", "lower": "↓", "": ""}
NOTHING = "–"
_PADDING = 3  # what a column takes beside its text; the table's edge takes one more


@dataclass(frozen=True)
class Cell:
    text: str
    best: bool = False


@dataclass(frozen=True)
class Grid:
    """A table before it is drawn. The first column is the rows' names."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()


def grids(
    runs: Mapping[str, Summary],
    columns: Sequence[Column],
    per_type: bool = False,
    width: int = 100,
) -> list[Grid]:
    """The tables that say it all: overall, and per edit type when asked."""
    overall = {name: run.overall for name, run in runs.items()}
    if not per_type:
        return _fitted("", overall, columns, width)
    if len(runs) == 1:
        (summary,) = runs.values()
        kinds = {_type_label(k, g): g for k, g in summary.edit_types.items()}
        return _fitted("", kinds | {"all": summary.overall}, columns, width, compare=False)
    return [
        grid
        for title, groups in (*_by_type(runs).items(), ("all", overall))
        for grid in _fitted(title, groups, columns, width)
    ]


def print_grids(tables: Sequence[Grid], console: Console | None = None) -> None:
    console = console or Console()
    for grid in tables:
        console.print(_rich(grid))
        for note in grid.notes:
            console.print(Text(note, style="dim"))


def to_markdown(tables: Sequence[Grid]) -> str:
    return "\n\n".join(_markdown(grid) for grid in tables) + "\n"


def _by_type(runs: Mapping[str, Summary]) -> dict[str, dict[str, Group]]:
    """Edit type -> run -> its cases of that type."""
    table: dict[str, dict[str, Group]] = {}
    for name, run in runs.items():
        for kind, group in run.edit_types.items():
            table.setdefault(_type_label(kind, group), {})[name] = group
    return table


def _type_label(kind: str, group: Group) -> str:
    return kind if group.name == kind else f"{kind} {group.name}"


def _fitted(
    title: str,
    groups: Mapping[str, Group],
    columns: Sequence[Column],
    width: int,
    compare: bool = True,
) -> list[Grid]:
    if len(groups) == 1:
        (only,) = groups.items()
        return [_alone(title, only, columns)]
    beside = _metric_per_row(title, groups, columns, compare)
    if _width(beside) <= width:
        return [beside]
    return _run_per_row(title, groups, columns, width, compare)


def _alone(title: str, named: tuple[str, Group], columns: Sequence[Column]) -> Grid:
    """One run: room for a column of each thing that is known."""
    name, group = named
    rows = [
        [Cell(text) for text in (_label(column), _value(stat, column), str(stat.n), left_out)]
        for column in columns
        for stat in (_statistic(group, column),)
        for left_out in (_left_out(stat.infinite, stat.nan),)
    ]
    header = ["metric", "mean ± s.e.", "n", "left out"]
    if not any(row[3].text for row in rows):
        header, rows = header[:3], [row[:3] for row in rows]
    return Grid(f"{title} · {name}" if title else name, header, rows, [_counts(group)])


def _metric_per_row(
    title: str, groups: Mapping[str, Group], columns: Sequence[Column], compare: bool
) -> Grid:
    rows = [[Cell(_label(column)), *_cells(groups, column, compare)] for column in columns]
    counts = [
        [Cell("cases"), *(Cell(str(group.cases)) for group in groups.values())],
        [Cell("failed"), *(Cell(str(group.failed)) for group in groups.values())],
    ]
    return Grid(title, ["metric", *groups], [*rows, *counts], _notes(groups, columns))


def _run_per_row(
    title: str, groups: Mapping[str, Group], columns: Sequence[Column], width: int, compare: bool
) -> list[Grid]:
    """The widest tables that fit: columns are added until one would not."""
    names = [[Cell(name)] for name in groups]
    counts = [
        [Cell(name), Cell(str(group.cases)), Cell(str(group.failed))]
        for name, group in groups.items()
    ]
    made: list[Grid] = []
    grid = Grid(title, ["", "cases", "failed"], counts)
    for column in columns:
        wider = _with_column(grid, column, _cells(groups, column, compare))
        if _width(wider) > width and len(grid.header) > 1:
            made.append(grid)
            wider = _with_column(Grid("", [""], names), column, _cells(groups, column, compare))
        grid = wider
    return [*made, replace(grid, notes=_notes(groups, columns))]


def _with_column(grid: Grid, column: Column, cells: Sequence[Cell]) -> Grid:
    rows = [[*row, cell] for row, cell in zip(grid.rows, cells, strict=True)]
    return replace(grid, header=[*grid.header, _label(column, "\n")], rows=rows)


def _cells(groups: Mapping[str, Group], column: Column, compare: bool) -> list[Cell]:
    stats = [_statistic(group, column) for group in groups.values()]
    texts = [_value(stat, column) for stat in stats]
    best = _best([stat.mean for stat in stats], column) if compare else None
    return [Cell(t, best is not None and s.mean == best) for t, s in zip(texts, stats, strict=True)]


def _best(means: Sequence[float | None], column: Column) -> float | None:
    known = [mean for mean in means if mean is not None]
    if len(known) < 2 or not column["better"]:
        return None
    return max(known) if column["better"] == "higher" else min(known)


def _statistic(group: Group, column: Column) -> Statistic:
    """A run may not have measured everything that another one has."""
    return group.metrics.get(str(column["name"]), Statistic(None, None, 0))


def _label(column: Column, before_unit: str = " ") -> str:
    unit = f"{before_unit}({column['unit']})" if column["unit"] else ""
    arrow = ARROWS[column["better"]]
    return f"{column['name']} {arrow}{unit}".rstrip() if arrow else f"{column['name']}{unit}"


def _value(stat: Statistic, column: Column) -> str:
    if stat.mean is None:
        return NOTHING
    digits = int(column["digits"])
    spread = f" ± {stat.stderr:.{digits}f}" if stat.stderr is not None else ""
    return f"{stat.mean:.{digits}f}{spread}"


def _left_out(infinite: int, nan: int) -> str:
    parts = [(infinite, "infinite"), (nan, "not measurable")]
    return ", ".join(f"{count} {what}" for count, what in parts if count)


def _counts(group: Group) -> str:
    return f"{group.cases} cases, {group.failed} failed"


def _notes(groups: Mapping[str, Group], columns: Sequence[Column]) -> list[str]:
    """Where means are over fewer cases than went well."""
    notes = [_note(column, [_statistic(g, column) for g in groups.values()]) for column in columns]
    return ["mean ± standard error", *filter(None, notes)]


def _note(column: Column, stats: Sequence[Statistic]) -> str:
    left_out = _left_out(sum(stat.infinite for stat in stats), sum(stat.nan for stat in stats))
    counts = [str(stat.n) for stat in stats]
    n = f"{counts[0]} each" if len(set(counts)) == 1 else ", ".join(counts)
    return f"{column['name']}: n = {n}; left out {left_out}" if left_out else ""


def _width(grid: Grid) -> int:
    columns = zip(grid.header, *([cell.text for cell in row] for row in grid.rows), strict=True)
    return 1 + sum(_PADDING + max(_longest_line(text) for text in column) for column in columns)


def _longest_line(text: str) -> int:
    return max(len(line) for line in text.split("\n"))


def _rich(grid: Grid) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=Text(grid.title) if grid.title else None)
    table.title_justify = "left"
    for position, name in enumerate(grid.header):
        table.add_column(Text(name), justify="right" if position else "left", no_wrap=True)
    for row in grid.rows:
        table.add_row(*(Text(cell.text, style="bold green" if cell.best else "") for cell in row))
    return table


def _markdown(grid: Grid) -> str:
    aligned = [":--"] + ["--:"] * (len(grid.header) - 1)
    body = [[f"**{c.text}**" if c.best else _escape(c.text) for c in row] for row in grid.rows]
    lines = [[_escape(name) for name in grid.header], aligned, *body]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    notes = "\n".join(f"- {_escape(note)}" for note in grid.notes)
    title = f"### {grid.title}" if grid.title else ""
    return "\n\n".join(part for part in (title, table, notes) if part)


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")

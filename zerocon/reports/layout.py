"""Lay out summaries as tables that fit the page.

A few runs are columns, with a row per metric. If there are more runs than metrics, if they do
not fit, or if the rows are settings, each run gets a row and the metrics become columns. If the
page is too narrow for that, means stand above their errors, and only the key metrics are shown
where that is allowed. What is still too wide is split into several tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from textwrap import wrap

from rich.cells import cell_len

from zerocon.core.text import counted, printable, printable_lines
from zerocon.reports.key_metrics import key_columns
from zerocon.reports.summary import LEVEL, RESAMPLES, Column, Group, Statistic, Summary

ARROWS = {"higher": "↑", "lower": "↓", "": ""}
NOTHING = "–"
MARKS = ("", "**", "*")  # prefix of a cell's text by rank, without colours
UNLIMITED = 100_000
_PADDING = 3  # a column's width beside its text; the table's edge takes one more
_NO_VALUES = Statistic(None, None, 0)
_MOST_COUNTS = 6  # different counts that a note lists singly
_NARROWEST = 12  # letters of a row's name, however narrow the page
_A_COLUMN = 17  # letters of a column of words

Label = tuple[str, ...]


@dataclass(frozen=True)
class Cell:
    """One cell. Control characters in its text are replaced by visible ones."""

    text: str
    rank: int = 0  # 1 the best of its metric, 2 the second best
    under: tuple[str, ...] = ()  # further lines

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", printable(self.text))
        object.__setattr__(self, "under", tuple(map(printable, self.under)))

    @property
    def marked(self) -> str:
        return MARKS[self.rank] + self.text

    @property
    def lines(self) -> tuple[str, ...]:
        return (self.marked, *self.under)

    @property
    def joined(self) -> str:
        """The whole text in one line."""
        return " ".join((self.text, *self.under))


@dataclass(frozen=True)
class Grid:
    """A table before it is drawn. The first `keys` columns are the rows' names."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()
    keys: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "title", printable(self.title))
        object.__setattr__(self, "header", [printable_lines(name) for name in self.header])
        object.__setattr__(self, "notes", [printable(note) for note in self.notes])


@dataclass(frozen=True)
class Rows:
    """A table's rows: runs, edit types of a run, or values of settings."""

    groups: Mapping[Label, Group]
    keys: Label = ("",)  # names of the labels' parts
    runs: Mapping[Label, int] | None = None  # runs in each row, if several
    compare: bool = True  # whether best rows are marked


def list_grid(header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Grid:
    """A table of texts: the first column in one line, the others wrapped, the last one widest."""
    first = max(cell_len(printable(row[0])) for row in rows)
    middle = max(_A_COLUMN, (width - first) // 4 - _PADDING)
    others = len(header) - 2
    last = max(_NARROWEST, width - 1 - first - others * middle - len(header) * _PADDING)
    widths = [first, *[middle] * others, last]
    body = [
        [
            _wrapped_cell(" ".join(text.split()), wide)
            for text, wide in zip(row, widths, strict=True)
        ]
        for row in rows
    ]
    return Grid("", header, body, keys=len(header))


def measurable(columns: Sequence[Column], summaries: Iterable[Summary]) -> list[Column]:
    """Return the columns with a value in any case; all columns if no case succeeded yet.

    So metrics that need a ground truth or a mask are shown only if there is one.
    """
    groups = [summary.overall for summary in summaries]
    return [column for column in columns if not _without_values(column, groups)]


def _without_values(column: Column, groups: Sequence[Group]) -> bool:
    stats = [_statistic(group, column) for group in groups]
    return any(s.nan for s in stats) and not any(s.n or s.infinite for s in stats)


def hidden(columns: Sequence[Column], shown: Sequence[Column]) -> list[str]:
    """Note the columns left out because no case has what they need."""
    names = [str(column["name"]) for column in columns if column not in shown]
    return [f"left out, as no case has what they need: {', '.join(names)}"] if names else []


def grids(
    runs: Mapping[Label, Summary],
    columns: Sequence[Column],
    per_type: bool = False,
    width: int = 100,
    *,
    keys: Label = ("",),
    gathered: Mapping[Label, int] | None = None,
    brief: bool = False,
) -> list[Grid]:
    """Return the tables of all results: overall and, if requested, per edit type.

    `brief`: show the key metrics only if there is no room for all.
    """
    every = _titled_rows(runs, per_type, keys, gathered)
    made = [_fitted(title, rows, columns, width) for title, rows in every.items()]
    key = key_columns(columns)
    if not brief or len(key) == len(columns) or all(_is_one_line(tables) for tables in made):
        return [grid for tables in made for grid in tables]
    made = [_fitted(title, rows, key, width) for title, rows in every.items()]
    found = [grid for tables in made for grid in tables]
    more = f"the key metrics; --all shows {len(columns) - len(key)} more"
    return [*found[:-1], replace(found[-1], notes=[*found[-1].notes, more])]


def _is_one_line(tables: Sequence[Grid]) -> bool:
    """Whether all metrics fit into one table with each mean beside its error."""
    return len(tables) == 1 and not any(cell.under for row in tables[0].rows for cell in row)


def _titled_rows(
    runs: Mapping[Label, Summary], per_type: bool, keys: Label, gathered: Mapping[Label, int] | None
) -> dict[str, Rows]:
    """Title -> the rows of a table."""
    overall = Rows({label: run.overall for label, run in runs.items()}, keys, gathered)
    if not per_type:
        return {"": overall}
    if len(runs) == 1 and keys == ("",):
        (summary,) = runs.values()
        kinds = {(_type_label(k, g),): g for k, g in summary.edit_types.items()}
        return {"": Rows(kinds | {("all",): summary.overall}, compare=False)}
    by_type = {title: replace(overall, groups=groups) for title, groups in _by_type(runs).items()}
    return {**by_type, "all": overall}


def _by_type(runs: Mapping[Label, Summary]) -> dict[str, dict[Label, Group]]:
    """Edit type -> run -> its cases of that type."""
    table: dict[str, dict[Label, Group]] = {}
    for label, run in runs.items():
        for kind, group in run.edit_types.items():
            table.setdefault(_type_label(kind, group), {})[label] = group
    return table


def _type_label(kind: str, group: Group) -> str:
    return kind if group.name == kind else f"{kind} {group.name}"


def _fitted(title: str, rows: Rows, columns: Sequence[Column], width: int) -> list[Grid]:
    if len(rows.groups) == 1 and rows.keys == ("",):
        return [_alone(title, rows, columns)]
    if rows.keys == ("",) and len(rows.groups) <= len(columns):
        beside = _metric_per_row(title, rows, columns)
        if width_of(beside) <= width:
            return [beside]
    a_row_each = _rows_of_settings if rows.keys != ("",) else _row_per_run
    made = a_row_each(title, rows, columns, width)
    if len(made) == 1:
        return made
    narrow = _narrow(title, rows, columns, width)
    return [narrow] if width_of(narrow) <= width else made


def _narrow(title: str, rows: Rows, columns: Sequence[Column], width: int) -> Grid:
    """A row for each name with errors below the means; counts are in notes or below the names."""
    made = [
        Grid("", [label(column, "\n")], [[cell] for cell in _cells(rows, column, below=True)])
        for column in columns
    ]
    header = [grid.header[0].replace(" ", "\n", 1).replace("\n(", " (") for grid in made]
    slim = [replace(grid, header=[name]) for grid, name in zip(made, header, strict=True)]
    room = width - 1 - sum(_PADDING + column_widths(grid)[0] for grid in slim)
    each = max(_NARROWEST, room // len(rows.keys) - _PADDING)
    said, counts = _counts_of(rows)
    names = [
        [*(_wrapped_cell(part, each) for part in name[:-1]), _wrapped_cell(name[-1], each, count)]
        for name, count in zip(rows.groups, counts, strict=True)
    ]
    cells = zip(*([row[0] for row in grid.rows] for grid in slim), strict=True)
    body = [[*name, *row] for name, row in zip(names, cells, strict=True)]
    notes = [*_notes(rows.groups, columns), *said]
    return Grid(title, [*rows.keys, *header], body, notes, keys=len(rows.keys))


def _wrapped_cell(name: str, width: int, more: str = "") -> Cell:
    lines = [wrap(printable(text), width, break_on_hyphens=False) for text in (name, more)]
    first, *others = [line for text in lines for line in text] or [""]
    return Cell(first, under=tuple(others))


def _counts_of(rows: Rows) -> tuple[list[str], list[str]]:
    """The counts of runs, cases and failures: as a note if all rows have the same, or by row."""
    runs = rows.runs or {}
    said = [
        ", ".join(
            [
                *([counted(runs[name], "run")] if rows.keys != ("",) and name in runs else []),
                counted(group.cases, "case"),
                *([f"{group.failed} failed"] if group.failed else []),
            ]
        )
        for name, group in rows.groups.items()
    ]
    if len(set(said)) > 1:
        return [], said
    return [f"each row: {said[0]}"], [""] * len(said)


def _alone(title: str, rows: Rows, columns: Sequence[Column]) -> Grid:
    """A table of a single run, with additional columns for n and for values left out."""
    (((name,), group),) = rows.groups.items()
    lines = [
        [Cell(text) for text in (label(column), value(stat, column), str(stat.n), left_out)]
        for column in columns
        for stat in (_statistic(group, column),)
        for left_out in (_left_out(stat.infinite, stat.nan),)
    ]
    header = ["metric", _short(_has_intervals([group])), "n", "left out"]
    if not any(line[3].text for line in lines):
        header, lines = header[:3], [line[:3] for line in lines]
    return Grid(f"{title} · {name}" if title else name, header, lines, [_counts(group)])


def _metric_per_row(title: str, rows: Rows, columns: Sequence[Column]) -> Grid:
    groups = rows.groups
    lines = [[Cell(label(column)), *_cells(rows, column)] for column in columns]
    counts = [
        [Cell("cases"), *(Cell(str(group.cases)) for group in groups.values())],
        [Cell("failed"), *(Cell(str(group.failed)) for group in groups.values())],
    ]
    header = ["metric", *(printable(name) for (name,) in groups)]
    return Grid(title, header, [*lines, *counts], _notes(groups, columns))


def _row_per_run(title: str, rows: Rows, columns: Sequence[Column], width: int) -> list[Grid]:
    counts = [[Cell(str(g.cases)), Cell(str(g.failed))] for g in rows.groups.values()]
    cells = {label(c, "\n"): _cells(rows, c) for c in columns}
    made = wrapped(title, rows.keys, list(rows.groups), ("cases", "failed"), counts, cells, width)
    return [*made[:-1], replace(made[-1], notes=_notes(rows.groups, columns))]


def _rows_of_settings(title: str, rows: Rows, columns: Sequence[Column], width: int) -> list[Grid]:
    """As `_row_per_run`, with a column for the number of runs in each row."""
    runs = rows.runs or dict.fromkeys(rows.groups, 1)
    counts = [
        [Cell(str(runs[name])), Cell(str(group.cases)), Cell(str(group.failed))]
        for name, group in rows.groups.items()
    ]
    cells = {label(c, "\n"): _cells(rows, c) for c in columns}
    names = list(rows.groups)
    made = wrapped(title, rows.keys, names, ("runs", "cases", "failed"), counts, cells, width)
    return [*made[:-1], replace(made[-1], notes=_notes(rows.groups, columns))]


def wrapped(
    title: str,
    keys: Label,
    names: Sequence[Label],
    first_header: Sequence[str],
    first_cells: Sequence[Sequence[Cell]],
    cells: Mapping[str, Sequence[Cell]],
    width: int,
) -> list[Grid]:
    """Lay out a row per name in tables of at most `width`, with as many columns each as fit."""
    named = [[Cell(part) for part in name] for name in names]
    start = Grid("", keys, named, keys=len(keys))
    rows = [[*name, *more] for name, more in zip(named, first_cells, strict=True)]
    grid = replace(start, title=title, header=[*keys, *first_header], rows=rows)
    made: list[Grid] = []
    room = width - width_of(grid)
    for header, column in cells.items():
        wide = _PADDING + _longest([header, *(line for cell in column for line in cell.lines)])
        if wide > room and len(grid.header) > len(keys):
            made.append(grid)
            grid, room = start, width - width_of(start)
        grid = _with_column(grid, header, column)
        room -= wide
    return [*made, grid]


def _with_column(grid: Grid, header: str, cells: Sequence[Cell]) -> Grid:
    rows = [[*row, cell] for row, cell in zip(grid.rows, cells, strict=True)]
    return replace(grid, header=[*grid.header, header], rows=rows)


def _cells(rows: Rows, column: Column, *, below: bool = False) -> list[Cell]:
    """`below`: errors and intervals are below the means, not beside."""
    stats = [_statistic(group, column) for group in rows.groups.values()]
    places = ranks_of(stats, column) if rows.compare else [0] * len(stats)
    made: list[Cell] = []
    for stat, place in zip(stats, places, strict=True):
        first, *others = _parts(stat, column)
        made.append(
            Cell(first, place, tuple(others)) if below else Cell(value(stat, column), place)
        )
    return made


def ranks_of(stats: Sequence[Statistic], column: Column) -> list[int]:
    return ranks([stat.mean for stat in stats], column, [_infinite_share(stat) for stat in stats])


def _infinite_share(stat: Statistic) -> float:
    return stat.infinite / max(stat.infinite + stat.n, 1)


def ranks(
    means: Sequence[float | None], column: Column, infinite: Sequence[float] = ()
) -> list[int]:
    """Rank 1 for the best, 2 for the second best of three or more, else 0; ties share a rank.

    `infinite` is the share of each row's values that are infinite and left out of its mean. If
    there are any, a row is better than another only if it is no worse in both its share and its
    mean. If no row is best in both, none is marked.
    """
    shares = infinite or [0.0] * len(means)
    known = [i for i, mean in enumerate(means) if mean is not None or shares[i]]
    places = [0] * len(means)
    if len(known) < 2 or not column["better"]:
        return places
    gains = {i: _gains(means[i], shares[i], column) for i in known}
    first = _unbeaten(known, gains)
    rest = [i for i in known if i not in first]
    second = _unbeaten(rest, gains) if first and len(known) > 2 else []
    for place, rows in ((1, first), (2, second)):
        for row in rows:
            places[row] = place
    return places


def _gains(mean: float | None, share: float, column: Column) -> tuple[float, float]:
    """The share of infinite values and the mean of the others, signed so that higher is better."""
    sign = 1 if column["better"] == "higher" else -1
    finite = float("inf") if mean is None else float(f"{mean:.12g}")
    return sign * share, sign * finite


def _unbeaten(rows: Sequence[int], gains: Mapping[int, tuple[float, float]]) -> list[int]:
    """Return the rows that are at least as good as every other one in both values."""
    best = [max((gains[row][part] for row in rows), default=0.0) for part in (0, 1)]
    return [row for row in rows if list(gains[row]) == best]


def _statistic(group: Group, column: Column) -> Statistic:
    """Return an empty statistic for a metric that the group did not measure."""
    return group.metrics.get(str(column["name"]), _NO_VALUES)


def label(column: Column, before_unit: str = " ") -> str:
    name, unit = printable(column["name"]), printable(column["unit"])
    in_unit = f"{before_unit}({unit})" if unit else ""
    arrow = ARROWS[column["better"]]
    return f"{name} {arrow}{in_unit}".rstrip() if arrow else f"{name}{in_unit}"


def value(stat: Statistic, column: Column) -> str:
    """The mean and its uncertainty; with infinite values, their count and the others' mean.

    A PSNR is infinite where the picture is unchanged.
    """
    return " ".join(_parts(stat, column))


def _parts(stat: Statistic, column: Column) -> list[str]:
    if stat.mean is None:
        return ["∞" if stat.infinite else NOTHING]
    digits = int(column["digits"])
    mean = f"{stat.mean:.{digits}f}"
    if stat.interval is not None:
        low, high = stat.interval
        spread = [f"[{low:.{digits}f},", f"{high:.{digits}f}]"]
    else:
        spread = [f"± {stat.stderr:.{digits}f}"] if stat.stderr is not None else []
    finite = [f"else {mean}", *spread] if stat.infinite else [mean, *spread]
    return [f"∞ in {stat.infinite},", *finite] if stat.infinite else finite


def _has_intervals(groups: Iterable[Group]) -> bool:
    return any(stat.interval for group in groups for stat in group.metrics.values())


def _short(intervals: bool) -> str:
    return f"mean [{LEVEL:.0%}]" if intervals else "mean ± s.e."


def _in_full(intervals: bool) -> str:
    if not intervals:
        return "mean ± standard error"
    return f"mean [{LEVEL:.0%} interval from {RESAMPLES:,} resamples of the cases]"


def _left_out(infinite: int, nan: int) -> str:
    parts = [(infinite, "infinite"), (nan, "not measurable")]
    return ", ".join(f"{count} {what}" for count, what in parts if count)


def _counts(group: Group) -> str:
    return f"{counted(group.cases, 'case')}, {group.failed} failed"


def _notes(groups: Mapping[Label, Group], columns: Sequence[Column]) -> list[str]:
    """Note the columns whose means cover fewer cases than succeeded."""
    notes = [_note(column, [_statistic(g, column) for g in groups.values()]) for column in columns]
    return [_in_full(_has_intervals(groups.values())), *filter(None, notes)]


def _note(column: Column, stats: Sequence[Statistic]) -> str:
    infinite = sum(stat.infinite for stat in stats)
    left_out = _left_out(infinite, sum(stat.nan for stat in stats))
    if not left_out:
        return ""
    undecided = infinite and column["better"] and 1 not in ranks_of(stats, column)
    more = "; no best: infinite values and the mean of the others disagree"
    n = listed([stat.n for stat in stats])
    said = f"{column['name']}: n = {n}; left out {left_out}"
    return said + (more if undecided and len(stats) > 1 else "")


def listed(counts: Sequence[int]) -> str:
    """Counts for a note: one number if all are equal, a range if there are many."""
    if len(set(counts)) == 1:
        return str(counts[0]) + (" each" if len(counts) > 1 else "")
    if len(counts) > _MOST_COUNTS:
        return f"{min(counts)} to {max(counts)}"
    return ", ".join(map(str, counts))


def width_of(grid: Grid) -> int:
    return 1 + sum(_PADDING + wide for wide in column_widths(grid))


def column_widths(grid: Grid) -> list[int]:
    names = [_longest([name]) for name in grid.header]
    rows = ([_longest(cell.lines) for cell in row] for row in grid.rows)
    return [max(column) for column in zip(names, *rows, strict=True)]


def _longest(texts: Iterable[str]) -> int:
    return max(cell_len(line) for text in texts for line in text.split("\n"))

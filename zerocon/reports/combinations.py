"""Tables of compatible choices: a row per method, a column per group of equal choices."""

from __future__ import annotations

from collections.abc import Mapping

from zerocon.reports.layout import Cell, Grid

Pairs = Mapping[str, Mapping[str, str]]  # method -> choice -> what the table says

NOTES = (
    "yes: on every backbone",
    "diffusion: not on flow models (Stable Diffusion 3, FLUX)",
    "not told: not on a backbone that takes its guidance scale as an input (FLUX.1-dev)",
    "–: never; zerocon combinations --why gives the reasons",
)
_LONG = 12  # letters from which a name in a terminal's header may take two lines


def combination_grids(tables: Mapping[str, Pairs], *, terminal: bool) -> list[Grid]:
    """`tables`: the title of each table and its pairs; a terminal's header has a name per line."""
    made = [_grid(title, pairs, terminal=terminal) for title, pairs in tables.items()]
    said = {cell.text for grid in made for row in grid.rows for cell in row[1:]}
    notes = [note for note in NOTES if note.partition(":")[0] in said]
    last = made[-1]
    return [*made[:-1], Grid(last.title, last.header, last.rows, notes)]


def _grid(title: str, pairs: Pairs, *, terminal: bool) -> Grid:
    groups = _alike(pairs)
    names = ["\n".join(map(_broken, g)) if terminal else ", ".join(g) for g in groups]
    rows = [
        [Cell(method), *(Cell(cells[group[0]]) for group in groups)]
        for method, cells in pairs.items()
    ]
    return Grid(title, ["method", *names], rows)


def _alike(pairs: Pairs) -> list[list[str]]:
    """The choices, grouped by equal columns."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for choice in next(iter(pairs.values())):
        column = tuple(cells[choice] for cells in pairs.values())
        groups.setdefault(column, []).append(choice)
    return list(groups.values())


def _broken(name: str) -> str:
    first, sign, rest = name.partition("_")
    return f"{first}{sign}\n{rest}" if sign and len(name) > _LONG else name

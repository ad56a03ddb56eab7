"""Numbers that papers report, shown beside measured ones but never mixed with them.

They have separate tables, because they were measured on other pictures, with other judges. Each
row says where its numbers were published, how they were read, and how to run its method here.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from zerocon.core.checks import one_of
from zerocon.reports.layout import NOTHING, UNLIMITED, Cell, Grid, Label, label, ranks, wrapped
from zerocon.reports.summary import Column

FOLDER = Path(__file__).parent / "published"
NOT_SAID = "not said"
NOT_HERE = "not available here"
ALL_CASES = "700"  # of PIE-Bench
READ = {
    "page": "on a page of the authors",
    "text": "in an archived copy of the paper's text",
    "listed": "in an earlier list that names the source, not at the source itself",
}
_SHARED = (
    "overrides are for `python run.py`, in addition to dataset=pie_bench dataset.root=… "
    "metrics=published and the paths of the backbone and the judges"
)


@dataclass(frozen=True)
class Published:
    """A published table: its dataset, protocol and columns."""

    file: str
    dataset: str
    protocol: str
    columns: Mapping[str, tuple[str, float]]  # the file's column -> our metric, factor to its unit
    name: Sequence[str]  # the file's columns that form a row's name
    here: str = ""  # file with overrides for each method, inversion and base model
    base: str = ""  # the base model of all rows, if the file has no such column
    together: Sequence[str] = field(
        default=()
    )  # rows with equal values in these columns are compared


SETS = {
    "pie_bench": Published(
        file="pie_bench.csv",
        here="pie_bench_here.csv",
        dataset="PIE-Bench, 700 photographs and drawings",
        protocol="published (PnP Inversion's evaluation), judged by DINO ViT-B/8, "
        "CLIP ViT-L/14 and LPIPS-SqueezeNet; structure on pictures that torchvision 0.13 resized "
        "without antialiasing",
        columns={
            "structure_distance_x1e3": ("structure", 1),
            "psnr_bg": ("psnr_bg", 1),
            "lpips_bg_x1e3": ("lpips_bg", 1),
            "mse_bg_x1e4": ("mse_bg", 1),
            "ssim_bg_x1e2": ("ssim_bg", 0.01),
            "clip_whole": ("clip_whole", 1),
            "clip_edited": ("clip_edited", 1),
        },
        name=("method", "inversion"),
        together=("cases", "mask"),
    ),
    "pix2pix_zero": Published(
        file="pix2pix_zero_tasks.csv",
        dataset="pix2pix-zero's tasks, photographs of LAION-5B",
        protocol="pix2pix-zero's own evaluation",
        columns={
            "clip_acc_percent": ("clip_accuracy", 0.01),
            "bg_lpips": ("lpips_bg", 1000),
            "structure_distance": ("structure", 1000),
        },
        name=("task", "method"),
        base="SD1.4",
        together=("task",),
    ),
    "pnp_ti2i": Published(
        file="pnp_ti2i_ablation.csv",
        dataset="Wild-TI2I and ImageNet-R-TI2I",
        protocol="PnP's own evaluation",
        columns={
            "dino_self_similarity": ("structure", 1000),
            "clip_score": ("clip_whole", 100),
            "lpips": ("lpips_whole", 1000),
        },
        name=("dataset", "variant"),
        base="SD1.5",
        together=("dataset",),
    ),
}


@dataclass(frozen=True)
class PublishedRow:
    name: str
    base: str
    source: str
    values: Mapping[str, float | None]  # by our metrics' names, in our units
    together: Label
    details: Mapping[str, str]  # the file's other columns: `where`, `settings`, `read`, …
    here: str = NOT_HERE  # overrides that run this row's method

    @property
    def own(self) -> bool:
        """Whether the source measured the numbers itself instead of quoting them."""
        return not self.details.get("quoted")

    @property
    def place(self) -> Label:
        """Key of the source: authors may have published in two places."""
        return self.source, self.details.get("address", "")

    @property
    def model(self) -> str:
        return f"{self.name} on {self.base}"

    @property
    def known(self) -> bool:
        """Whether the source says which model was measured."""
        return NOT_SAID not in self.model

    def origin(self) -> str:
        """The source and, if it quotes, the quoted source."""
        quoted = self.details.get("quoted")
        return f"{self.source} (quotes {quoted})" if quoted else self.source


def published_rows(name: str) -> list[PublishedRow]:
    one_of("--published", name, sorted(SETS))
    table = SETS[name]
    return [_row(table, line) for line in _lines(table.file)]


@cache
def _lines(name: str) -> list[dict[str, str]]:
    with (FOLDER / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _row(table: Published, line: Mapping[str, str]) -> PublishedRow:
    base = line.get("base") or table.base or NOT_SAID
    used = {*table.columns, *table.name, "base", "reported_by"}
    return PublishedRow(
        name=" + ".join(line[part] for part in table.name if line[part] not in ("", "none")),
        base=base,
        source=line["reported_by"],
        values={
            metric: float(line[column]) * factor if line[column] else None
            for column, (metric, factor) in table.columns.items()
        },
        together=tuple(line[part] for part in table.together),
        details={part: text for part, text in line.items() if part not in used},
        here=_overrides(table).get((*(line[part] for part in table.name), base), NOT_HERE),
    )


def _overrides(table: Published) -> dict[tuple[str, ...], str]:
    """Overrides that run a row here, by the parts of its name and its base model."""
    lines = _lines(table.here) if table.here else []
    return {(*(line[p] for p in table.name), line["base"]): line["overrides"] for line in lines}


def published_grids(name: str, measured: Sequence[Column], width: int = UNLIMITED) -> list[Grid]:
    """Tables of the published rows, with the measured columns that were published.

    Below them, the range of the sources for each method. The overrides that run a row here are
    in the row or, if the width is limited, in a separate table.
    """
    rows, table = published_rows(name), SETS[name]
    columns = [column for column in measured if column["name"] in rows[0].values]
    return [
        *_row_grids(rows, table, columns, width),
        *spread_grids(rows, columns, width),
        *(_here_grids(rows) if table.here and width < UNLIMITED else []),
    ]


def _row_grids(
    rows: Sequence[PublishedRow], table: Published, columns: Sequence[Column], width: int
) -> list[Grid]:
    sources = list(dict.fromkeys(row.origin() for row in rows))
    full = width >= UNLIMITED
    labels = [
        (
            f"published: {_marked_apart(row.name, row)}",
            row.base,
            *_told(row, table, sources, full=full),
        )
        for row in rows
    ]
    cells = {label(column, "\n"): _cells(rows, column) for column in columns}
    keys = ("PUBLISHED, not measured here", "base model", *_headers(table, full=full))
    title = f"PUBLISHED, not measured here: {table.dataset}"
    made = wrapped(title, keys, labels, (), [[] for _ in rows], cells, width)
    notes = [
        f"the published numbers are of another dataset than the measured ones: {table.dataset}",
        f"their protocol: {table.protocol}; base model and source are in each row",
        *_read_notes(rows),
        *([] if full else [f"{_mark(sources, source)} {source}" for source in sources]),
        *_missing(columns, table),
        *([_SHARED] if full and table.here else []),
    ]
    return [*made[:-1], replace(made[-1], notes=notes)]


def _headers(table: Published, *, full: bool) -> Label:
    if not full:
        return ("source",)
    return ("reported by", *(("where", "settings", "to run it here") if table.here else ()))


def _told(row: PublishedRow, table: Published, sources: Sequence[str], *, full: bool) -> Label:
    if not full:
        return (_mark(sources, row.origin()),)
    details = (row.details.get("where", ""), _settings(row), row.here) if table.here else ()
    return (row.origin(), *details)


def _settings(row: PublishedRow) -> str:
    """The settings that the source states, including a subset of pictures or a given mask."""
    return "; ".join(filter(None, (row.details.get("settings"), *_apart(row))))


def _apart(row: PublishedRow) -> list[str]:
    """Why a row is not comparable with the whole benchmark without masks."""
    cases, mask = row.details.get("cases", ""), row.details.get("mask", "")
    said = f"{cases} pictures" if cases.isdigit() else cases
    subset = [said] if cases not in ("", ALL_CASES) else []
    return [*subset, *([f"mask {mask}"] if mask else [])]


def _read_notes(rows: Sequence[PublishedRow]) -> list[str]:
    counts = Counter(row.details.get("read", "") for row in rows)
    said = [f"{counts[how]} {words}" for how, words in READ.items() if counts[how]]
    return [f"these rows were read {', '.join(said)}"] if said else []


def spread_grids(
    rows: Sequence[PublishedRow], columns: Sequence[Column], width: int = UNLIMITED
) -> list[Grid]:
    """Tables of the lowest and highest number from different sources per method and base model.

    Quoted numbers and rows with an unknown base model are left out. Rows over a subset of the
    pictures, or of methods that were given the mask, are separate.
    """
    groups = _several(rows)
    if not groups or not columns:
        return []
    cells = {label(c, "\n"): [Cell(_range(g, c)) for g in groups.values()] for c in columns}
    counts = [[Cell(str(len({row.place for row in group})))] for group in groups.values()]
    title = "PUBLISHED: range of the sources for each method"
    made = wrapped(title, ("method",), list(groups), ("sources",), counts, cells, width)
    note = "the lowest and the highest number; numbers quoted from another source are left out"
    return [*made[:-1], replace(made[-1], notes=[note])]


def _several(rows: Sequence[PublishedRow]) -> dict[Label, list[PublishedRow]]:
    """The rows of each method that several sources measured."""
    groups: dict[Label, list[PublishedRow]] = {}
    for row in rows:
        if row.own and row.known:
            groups.setdefault((_marked_apart(row.model, row),), []).append(row)
    return {name: group for name, group in groups.items() if len({row.place for row in group}) > 1}


def _marked_apart(name: str, row: PublishedRow) -> str:
    apart = _apart(row)
    return name + (f" ({', '.join(apart)})" if apart else "")


def _range(rows: Sequence[PublishedRow], column: Column) -> str:
    values = [v for row in rows if (v := row.values[str(column["name"])]) is not None]
    if not values:
        return NOTHING
    low, high = (f"{value:.{int(column['digits'])}f}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def _here_grids(rows: Sequence[PublishedRow]) -> list[Grid]:
    """A table of the overrides that run a row here, and the number of unavailable methods."""
    commands = {row.model: row.here for row in rows if row.here != NOT_HERE}
    lines = [[Cell(name), Cell(here)] for name, here in commands.items()]
    others = len({row.model for row in rows} - set(commands))
    notes = [_SHARED, f"{NOT_HERE}: the other {others}"]
    title = "PUBLISHED: how to run a row here"
    return [Grid(title, ("method", "settings"), lines, notes, keys=2)]


def _mark(sources: Sequence[str], source: str) -> str:
    return f"[{sources.index(source) + 1}]"


def _missing(columns: Sequence[Column], table: Published) -> list[str]:
    have = {str(column["name"]) for column in columns}
    missing = [metric for metric, _ in table.columns.values() if metric not in have]
    return [f"published but not measured here: {', '.join(missing)}"] if missing else []


def _cells(rows: Sequence[PublishedRow], column: Column) -> list[Cell]:
    """Cells with the best and second best marked among the published rows of the same task."""
    values = [row.values[str(column["name"])] for row in rows]
    places = [0] * len(rows)
    for group in {row.together for row in rows}:
        members = [i for i, row in enumerate(rows) if row.together == group]
        for i, place in zip(members, ranks([values[i] for i in members], column), strict=True):
            places[i] = place
    digits = int(column["digits"])
    texts = [NOTHING if v is None else f"{v:.{digits}f}" for v in values]
    return [Cell(text, place) for text, place in zip(texts, places, strict=True)]

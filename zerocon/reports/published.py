"""Numbers that papers report, shown beside measured ones but never mixed with them.

They stand in tables of their own: they are of other pictures, judged by other models.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from zerocon.core.checks import one_of
from zerocon.reports.layout import NOTHING, UNLIMITED, Cell, Grid, Label, label, ranks, wrapped
from zerocon.reports.summary import Column

FOLDER = Path(__file__).parent / "published"
NOT_SAID = "not said"


@dataclass(frozen=True)
class Published:
    """A table of the literature: what it was measured on, how, and what its columns are called."""

    file: str
    dataset: str
    protocol: str
    columns: Mapping[str, tuple[str, float]]  # column of the file -> our metric, factor to its unit
    name: Sequence[str]  # columns of the file that make a row's name
    base: str = ""  # for all rows, where the file has no column of it
    together: Sequence[str] = field(default=())  # rows are compared within these columns' values


SETS = {
    "pie_bench": Published(
        file="pie_bench.csv",
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


def published_rows(name: str) -> list[PublishedRow]:
    one_of("--published", name, sorted(SETS))
    table = SETS[name]
    with (FOLDER / table.file).open(encoding="utf-8", newline="") as file:
        return [_row(table, line) for line in csv.DictReader(file)]


def _row(table: Published, line: Mapping[str, str]) -> PublishedRow:
    return PublishedRow(
        name=" + ".join(line[part] for part in table.name if line[part]),
        base=line.get("base") or table.base or NOT_SAID,
        source=line["reported_by"],
        values={
            metric: float(line[column]) * factor if line[column] else None
            for column, (metric, factor) in table.columns.items()
        },
        together=tuple(line[part] for part in table.together),
    )


def published_grids(name: str, measured: Sequence[Column], width: int = UNLIMITED) -> list[Grid]:
    """The published rows, with those of the measured columns that were published."""
    rows, table = published_rows(name), SETS[name]
    columns = [column for column in measured if column["name"] in rows[0].values]
    sources = list(dict.fromkeys(row.source for row in rows))
    full = width >= UNLIMITED
    labels = [
        (f"published: {row.name}", row.base, row.source if full else _mark(sources, row.source))
        for row in rows
    ]
    cells = {label(column, "\n"): _cells(rows, column) for column in columns}
    keys = ("PUBLISHED, not measured here", "base model", "reported by" if full else "source")
    title = f"PUBLISHED, not measured here: {table.dataset}"
    made = wrapped(title, keys, labels, (), [[] for _ in rows], cells, width)
    notes = [
        f"published numbers are of another dataset than the measured ones: {table.dataset}",
        f"their protocol: {table.protocol}; base model and source of each are in its row",
        *([] if full else [f"{_mark(sources, source)} {source}" for source in sources]),
        *_missing(columns, table),
    ]
    return [*made[:-1], replace(made[-1], notes=notes)]


def _mark(sources: Sequence[str], source: str) -> str:
    return f"[{sources.index(source) + 1}]"


def _missing(columns: Sequence[Column], table: Published) -> list[str]:
    have = {str(column["name"]) for column in columns}
    missing = [metric for metric, _ in table.columns.values() if metric not in have]
    return [f"published, too, but not measured here: {', '.join(missing)}"] if missing else []


def _cells(rows: Sequence[PublishedRow], column: Column) -> list[Cell]:
    """Cells that mark best and second best among the published rows of the same task."""
    values = [row.values[str(column["name"])] for row in rows]
    places = [0] * len(rows)
    for group in {row.together for row in rows}:
        members = [i for i, row in enumerate(rows) if row.together == group]
        for i, place in zip(members, ranks([values[i] for i in members], column), strict=True):
            places[i] = place
    digits = int(column["digits"])
    texts = [NOTHING if v is None else f"{v:.{digits}f}" for v in values]
    return [Cell(text, place) for text, place in zip(texts, places, strict=True)]

"""The report's gallery: the edits of all variants for each case, side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from itertools import product
from pathlib import Path

from PIL import Image

from zerocon.core.records import Record
from zerocon.reports.gallery.items import GalleryItem, reduced
from zerocon.reports.gallery.items import shown as seen
from zerocon.reports.gallery.page import ABOUT_MASK, caption, edit_name, prompts
from zerocon.reports.page.album import Album, Open, album
from zerocon.reports.page.markup import notes, number, uri
from zerocon.reports.page.variants import Variants
from zerocon.reports.runs import Run, short_names
from zerocon.reports.summary import Column

MOST_VARIANTS = 24  # side by side
MOST_CASES = 1000
MOST_ACROSS = 4  # most values of one setting in a line
NO_RUN = -1
_ASKED = {"source": "source", "ground truth": "truth", "mask": "mask"}  # shown as -> named

Lookup = Callable[[str], Mapping[str, Image.Image]]  # case -> its source, truth and mask


@dataclass(frozen=True)
class Shown:
    """One case, with the records of the variants that have it, by the variants' positions."""

    dataset: str
    case: str
    records: Mapping[int, Record]

    @property
    def any(self) -> Record:
        return next(iter(self.records.values()))

    @property
    def key(self) -> tuple[str, str]:
        return self.dataset, self.case


@dataclass(frozen=True)
class Choice:
    """A group of checkboxes: a variant is shown if its value is ticked."""

    name: str
    values: Sequence[str]
    of_run: Sequence[str]  # each variant's value


def cases_of(runs: Sequence[Run], records: Sequence[Sequence[Record]]) -> list[Shown]:
    """All cases in the datasets' order. Equal names are one case only in equal datasets."""
    found: dict[tuple[str, str], dict[int, Record]] = {}
    for position, (run, of_run) in enumerate(zip(runs, records, strict=True)):
        place = {case: i for i, case in enumerate(run.origin.case_ids)}
        for record in sorted(of_run, key=lambda r: place.get(r.case, len(place))):
            found.setdefault((dataset_of(run), record.case), {})[position] = record
    return [Shown(dataset, case, of_case) for (dataset, case), of_case in found.items()]


def dataset_of(run: Run) -> str:
    return f"{run.origin.dataset.get('name', '')} {run.origin.dataset.get('fingerprint', '')}"


def cards(
    variants: Variants,
    records: Sequence[Sequence[Record]],
    columns: Sequence[Column],
    lookups: Mapping[str, Lookup],
    room: float,
) -> str:
    """Controls, and a card per case. The pictures take at most `room` bytes."""
    some = variants.part(variants.runs[:MOST_VARIANTS])
    every = cases_of(some.runs, records[:MOST_VARIANTS])
    cases = every[:MOST_CASES]
    shots: dict[Hashable, Mapping[Hashable, Open]] = {
        one.key: _shots(some, one, lookups.get(one.dataset)) for one in cases
    }
    kept = album(shots, room)
    grid = Layout(some, columns, kept)
    said = _limits(variants, len(every), len(cases), kept)
    body = "\n".join(grid.card(one, index) for index, one in enumerate(cases))
    return (
        f"{notes(said)}{grid.controls(cases)}"
        f'<div id="cards" style="--across:{grid.across or "auto-fill"}">\n{body}\n</div>'
    )


def _limits(variants: Variants, every: int, shown: int, kept: Album) -> list[str]:
    said = [f"pictures are {kept.level.words()}"] if kept.pictures else ["no pictures"]
    if len(variants.runs) > MOST_VARIANTS:
        said.append(f"the first {MOST_VARIANTS} of {len(variants.runs)} variants")
    if every > shown:
        said.append(f"the first {shown} of {every} cases")
    if kept.cases < shown:
        said.append(f"to limit the page's size, {kept.cases} of {shown} cases have pictures")
    masked = any(isinstance(key, tuple) and key[-1] == "mask" for key in kept.pictures)
    return ["; ".join(said), *([ABOUT_MASK] if masked else [])]


def _shots(variants: Variants, one: Shown, lookup: Lookup | None) -> dict[Hashable, Open]:
    """Functions that open a case's pictures. All variants share source, truth and mask."""
    shots: dict[Hashable, Open] = {}
    if lookup is not None:
        item, names = _request(one, lookup(one.case))
        shots |= {(*one.key, NO_RUN, name): partial(_part, item, name) for name in names}
    for position, record in one.records.items():
        if record.image is not None:
            file = variants.runs[position].directory / record.image
            shots[(*one.key, position, "edited")] = partial(_edited, file, record)
    return shots


def _request(one: Shown, found: Mapping[str, Image.Image]) -> tuple[GalleryItem, list[str]]:
    small = {name: reduced(picture) for name, picture in found.items()}
    source, truth, mask = (small.get(name) for name in _ASKED.values())
    item = GalleryItem(one.any, source=source, ground_truth=truth, mask=mask)
    return item, [shown for shown, name in _ASKED.items() if name in small]


def _part(item: GalleryItem, name: str) -> Image.Image | None:
    return seen(item).get(name)


def _edited(file: Path, record: Record) -> Image.Image | None:
    """Return None for a missing or broken file: the report shows the other pictures."""
    if not file.exists():
        return None
    return seen(GalleryItem(record, edited=file.read_bytes())).get("edited")


class Layout:
    """A card's layout: with two swept settings, rows and columns."""

    def __init__(self, variants: Variants, columns: Sequence[Column], kept: Album) -> None:
        self._variants, self._columns, self._kept = variants, columns, kept
        self._choices = _choices(variants)
        self._order, square = _order(self._choices, len(variants.runs))
        few = len(self._choices) == 1 and len(self._order) <= MOST_ACROSS
        self.across = len(self._choices[-1].values) if square or few else 0

    def controls(self, cases: Sequence[Shown]) -> str:
        metrics = "".join(_metric_option(column) for column in self._columns)
        kinds = sorted({edit_name(one.any) for one in cases} - {""})
        types = "".join(f"<option>{escape(kind)}</option>" for kind in kinds)
        runs = "".join(
            f'<option value="{position}">{escape(label)}</option>'
            for position, label in enumerate(self._variants.labels)
        )
        boxes = "".join(_boxes(choice, at) for at, choice in enumerate(self._choices))
        return (
            '<form id="controls" role="search" hidden>'
            f'<label>Metric <select id="metric">{metrics}</select></label>'
            f'<label>Order <select id="order">{_ORDERS}</select></label>'
            '<label>Judged by <select id="of"><option value="">the mean of the variants</option>'
            f"{runs}</select></label>"
            '<label>Edit type <select id="type"><option value="">all</option>'
            f"{types}</select></label>"
            f'<label>Cases <select id="state">{_STATES}</select></label>'
            '<label>Search <input id="text" type="search" placeholder="prompts, ids, errors">'
            "</label>"
            f'<label>Show <select id="most">{_MOST}</select></label>'
            f'<output id="count" aria-live="polite"></output>{boxes}</form>'
        )

    def card(self, one: Shown, index: int) -> str:
        record, kind = one.any, escape(edit_name(one.any))
        failed = any(not r.ok for r in one.records.values())
        figures = "".join(self._figure(one, position) for position in self._order)
        return (
            f'<article class="card{" has-failed" if failed else ""}" data-index="{index}"'
            f' data-type="{kind}"><header><h3>{escape(record.case)}</h3>'
            f'<span class="kind">{kind}</span><span class="place"></span></header>'
            f'{prompts(record)}<div class="both">{self._asked(one)}'
            f'<div class="variants">{figures}</div></div></article>'
        )

    def _asked(self, one: Shown) -> str:
        figures = "".join(
            f"<figure>{image}<figcaption>{caption(name)}</figcaption></figure>"
            for name in _ASKED
            if (image := self._image((*one.key, NO_RUN, name), f"{name} of case {one.case}"))
        )
        return f'<div class="request">{figures}</div>' if figures else ""

    def _figure(self, one: Shown, position: int | None) -> str:
        if position is None or position not in one.records:
            return f'<figure class="none"{self._chosen_by(position)}></figure>'
        record, label = one.records[position], self._variants.labels[position]
        values = [record.metrics.get(str(c["name"]), math.nan) for c in self._columns]
        said = ",".join(number(value if record.ok else math.nan) for value in values)
        image = self._image((*one.key, position, "edited"), f"case {one.case}, {label}")
        error = "" if record.ok else f'<p class="error">{escape(record.error or "")}</p>'
        return (
            f'<figure class="variant{"" if record.ok else " failed"}" data-run="{position}"'
            f'{self._chosen_by(position)} data-values="[{said}]">'
            f'<button type="button" aria-label="look closer: {escape(label)}">{image}</button>'
            f'{error}<figcaption>{escape(label)} <b class="number"></b></figcaption></figure>'
        )

    def _chosen_by(self, position: int | None) -> str:
        if position is None:
            return ""
        values = [str(list(c.values).index(c.of_run[position])) for c in self._choices]
        return f' data-choice="{" ".join(values)}"'

    def _image(self, key: Hashable, said: str) -> str:
        data = self._kept.pictures.get(key)
        if data is None:
            return ""
        kind = ' class="small"' if self._kept.pixels else ""
        return f'<img{kind} src="{uri(data, "webp")}" alt="{escape(said)}" decoding="async">'


def _choices(variants: Variants) -> list[Choice]:
    short = short_names(variants.swept)
    settings = [s for s in variants.swept if len(variants.values(s)) > 1]
    if not settings:
        return [Choice("variant", variants.labels, variants.labels)]
    return [
        Choice(short[s], variants.values(s), [run.field(s) for run in variants.runs])
        for s in settings
    ]


def _order(choices: Sequence[Choice], runs: int) -> tuple[list[int | None], bool]:
    """The variants row by row, None for a missing combination; and whether they form a grid."""
    at: dict[tuple[str, ...], list[int]] = {}
    for position in range(runs):
        at.setdefault(tuple(c.of_run[position] for c in choices), []).append(position)
    if any(len(several) > 1 for several in at.values()):
        return list(range(runs)), False  # several runs of one combination, such as seeds
    points = product(*(c.values for c in choices))
    return [at[point][0] if point in at else None for point in points], len(choices) == 2


def _metric_option(column: Column) -> str:
    name = escape(str(column["name"]))
    return (
        f'<option value="{name}" data-better="{column["better"]}" '
        f'data-digits="{column["digits"]}">{name}</option>'
    )


def _boxes(choice: Choice, at: int) -> str:
    boxes = "".join(
        f'<label><input type="checkbox" data-group="{at}" value="{i}" checked>'
        f"{escape(value)}</label>"
        for i, value in enumerate(choice.values)
    )
    return f"<fieldset><legend>{escape(choice.name)}</legend>{boxes}</fieldset>"


def _options(named: Mapping[str, str]) -> str:
    return "".join(f'<option value="{value}">{text}</option>' for value, text in named.items())


_ORDERS = _options(
    {
        "listed": "as listed",
        "best": "best first",
        "worst": "worst first",
        "median": "nearest the median first",
        "ends": "3 best, 3 median, 3 worst",
        "spread": "variants differ most first",
    }
)
_STATES = _options({"": "all", "failed": "with a failure"})
_MOST = _options({"12": "12", "48": "48", "": "all"})

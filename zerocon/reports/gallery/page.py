"""A run's gallery: a contact sheet, and a page that sorts, filters and opens offline.

The page contains everything it shows. It is complete without its script (which sorts and
filters), and its content security policy forbids every request.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from zerocon.core.records import Record
from zerocon.core.text import counted
from zerocon.ledger.atomic import write_atomic
from zerocon.reports.gallery.items import GalleryItem, changed_words, data_uri, is_small, shown
from zerocon.reports.gallery.sheet import contact_sheet
from zerocon.reports.key_metrics import key_first
from zerocon.reports.layout import ARROWS, NOTHING
from zerocon.reports.summary import Column

__all__ = ["GalleryItem", "write_gallery"]

_ABOUT = "<!-- about the mask -->"
_CARDS = "<!-- cards -->"  # titles and names can't contain this: they are escaped
_CRISP = ' class="small"'
AT_FIRST = 4  # numbers on a card; the others unfold
MASK = "region to edit, outlined"
ABOUT_MASK = (
    "mask: the benchmark's region to edit, outlined in pink; the rest, faded, is the background, "
    "which columns with bg measure"
)
WORDS = {"higher": "higher is better", "lower": "lower is better", "": ""}


def write_gallery(
    directory: Path,
    items: Sequence[GalleryItem],
    columns: Sequence[Column],
    title: str = "run",
    *,
    png_cases: int = 40,
    html_cases: int = 1000,
) -> None:
    """Write `gallery.png` and `gallery.html`, at most of the first cases.

    Columns without any value are left out, such as those that need a missing ground truth.
    """
    columns = [column for column in columns if _has_values(items, str(column["name"]))]
    columns = key_first(columns)
    write_atomic(directory / "gallery.png", contact_sheet(items[:png_cases], title))
    page = _page_in_pieces(items[:html_cases], columns, title, len(items))
    write_atomic(directory / "gallery.html", (piece.encode(errors="replace") for piece in page))


def _has_values(items: Sequence[GalleryItem], name: str) -> bool:
    return any(not math.isnan(item.record.metrics.get(name, math.nan)) for item in items)


def gallery_page(items: Sequence[GalleryItem], columns: Sequence[Column], title: str) -> str:
    return "".join(_page_in_pieces(items, columns, title))


def _page_in_pieces(
    items: Sequence[GalleryItem], columns: Sequence[Column], title: str, total: int | None = None
) -> Iterator[str]:
    """Yield the page case by case: with all pictures it does not fit in memory."""
    template = Template((files("zerocon.reports.gallery") / "page.html").read_text("utf-8"))
    frame = template.substitute(
        title=escape(title),
        subtitle=escape(_subtitle(items, total)),
        sorts="".join(_sort_option(column) for column in columns),
        types="".join(_type_option(name) for name in _edit_names(items)),
        cards=_CARDS,
    )
    before, _, after = frame.partition(_CARDS)
    masked = False
    yield before
    for index, item in enumerate(items):
        card = _card(item, index, columns)
        masked = masked or f"<figcaption>mask: {MASK}<" in card
        yield "\n" * (index > 0) + card
    yield after.replace(_ABOUT, f'<p class="about">{escape(ABOUT_MASK)}</p>' if masked else "")


def _subtitle(items: Sequence[GalleryItem], total: int | None) -> str:
    failed = sum(not item.record.ok for item in items)
    cut = total is not None and total > len(items)
    count = f"the first {len(items)} of {total} cases" if cut else counted(len(items), "case")
    return f"{count}, {failed} failed"


def _edit_names(items: Sequence[GalleryItem]) -> list[str]:
    kinds = {item.record.edit_type: edit_name(item.record) for item in items}
    return sorted({name for name in kinds.values() if name})


def edit_name(record: Record) -> str:
    return record.edit_name or record.edit_type


def _sort_option(column: Column) -> str:
    name, better = escape(str(column["name"])), str(column["better"])
    return f'<option value="{name}" data-better="{better}">{name} {ARROWS[better]}</option>'


def _type_option(name: str) -> str:
    return f'<option value="{escape(name)}">{escape(name)}</option>'


def _card(item: GalleryItem, index: int, columns: Sequence[Column]) -> str:
    record, kind = item.record, escape(edit_name(item.record))
    return (
        f'<article class="card{"" if record.ok else " failed"}" data-index="{index}"'
        f' data-type="{kind}" data-metrics="{escape(_sortable(record.metrics))}">'
        f'<header><h2>{escape(record.case)}</h2><span class="kind">{kind}</span></header>'
        f"{_figures(item)}{_failure(record)}{prompts(record)}{_numbers(record, columns)}</article>"
    )


def _sortable(metrics: Mapping[str, float]) -> str:
    """Numbers for the script. JSON has no infinity, but 1e999 is read as infinity."""
    known = {name: value for name, value in metrics.items() if not math.isnan(value)}
    return "{" + ",".join(f"{json.dumps(k)}:{literal(v)}" for k, v in known.items()) + "}"


def literal(value: float) -> str:
    return repr(float(value)) if math.isfinite(value) else f"{'-' * (value < 0)}1e999"


def _figures(item: GalleryItem) -> str:
    figures = [
        f"<figure><img{_CRISP if is_small(picture) else ''}"
        f' src="{data_uri(picture)}" width="{picture.width}" height="{picture.height}"'
        f' alt="{escape(f"{name} of case {item.record.case}")}">'
        f"<figcaption>{caption(name)}</figcaption></figure>"
        for name, picture in shown(item).items()
    ]
    return f'<div class="pictures">{"".join(figures)}</div>' if figures else ""


def caption(name: str) -> str:
    """What a picture shows; a mask needs an explanation."""
    return f"{name}: {MASK}" if name == "mask" else name


def _failure(record: Record) -> str:
    error = escape(record.error or "")
    return "" if record.ok else f'<p class="error"><b>Failed.</b> {error}</p>'


def prompts(record: Record) -> str:
    source, target = changed_words(record.source_prompt, record.target_prompt)
    lines = [("from", _marked(source, "del")), ("to", _marked(target, "ins"))]
    lines += [("asked", escape(record.instruction))] * bool(record.instruction)
    lines += [("note", escape(note)) for note in record.notes]
    rows = "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in lines if text)
    return f'<dl class="prompts">{rows}</dl>'


def _marked(pieces: Sequence[tuple[str, bool]], tag: str) -> str:
    return "".join(
        f"<{tag}>{escape(text)}</{tag}>" if changed else escape(text) for text, changed in pieces
    )


def _numbers(record: Record, columns: Sequence[Column]) -> str:
    cells = [
        f'<div data-name="{escape(str(column["name"]))}" title="{WORDS[column["better"]]}">'
        f"<dt>{escape(str(column['name']))}"
        f"<small>{ARROWS[column['better']]}</small></dt>"
        f"<dd>{_number(record.metrics[str(column['name'])], column)}</dd></div>"
        for column in columns
        if column["name"] in record.metrics
    ]
    first, more = "".join(cells[:AT_FIRST]), cells[AT_FIRST:]
    shown = f'<dl class="numbers">{first}</dl>' if first else ""
    if not more:
        return shown
    return (
        f"{shown}<details><summary>{counted(len(more), 'more number')}</summary>"
        f'<dl class="numbers">{"".join(more)}</dl></details>'
    )


def _number(value: float, column: Column) -> str:
    if math.isnan(value):
        return NOTHING
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    unit = f"<small>{escape(str(column['unit']))}</small>" if column["unit"] else ""
    return f"{value:.{int(column['digits'])}f}{unit}"

"""HTML elements of the report's page."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from html import escape

from zerocon.reports.layout import ARROWS, NOTHING, Grid
from zerocon.reports.summary import Column


def section(name: str, title: str, *parts: str) -> str:
    body = "\n".join(part for part in parts if part)
    return f'<section id="{name}"><h2>{escape(title)}</h2>\n{body}\n</section>' if body else ""


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, name: str = "", keys: int = 1
) -> str:
    """`header` and `rows` hold complete cells, made by `head` and `cell`."""
    body = "\n".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    sortable = f' id="{name}" class="sortable"' if name else ""
    return (
        f'<div class="wide"><table{sortable} data-keys="{keys}">'
        f"<thead><tr>{''.join(header)}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def head(text: str, *, key: bool = False, better: str = "", unit: str = "") -> str:
    small = f"<small>{escape(unit)}</small>" if unit else ""
    arrow = f" {ARROWS[better]}" if better else ""
    kind = ' class="key"' if key else ""
    return f'<th{kind} scope="col" data-better="{better}">{escape(text)}{arrow}{small}</th>'


def head_of(column: Column) -> str:
    return head(str(column["name"]), better=str(column["better"]), unit=str(column["unit"]))


def cell(
    text: str, *, key: bool = False, value: float | None = None, rank: int = 0, under: str = ""
) -> str:
    """`value`: sort key, if not the text; `under`: a second line."""
    inner = (escape(text), f"<b>{escape(text)}</b>", f"<u>{escape(text)}</u>")[rank]
    small = f"<small>{escape(under)}</small>" if under else ""
    sorts = f' data-v="{number(value)}"' if value is not None else ""
    kind = ' class="key"' if key else ""
    return f"<td{kind}{sorts}>{inner}{small}</td>"


def grid_table(grid: Grid) -> str:
    header = [head(name, key=at < grid.keys) for at, name in enumerate(grid.header)]
    rows = [
        [cell(c.joined, key=at < grid.keys, rank=c.rank) for at, c in enumerate(row)]
        for row in grid.rows
    ]
    return table(header, rows) + notes(grid.notes)


def notes(said: Sequence[str]) -> str:
    return "".join(f'<p class="note">{escape(one)}</p>' for one in said)


def details(summary: str, body: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{body}</details>" if body else ""


def pairs(named: Mapping[str, str]) -> str:
    """Names and values as a list that wraps."""
    items = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in named.items()
    )
    return f'<dl class="pairs">{items}</dl>' if items else ""


def number(value: float) -> str:
    """A number for the script. JSON has no infinity, but reads 1e999 as infinity; nan is null."""
    if math.isnan(value):
        return "null"
    if math.isinf(value):
        return "1e999" if value > 0 else "-1e999"
    return f"{value:.6g}"


def worded(value: float | None, column: Column) -> str:
    if value is None or math.isnan(value):
        return NOTHING
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return f"{value:.{int(column['digits'])}f}"


def uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def plot(svg: bytes, said: str, name: str = "") -> str:
    """A drawing as a data URI, so that ids of several drawings do not clash."""
    image = f'<img src="{uri(svg, "svg+xml")}" alt="{escape(said)}">'
    return f'<figure class="plot" data-metric="{escape(name)}">{image}</figure>'

"""Render tables for the terminal, as Markdown, LaTeX and HTML, and rows as CSV."""

from __future__ import annotations

import csv
import html
import io
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from textwrap import wrap

from rich.cells import cell_len
from rich.console import Console

from zerocon.core.text import printable
from zerocon.reports.layout import MARKS, Cell, Grid, column_widths

_BOLD_GREEN, _UNDERLINED, _DIM, _PLAIN = "\x1b[1;32m", "\x1b[4m", "\x1b[2m", "\x1b[0m"


def print_grids(tables: Sequence[Grid], console: Console | None = None) -> None:
    """Print the tables in one write: there may be thousands of rows."""
    console = console or Console()
    color = console.is_terminal and not console.no_color
    console.file.write("".join(_text(grid, color, console.width) for grid in tables))


def _text(grid: Grid, color: bool, width: int) -> str:
    widths = column_widths(grid)
    lines = [f" {grid.title}"] if grid.title else []
    lines += _header_lines(grid, widths)
    lines.append(" " + "─" * (sum(widths) + 3 * len(widths) - 1))
    for row in grid.rows:
        lines += _row_lines(row, widths, grid.keys, color)
    notes = [*grid.notes, *([_marks(color)] if _has_ranks(grid) else [])]
    said = [part for note in notes for part in wrap(note, width, subsequent_indent="  ")]
    lines += [f"{_DIM}{line}{_PLAIN}" if color else line for line in said]
    return "\n".join(["", *(line.rstrip() for line in lines), ""])


def _row_lines(row: Sequence[Cell], widths: Sequence[int], keys: int, color: bool) -> list[str]:
    first = [
        _drawn(cell, wide, position < keys, color)
        for position, (cell, wide) in enumerate(zip(row, widths, strict=True))
    ]
    others = [
        [
            _padded(cell.under[line] if line < len(cell.under) else "", wide, position < keys)
            for position, (cell, wide) in enumerate(zip(row, widths, strict=True))
        ]
        for line in range(max((len(cell.under) for cell in row), default=0))
    ]
    return ["  " + "   ".join(cells) for cells in (first, *others)]


def _header_lines(grid: Grid, widths: Sequence[int]) -> list[str]:
    parts = [name.split("\n") for name in grid.header]
    height = max(map(len, parts))
    parts = [part + [""] * (height - len(part)) for part in parts]
    return [
        "  "
        + "   ".join(
            _padded(part[line], wide, position < grid.keys)
            for position, (part, wide) in enumerate(zip(parts, widths, strict=True))
        )
        for line in range(height)
    ]


def _padded(text: str, width: int, left: bool) -> str:
    space = " " * (width - cell_len(text))
    return text + space if left else space + text


def _drawn(cell: Cell, width: int, left: bool, color: bool) -> str:
    if not (color and cell.rank):
        return _padded(cell.marked, width, left)
    space = " " * (width - cell_len(cell.text))
    style = _BOLD_GREEN if cell.rank == 1 else _UNDERLINED
    return f"{space}{style}{cell.text}{_PLAIN}"


def _has_ranks(grid: Grid, rank: int = 1) -> bool:
    return any(cell.rank == rank for row in grid.rows for cell in row)


def _marks(color: bool) -> str:
    return "green: best, underlined: second best" if color else "**: best, *: second best"


def to_markdown(tables: Sequence[Grid]) -> str:
    return "\n\n".join(_markdown(grid) for grid in tables) + "\n"


def _markdown(grid: Grid) -> str:
    aligned = [":--"] * grid.keys + ["--:"] * (len(grid.header) - grid.keys)
    body = [[_markdown_cell(cell) for cell in row] for row in grid.rows]
    lines = [[markdown_text(name) for name in grid.header], aligned, *body]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    marks = ["**bold**: best, *italic*: second best"] if _has_ranks(grid, 2) else []
    notes = "\n".join(f"- {note}" for note in [*map(markdown_text, grid.notes), *marks])
    title = f"### {markdown_text(grid.title)}" if grid.title else ""
    return "\n\n".join(part for part in (title, table, notes) if part)


def _markdown_cell(cell: Cell) -> str:
    marks = MARKS[cell.rank]
    return f"{marks}{markdown_text(cell.joined)}{marks}"


_MARKDOWN = {"\\": "\\\\", "|": "\\|", "*": "\\*", "`": "\\`", "<": "&lt;", ">": "&gt;", "\n": " "}


def markdown_text(text: str) -> str:
    """Escape text so that it contains no markup."""
    entities = re.sub(r"&(?=#|\w+;)", "&amp;", text)
    escaped = "".join(_MARKDOWN.get(letter, letter) for letter in entities)
    return re.sub(r"\](?=[(:\[])", r"]\\", escaped)


def to_latex(tables: Sequence[Grid]) -> str:
    """LaTeX tables; they need the package booktabs and an engine that reads UTF-8."""
    return "% needs \\usepackage{booktabs}\n" + "\n".join(_latex(grid) for grid in tables)


def _latex(grid: Grid) -> str:
    align = "l" * grid.keys + "r" * (len(grid.header) - grid.keys)
    styles: tuple[Callable[[str], str], ...] = (
        str,
        lambda text: f"\\textbf{{{text}}}",
        lambda text: f"\\underline{{{text}}}",
    )
    body = [[styles[cell.rank](latex_text(cell.joined)) for cell in row] for row in grid.rows]
    marks = ["bold: best, underlined: second best"] if _has_ranks(grid) else []
    notes = [f"{latex_text(note)}." for note in [*grid.notes, *marks]]
    return "\n".join(
        [
            "\\begin{table}[t]",
            "\\centering",
            *([f"\\caption{{{latex_text(grid.title)}}}"] if grid.title else []),
            f"\\begin{{tabular}}{{{align}}}",
            "\\toprule",
            _latex_row(map(latex_text, grid.header)),
            "\\midrule",
            *map(_latex_row, body),
            "\\bottomrule",
            "\\end{tabular}",
            *(["\\par\\smallskip\\footnotesize " + " ".join(notes)] if notes else []),
            "\\end{table}",
            "",
        ]
    )


def _latex_row(cells: Sequence[str] | map[str]) -> str:
    return " & ".join(cells) + " \\\\"


_LATEX = {
    "\\": "\\textbackslash{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "±": "$\\pm$",
    "↑": "$\\uparrow$",
    "↓": "$\\downarrow$",
    "→": "$\\rightarrow$",
    "×": "$\\times$",
    "–": "--",
    "∞": "$\\infty$",
    "\n": " ",
}


def latex_text(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Results</title>
<meta name="viewport" content="width=device-width">
<style>
body {{ font: 15px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em }}
div {{ overflow-x: auto }}
table {{ border-collapse: collapse; margin: 1em 0 .5em; font-variant-numeric: tabular-nums }}
caption {{ text-align: left; font-weight: 600; padding: .3em 0 }}
th, td {{ padding: .25em .7em; text-align: right; white-space: nowrap }}
th.key, td.key {{ text-align: left }}
thead th {{ border-top: 2px solid; border-bottom: 1px solid; vertical-align: bottom }}
tbody tr:last-child td {{ border-bottom: 2px solid }}
p {{ color: #555; margin: .1em 0; font-size: 13px }}
</style></head><body>
{tables}
</body></html>
"""


def to_html(tables: Sequence[Grid]) -> str:
    """A complete HTML page that loads nothing."""
    return _PAGE.format(tables="\n".join(_html(grid) for grid in tables))


def _html(grid: Grid) -> str:
    header = "".join(_html_cell("th", name, at < grid.keys) for at, name in enumerate(grid.header))
    rows = [
        "".join(
            _html_cell("td", cell.joined, at < grid.keys, cell.rank) for at, cell in enumerate(r)
        )
        for r in grid.rows
    ]
    caption = f"<caption>{html.escape(grid.title)}</caption>" if grid.title else ""
    marks = ["bold: best, underlined: second best"] if _has_ranks(grid) else []
    notes = "".join(f"<p>{html.escape(note)}</p>" for note in [*grid.notes, *marks])
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    return (
        f"<div><table>{caption}<thead><tr>{header}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody></table></div>{notes}"
    )


def _html_cell(tag: str, text: str, key: bool, rank: int = 0) -> str:
    inner = html.escape(text).replace("\n", "<br>")
    inner = (inner, f"<b>{inner}</b>", f"<u>{inner}</u>")[rank]
    return f'<{tag} class="key">{inner}</{tag}>' if key else f"<{tag}>{inner}</{tag}>"


FORMATS: dict[str, Callable[[Sequence[Grid]], str]] = {
    "markdown": to_markdown,
    "latex": to_latex,
    "html": to_html,
}


def write(tables: Sequence[Grid], form: str, console: Console) -> None:
    """Write the tables to standard output in the given form."""
    if form == "terminal":
        print_grids(tables, console)
    else:
        sys.stdout.write(FORMATS[form](tables))


def to_csv(rows: Sequence[Mapping[str, object]]) -> str:
    """A table with a column for each key of any row, in order of first appearance."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([_csv_cell(name) for name in names])
    writer.writerows([_csv_cell(row.get(name)) for name in names] for row in rows)
    return text.getvalue()


def _csv_cell(value: object) -> object:
    """Prefix text that a spreadsheet would run as a formula with a quote."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if _FORMULA.match(text) and not _is_number(text) else text


_FORMULA = re.compile(r"\s*[=+\-@＝＋－＠]")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

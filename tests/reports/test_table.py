from __future__ import annotations

import io
import math
from random import Random

import pytest
from rich.console import Console

from zerocon.reports.summary import Summary, summarize
from zerocon.reports.table import grids, print_grids, to_markdown
from zerocon.runs.records import Record

COLUMNS = [
    {"name": "psnr_background", "unit": "dB", "better": "higher", "digits": 2},
    {"name": "structure", "unit": "×10³", "better": "lower", "digits": 1},
    {"name": "clip_whole", "unit": "", "better": "higher", "digits": 2},
    {"name": "steps", "unit": "", "better": "", "digits": 0},
    {"name": "edit_success", "unit": "", "better": "higher", "digits": 3},
]
TYPES = ("random", "change object", "add object", "style")


def run(seed: int, cases: int = 12) -> Summary:
    random = Random(seed)
    records = [
        Record(
            case=str(i),
            status="ok",
            edit_type=str(i % 4),
            edit_name=TYPES[i % 4],
            metrics={str(c["name"]): random.gauss(20, 3) for c in COLUMNS},
        )
        for i in range(cases)
    ]
    return summarize(records, COLUMNS)


def shown(runs: dict[str, Summary], width: int, per_type: bool = False) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_grids(grids(runs, COLUMNS, per_type, width), console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 100, 140])
@pytest.mark.parametrize("count", [1, 2, 5, 12])
@pytest.mark.parametrize("per_type", [False, True])
def test_nothing_is_cut_off_and_nothing_is_too_wide(width: int, count: int, per_type: bool) -> None:
    text = shown({f"word_swap-{i}": run(i) for i in range(count)}, width, per_type)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    for name in [str(c["name"]) for c in COLUMNS] + [f"word_swap-{i}" for i in range(count)]:
        assert name in text or (per_type and count == 1)


def test_one_run_says_what_was_left_out() -> None:
    metrics = [{"psnr_background": v} for v in (1.0, 2.0, math.inf, math.nan)]
    records = [Record(case=str(i), status="ok", metrics=m) for i, m in enumerate(metrics)]
    records.append(Record(case="x", status="failed", error="no"))
    text = shown({"mine": summarize(records, COLUMNS[:1])}, 80)
    assert "psnr_background ↑ (dB)" in text
    assert "1.50 ± 0.50" in text
    assert "1 infinite, 1 not measurable" in text
    assert "5 cases, 1 failed" in text


def test_the_best_run_stands_out() -> None:
    markdown = to_markdown(grids({"a": run(0), "b": run(1)}, COLUMNS))
    rows = {line.split("|")[1].strip(): line for line in markdown.splitlines() if "|" in line}
    for name in ("psnr_background ↑ (dB)", "structure ↓ (×10³)"):
        assert rows[name].count("**") == 2
    assert "**" not in rows["steps"]


def test_names_are_text_and_not_markup() -> None:
    runs = {"a[red]|b": run(0), "[/]": run(1)}
    text = shown(runs, 100)
    assert "a[red]|b" in text
    assert "[/]" in text
    assert "a[red]\\|b" in to_markdown(grids(runs, COLUMNS))

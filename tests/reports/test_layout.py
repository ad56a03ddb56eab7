from __future__ import annotations

import io
import math
import re
from random import Random

import pytest
from rich.console import Console

from zerocon.core.records import Record
from zerocon.reports.layout import Label, grids, ranks
from zerocon.reports.render import FORMATS, latex_text, print_grids, to_html, to_latex, to_markdown
from zerocon.reports.summary import Summary, summarize

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


def shown(runs: dict[Label, Summary], width: int, per_type: bool = False) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_grids(grids(runs, COLUMNS, per_type, width), console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 100, 140])
@pytest.mark.parametrize("count", [1, 2, 5, 12])
@pytest.mark.parametrize("per_type", [False, True])
def test_nothing_is_cut_off_and_nothing_is_too_wide(width: int, count: int, per_type: bool) -> None:
    text = shown({(f"word_swap-{i}",): run(i) for i in range(count)}, width, per_type)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    for name in [str(c["name"]) for c in COLUMNS] + [f"word_swap-{i}" for i in range(count)]:
        assert name in text or (per_type and count == 1)


def test_more_runs_than_metrics_get_a_row_each() -> None:
    few, many = (
        grids({(f"run-{i}",): run(i) for i in range(count)}, COLUMNS, False, 10**4)
        for count in (len(COLUMNS), len(COLUMNS) + 1)
    )
    assert few[0].rows[0][0].text.startswith("psnr_background")
    assert [row[0].text for row in many[0].rows] == [f"run-{i}" for i in range(len(COLUMNS) + 1)]


def test_one_run_says_what_was_left_out() -> None:
    metrics = [{"psnr_background": v} for v in (1.0, 2.0, math.inf, math.nan)]
    records = [Record(case=str(i), status="ok", metrics=m) for i, m in enumerate(metrics)]
    records.append(Record(case="x", status="failed", error="no"))
    text = shown({("mine",): summarize(records, COLUMNS[:1])}, 80)
    assert "psnr_background ↑ (dB)" in text
    assert "1.50 ± 0.50" in text
    assert "1 infinite, 1 not measurable" in text
    assert "5 cases, 1 failed" in text


def test_the_best_run_is_marked() -> None:
    markdown = to_markdown(grids({("a",): run(0), ("b",): run(1)}, COLUMNS))
    rows = {line.split("|")[1].strip(): line for line in markdown.splitlines() if "|" in line}
    for name in ("psnr_background ↑ (dB)", "structure ↓ (×10³)"):
        assert rows[name].count("**") == 2
    assert "**" not in rows["steps"]


def test_names_are_text_and_not_markup() -> None:
    runs: dict[Label, Summary] = {("a[red]|b",): run(0), ("[/]",): run(1)}
    text = shown(runs, 100)
    assert "a[red]|b" in text
    assert "[/]" in text
    assert "a[red]\\|b" in to_markdown(grids(runs, COLUMNS))


def test_settings_have_rows_of_their_own_and_say_how_many_runs() -> None:
    runs = {("1.0", "0"): run(0), ("2.0", "0"): run(1)}
    gathered = {("1.0", "0"): 3, ("2.0", "0"): 1}
    for width in (60, 200):
        made = grids(runs, COLUMNS, width=width, keys=("guidance", "seed"), gathered=gathered)
        assert (len(made) == 1) == (width == 200)
        assert all(
            grid.keys == 2 and list(grid.header[:2]) == ["guidance", "seed"] for grid in made
        )
        assert [c.text for c in made[0].rows[0][:5]] == ["1.0", "0", "3", "12", "0"]
        headers = [name for grid in made for name in grid.header if name.startswith("structure")]
        assert headers == ["structure ↓\n(×10³)"]


def test_the_best_and_the_second_best_of_three() -> None:
    higher, lower, neither = COLUMNS[0], COLUMNS[1], COLUMNS[3]
    assert ranks([3.0, None, 1.0, 2.0], higher) == [1, 0, 0, 2]
    assert ranks([3.0, None, 1.0, 2.0], lower) == [0, 0, 1, 2]
    assert ranks([3.0, 1.0, 2.0], neither) == [0, 0, 0]
    assert ranks([3.0, 1.0], higher) == [1, 0]  # a second of two is the worst
    assert ranks([0.1 + 0.2, 0.3, 0.2, 0.1], higher) == [1, 1, 2, 0]  # equal but for rounding
    assert ranks([1.0, None], higher) == [0, 0]


def test_infinite_values_rank_best() -> None:
    higher, lower = COLUMNS[0], COLUMNS[1]
    assert ranks([20.0, 30.0], higher, [0.9, 0.0]) == [0, 0]  # not comparable
    assert ranks([30.0, 30.0], higher, [0.9, 0.0]) == [1, 0]
    assert ranks([31.0, 30.0, 20.0], higher, [0.9, 0.0, 0.0]) == [1, 2, 0]
    assert ranks([None, 30.0], higher, [1.0, 0.0]) == [1, 0]  # infinite in every case
    assert ranks([None, None], higher, [1.0, 0.0]) == [0, 0]
    assert ranks([None, 30.0], lower, [1.0, 0.0]) == [0, 1]


def test_markdown_has_no_html_and_no_links() -> None:
    name = "<img src=x onerror=hit()> &lt;b&gt; ![x](http://x) **best** `"
    runs: dict[Label, Summary] = {(name,): run(0), ("b",): run(1)}
    text = to_markdown(grids(runs, COLUMNS))
    assert "<" not in text
    assert "](" not in text
    assert "&amp;lt;b" in text
    assert "\\*\\*best" in text


def test_tables_have_no_control_characters() -> None:
    name = "a\x1b[2J\x9b31m\u202e\r\nb"
    runs: dict[Label, Summary] = {(name,): run(0), ("b",): run(1)}
    made = grids(runs, [{**COLUMNS[0], "name": "m\x1b[1m"}])
    for text in (shown(runs, 200), *(form(made) for form in FORMATS.values())):
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)
    assert "a\\x1b[2J\\x9b31m\\u202e\\r\\nb" in shown(runs, 200)


def test_marks_need_no_colour() -> None:
    runs: dict[Label, Summary] = {(f"run{i}",): run(i) for i in range(3)}
    best = next(line for line in shown(runs, 120).splitlines() if "psnr_background" in line)
    assert best.count("**") == 1
    assert best.replace("**", "").count("*") == 1


def test_latex_has_booktabs_and_no_bare_symbols() -> None:
    name = "a_b & 50% of #1 {x} ~^\\ ±"
    runs: dict[Label, Summary] = {(name,): run(0), ("b",): run(1), ("c",): run(2)}
    text = to_latex(grids(runs, COLUMNS))
    for part in ("\\toprule", "\\midrule", "\\bottomrule", "\\textbf{", "\\underline{", "$\\pm$"):
        assert part in text
    assert latex_text(name) == (
        "a\\_b \\& 50\\% of \\#1 \\{x\\} \\textasciitilde{}\\textasciicircum{}"
        "\\textbackslash{} $\\pm$"
    )
    table = text[text.index("\\toprule") : text.index("\\bottomrule")]
    assert not set("±↑↓×") & set(text)
    rows = [line for line in table.splitlines() if line.endswith("\\\\")]
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {3}
    assert text.count("{") - text.count("\\{") == text.count("}") - text.count("\\}")


def test_html_is_one_page_with_escaped_text() -> None:
    runs: dict[Label, Summary] = {("<script>x</script>",): run(0), ("b",): run(1), ("c",): run(2)}
    page = to_html(grids(runs, COLUMNS))
    assert page.startswith("<!doctype html>")
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert page.count("<tr>") == page.count("</tr>") == 1 + len(COLUMNS) + 2
    assert page.count("<b>") == page.count("<u>") == 4

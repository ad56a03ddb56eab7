"""Published numbers: the registry's format, the range of sources, and how to run a row."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from pathlib import Path

import pytest
from made_up import LPIPS, PSNR, ok, write_run

from zerocon.cli import main
from zerocon.config.settings import compose_settings
from zerocon.reports.layout import Grid
from zerocon.reports.published import (
    FOLDER,
    NOT_HERE,
    NOT_SAID,
    READ,
    SETS,
    PublishedRow,
    published_grids,
    published_rows,
    spread_grids,
)

STRUCTURE = {"name": "structure", "unit": "1e-3", "better": "lower", "digits": 2}
PLAUSIBLE = {  # in our units
    "structure": (1, 100),
    "psnr_bg": (14, 40),
    "lpips_bg": (5, 320),
    "mse_bg": (3, 400),
    "ssim_bg": (0.5, 1),
    "clip_whole": (20, 30),
    "clip_edited": (18, 27),
}
ROWS = published_rows("pie_bench")
OWN = [row for row in ROWS if row.own and row.details["read"] != "listed"]


def key(row: PublishedRow) -> tuple[str, ...]:
    where, settings, mask = (row.details[part] for part in ("where", "settings", "mask"))
    return row.model, row.source, row.details["address"], where, settings, mask


def test_the_registry_holds_many_rows_read_at_their_sources() -> None:
    assert len(OWN) >= 60
    assert len({row.source for row in OWN}) >= 8


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.model}, {row.source}")
def test_a_row_says_what_it_is_and_where_it_was_read(row: PublishedRow) -> None:
    assert row.name
    assert row.base
    assert row.source
    assert row.details["where"]
    assert re.match(r"https://|no address read", row.details["address"])
    assert row.details["read"] in READ
    assert row.details["cases"] in ("620", "700", "9 of 10 types")
    assert row.details["mask"] in ("", "given")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.model}, {row.source}")
def test_numbers_are_in_their_units(row: PublishedRow) -> None:
    assert set(row.values) == set(PLAUSIBLE)
    values = {name: value for name, value in row.values.items() if value is not None}
    assert values
    for name, value in values.items():
        low, high = PLAUSIBLE[name]
        assert low <= value <= high, f"{name} is {value}"


def test_no_row_is_repeated() -> None:
    assert [k for k, count in Counter(map(key, ROWS)).items() if count > 1] == []


def test_no_numbers_are_another_sources_without_saying_so() -> None:
    """Papers copy rows of others; copies must be marked, so that they do not count twice."""
    seen: dict[tuple[float | None, ...], PublishedRow] = {}
    for row in filter(lambda row: row.own, ROWS):
        other = seen.setdefault(tuple(row.values.values()), row)
        assert other is row, f"{row.model}: {row.source} has the numbers of {other.source}"


def test_the_columns_of_the_file_carry_their_units() -> None:
    with (FOLDER / "pie_bench.csv").open(encoding="utf-8", newline="") as file:
        header = next(csv.reader(file))
    assert set(SETS["pie_bench"].columns) <= set(header)
    scaled = [name for name in SETS["pie_bench"].columns if re.search(r"_x1e\d$", name)]
    assert len(scaled) == 4  # PSNR is in dB, CLIP in hundredths of a cosine


HERE = sorted({row.here for row in ROWS} - {NOT_HERE})


@pytest.mark.parametrize("overrides", HERE)
def test_what_runs_a_row_here_composes(overrides: str) -> None:
    root = "dataset.root=somewhere"
    compose_settings(
        [*overrides.split(), "dataset=pie_bench", root, "metrics=published"], worlds="any"
    )


def test_every_line_of_what_runs_here_belongs_to_a_row() -> None:
    with (FOLDER / SETS["pie_bench"].here).open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert {line["overrides"] for line in lines} == set(HERE)


def grid_of(grids: list[Grid], title: str) -> Grid:
    return next(grid for grid in grids if title in grid.title)


def texts(grid: Grid) -> list[list[str]]:
    return [[cell.text for cell in row] for row in grid.rows]


def test_the_range_of_sources_for_one_method() -> None:
    spread = grid_of(published_grids("pie_bench", [STRUCTURE, PSNR]), "range of the sources")
    rows = {row[0]: row[1:] for row in texts(spread)}
    assert rows["FlowEdit on SD3"] == ["2", "26.39 to 27.12", "22.22 to 22.27"]
    assert rows["PnP + DDIM on SD1.5"] == ["2", "27.35 to 28.22", "22.28 to 22.31"]
    assert "FireFlow on FLUX" not in rows  # measured once on all pictures, twice on fewer
    assert "FTEdit on SD3.5" not in rows  # one of two quotes
    assert not any(NOT_SAID in name for name in rows)


def made(source: str, value: float | None, **details: str) -> PublishedRow:
    return PublishedRow("M", "B", source, {"psnr_bg": value}, (), details)


def test_a_spread_needs_two_sources_that_measured() -> None:
    quoted = made("Q", 3.0, quoted="P")
    assert spread_grids([made("P", 1.0), made("P", 2.0), quoted], [PSNR]) == []
    (grid,) = spread_grids([made("P", 1.0), made("R", 2.5), made("S", None), quoted], [PSNR])
    assert texts(grid) == [["M on B", "3", "1.00 to 2.50"]]
    subset = made("R", 2.5, cases="620")
    assert spread_grids([made("P", 1.0, cases="700"), subset], [PSNR]) == []
    assert spread_grids([made("P", 1.0), made("R", 2.0, mask="given")], [PSNR]) == []


def test_the_table_says_what_to_set_and_what_is_not_available() -> None:
    here = grid_of(published_grids("pie_bench", [PSNR], width=100), "how to run a row")
    settings = "+experiment=p2p_pie_bench inversion=null_text backbone=sd14"
    assert ["P2P + null-text on SD1.4", settings] in texts(here)
    assert any(NOT_HERE in note for note in here.notes)
    rows = texts(published_grids("pie_bench", [PSNR])[0])
    assert {row[5] for row in rows if row[0] == "published: P2P + null-text"} == {settings}
    assert {row[5] for row in rows if row[0] == "published: ViMAEdit"} == {NOT_HERE}


@pytest.mark.parametrize("form", ["terminal", "markdown", "latex", "html"])
def test_what_runs_a_row_and_the_spread_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    run = write_run(tmp_path / "mine", [ok("x", psnr_bg=1.25, lpips_bg=2.0)])
    main(["table", str(run), "--published", "pie_bench", "--format", form])
    text = capsys.readouterr().out
    assert text.index("not measured here") < text.index("range of the sources")
    assert "22.22 to 22.27" in text
    assert ("how to run a row" if form == "terminal" else "to run it here") in text


def test_csv_has_every_field_of_a_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "mine", [ok("x", psnr_bg=1.25)], columns=[PSNR, LPIPS])
    main(["table", str(run), "--published", "pie_bench", "--format", "csv"])
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    row = next(r for r in rows if r.get("run") == "FTEdit" and r["reported by"] == "DNAEdit")
    assert row["where"] == "Table 2"
    assert row["address"] == "https://arxiv.org/abs/2506.01430"
    assert row["read"] == "text"
    assert row["quoted"] == "FTEdit's authors"
    assert row["to run it here"] == NOT_HERE

from __future__ import annotations

import math
from pathlib import Path
from random import Random

import numpy as np
import pytest
from made_up import COLUMNS, LPIPS, PSNR, failed, ok, write_run

from zerocon.core.checks import ConfigError
from zerocon.core.records import RecordError
from zerocon.ledger.records import read_records
from zerocon.reports.runs import find_runs
from zerocon.reports.store import Store
from zerocon.reports.summary import Statistic, Summary, summarize


def summaries(*directories: Path, rows: list[int] | None = None) -> list[Summary]:
    runs = find_runs(directories)
    return Store(runs, COLUMNS).summaries(rows or range(len(runs)), per_type=True)


def same(a: Summary, b: Summary) -> None:
    assert list(a.edit_types) == list(b.edit_types)
    for kind in ("", *a.edit_types):
        one = a.edit_types[kind] if kind else a.overall
        other = b.edit_types[kind] if kind else b.overall
        assert (one.name, one.cases, one.failed) == (other.name, other.cases, other.failed)
        assert one.seconds == pytest.approx(other.seconds)
        for name, stat in one.metrics.items():
            theirs = other.metrics[name]
            assert (stat.n, stat.nan, stat.infinite) == (theirs.n, theirs.nan, theirs.infinite)
            numbers = [math.nan if x is None else x for x in (stat.mean, stat.stderr)]
            wanted = [math.nan if x is None else x for x in (theirs.mean, theirs.stderr)]
            assert numbers == pytest.approx(wanted, rel=1e-12, nan_ok=True)


def test_the_table_agrees_with_the_runs_summary(tmp_path: Path) -> None:
    """DuckDB's sums against those in Python, with everything that is left out."""
    random = Random(0)
    odd = {3: math.inf, 5: math.nan, 8: -math.inf}
    runs = [
        write_run(
            tmp_path / f"run{i}",
            [
                failed(str(case), str(case % 12))
                if case % 7 == i
                else ok(
                    str(case),
                    str(case % 12),
                    psnr_bg=odd.get(case, random.gauss(20, 3)),
                    lpips_bg=random.random(),
                )
                for case in range(50)
            ],
        )
        for i in range(3)
    ]
    for run, summary in zip(runs, summaries(*runs), strict=True):
        same(summary, summarize(read_records(run), COLUMNS))


def test_a_row_of_several_runs_averages_each_case_first(tmp_path: Path) -> None:
    # Case a has 1 and 3, so 2. Case b has 5 and inf, so 5. Mean 3.5, spread sqrt(4.5).
    one = write_run(tmp_path / "one", [ok("a", psnr_bg=1.0), ok("b", psnr_bg=5.0)])
    two = write_run(tmp_path / "two", [ok("a", psnr_bg=3.0), ok("b", psnr_bg=math.inf)])
    (summary,) = summaries(one, two, rows=[0, 0])
    assert summary.overall.metrics["psnr_bg"] == Statistic(3.5, pytest.approx(1.5), 2, infinite=1)
    assert summary.overall.metrics["lpips_bg"] == Statistic(None, None, 0, nan=4)
    assert summary.overall.cases == 2
    assert summary.overall.seconds == 2.0


def test_the_last_line_of_a_case_counts(tmp_path: Path) -> None:
    again = [failed("a"), ok("b", psnr_bg=1.0), ok("a", psnr_bg=7.0), ok("b", psnr_bg=2.0)]
    other = write_run(tmp_path / "other", [ok("a", psnr_bg=100.0)])
    run = write_run(tmp_path / "run", again)
    overall = summaries(other, run)[1].overall
    assert (overall.cases, overall.failed) == (2, 0)
    assert overall.metrics["psnr_bg"].mean == 4.5


def test_an_incomplete_last_line_is_ignored(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [ok("a", psnr_bg=1.0), ok("b", psnr_bg=2.0)])
    with (run / "records.jsonl").open("ab") as file:
        file.write(ok("c", psnr_bg=9.0).to_line()[:40])
    assert summaries(run)[0].overall.metrics["psnr_bg"].mean == 1.5


@pytest.mark.parametrize(
    "line",
    [
        b"not json\n",
        b'{"schema": 1}\n',
        ok("c").to_line().replace(b'"schema": 1', b'"schema": 2'),
        ok("c").to_line().replace(b'"ok"', b'"good"'),
        ok("c", psnr_bg=1.0).to_line().replace(b'"psnr_bg": 1.0', b'"psnr_bg": "high"'),
        ok("c", psnr_bg=1.0).to_line().replace(b'"psnr_bg": 1.0', b'"psnr_bg": "nan"'),
    ],
)
def test_a_damaged_line_is_named_and_never_skipped(tmp_path: Path, line: bytes) -> None:
    fine = write_run(tmp_path / "fine", [ok("a")])
    run = write_run(tmp_path / "run", [ok("a"), ok("b")])
    with (run / "records.jsonl").open("ab") as file:
        file.write(line + ok("d").to_line())
    with pytest.raises(RecordError, match=r"run/records\.jsonl, line 3"):
        summaries(fine, run)


def test_names_are_not_read_as_patterns_or_sql(tmp_path: Path) -> None:
    column = {**PSNR, "name": """p"s'n r"""}
    records = [ok("it's", **{"""p"s'n r""": 3.0})]
    run = write_run(tmp_path / "a[b]*'c", records, columns=[column])
    write_run(tmp_path / "ab'c", [ok("x")])
    runs = find_runs([run])
    assert [r.label for r in runs] == ["a[b]*'c"]
    (summary,) = Store(runs, [column]).summaries([0], per_type=False)
    assert summary.overall.metrics["""p"s'n r"""].mean == 3.0


def test_a_run_without_records(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [])
    empty = Statistic(None, None, 0)
    assert summaries(run)[0].overall.metrics["psnr_bg"] == empty
    (run / "records.jsonl").unlink()
    assert summaries(run)[0].overall.metrics["psnr_bg"] == empty
    assert summaries(run)[0].overall.cases == 0


def test_cells_are_aligned_by_case(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", [ok("b", "1", psnr_bg=1.0), ok("a", "2", psnr_bg=2.0)])
    two = write_run(tmp_path / "two", [failed("a", "2"), ok("b", "1", psnr_bg=math.inf)])
    cells = Store(find_runs([one, two]), [PSNR, LPIPS]).cells()
    assert (cells.cases, cells.edit_types) == (["b", "a"], ["1", "2"])
    np.testing.assert_array_equal(cells.values["psnr_bg"], [[1, 2], [math.inf, math.nan]])
    np.testing.assert_array_equal(cells.ok, [[True, True], [True, False]])
    assert cells.recorded.all()


def test_runs_are_found_by_folder_and_pattern(tmp_path: Path) -> None:
    names = ("b/run-10", "a/run-2", "a/run-10")
    for name in names:
        write_run(tmp_path / name, [ok("x")])
    below = find_runs([f"{tmp_path}/**"])
    assert [run.label for run in below] == ["run-2", "a/run-10", "b/run-10"]
    assert [r.directory for r in find_runs([tmp_path])] == [r.directory for r in below]
    twice = find_runs([tmp_path / "a" / "run-2", f"{tmp_path}/*/run-2"])
    assert [run.label for run in twice] == ["run-2"]
    with pytest.raises(ConfigError, match="nothing at"):
        find_runs([tmp_path / "c"])
    (tmp_path / "c").mkdir()
    with pytest.raises(ConfigError, match=r"no run\.json"):
        find_runs([tmp_path / "c"])

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from zerocon.core.records import Record
from zerocon.reports.summary import Statistic, statistic, summarize, write_summary

PSNR = {"name": "psnr", "unit": "dB", "better": "higher", "digits": 2}


def record(case: str, psnr: float, kind: str = "") -> Record:
    metrics = {"psnr": psnr}
    return Record(case=case, status="ok", metrics=metrics, edit_type=kind, edit_name=f"kind {kind}")


def failed(case: str, kind: str = "") -> Record:
    return Record(case=case, status="failed", error="no", edit_type=kind, metrics={"psnr": 1e9})


def test_mean_and_standard_error() -> None:
    # 1, 2, 3, 4: mean 5/2, sample variance 5/3, so the error is sqrt(5/12)
    assert statistic([1, 2, 3, 4]) == Statistic(2.5, pytest.approx(math.sqrt(5 / 12)), 4)
    assert statistic([7.0]) == Statistic(7.0, None, 1)
    assert statistic([]) == Statistic(None, None, 0)


def test_nan_and_infinity_are_left_out_and_counted() -> None:
    values = [1.0, math.inf, 3.0, math.nan, -math.inf]
    assert statistic(values) == Statistic(2.0, 1.0, 2, nan=1, infinite=2)
    assert statistic([math.inf]).mean is None


def test_failed_cases_count_but_their_numbers_do_not() -> None:
    summary = summarize([record("a", 1.0), failed("b"), record("c", 3.0)], [PSNR])
    assert (summary.overall.cases, summary.overall.failed) == (3, 1)
    assert summary.overall.metrics["psnr"].mean == 2.0
    assert summary.edit_types == {}


def test_edit_types_come_in_their_order() -> None:
    records = [
        record("a", 1.0, "10"),
        record("b", 2.0, "9"),
        record("c", 4.0, "9"),
        failed("d", "9"),
    ]
    types = summarize(records, [PSNR]).edit_types
    assert list(types) == ["9", "10"]
    assert (types["9"].name, types["9"].cases, types["9"].failed) == ("kind 9", 3, 1)
    assert types["9"].metrics["psnr"].mean == 3.0


def test_a_measure_that_a_record_lacks_is_not_measurable() -> None:
    summary = summarize([record("a", 1.0)], [PSNR, {**PSNR, "name": "ssim"}])
    assert summary.overall.metrics["ssim"] == Statistic(None, None, 0, nan=1)


def test_the_file_is_json_without_surprises(tmp_path: Path) -> None:
    summary = summarize([record("a", math.inf, "1"), record("b", math.nan, "1")], [PSNR])
    content = json.loads(write_summary(tmp_path, summary, [PSNR]).read_text())
    assert content["overall"]["metrics"]["psnr"] == {
        "mean": None, "stderr": None, "n": 0, "nan": 1, "infinite": 1
    }  # fmt: skip
    assert content["columns"] == [PSNR]
    assert content["edit_types"]["1"]["cases"] == 2


def test_reports_do_not_import_runs() -> None:
    """They read a run's data through the ledger."""
    pattern = re.compile(r"^\s*(?:from|import) (zerocon\.\w+|torch)", re.MULTILINE)
    for file in (Path(__file__).parents[2] / "zerocon" / "reports").rglob("*.py"):
        imported = set(pattern.findall(file.read_text()))
        assert not {"zerocon.runs", "zerocon.commands", "torch"} & imported, file


def test_reports_do_not_load_torch() -> None:
    names = (
        "summary",
        "gallery.page",
        "table",
        "comparison",
        "frontier.table",
        "page.report",
        "calibration.table",
    )
    modules = ", ".join(f"zerocon.reports.{name}" for name in names)
    program = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)

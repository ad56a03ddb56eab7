from __future__ import annotations

import csv
import io
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_up import LPIPS, PSNR, failed, method, ok, write_run

from zerocon.cli import main
from zerocon.core.checks import ConfigError
from zerocon.core.records import Record
from zerocon.reports.published import SETS, published_rows
from zerocon.reports.statistics import bootstrap_means
from zerocon.reports.table import print_table

ROOT = Path(__file__).parents[2]


def sweep(folder: Path) -> None:
    """Guidance 2 and 10 with two seeds each: psnr_bg is guidance + seed + the case's number."""
    for guidance in (2.0, 10.0):
        for seed in (0, 1):
            records = [ok(str(i), str(i % 2), psnr_bg=guidance + seed + i) for i in range(4)]
            config = method("Ddim", seed, guidance=guidance)
            write_run(folder / f"run-{guidance}-{seed}", records, config)


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    main(["table", *arguments])
    return capsys.readouterr().out


def test_rows_of_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep(tmp_path)
    text = printed(
        capsys, f"{tmp_path}/**", "--rows", "method.guidance", "--metrics", "psnr_bg", "--markdown"
    )
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    # cases 0..3 mean 1.5, seeds mean 0.5; spread of 0..3 is sqrt(5/3), its error sqrt(5/12)
    assert rows[2] == "| 2.0 | 2 | 4 | 0 | 4.00 ± 0.65 |"
    assert rows[3] == "| 10.0 | 2 | 4 | 0 | **12.00 ± 0.65** |"
    assert "each case is first averaged over seed" in text


def test_several_settings_are_several_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep(tmp_path)
    arguments = (str(tmp_path), "--rows", "method,method.guidance,seed", "--format", "csv")
    text = printed(capsys, *arguments)
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(r["method"], r["method.guidance"], r["seed"]) for r in rows] == [
        ("Ddim", g, s) for g in ("2.0", "10.0") for s in ("0", "1")
    ]
    assert [float(row["psnr_bg (dB)"]) for row in rows] == [3.5, 4.5, 11.5, 12.5]


def test_csv_has_full_precision_and_every_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [ok("a", "0", psnr_bg=1.0), ok("b", "0", psnr_bg=1 / 3), failed("c", "1")]
    run = write_run(tmp_path / "run", records, columns=[PSNR])
    overall, first, second = csv.DictReader(
        io.StringIO(printed(capsys, str(run), "--per-type", "--format", "csv"))
    )
    assert (overall["kind"], overall["run"], overall["edit_type"]) == ("measured", "run", "all")
    assert (overall["cases"], overall["failed"], overall["psnr_bg n"]) == ("3", "1", "2")
    assert float(overall["psnr_bg (dB)"]) == pytest.approx(2 / 3, rel=1e-12)
    assert float(overall["psnr_bg s.e. (dB)"]) == pytest.approx(1 / 3, rel=1e-12)
    assert (first["edit_type"], second["failed"]) == ("0 kind 0", "1")
    assert second["psnr_bg (dB)"] == ""


def test_intervals_are_of_the_cases_in_every_form(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep(tmp_path)
    asked = (str(tmp_path), "--rows", "method.guidance", "--intervals", "--per-type")
    rows = list(csv.DictReader(io.StringIO(printed(capsys, *asked, "--format", "csv"))))
    assert [(r["edit_type"], r["psnr_bg n"]) for r in rows[:3]] == [
        ("all", "4"),
        ("0 kind 0", "2"),
        ("1 kind 1", "2"),
    ]
    # Of the cases' means over the seeds: 2.5, 3.5, 4.5, 5.5; of type 0 2.5 and 4.5
    low, high = bootstrap_means(np.array([2.5, 3.5, 4.5, 5.5])[:, None])
    assert float(rows[0]["psnr_bg low (dB)"]) == pytest.approx(low[0])
    assert float(rows[0]["psnr_bg high (dB)"]) == pytest.approx(high[0])
    of_type = [float(rows[1][f"psnr_bg {end} (dB)"]) for end in ("low", "high")]
    assert of_type == [2.5, 4.5]

    text = printed(capsys, *asked, "--markdown")
    assert f"| 2.0 | 2 | 4 | 0 | 4.00 [{low[0]:.2f}, {high[0]:.2f}] |" in text
    assert "mean [95% interval from 10,000 resamples of the cases]" in text
    assert "±" not in text
    alone = printed(capsys, str(tmp_path / "run-2.0-0"), "--intervals")
    assert "mean [95%]" in alone
    assert "[2.00, 5.00]" in alone


def test_one_case_has_no_interval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", [ok("a", psnr_bg=1.0)], columns=[PSNR])
    (row,) = csv.DictReader(
        io.StringIO(printed(capsys, str(run), "--intervals", "--format", "csv"))
    )
    assert (row["psnr_bg (dB)"], row["psnr_bg low (dB)"], row["psnr_bg high (dB)"]) == (
        "1.0",
        "",
        "",
    )


def test_different_evaluations_never_share_a_column(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "a", [ok("x", psnr_bg=1.0)])
    write_run(tmp_path / "b", [ok("x", psnr_bg=2.0)], protocol="published")
    write_run(tmp_path / "c", [ok("x", psnr_bg=3.0)], judges={"ClipScore": "other"})
    write_run(tmp_path / "d", [ok("x", psnr_bg=4.0)])
    text = printed(capsys, str(tmp_path))
    assert [f"{i} of 3" in text for i in (1, 2, 3, 4)] == [True, True, True, False]
    assert "the runs differ in protocol, the judges' weights" in " ".join(text.split())
    first = text[: text.index("2 of 3")]
    assert "1.00" in first
    assert "4.00" in first
    assert "2.00" not in first
    assert "3.00" not in first


def test_a_method_given_the_mask_has_a_separate_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "a", [ok("x", psnr_bg=1.0)])
    write_run(tmp_path / "b", [ok("x", psnr_bg=2.0)], uses_mask=True)
    assert "2 of 2: shapes_pie_20, protocol masked, given the mask" in printed(
        capsys, str(tmp_path)
    )


def test_one_column_has_one_unit(tmp_path: Path) -> None:
    write_run(tmp_path / "a", [ok("x", lpips_bg=1.0)])
    write_run(tmp_path / "b", [ok("x", lpips_bg=0.001)], columns=[{**LPIPS, "unit": ""}])
    with pytest.raises(ConfigError, match="lpips_bg is in 1e-3 in one run and in no unit in b"):
        print_table([tmp_path])


def test_missing_metrics_and_settings_are_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", [ok("x")], method("Ddim", guidance=1.0))
    with pytest.raises(ConfigError, match=r"'method\.guidence'.*method\.guidance"):
        print_table([run], rows=["method.guidence"])
    with pytest.raises(ConfigError, match=r"'psnr'.*psnr_bg"):
        print_table([run], metrics=["psnr"])
    with pytest.raises(ConfigError, match="--format is 'word'"):
        print_table([run], form="word")
    with pytest.raises(ConfigError, match="--published is 'pie'"):
        print_table([run], published="pie")


def test_unfinished_runs_and_mixed_revisions_are_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "a", [ok("x")], case_ids=["x", "y", "z"])
    write_run(tmp_path / "b", [ok("x")], provenance={"git": {"revision": "f" * 40}})
    text = printed(capsys, str(tmp_path), "--format", "markdown")
    assert "not all cases are done yet: a (1 of 3)" in text
    assert "different revisions of the code: 0123456789ab, ffffffffffff" in text


@pytest.mark.parametrize("form", ["terminal", "markdown", "latex", "html", "csv"])
def test_published_numbers_are_never_taken_for_measured_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    run = write_run(tmp_path / "mine", [ok("x", psnr_bg=1.25, lpips_bg=2.0)])
    text = printed(capsys, str(run), "--published", "pie_bench", "--format", form)
    start = text.lower().index("published")
    measured, published = text[:start], text[start:]
    assert "shapes" in measured  # which dataset
    assert "1.25" in measured
    assert "1.25" not in published
    numbers = [line for line in text.splitlines() if "StyleDiffusion" in line]
    assert numbers
    for line in numbers:  # P2P + StyleDiffusion, as Ju et al. print it
        assert "published" in line
        assert "SD1.4" in line
        assert form == "terminal" or "Ju et al." in line
    assert "26.05" in "".join(numbers)
    assert "66.1" in "".join(numbers)
    if form != "csv":
        words = " ".join(text.split())
        assert "not measured here" in words
        assert "of another dataset than the measured ones" in words


def test_every_published_row_has_its_base_model_and_source() -> None:
    for name in SETS:
        rows = published_rows(name)
        assert all(row.base and row.source and row.name for row in rows)
        assert any(value is not None for row in rows for value in row.values.values())
    units = published_rows("pie_bench")[0].values
    assert units["ssim_bg"] == pytest.approx(0.7114)  # our SSIM is not in hundredths
    assert published_rows("pix2pix_zero")[3].values["lpips_bg"] == pytest.approx(182)


@pytest.mark.slow
def test_very_many_records_are_read_in_little_memory(tmp_path: Path) -> None:
    """200,000 records; a million take five times as long, but not five times the memory."""
    command = [sys.executable, "benchmarks/table.py", "--runs", "400", "--folder", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    told = json.loads(done.stdout)
    assert told["records"] == 200_000
    assert told["peak_MiB"] < 512
    assert told["processor_seconds"] < 10
    rows = [
        line for line in (tmp_path / "table.txt").read_text().splitlines() if "guidance=" in line
    ]
    assert len(rows) == 400


def test_csv_of_everything_is_one_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Measured runs of two evaluations and published rows, under one header."""
    write_run(tmp_path / "a", [ok("x", psnr_bg=1.25, lpips_bg=2.0)])
    write_run(tmp_path / "b", [ok("x", psnr_bg=2.5)], columns=[PSNR], protocol="published")
    text = printed(capsys, str(tmp_path), "--published", "pie_bench", "--format", "csv")
    header, *lines = csv.reader(io.StringIO(text))
    assert len(set(header)) == len(header)
    assert {len(line) for line in lines} == {len(header)}
    rows = [dict(zip(header, line, strict=True)) for line in lines]
    assert [row["kind"] for row in rows[:3]] == ["measured", "measured", "published"]
    assert [row["psnr_bg (dB)"] for row in rows[:3]] == ["1.25", "2.5", "17.87"]
    assert [row["lpips_bg (1e-3)"] for row in rows[:3]] == ["2.0", "", "208.8"]
    assert rows[2]["reported by"].startswith("PnP Inversion")


def infinite(cases: int, untouched: int, psnr: float) -> list[Record]:
    return [
        ok(str(i), psnr_bg=math.inf if i < untouched else psnr, lpips_bg=1.0) for i in range(cases)
    ]


def test_a_mean_with_infinite_values_is_infinite(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "plain", infinite(10, 0, 30.0))
    write_run(tmp_path / "pastes", infinite(10, 9, 20.0))
    text = printed(capsys, str(tmp_path), "--markdown", "--metrics", "psnr_bg")
    assert "| ∞ in 9, else 20.00 |" in text
    assert "**" not in text  # nothing says that the 30 dB are better than nine untouched ones
    assert "no best: infinite values and the mean of the others disagree" in text
    rows = csv.DictReader(io.StringIO(printed(capsys, str(tmp_path), "--format", "csv")))
    numbers = {row["run"]: row for row in rows}
    assert numbers["pastes"]["psnr_bg (dB)"] == "inf"
    assert numbers["pastes"]["psnr_bg infinite"] == "9"
    assert numbers["pastes"]["psnr_bg mean of the finite (dB)"] == "20.0"
    assert numbers["plain"]["psnr_bg (dB)"] == "30.0"
    write_run(tmp_path / "all", infinite(10, 10, 0.0))
    assert "| **∞** |" in printed(capsys, str(tmp_path), "--markdown", "--metrics", "psnr_bg")


def test_formulas_are_text_in_csv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kinds = ('=HYPERLINK("http://x")', "+1+cmd", "-1+1", "@SUM(A1)", "-0.5", "plain", "\t=1")
    records = [
        Record(case=str(i), status="ok", edit_type=kind, metrics={"psnr_bg": -1.0})
        for i, kind in enumerate(kinds)
    ]
    run = write_run(tmp_path / "=1+1", records, columns=[PSNR])
    text = printed(capsys, str(run), "--per-type", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert {row["run"] for row in rows} == {"'=1+1"}
    assert {row["psnr_bg (dB)"] for row in rows} == {"-1.0"}
    assert {row["edit_type"] for row in rows[1:]} == {
        "'=HYPERLINK(\"http://x\")", "'+1+cmd", "'-1+1", "'@SUM(A1)", "-0.5", "plain", "\\t=1",
    }  # fmt: skip

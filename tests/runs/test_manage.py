"""`zerocon runs`: listed by state and settings, removed, exported."""

from __future__ import annotations

import json
import math
from pathlib import Path

import duckdb
import pytest

from zerocon.cli import main
from zerocon.core.records import Record
from zerocon.ledger.claims import Claims
from zerocon.ledger.origin import Origin
from zerocon.ledger.records import RecordLog
from zerocon.ledger.run_directory import RunDirectory


def run_at(root: Path, name: str, steps: int, *records: Record, cases: int = 2) -> Path:
    directory = root / name
    ids = [str(i) for i in range(cases)]
    RunDirectory(directory).write_origin(Origin(name, ids, [], "masked", {}, {}, {}, False, {}))
    (directory / "config.yaml").write_text(f"name: {name}\nmethod: {{steps: {steps}}}\n")
    with RecordLog(directory) as log:
        for record in records:
            log.append(record)
    return directory


def ok(case: str, **metrics: float) -> Record:
    return Record(case=case, status="ok", metrics=metrics, notes=("it's gray",))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    run_at(tmp_path, "whole", 10, ok("0", psnr=1.5), ok("1", psnr=math.inf, ssim=math.nan))
    run_at(tmp_path, "half", 20, ok("0", psnr=2.0))
    run_at(tmp_path, "bad", 20, ok("0"), Record(case="1", status="failed", error="no mask"))
    return tmp_path


def listed(root: Path, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, str]:
    main(["runs", "--root", str(root), *more])
    lines = capsys.readouterr().out.splitlines()
    return {Path(d).name: said for d, said in (line.split("  ", 1) for line in lines)}


def test_runs_are_listed_with_how_far_they_are(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert listed(root, capsys) == {
        "whole": "done: 2 of 2 cases are recorded",
        "half": "partial: 1 of 2 cases are recorded",
        "bad": "failed: 2 of 2 cases are recorded, 1 of them failed",
    }
    assert listed(root, capsys, "--state", "partial").keys() == {"half"}
    assert listed(root, capsys, "--where", "method.steps=20").keys() == {"half", "bad"}


def test_a_run_at_work_is_running(root: Path) -> None:
    from multiprocessing import get_context

    with Claims(root / "half"), get_context("fork").Pool(1) as pool:
        assert pool.apply(_state, (root / "half",)) == "running"


def _state(directory: Path) -> str:
    return RunDirectory(directory).status().state


def test_runs_are_removed_only_with_yes(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ["runs", "remove", "--root", str(root), "--state", "partial"]
    main(chosen)
    assert (root / "half").exists()
    main([*chosen, "--yes"])
    assert sorted(p.name for p in root.iterdir()) == ["bad", "whole"]


def test_records_become_parquet(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = root / "it's all.parquet"
    main(["runs", "export", "--root", str(root), "--out", str(out)])
    assert "5 records of 3 runs" in capsys.readouterr().out
    name = str(out).replace("'", "''")
    table = duckdb.sql(f"SELECT * FROM '{name}'").fetchall()  # noqa: S608
    columns = duckdb.sql(f"SELECT * FROM '{name}'").columns  # noqa: S608
    rows = {(r["run"], r["case"]): r for r in (dict(zip(columns, t, strict=True)) for t in table)}
    assert rows["whole", "0"]["metric_psnr"] == 1.5
    assert rows["whole", "1"]["metric_psnr"] == math.inf
    assert rows["whole", "1"]["metric_ssim"] is None
    assert rows["whole", "0"]["notes"] == ["it's gray"]
    assert rows["bad", "1"]["error"] == "no mask"
    assert sorted(p.name for p in root.iterdir()) == ["bad", "half", "it's all.parquet", "whole"]
    assert json.dumps(columns).count("metric_") == 2

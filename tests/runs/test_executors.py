"""With real models: other executors record what one process does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zerocon.config import compose_settings
from zerocon.runs import runner
from zerocon.runs.records import read_records
from zerocon.shapes.benchmark import write_benchmark

pytestmark = pytest.mark.slow
QUICK = ["metrics.clip=null", "metrics.lpips=null", "metrics.structure=null", "metrics.truth=null"]


def run_by(executor: str, root: Path, pie: Path) -> Path:
    settings = compose_settings(
        [
            f"runner.root={root}",
            f"runner.executor={executor}",
            "runner.workers=2",
            "runner.batch_size=2",
            f"dataset.root={pie}",
            "dataset.limit=4",
            "method.steps=2",
            "backbone.device=cpu",
            *QUICK,
        ]
    )
    outcome = runner.execute(settings)
    assert (outcome.done, outcome.failed) == (4, 0)
    return outcome.directory


@pytest.mark.parametrize("executor", ["processes", "ray"])
def test_the_records_are_the_same(
    executor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if executor == "ray":
        pytest.importorskip("ray")
        monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    write_benchmark(tmp_path / "pie", 20, "test")
    monkeypatch.setenv("ZEROCON_CACHE", str(tmp_path / "a"))
    alone = run_by("local", tmp_path / "local", tmp_path / "pie")
    monkeypatch.setenv("ZEROCON_CACHE", str(tmp_path / "b"))
    many = run_by(executor, tmp_path / executor, tmp_path / "pie")
    assert many.name == alone.name
    ours = {record.case: record for record in read_records(many)}
    for record in read_records(alone):
        other = ours[record.case]
        assert other.metrics == pytest.approx(dict(record.metrics), rel=1e-5, nan_ok=True)
        with (
            Image.open(alone / str(record.image)) as a,
            Image.open(many / str(other.image)) as b,
        ):
            # Another number of threads adds up in another order: a rounding may tip over.
            differ = np.abs(np.asarray(a, int) - np.asarray(b, int))
            assert differ.max() <= 1
            assert (differ > 0).mean() < 0.01
    sessions = (many / "sessions.jsonl").read_text().splitlines()
    assert 1 <= len(sessions) <= 2

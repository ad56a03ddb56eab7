"""With real models: other executors record what one process does."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from PIL import Image

from zerocon.config.settings import compose_settings
from zerocon.ledger.records import read_records
from zerocon.runs import runner
from zerocon.shapes.benchmark import write_benchmark

pytestmark = pytest.mark.slow
QUICK = ["metrics.clip=null", "metrics.lpips=null", "metrics.structure=null", "metrics.truth=null"]


def run_by(executor: str, root: Path, pie: Path, cases: int = 4, steps: int = 2) -> Path:
    settings = compose_settings(
        [
            f"runner.root={root}",
            f"runner.executor={executor}",
            "runner.workers=2",
            "runner.batch_size=2",
            f"dataset.root={pie}",
            f"dataset.limit={cases}",
            f"method.steps={steps}",
            "backbone.device=cpu",
            *QUICK,
        ]
    )
    outcome = runner.execute(settings)
    assert (outcome.done, outcome.failed) == (cases, 0)
    return outcome.directory


@pytest.fixture
def same_threads() -> Iterator[None]:
    """As many threads as a worker, because sums over threads differ in their last bits."""
    before, cores = torch.get_num_threads(), os.cpu_count() or 1
    torch.set_num_threads(max(1, cores // 2))
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("same_threads")
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
            assert np.array_equal(np.asarray(a), np.asarray(b))
    sessions = (many / "sessions.jsonl").read_text().splitlines()
    assert 1 <= len(sessions) <= 2


def actors() -> list[int]:
    """The processes of Ray's actors on this machine."""
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
        except OSError:  # it ended meanwhile
            continue
        if command.startswith(b"ray::Actor"):
            found.append(int(folder.name))
    return found


def test_a_killed_actor_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("ZEROCON_CACHE", str(tmp_path / "cache"))
    write_benchmark(tmp_path / "pie", 20, "test")
    killed: list[tuple[int, int]] = []

    def kill_one() -> None:
        while not (recorded := recorded_in(tmp_path / "ray")):
            time.sleep(0.02)
        victim = actors()[0]
        os.kill(victim, signal.SIGKILL)
        killed.append((victim, recorded))

    watcher = Thread(target=kill_one, daemon=True)
    watcher.start()
    cases = 12
    directory = run_by("ray", tmp_path / "ray", tmp_path / "pie", cases, steps=10)
    watcher.join(1)
    assert len(killed) == 1
    assert killed[0][1] < cases  # in its midst
    records = read_records(directory)
    assert len({record.case for record in records}) == len(records) == cases
    assert all(record.ok for record in records)


def recorded_in(root: Path) -> int:
    return sum(file.read_bytes().count(b"\n") for file in root.glob("*/records.jsonl"))

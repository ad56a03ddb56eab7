"""Sweeps: each run is complete in W&B, also if it fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.runs.offline_runs import OfflineRun, offline_runs
from zerocon.config.settings import compose_settings
from zerocon.ledger.records import save_image
from zerocon.runs import worker
from zerocon.runs.runner import execute

ROOT = Path(__file__).parents[2]
SMALL = [
    "dataset.limit=2", "method=word_swap", "backbone.device=cpu", "metrics.clip=null",
    "metrics.lpips=null", "metrics.structure=null", "metrics.truth=null",
]  # fmt: skip


def multirun(root: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "run.py", "-m", f"runner.root={root}", *SMALL, *more]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def rows(run: OfflineRun) -> int:
    assert len(run.tables) <= 1
    return sum(len(table["data"]) for table in run.tables)


def by_settings(folder: Path) -> list[OfflineRun]:
    """W&B names runs by the second they began in, and two may share it."""
    return sorted(
        offline_runs(folder),
        key=lambda run: (run.config["method"]["steps"], run.config["backbone"]["path"] or ""),
    )


@pytest.mark.slow
def test_four_runs_of_which_two_break(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere")
    done = multirun(tmp_path, "method.steps=2,3", f"backbone.path=null,{nowhere}", "tracker=wandb")
    assert done.returncode == 2, done.stderr
    runs = by_settings(tmp_path)
    asked = [(r.config["method"]["steps"], r.config["backbone"]["path"]) for r in runs]
    assert asked == [(2, None), (2, nowhere), (3, None), (3, nowhere)]
    assert {run.group for run in runs} == {"run"}
    for run in (runs[0], runs[2]):
        assert (run.exit_code, rows(run)) == (0, 2)
        assert run.summary["metrics"]["psnr_bg"]["n"] == 2
    for run in (runs[1], runs[3]):
        assert run.exit_code == 1
        assert "nowhere" in run.summary["error"]


@pytest.mark.slow
def test_a_broken_runs_finished_cases_are_uploaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full at the second picture of the second run."""
    stored: list[str] = []

    def full(directory: Path, case_id: str, picture: Image.Image) -> tuple[str, str]:
        stored.append(case_id)
        if len(stored) == 4:
            raise OSError("no space left on device")
        return save_image(directory, case_id, picture)

    monkeypatch.setattr(worker, "save_image", full)
    for steps in (2, 3, 4):
        overrides = [f"runner.root={tmp_path}", "runner.batch_size=1", "tracker=wandb", *SMALL]
        settings = compose_settings([*overrides, f"method.steps={steps}"])
        if steps == 3:
            with pytest.raises(OSError, match="no space left"):
                execute(settings)
        else:
            execute(settings)
    first, broken, last = by_settings(tmp_path)
    assert [(run.exit_code, rows(run)) for run in (first, broken, last)] == [(0, 2), (1, 1), (0, 2)]
    assert broken.summary["error"] == "OSError: no space left on device"
    assert broken.config["method"]["steps"] == 3


@pytest.mark.slow
def test_joblib_does_two_runs_at_a_time(tmp_path: Path) -> None:
    """By other processes, whose results are known here nevertheless."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    done = multirun(tmp_path, "hydra/launcher=two_at_a_time", "method.steps=2,3")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("done: 2 of 2 cases are recorded") == 2
    assert len(list(tmp_path.glob("run-*/summary.json"))) == 2

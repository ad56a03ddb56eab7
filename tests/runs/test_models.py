"""A sweep loads each model once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.runs.test_multirun import SMALL
from zerocon.backbones.shapes import Shapes
from zerocon.cli import main
from zerocon.commands import run
from zerocon.config import settings as settings_module
from zerocon.config.settings import RunSettings, compose_settings
from zerocon.ledger.run_directory import RunDirectory
from zerocon.runs import worker
from zerocon.runs.models import MODELS, kept_between_runs
from zerocon.runs.runner import execute


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what is loaded."""
    found: list[str] = []
    load, metrics = Shapes.load, settings_module.metrics_of

    def counted(self: Shapes) -> Any:
        found.append("backbone")
        return load(self)

    def counted_metrics(*given: Any) -> Any:
        make = metrics(*given)

        def made() -> Any:
            found.append("metrics")
            return make()

        return made

    monkeypatch.setattr(Shapes, "load", counted)
    monkeypatch.setattr(settings_module, "metrics_of", counted_metrics)
    return found


def records(root: Path) -> dict[Any, Any]:
    runs = [RunDirectory(folder) for folder in sorted(root.glob("run-*"))]
    return {
        (run.path.name, record.case): (record.sha256, record.metrics)
        for run in runs
        for record in run.records()
    }


@pytest.mark.slow
def test_a_sweep_loads_its_models_once(tmp_path: Path, loads: list[str]) -> None:
    small = [*SMALL, "runner.gallery_cases=1", "runner.threads=1"]
    swept = ["-m", f"runner.root={tmp_path / 'sweep'}", *small, "method.steps=1,2"]
    assert run.main(swept, "run.py") == 0
    assert loads == ["backbone", "metrics"]
    for steps in (1, 2):
        alone = [f"runner.root={tmp_path / 'alone'}", *small, f"method.steps={steps}"]
        execute(compose_settings(alone))
    assert loads[2:] == ["backbone", "metrics"] * 2
    assert records(tmp_path / "sweep") == records(tmp_path / "alone")
    assert len(records(tmp_path / "sweep")) == 4
    sessions = [RunDirectory(f).sessions() for f in sorted((tmp_path / "sweep").glob("run-*"))]
    rows = sorted(one["unet_forward"]["editing"] for (one,) in sessions)
    assert rows == [4, 8]  # of two cases, guided: each run's own


@pytest.mark.slow
def test_an_experiment_loads_its_models_once(
    tmp_path: Path, loads: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "two.yaml"
    file.write_text(
        "question: one\nexpected: the other\ncost: nothing\n"
        f"overrides: [{', '.join(SMALL)}, runner.root={tmp_path / 'runs'}]\n"
        "columns: [psnr_bg]\nruns:\n  a: [method.steps=1]\n  b: [method.steps=2]\n"
    )
    main(["experiment", str(file)])
    assert loads == ["backbone", "metrics"]
    assert not MODELS.kept


def loaded(overrides: list[str]) -> Callable[[], Any]:
    settings: RunSettings = compose_settings([*SMALL, *overrides])
    return lambda: worker.load(settings).backbone


@pytest.mark.slow
def test_only_equal_models_are_taken_over(tmp_path: Path, loads: list[str]) -> None:
    with kept_between_runs():
        first = loaded(["method.steps=1"])()
        assert loaded(["method.steps=2"])() is first
        assert loaded(["backbone.dtype=float64"])() is not first
        assert loads.count("backbone") == 2
    assert loaded([])() is not loaded([])()


def test_a_changed_file_is_loaded_again(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    asked = {"path": str(tmp_path)}
    count: list[int] = []

    def load() -> int:
        count.append(0)
        return len(count)

    with kept_between_runs():
        for text in ("a", "a", "other"):
            if not file.exists() or file.read_text() != text:
                file.write_text(text)
            MODELS.get("test", asked, load)
    assert len(count) == 2

"""A study: the same budget for every method, test cases only at the end, and it can continue."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.reports.made_up import PSNR, ok, write_run
from zerocon.config.experiments import Experiment
from zerocon.config.settings import RunSettings
from zerocon.config.study import Study
from zerocon.core.checks import ConfigError
from zerocon.reports.frontier.study import describe_study, named
from zerocon.runs import search as searching
from zerocon.runs import study as studying
from zerocon.runs.runner import Outcome
from zerocon.runs.study import Studied, run_study

MSE = {"name": "mse_bg", "unit": "1e-4", "better": "lower", "digits": 1}
OFF = [f"metrics.{name}=null" for name in ("clip", "lpips", "structure", "truth")]
GUIDANCE = {"method.guidance": {"float": [1.0, 9.0]}}
STUDY = Study.read(
    {
        "objectives": ["mse_bg", "psnr_bg"],
        "trials": 4,
        "tune": ["dataset.split=validation"],
        "test": ["dataset.split=test"],
        "points": 2,
        "seeds": [0, 1],
        "methods": {
            "word_swap": {"overrides": ["method=word_swap"], "space": GUIDANCE},
            "sdedit": {"overrides": ["method=sdedit"], "space": GUIDANCE},
        },
    }
)
EXPERIMENT = Experiment("fair", "Which?", "Both.", "1 s", overrides=OFF, study=STUDY)


class MadeUp:
    """Runs without editing: more guidance costs fidelity and brings success."""

    def __init__(self) -> None:
        self.begun: list[RunSettings] = []

    def __call__(self, settings: RunSettings) -> Outcome:
        config: Any = settings.config
        if not settings.directory.exists():
            self.begun.append(settings)
            guidance, seed = config["method"]["guidance"], config["seed"]
            records = [
                ok(case, mse_bg=guidance + seed + i, psnr_bg=guidance**0.5)
                for i, case in enumerate("abc")
            ]
            write_run(settings.directory, records, config, [MSE, PSNR])
        return Outcome(settings.directory, 3, 0)

    def of(self, split: str) -> list[RunSettings]:
        return [s for s in self.begun if s.config["dataset"]["split"] == split]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> MadeUp:
    made = MadeUp()
    for module in (searching, studying):
        monkeypatch.setattr(module, "execute", made)
    return made


def studied(root: Path, **more: Any) -> Studied:
    return run_study(EXPERIMENT, [f"runner.root={root}"], **more)


def test_every_method_has_the_same_budget_and_its_front_is_tested(
    tmp_path: Path, runs: MadeUp
) -> None:
    found = studied(tmp_path)
    tuned = Counter(s.config["method"]["_target_"] for s in runs.of("validation"))
    assert list(tuned.values()) == [STUDY.trials, STUDY.trials]
    assert [named(point) for point in found.points] == [
        "word_swap_1", "word_swap_2", "sdedit_1", "sdedit_2",
    ]  # fmt: skip
    assert [s.config["seed"] for s in runs.of("test")] == [0, 1] * 4
    # Each trial is on the front here; the ends of it are tested, with the searches' settings.
    for method, search in found.searches.items():
        chosen = [s.config["method"]["guidance"] for s in runs.of("test") if method in s.name][::2]
        every = [float(trial.settings["method.guidance"]) for trial in search.front]
        assert chosen == [min(every), max(every)]


def test_the_same_command_continues(tmp_path: Path, runs: MadeUp) -> None:
    first = studied(tmp_path, only=["sdedit"])
    assert {point.method for point in first.points} == {"sdedit"}
    before = len(runs.begun)
    studied(tmp_path)
    assert len(runs.begun) == 2 * before
    studied(tmp_path)
    assert len(runs.begun) == 2 * before


@pytest.mark.slow
def test_the_report_of_a_study(
    tmp_path: Path, runs: MadeUp, capsys: pytest.CaptureFixture[str]
) -> None:
    found = studied(tmp_path)
    capsys.readouterr()
    describe_study(STUDY, found.points, tmp_path / "plot.png", {"sdedit_2": 77}, form="markdown")
    said = capsys.readouterr().out
    assert (tmp_path / "plot.png").exists()
    assert "hypervolume" in said
    assert "4 trials for each method" in said
    row = next(line for line in said.splitlines() if line.startswith("| sdedit | 2 | method."))
    # Two seeds, whose means of mse_bg are 1 apart; psnr_bg does not depend on the seed.
    assert [cell.strip() for cell in row.split("|")[4:7]] == ["77", "0.7", "0.00"]


def test_an_experiment_that_is_no_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="plain is no study"):
        run_study(Experiment("plain", "", "", ""))

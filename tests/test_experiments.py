"""Every experiment composes, and runs on two cases."""

from __future__ import annotations

from pathlib import Path

import pytest

from zerocon.checks import ConfigError
from zerocon.cli import main
from zerocon.experiments import names, read_experiment

TINY = [
    "dataset.size=20", "dataset.limit=2", "method.steps=2",
    "metrics.clip=null", "metrics.lpips=null", "metrics.structure=null",
]  # fmt: skip


@pytest.mark.parametrize("name", names())
def test_every_run_of_an_experiment_has_its_own_settings(name: str) -> None:
    experiment = read_experiment(name)
    runs = experiment.settings()
    assert len({run.directory for run in runs}) == len(experiment.runs)
    assert experiment.question.strip().endswith("?")


@pytest.mark.parametrize("name", names())
def test_every_experiment_runs_tiny(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["experiment", name, f"runner.root={tmp_path}", *TINY])
    printed = capsys.readouterr().out
    assert all(run in printed for run in read_experiment(name).runs)


def test_unknown_experiments_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no experiment 'nonsense'; there are: .*first_methods"):
        read_experiment("nonsense")
    (tmp_path / "broken.yaml").write_text("question: why?\nrunz: {}\n")
    with pytest.raises(ConfigError, match="runz"):
        read_experiment("broken", tmp_path)

"""Every experiment composes, and runs on two cases."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.marks import slow_but_for
from zerocon.cli import main
from zerocon.config.experiments import Experiment, names, read_experiment
from zerocon.core.checks import ConfigError

TINY = [
    "dataset.size=20", "dataset.limit=2", "method.steps=2",
]  # fmt: skip

# Searches and studies, which find their runs themselves, are tested in runs/.
LISTED = [
    name for name in names() if not (read_experiment(name).search or read_experiment(name).study)
]
QUICK = ("zerocon_claim",)


@pytest.mark.parametrize("name", slow_but_for(QUICK, LISTED))
def test_every_run_of_an_experiment_has_its_own_settings(name: str) -> None:
    experiment = read_experiment(name)
    runs = experiment.settings()
    assert len({run.directory for run in runs}) == len(experiment.all_runs()) >= 2
    assert experiment.question.strip().endswith("?")


@pytest.mark.slow
@pytest.mark.parametrize("name", slow_but_for(QUICK, LISTED))
def test_every_experiment_runs_tiny(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its first and its last run; all of them below."""
    every = list(read_experiment(name).all_runs())
    ends = [every[0], every[-1]]
    written = ["--write", str(tmp_path)]
    main(["experiment", name, f"runner.root={tmp_path}", *TINY, "--only", *ends, *written])
    printed = capsys.readouterr().out
    assert all(run in printed for run in ends)
    assert (tmp_path / f"{name}.md").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", LISTED)
def test_every_run_of_every_experiment_runs_tiny(name: str, tmp_path: Path) -> None:
    main(["experiment", name, f"runner.root={tmp_path}", *TINY, "--write", str(tmp_path)])
    page = (tmp_path / f"{name}.md").read_text()
    assert all(run in page for run in read_experiment(name).all_runs())
    assert read_experiment(name).question.strip() in page


def test_a_sweep_is_every_combination() -> None:
    experiment = Experiment(
        "grid",
        "",
        "",
        "",
        sweep={"loss.cut_weight": [0, 0.5], "loss.cut.patch_sizes": [[1], [1, 2]]},
    )
    assert experiment.all_runs() == {
        "cut_weight_0_patch_sizes_1": ["loss.cut_weight=0", "loss.cut.patch_sizes=[1]"],
        "cut_weight_0_patch_sizes_1-2": ["loss.cut_weight=0", "loss.cut.patch_sizes=[1, 2]"],
        "cut_weight_0.5_patch_sizes_1": ["loss.cut_weight=0.5", "loss.cut.patch_sizes=[1]"],
        "cut_weight_0.5_patch_sizes_1-2": ["loss.cut_weight=0.5", "loss.cut.patch_sizes=[1, 2]"],
    }


def test_a_curve_is_a_name_with_its_runs() -> None:
    experiment = Experiment(
        "curves", "", "", "", runs={"a": {2: ["seed=2"], 7.5: ["seed=3"]}, "b": ["seed=4"]}
    )
    assert experiment.all_runs() == {"a_2": ["seed=2"], "a_7.5": ["seed=3"], "b": ["seed=4"]}
    assert experiment.curves() == {"a_2": "a", "a_7.5": "a", "b": "b"}
    swept = Experiment("both", "", "", "", runs={"a": {2: []}}, sweep={"seed": [1]})
    assert swept.curves() == {"a_2": "a", "seed_1": "seed_1"}
    assert Experiment("none", "", "", "", runs={"b": ["seed=4"]}).curves() is None


def test_unknown_experiments_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no experiment 'nonsense'; there are: .*all_methods"):
        read_experiment("nonsense")
    (tmp_path / "broken.yaml").write_text("question: why?\nrunz: {}\n")
    with pytest.raises(ConfigError, match="runz"):
        read_experiment("broken", tmp_path)

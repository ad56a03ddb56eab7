"""Configured launchers of sweeps: they compose, with the expected settings."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.types import HydraContext
from omegaconf import DictConfig
from wandb import wandb_agent

from zerocon.cli import guarded
from zerocon.commands.run import asked_of, exit_status, preflight
from zerocon.config.compose import compose_config, plain
from zerocon.config.places import CONF
from zerocon.config.settings import compose_settings, directory_of
from zerocon.core.checks import ConfigError
from zerocon.core.records import Record
from zerocon.ledger.origin import Origin
from zerocon.ledger.records import RecordLog
from zerocon.ledger.run_directory import RunDirectory

ROOT = Path(__file__).parents[2]
LAUNCHERS = sorted(file.stem for file in (CONF / "hydra" / "launcher").glob("*.yaml"))


def composed(*overrides: str) -> DictConfig:
    """With Hydra's own part."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=list(overrides), return_hydra_config=True)


def test_joblib_starts_two_at_a_time() -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    launcher = composed("hydra/launcher=two_at_a_time").hydra.launcher
    assert launcher["_target_"].endswith("JoblibLauncher")
    assert launcher.n_jobs == 2


def test_slurm_gets_a_job_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole launcher except `sbatch`, whose input is checked."""
    submitit = pytest.importorskip("submitit")
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    given: dict[str, Any] = {}

    def kept(self: Any, *arguments: Any) -> list[Any]:
        given.update(self._executor.parameters, overrides=list(arguments[1]))
        given["sbatch"] = self._executor._make_submission_file_text("the command", "id")
        return [SimpleNamespace(results=lambda: [None]) for _ in arguments[1]]

    srun = tmp_path / "srun"
    srun.touch(mode=0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(submitit.AutoExecutor, "map_array", kept)
    cfg = composed(
        "hydra/launcher=slurm", "hydra.launcher.partition=gpu", "hydra.job.name=run",
        "hydra.job.num=0", "hydra.job.id=0", f"runner.root={tmp_path}", "hydra.verbose=false",
        "hydra.launcher.timeout_min=30", "hydra.runtime.output_dir=.",
    )  # fmt: skip
    context = HydraContext(config_loader=Any, callbacks=Any)  # pyright: ignore[reportArgumentType]
    launcher = Plugins.instance().instantiate_launcher(
        hydra_context=context, task_function=lambda _: None, config=cfg
    )
    launcher.launch([["method.steps=2"], ["method.steps=3"]], 0)
    assert given["overrides"] == [["method.steps=2"], ["method.steps=3"]]
    for line in ("--partition=gpu", "--gpus-per-node=1", "--time=30", "--mem=24GB"):
        assert f"#SBATCH {line}" in given["sbatch"]
    assert given["array_parallelism"] == 16


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_sweep_is_checked_before_it_is_launched(
    launcher: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        guarded(["run", "-m", f"hydra/launcher={launcher}", "method.steps=2,lots"], "run.py") == 2
    )
    assert "method.steps is 'lots'" in capsys.readouterr().err


def recorded(root: Path, steps: int, *records: Record) -> None:
    """A run that others did, of two cases."""
    config = plain(compose_config([f"runner.root={root}", f"method.steps={steps}"]))
    directory = directory_of(config)
    directory.mkdir(parents=True)
    named = {"name": "made up", "fingerprint": "0"}
    RunDirectory(directory).write_origin(
        Origin("run", ["a", "b"], [], "masked", named, named, {}, False, {})
    )
    with RecordLog(directory) as log:
        log.append_all(records)
    (directory / "gallery.html").touch()


def test_runs_of_other_processes_determine_the_exit_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ok = [Record(case=case, status="ok") for case in "ab"]
    recorded(tmp_path, 2, *ok)
    recorded(tmp_path, 3, ok[0], Record(case="b", status="failed", error="no"))
    recorded(tmp_path, 4, ok[0])

    def status(steps: str, here: tuple[int, ...] = ()) -> int:
        asked = asked_of(["-m", f"runner.root={tmp_path}", f"method.steps={steps}"])
        return exit_status(asked, here)

    assert [status("2"), status("2,3"), status("3,4"), status("5")] == [0, 1, 2, 2]
    said = [line.partition(": ")[2] for line in capsys.readouterr().out.splitlines()]
    assert said[1:3] == [
        "done: 2 of 2 cases are recorded",
        "failed: 2 of 2 cases are recorded, 1 of them failed",
    ]
    assert said[-2:] == [
        "partial: 1 of 2 cases are recorded",
        "it did not start; see its job's output",
    ]
    assert status("2,3", here=(0, 0)) == 0
    assert exit_status(asked_of(["method.steps=5"]), ()) == 0  # no sweep: it tells itself
    assert exit_status(asked_of(["-m", "--cfg", "job", "method.steps=5"]), ()) == 0


def test_a_finished_sweep_is_reported_without_hydra(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ok = [Record(case=case, status="ok") for case in "ab"]
    recorded(tmp_path, 2, *ok)
    recorded(tmp_path, 3, *ok)
    recorded(tmp_path, 4, ok[0], Record(case="b", status="failed", error="no"))
    root = f"runner.root={tmp_path}"
    assert preflight(asked_of(["-m", root, "method.steps=2,3"])) == 0
    said = capsys.readouterr().out
    assert "method.steps=2" in said
    assert said.count("2 cases, 0 failed") == 2
    assert preflight(asked_of(["-m", root, "method.steps=2,4", "runner.retry_failed=false"])) == 1
    assert (
        preflight(asked_of(["-m", root, "method.steps=2,4"])) is None
    )  # the failed case is tried again
    assert preflight(asked_of(["-m", root, "method.steps=2,5"])) is None
    assert (
        preflight(asked_of(["-m", root, "method.steps=2", "hydra.verbose=true"])) is None
    )  # Hydra's to do


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ("tracker.foo=1", "tracker.foo"),
        ("tracker._target_=os.system", "os.system"),
        ("tracker=wandb tracker.mode=sometimes", "tracker.mode"),
        ("tracker=wandb tracker.patience=0", "tracker.patience"),
    ],
)
def test_a_finished_run_is_not_shown_with_bad_settings_of_the_tracker(
    tmp_path: Path, settings: str, word: str
) -> None:
    """The run's name, and so its directory, is the same with any tracker."""
    recorded(tmp_path, 2, Record(case="a", status="ok"), Record(case="b", status="ok"))
    given = [f"runner.root={tmp_path}", "method.steps=2"]
    assert preflight(asked_of([*given, "tracker=wandb"])) == 0
    with pytest.raises(ConfigError, match=word):
        preflight(asked_of([*given, *settings.replace("tracker.foo", "+tracker.foo").split()]))


def started_by_the_agent(sweep: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command that `wandb agent` itself makes of the first point of a sweep."""
    commands: list[list[str]] = []
    monkeypatch.setattr(
        wandb_agent,
        "AgentProcess",
        lambda command, **_: commands.append(command) or SimpleNamespace(),
    )
    agent: Any = wandb_agent.Agent.__new__(wandb_agent.Agent)
    agent._function, agent._in_jupyter, agent._forward_signals = None, False, False
    agent._run_processes, agent._sweep_command = {}, list(sweep["command"])
    first = {name: {"value": one["values"][0]} for name, one in sweep["parameters"].items()}
    agent._command_run({"run_id": "r1", "program": sweep["program"], "args": first})
    return commands[0]


@pytest.mark.slow
def test_the_wandb_sweep_starts_the_right_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = yaml.safe_load((ROOT / "experiments/wandb_sweep/sweep.yaml").read_text())
    assert set(sweep) <= {"program", "method", "command", "parameters", "name", "metric"}
    for name in (wandb.env.RUN_ID, wandb.env.SWEEP_PARAM_PATH):
        monkeypatch.setenv(name, "")  # the agent sets them; put back afterwards
    monkeypatch.setenv(wandb.env.DIR, str(tmp_path))
    command = started_by_the_agent(sweep, monkeypatch)
    assert command[:3] == ["/usr/bin/env", "python", "run.py"]
    assert (ROOT / command[2]).is_file()
    preflight(asked_of(command[3:]))
    for values in zip(*(one["values"][:2] for one in sweep["parameters"].values()), strict=True):
        point = [f"{name}={value}" for name, value in zip(sweep["parameters"], values, strict=True)]
        settings = compose_settings([*command[3:], *point])
        assert settings.config["tracker"]["mode"] == "online"
        assert settings.config["method"]["guidance"] == values[0]
    json.dumps(sweep)  # the agent hands it around as JSON

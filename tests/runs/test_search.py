"""A search: no repeated and no lost trials, and reproducible trials."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf

from tests.reports.made_up import PSNR, failed, ok, write_run
from zerocon.backbones.base import BackboneError
from zerocon.cli import main
from zerocon.config import settings as config
from zerocon.config.experiments import Experiment
from zerocon.config.search_space import Search
from zerocon.config.settings import RunSettings, compose_config
from zerocon.core.checks import ConfigError
from zerocon.reports.frontier.search import describe
from zerocon.runs import crews as executors
from zerocon.runs import search as searching
from zerocon.runs.runner import Outcome
from zerocon.runs.search import Found, run_search
from zerocon.runs.trials import JOURNAL

MSE = {"name": "mse_bg", "unit": "1e-4", "better": "lower", "digits": 1}
OVERRIDES = [
    "dataset.split=validation", "method=word_swap",
    "metrics.clip=null", "metrics.lpips=null", "metrics.structure=null", "metrics.truth=null",
]  # fmt: skip
SPACE = {
    "method.guidance": {"float": [1.0, 9.0]},
    "method.steps": {"int": [10, 90]},
}

Execute = Callable[[RunSettings], Outcome]


def experiment(
    space: dict[str, Any] = SPACE,
    objectives: tuple[str, ...] = ("mse_bg", "psnr_bg"),
    overrides: list[str] = OVERRIDES,
    **search: Any,
) -> Experiment:
    made = Search.read({"objectives": list(objectives), "space": space} | search)
    return Experiment("tune", "Why?", "So.", "1 s", overrides=overrides, search=made)


def at(settings: RunSettings) -> tuple[float, int]:
    return settings.config["method"]["guidance"], settings.config["method"]["steps"]


class MadeUp:
    """Runs without editing: fidelity costs strength, and steps serve both up to a point."""

    def __init__(self) -> None:
        self.begun: list[tuple[float, int]] = []

    def __call__(self, settings: RunSettings) -> Outcome:
        guidance, steps = at(settings)
        self.begun.append((guidance, steps))
        if not settings.directory.exists():
            metrics = {"mse_bg": guidance + abs(steps - 50) / 10, "psnr_bg": guidance**0.5}
            write_run(settings.directory, [ok("a", **metrics)], settings.config, [MSE, PSNR])
        return Outcome(settings.directory, 1, 0)


@cache
def composed(overrides: tuple[str, ...]) -> DictConfig:
    return compose_config(overrides)


def quickly(overrides: Sequence[str], foreign: Sequence[str] = ()) -> DictConfig:
    """Compose once and insert the trials' values, because Hydra is slow."""
    overrides = [*foreign, *overrides]
    values = tuple(o for o in overrides if re.match(r"(method\.\w+|runner\.root)=", o))
    cfg = composed(tuple(o for o in overrides if o not in values)).copy()
    for key, _, text in (o.partition("=") for o in values):
        OmegaConf.update(cfg, key, yaml.safe_load(text), force_add=False)
    return cfg


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> MadeUp:
    made = MadeUp()
    for module in (searching, config):
        monkeypatch.setattr(module, "compose_config", quickly)
    monkeypatch.setattr(searching, "execute", made)
    return made


def run(root: Path, most: int, more: list[str] | None = None, **asked: Any) -> Found:
    return run_search(experiment(**asked), [f"runner.root={root}", *(more or [])], most)


def tried(found: Found) -> list[dict[str, str]]:
    return [dict(trial.settings) for trial in found.trials]


def test_the_front_follows_what_the_metrics_call_better(tmp_path: Path, runs: MadeUp) -> None:
    found = run(tmp_path, 12)
    points = {
        t.number: (g + abs(n - 50) / 10, g**0.5)
        for t, (g, n) in zip(found.trials, runs.begun, strict=True)
    }
    unbeaten = {
        number
        for number, (mse, psnr) in points.items()
        if not any(m <= mse and p >= psnr and (m, p) != (mse, psnr) for m, p in points.values())
    }
    assert {trial.number for trial in found.front} == unbeaten
    assert 1 < len(unbeaten) < 12


def test_the_first_trial_has_the_default_settings(tmp_path: Path, runs: MadeUp) -> None:
    assert tried(run(tmp_path, 1)) == [{"method.guidance": "4.0", "method.steps": "50"}]
    beyond = {"method.guidance": {"float": [5.0, 9.0]}, "method.steps": {"int": [10, 90]}}
    (first,) = tried(run(tmp_path, 1, space=beyond))
    assert float(first["method.guidance"]) > 5
    assert first["method.steps"] == "50"


def test_the_same_seed_tries_the_same(tmp_path: Path, runs: MadeUp) -> None:
    first, second = (run(tmp_path / name, 12) for name in "ab")
    assert tried(first) == tried(second)
    assert len({tuple(t.values()) for t in tried(first)}) == 12
    assert tried(run(tmp_path / "c", 2, seed=1))[1] != tried(first)[1]


def killed_at(count: int, made: MadeUp) -> Execute:
    def execute(settings: RunSettings) -> Outcome:
        if len(made.begun) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return made(settings)

    return execute


def in_a_child(action: Callable[[], object]) -> int:
    """The child's wait status; forked, so that it has our stand-ins."""
    child = os.fork()
    if not child:
        try:
            action()
        finally:
            os._exit(0)
    return child


def test_a_killed_search_continues_with_the_same_trials(
    tmp_path: Path, runs: MadeUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(tmp_path / "whole", 12)
    again = MadeUp()
    for count in (2, 6, 2):  # trials that each of them ends before it dies in the next
        monkeypatch.setattr(searching, "execute", killed_at(count, MadeUp()))
        child = in_a_child(lambda: run(tmp_path, 12))
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    monkeypatch.setattr(searching, "execute", again)
    found = run(tmp_path, 12)
    assert tried(found) == tried(whole)
    assert [t.run for t in found.trials] == [t.run for t in whole.trials]
    assert again.begun == runs.begun[10:]  # not the ten that were done


def test_an_incomplete_line_of_the_journal_is_ignored(tmp_path: Path, runs: MadeUp) -> None:
    folder = run(tmp_path, 3).folder
    with (folder / JOURNAL).open("ab") as journal:
        journal.write(b'{"op_code":5,"worker_id"')
    assert [trial.state for trial in run(tmp_path, 5).trials] == ["done"] * 5
    assert len(runs.begun) == 5


def test_a_finished_search_tries_nothing(
    tmp_path: Path, runs: MadeUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = run(tmp_path, 4)
    monkeypatch.setattr(searching, "execute", lambda _: pytest.fail("it tried again"))
    assert run(tmp_path, 4) == before
    faster = run(tmp_path, 4, ["runner.batch_size=3", "tracker=wandb"])
    assert faster == before


@pytest.mark.slow
def test_more_trials_continue_and_other_settings_start_a_new_search(
    tmp_path: Path, runs: MadeUp
) -> None:
    first = run(tmp_path, 3)
    assert run(tmp_path, 5).folder == first.folder
    assert len(runs.begun) == 5
    assert run(tmp_path, 1, ["dataset.size=100"]).folder != first.folder


def test_trials_of_the_same_settings_are_one_run(
    tmp_path: Path, runs: MadeUp, capsys: pytest.CaptureFixture[str]
) -> None:
    space = {"method.guidance": {"choices": [2, 3]}, "method.steps": {"choices": [20, 50]}}
    found = run(tmp_path, 9, space=space)
    assert len({trial.run for trial in found.trials}) <= 4
    assert len(list(tmp_path.glob("tune-*"))) == len({trial.run for trial in found.trials})
    describe(experiment(space=space), found, tmp_path / "front.png", "markdown")
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 1 + len({trial.run for trial in found.front})


def test_a_trial_that_fails_does_not_end_the_search(
    tmp_path: Path,
    runs: MadeUp,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def execute(settings: RunSettings) -> Outcome:
        number = len(runs.begun)
        if number == 1:
            runs.begun.append(at(settings))
            raise RuntimeError("the losses are nan")
        if number == 2:
            write_run(settings.directory, [ok("a"), failed("b")], settings.config, [MSE, PSNR])
        if number == 3:
            write_run(settings.directory, [ok("a", mse_bg=1.0)], settings.config, [MSE, PSNR])
        return runs(settings)

    monkeypatch.setattr(searching, "execute", execute)
    found = run(tmp_path, 6)
    states = ["done", "failed", "failed", "failed", "done", "done"]
    assert [trial.state for trial in found.trials] == states
    assert [trial.error for trial in found.trials[1:4]] == [
        "RuntimeError: the losses are nan",
        "1 of 2 cases failed, the first of them b: no",
        "psnr_bg could be measured in no case",
    ]
    describe(experiment(), found, tmp_path / "front.png")
    said = capsys.readouterr().out
    assert "6 trials (3 done, 3 failed)" in said
    assert "trial 2 failed: RuntimeError: the losses are nan" in said


def test_errors_independent_of_settings_can_be_continued(
    tmp_path: Path, runs: MadeUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    def execute(_: RunSettings) -> Outcome:
        raise BackboneError("no weights there")

    monkeypatch.setattr(searching, "execute", execute)
    with pytest.raises(BackboneError):
        run(tmp_path, 2)
    monkeypatch.setattr(searching, "execute", runs)
    assert [trial.state for trial in run(tmp_path, 2).trials] == ["done", "done"]


def test_two_processes_divide_the_trials(
    tmp_path: Path, runs: MadeUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    def execute(settings: RunSettings) -> Outcome:
        with (tmp_path / "log").open("a") as log:
            log.write(f"{os.getpid()} {settings.directory.name}\n")
        time.sleep(0.2)  # long enough for the other one to take the next
        return runs(settings)

    monkeypatch.setattr(searching, "execute", execute)
    children = [in_a_child(lambda: run(tmp_path, 8)) for _ in range(2)]
    for child in children:
        os.waitpid(child, 0)
    found = run(tmp_path, 8)
    lines = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert [trial.number for trial in found.trials] == list(range(8))
    assert sorted(name for _, name in lines) == sorted(trial.run for trial in found.trials)
    assert {int(process) for process, _ in lines} == set(children)


@pytest.mark.parametrize(
    ("asked", "more", "message"),
    [
        ({"space": {"loss.tauu": {"float": [1, 2]}}}, [], r"search\.space has loss\.tauu=1.*tauu"),
        (
            {"space": {"method.steps": {"int": [-5, 9]}}}, [],
            r"search\.space has method\.steps=-5, but method\.steps is -5; it must be",
        ),
        ({"space": {"method.steps": {"float": [2.5, 9]}}}, [], "must be a whole number"),
        ({"space": {"runner.batch_size": {"int": [1, 9]}}}, [], "no setting of what is done"),
        ({"space": {"seed": {"int": [1, 9]}}}, [], "no setting of what is done"),
        ({"objectives": ("mse_bg", "beauty")}, [], "no metric gives beauty; there is: .*psnr_bg"),
        ({"objectives": ("bg_share",)}, [], "bg_share has no better direction"),
        ({}, ["method.steps=3"], r"method\.steps is what is searched"),
        ({}, ["dataset.split=test"], r"may not see the test cases: dataset\.split=validation"),
        ({}, ["runner.shard=1/2"], r"leave runner\.shard out"),
    ],
)  # fmt: skip
def test_invalid_searches_are_refused_at_once(
    tmp_path: Path, runs: MadeUp, asked: dict[str, Any], more: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run(tmp_path, 2, more, **asked)
    assert not runs.begun


def test_groups_can_be_searched(
    tmp_path: Path, runs: MadeUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[str] = []

    def execute(settings: RunSettings) -> Outcome:
        chosen.append(type(settings.inversion).__name__)
        return runs(settings)

    monkeypatch.setattr(searching, "execute", execute)
    found = run(tmp_path, 4, space={"inversion": {"choices": ["ddim", "regularized"]}})
    classes = {"ddim": "DDIMInversion", "regularized": "RegularizedInversion"}
    assert chosen == [classes[trial.settings["inversion"]] for trial in found.trials]
    assert len(set(chosen)) == 2


def test_removed_runs_are_reported(
    tmp_path: Path, runs: MadeUp, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run(tmp_path, 3)
    (tmp_path / found.trials[1].run / "run.json").unlink()
    describe(experiment(), found, tmp_path / "front.png")
    assert "The runs of trials 2 are missing" in capsys.readouterr().out


@pytest.mark.slow
def test_the_command_searches_and_then_only_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Really edited, on two cases."""
    tiny = [f"runner.root={tmp_path / 'out'}", "dataset.limit=2", "method.steps=2"]
    command = ["experiment", "tune_zerocon", *tiny, "--trials", "2", "--write", str(tmp_path)]
    main(command)
    page = (tmp_path / "tune_zerocon.md").read_text()
    assert "2 trials (2 done)" in page
    assert "| trial | guidance | xa_weight | cut_weight | tau | n_patches | query | lpips" in page
    assert (tmp_path / "tune_zerocon.png").stat().st_size > 10_000
    monkeypatch.setattr(executors, "load", lambda _: pytest.fail("it loaded the models again"))
    capsys.readouterr()
    main(command)
    assert "trial 1 of 2" not in capsys.readouterr().out
    assert (tmp_path / "tune_zerocon.md").read_text() == page


def test_without_optuna_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "zerocon.runs.trials")
    with pytest.raises(ConfigError, match=r"zerocon\[search\]"):
        import_module("zerocon.runs.trials")


def test_incompatible_options_are_refused() -> None:
    for words in (["tune_zerocon", "--only", "a"], ["tune_zerocon", "--trials", "0"]):
        with pytest.raises(SystemExit):
            main(["experiment", *words])
    with pytest.raises(SystemExit):
        main(["experiment", "zerocon_claim", "--trials", "3"])

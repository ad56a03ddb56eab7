"""Ctrl-C: every phase of a run ends within seconds, with a message, without leftover processes."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.runs.toy_runs import (
    COUNT,
    FORK,
    ToyCrew,
    ToyEditor,
    settings_at,
    toy_origin,
    use_toys,
    worked_on,
)
from zerocon.config.settings import RunSettings
from zerocon.core.size import Size
from zerocon.ledger.claims import Claims
from zerocon.runs import crews, processes, runner
from zerocon.shapes.benchmark import write_benchmark
from zerocon.trackers.base import NoTracker

ROOT = Path(__file__).parents[2]
SECONDS = 3.0  # what is promised
LONG = 30.0


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    use_toys(monkeypatch)


def limit() -> float:
    """The limit is for an idle machine; on a busy one everything takes longer."""
    return SECONDS * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def long(*_: Any, **__: Any) -> Any:
    time.sleep(LONG)


def slow_after(count: int, action: Callable[..., Any]) -> Callable[..., Any]:
    """The action, which takes long from its `count`-th call on."""
    calls: list[int] = []

    def slowed(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) > count:
            time.sleep(LONG)
        return action(*arguments)

    return slowed


def slow_pictures(editor: Any, batch: Any) -> Any:
    """Storing takes half a second per picture, and stops on request."""
    for number, one in enumerate(STORE(editor, batch)):
        for _ in range(50):
            if getattr(editor, "stopped", False):
                raise InterruptedError
            time.sleep(0.01 if number else 0)
        yield one


STORE = ToyEditor.store


def loading(patch: pytest.MonkeyPatch, settings: RunSettings) -> None:
    patch.setattr(ToyCrew, "__init__", long)


def computing(patch: pytest.MonkeyPatch, settings: RunSettings) -> None:
    patch.setattr(ToyEditor, "compute", slow_after(2, ToyEditor.compute))


def storing(patch: pytest.MonkeyPatch, settings: RunSettings) -> None:
    patch.setattr(ToyEditor, "store", slow_pictures)
    patch.setattr(ToyEditor, "stop", lambda editor: setattr(editor, "stopped", True))


def reporting(patch: pytest.MonkeyPatch, settings: RunSettings) -> None:
    patch.setattr(runner, "finish", long)


def telling_a_dead_server(patch: pytest.MonkeyPatch, settings: RunSettings) -> None:
    computing(patch, settings)
    patch.setattr(NoTracker, "fail", long)


def waiting_for_others(patch: pytest.MonkeyPatch, settings: RunSettings) -> None:
    patch.setattr(Claims, "take", lambda *_: False)


def waiting_for_a_lock(patch: pytest.MonkeyPatch, settings: RunSettings) -> None:
    """In the thread that stores."""
    patch.setattr(fcntl, "flock", _refused_in_threads(fcntl.flock))


def _refused_in_threads(flock: Callable[..., Any]) -> Callable[..., Any]:
    import threading

    def refused(file: int, what: int) -> None:
        if threading.current_thread() is not threading.main_thread() and what != fcntl.LOCK_UN:
            raise BlockingIOError
        flock(file, what)

    return refused


def _run(settings: RunSettings, line: Any) -> None:
    """In a process group of its own, as a shell starts it."""
    os.setsid()
    line.send("ready")
    try:
        runner.execute(settings)
    except KeyboardInterrupt as error:
        line.send(str(error))
        sys.exit(130)


def interrupted(settings: RunSettings, ready: Callable[[], bool], wait: float = 0.3) -> str:
    """The output of a run whose process group gets Ctrl-C shortly after it is ready."""
    ours, theirs = FORK.Pipe()
    child = FORK.Process(target=_run, args=(settings, theirs))
    child.start()
    assert ours.recv() == "ready"
    while not ready() and child.is_alive():
        time.sleep(0.01)
    time.sleep(wait)
    began = time.monotonic()
    os.killpg(child.pid, signal.SIGINT)
    child.join(LONG)
    assert child.exitcode == 130
    assert time.monotonic() - began < limit()
    assert no_process_of(child.pid)
    return ours.recv()


def no_process_of(group: int) -> bool:
    """Whether none is left after a moment in which Python's helpers notice the parent's end."""
    until = time.monotonic() + limit()
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize(
    "phase",
    [loading, computing, storing, reporting, telling_a_dead_server, waiting_for_others,
     waiting_for_a_lock],
)  # fmt: skip
def test_every_phase_ends_quickly_and_reports_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: Any
) -> None:
    settings = settings_at(tmp_path)
    phase(monkeypatch, settings)
    amount = {loading: 0, waiting_for_others: 0, reporting: COUNT}.get(phase, 4)
    said = interrupted(settings, lambda: worked_on(tmp_path) >= amount)
    if phase is loading:
        assert said == "interrupted before the first case"
    else:
        assert said.startswith("interrupted: ")
        assert said.endswith(f" of {COUNT} cases are recorded in {settings.directory}")
    if phase is computing:
        assert said.startswith("interrupted: 8 of")  # both batches that were computed
    if phase is reporting:
        assert said.startswith(f"interrupted: {COUNT} of")
    monkeypatch.undo()
    use_toys(monkeypatch)
    assert runner.execute(settings).done == COUNT


def by_workers(monkeypatch: pytest.MonkeyPatch, root: Path, prepared: Any) -> RunSettings:
    monkeypatch.setattr(processes, "get_context", lambda _: FORK)
    monkeypatch.setattr(processes, "prepared", prepared)
    monkeypatch.setattr(runner, "start_crew", crews.start_crew)
    return settings_at(root, "runner.executor=processes", "runner.workers=2")


def ready_worker(settings: RunSettings, count: int) -> tuple[Any, Any]:
    return ToyEditor(settings.directory), processes.Ready(toy_origin(COUNT), Size.square(8))


def test_workers_at_work_end_with_their_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computing(monkeypatch, settings_at(tmp_path))
    settings = by_workers(monkeypatch, tmp_path, ready_worker)
    said = interrupted(settings, lambda: worked_on(tmp_path) >= 12)
    assert said.startswith("interrupted: ")


def test_workers_that_load_end_with_their_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = by_workers(monkeypatch, tmp_path, long)
    assert interrupted(settings, lambda: True) == "interrupted before the first case"


def test_workers_end_when_their_parent_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computing(monkeypatch, settings_at(tmp_path))
    settings = by_workers(monkeypatch, tmp_path, ready_worker)
    ours, theirs = FORK.Pipe()
    child = FORK.Process(target=_run, args=(settings, theirs))
    child.start()
    ours.recv()
    while worked_on(tmp_path) < 12:
        time.sleep(0.01)
    child.kill()
    child.join()
    assert no_process_of(child.pid)


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["local", "processes", "ray"])
def test_the_command_ends_with_130_and_one_line(executor: str, tmp_path: Path) -> None:
    if executor == "ray":
        pytest.importorskip("ray")
    write_benchmark(tmp_path / "pie", 20, "test")
    command = [
        sys.executable, "run.py", f"runner.root={tmp_path / 'runs'}", "runner.batch_size=1",
        f"dataset.root={tmp_path / 'pie'}", f"runner.executor={executor}", "method.steps=20",
        "backbone.device=cpu", "metrics.clip=null", "metrics.lpips=null",
        "metrics.structure=null", "metrics.truth=null",
    ]  # fmt: skip
    environment = os.environ | {"ZEROCON_CACHE": str(tmp_path / "cache")}
    environment["RAY_USAGE_STATS_ENABLED"] = "0"
    run = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment, start_new_session=True,
    )  # fmt: skip
    while not list((tmp_path / "runs").glob("*/images/*.png")) and run.poll() is None:
        time.sleep(0.05)
    began = time.monotonic()
    os.killpg(run.pid, signal.SIGINT)
    _, said = run.communicate(timeout=60)
    assert time.monotonic() - began < limit()
    assert run.returncode == 130
    (line,) = said.strip().splitlines()
    assert "of 20 cases are recorded in" in line
    assert line.endswith("; the same command continues")
    assert no_process_of(run.pid)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [1.0, 2.0, 4.0])
def test_the_command_can_be_interrupted_from_its_start(seconds: float, tmp_path: Path) -> None:
    """Except while the Python interpreter starts."""
    run = subprocess.Popen(
        [sys.executable, "run.py", f"runner.root={tmp_path}", "dataset.limit=2"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    time.sleep(seconds)
    began = time.monotonic()
    os.killpg(run.pid, signal.SIGINT)
    _, said = run.communicate(timeout=60)
    assert time.monotonic() - began < limit()
    assert run.returncode == 130
    assert "Traceback" not in said
    assert said.strip().endswith("; the same command continues")

"""How many threads are chosen, and how they wait."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from zerocon.core import threads
from zerocon.core.threads import Choice, choose

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "cores", lambda: 8)
    monkeypatch.setattr(threads, "_online", lambda: 8)


def others_use(cores: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads.BUSY, "others", lambda: cores)


@pytest.mark.parametrize(
    ("busy", "share", "expected"),
    [(0.0, 1, 8), (0.2, 1, 8), (3.1, 1, 5), (7.9, 1, 1), (20.0, 1, 1), (0.0, 3, 2), (4.0, 2, 2)],
)
def test_as_many_as_are_free(
    busy: float, share: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    others_use(busy, monkeypatch)
    assert choose("auto", share).threads == expected


def test_a_container_with_two_cores_of_a_busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "cores", lambda: 2)
    others_use(5.0, monkeypatch)
    assert choose("auto").threads == 2


def test_settings_and_the_environment_override_it(monkeypatch: pytest.MonkeyPatch) -> None:
    others_use(8.0, monkeypatch)
    assert choose(6) == Choice(6, 8, "runner.threads")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert choose("auto").words() == "3 threads of 8 (OMP_NUM_THREADS)"
    assert choose(2).threads == 2


def test_a_small_model_takes_one_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    others_use(0.0, monkeypatch)
    assert choose("auto", small=True).words() == "1 thread of 8 (the model is small)"
    assert choose(4, small=True).threads == 4
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert choose("auto", small=True).threads == 3


def test_it_says_why_there_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    others_use(6.8, monkeypatch)
    assert choose("auto").words() == "1 thread of 8 (other programs use 6.8 cores)"
    others_use(0.1, monkeypatch)
    assert choose("auto").words() == "8 threads of 8"


def test_other_programs_are_counted_without_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([(10.0, 100.0, 5.0), (12.0, 107.0, 7.0), (12.1, 107.1, 7.0)])
    monkeypatch.setattr(threads, "_reading", lambda: next(readings))
    busy = threads.Busy()
    assert busy.others() == pytest.approx(2.5)  # (7 s - 2 s of ours) in 2 s
    assert busy.others() == pytest.approx(2.5)  # too soon to measure again


def test_waiting_is_passive_before_torch_is_there() -> None:
    program = """
import os, sys
from zerocon import cli
try:
    cli.main(["--version"])
except SystemExit:
    pass
print(os.environ["OMP_WAIT_POLICY"], "torch" in sys.modules)
"""
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "PASSIVE False"


def test_the_environment_may_say_how_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setenv("GOMP_SPINCOUNT", "1000")
    threads.wait_politely()
    assert "OMP_WAIT_POLICY" not in os.environ

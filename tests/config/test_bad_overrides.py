"""Invalid command lines end with a message and status 2, before any model is loaded."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.marks import every
from zerocon.cli import guarded

ROOT = Path(__file__).parents[2]
FILE = ROOT / "tests" / "data" / "bad_overrides.txt"
LINES = [
    line.rpartition(" ## ")[::2]
    for line in FILE.read_text("utf-8").splitlines()
    if line.strip() and not line.startswith("#")
]
AS_PROCESSES = [LINES[0], LINES[-1], *(line for line in LINES if "100000000" in line[0])]


def words(said: str) -> list[str]:
    return [line for line in said.splitlines() if line.strip()]


def is_loaded(*_: object, **__: object) -> None:
    raise AssertionError("a model is loaded")


@pytest.fixture(autouse=True)
def nothing_is_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is loaded, and no earlier run is found."""
    from zerocon.backbones.shapes import Shapes
    from zerocon.runs import runner

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Shapes, "load", is_loaded)
    monkeypatch.setattr(runner, "execute", is_loaded)


def test_there_are_many_bad_overrides() -> None:
    assert len(LINES) >= 150
    assert len({line for line, _ in LINES}) == len(LINES)


@pytest.mark.parametrize(("line", "word"), every(6, LINES))
def test_a_bad_override_ends_with_a_message(
    line: str, word: str, capfd: pytest.CaptureFixture[str]
) -> None:
    try:
        status = guarded(["run", *shlex.split(line)], "run.py")
    except SystemExit as stop:
        status = int(str(stop.code))
    out, err = capfd.readouterr()
    assert status == 2, out + err
    assert not out
    assert 1 <= len(words(err)) <= 2, err
    assert err.startswith("run.py: ")
    assert len(err) < 1500
    assert word in err
    assert not re.search(r"Traceback|Exception|\bself\b(?!#)", err)


@pytest.mark.parametrize(("line", "word"), every(2, AS_PROCESSES))
def test_a_bad_override_ends_the_process_with_a_message(line: str, word: str) -> None:
    command = [sys.executable, "run.py", *shlex.split(line)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 2
    assert word in done.stderr
    assert "Traceback" not in done.stderr

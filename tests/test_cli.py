from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

import zerocon
from zerocon import cli
from zerocon.backbones.base import BackboneError
from zerocon.cli import main
from zerocon.core.cases import CaseError, DatasetError
from zerocon.core.checks import ConfigError
from zerocon.core.records import RecordError
from zerocon.trackers.base import TrackerError

ROOT = Path(__file__).parents[1]

IMPORTS = "import sys, zerocon.cli; zerocon.cli.parser(); sys.exit('torch' in sys.modules)"


def test_help_and_reports_do_not_wait_for_torch() -> None:
    subprocess.run([sys.executable, "-c", IMPORTS], check=True)


def test_a_wrong_option_has_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["table", "/nowhere/at/all"])
    said = capsys.readouterr().err
    assert said.startswith("zerocon: ")
    assert "/nowhere/at/all" in said
    assert "Traceback" not in said


class Fails:
    """A command whose handler raises an error."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __call__(self, *_: object) -> int:
        raise self.error


def ends(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    monkeypatch.setattr(cli, "_status", Fails(error))
    status = cli.guarded(["anything"], "zerocon")
    return status, capsys.readouterr().err.strip()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConfigError("a setting is wrong"), "zerocon: a setting is wrong"),
        (RecordError("line 3 is damaged"), "zerocon: line 3 is damaged"),
        (DatasetError("no such folder"), "zerocon: no such folder"),
        (CaseError("no picture"), "zerocon: no picture"),
        (BackboneError("no weights"), "zerocon: no weights"),
        (TrackerError("no tracker"), "zerocon: no tracker"),
        (OSError(28, "No space left on device", "a/b"), "zerocon: a/b: No space left on device"),
        (IsADirectoryError(21, "Is a directory", "a"), "zerocon: a: Is a directory"),
        (PermissionError(30, "Read-only file system", "a"), "zerocon: a: Read-only file system"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), "zerocon: a file is not UTF-8 text"),
        (yaml.YAMLError("line 1 is wrong"), "zerocon: line 1 is wrong"),
    ],
)
def test_errors_have_messages(
    error: BaseException,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, err = ends(error, monkeypatch, capsys)
    assert status == 2
    assert err.startswith(said)
    assert len(err.splitlines()) == 1


def test_an_interruption_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends(KeyboardInterrupt(), monkeypatch, capsys) == (
        130, "zerocon: stopped; the same command continues",
    )  # fmt: skip
    far = KeyboardInterrupt("outputs/run-1: 3 of 20 cases are recorded")
    said = "zerocon: outputs/run-1: 3 of 20 cases are recorded; the same command continues"
    assert ends(far, monkeypatch, capsys) == (130, said)


def test_an_unexpected_error_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ZeroDivisionError):
        ends(ZeroDivisionError(), monkeypatch, capsys)


def test_ctrl_c_while_it_composes(tmp_path: Path) -> None:
    """Of a process, before any run has begun."""
    command = [sys.executable, "run.py", "-m", "seed=range(0,60)", f"runner.root={tmp_path}"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    time.sleep(5)
    process.send_signal(signal.SIGINT)
    try:
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert err.splitlines()[-1] == "stopped before it began; the same command continues"


@pytest.mark.parametrize("command", [["-m", "zerocon", "--version"], ["-m", "zerocon", "--help"],
                                     ["run.py", "--help"]])  # fmt: skip
def test_help_loads_no_torch(command: list[str]) -> None:
    loaded = subprocess.run(
        [sys.executable, "-X", "importtime", *command], cwd=ROOT, capture_output=True, text=True,
        check=True,
    ).stderr  # fmt: skip
    names = {line.rpartition("|")[2].strip() for line in loaded.splitlines()}
    assert not names & {"torch", "diffusers", "transformers", "matplotlib", "duckdb"}


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"zerocon {zerocon.__version__}\n"


def test_zerocon_run_equals_run_py(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.guarded(["run", "method.steps=0"], "zerocon") == 2
    assert capsys.readouterr().err.startswith("zerocon run: method.steps is 0")
    assert cli.guarded(["run", "method.steps=0"], "run.py") == 2
    assert capsys.readouterr().err.startswith("run.py: method.steps is 0")
    assert cli.guarded(["run", "--help", "method=p2p"], "run.py") == 0
    shown = capsys.readouterr().out
    assert "blend_weight" in shown
    assert "method=cds, consistedit, dds," in shown

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import pytest
from rich.console import Console

from tests.reports.made_up import PSNR, method, write_run
from zerocon.cli import main
from zerocon.commands.reproduce import _pictures
from zerocon.core.records import Record
from zerocon.core.text import printable, printable_lines
from zerocon.datasets.check import Report
from zerocon.ledger.run_directory import RunDirectory
from zerocon.runs.reproduce import Again
from zerocon.runs.results import report

HOSTILE = "\x1b]0;title\x07\x1b[2J\x9b31m\u202e\rgone\x00"
CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def test_control_characters_are_escaped() -> None:
    assert printable("a\x1b[31mb\n\tc\x9b\u202e") == "a\\x1b[31mb\\n\\tc\\x9b\\u202e"
    assert printable_lines("a\r\n\tb") == "a\\r\n\tb"
    usual = "päivä ∞ ± 日本語 👩\u200d🎨 [red]"
    assert printable(usual) == usual
    printable("\udcff").encode()  # a file's name that is no UTF-8


def hostile_runs(root: Path) -> list[str]:
    """Two runs in which every untrusted text would clear the screen."""
    kinds = ("0", f"k{HOSTILE}".replace("\0", ""))
    for name in (f"a{HOSTILE}".replace("\0", ""), "b"):
        records = [
            Record(
                case=f"{HOSTILE}{i}", status="ok", edit_type=kinds[i % 2], edit_name=HOSTILE,
                source_prompt=HOSTILE, target_prompt=HOSTILE, metrics={"psnr_bg": float(i)},
            )
            for i in range(4)
        ]  # fmt: skip
        records.append(Record(case=f"x{HOSTILE}", status="failed", error=HOSTILE))
        write_run(
            root / name, records, method("Ddim", prompt=f"{HOSTILE}{name}"), columns=[PSNR],
            name=HOSTILE, dataset={"name": HOSTILE, "fingerprint": HOSTILE},
            backbone={"name": HOSTILE, "fingerprint": HOSTILE}, judges={HOSTILE: HOSTILE},
            protocol=HOSTILE, case_ids=[*(r.case for r in records), f"left{HOSTILE}"],
            provenance={"git": {"revision": f"\x1b[2J{name}"}},
        )  # fmt: skip
    return [str(root)]


FORMS = ("terminal", "markdown", "csv", "latex", "html")


@pytest.mark.filterwarnings("error:Glyph")  # matplotlib would print the character
@pytest.mark.parametrize(
    "command",
    [
        *(["table", "--per-type", "--format", form] for form in FORMS),
        *(["compare", "--per-type", "--resamples", "100", "--format", form] for form in FORMS),
        ["frontier", "--x", "psnr_bg", "--y", "psnr_bg", "--resamples", "100"],
        ["table", "--rows", "method.prompt"],
        ["report", "--no-sources"],
        ["track", "sync"],
        ["table", "--metrics", HOSTILE],
        ["compare", "--metrics", HOSTILE],
    ],
    ids=lambda command: " ".join(printable(word) for word in command),
)
def test_no_command_prints_control_characters(
    command: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs = hostile_runs(tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    more = ["--plot", "front.png"] if command[0] == "frontier" else []
    at = 2 if command[0] == "track" else 1
    with suppress(SystemExit):
        main([*command[:at], *runs, *command[at:], *more])
    said = capsys.readouterr()
    assert said.out + said.err
    assert not CONTROLS.search(said.out)
    assert not CONTROLS.search(said.err)


def test_runs_are_listed_without_control_characters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile_runs(tmp_path)
    main(["runs", "--root", str(tmp_path)])
    main(["runs", "remove", "--root", str(tmp_path)])
    said = capsys.readouterr()
    assert "would be removed" in said.out
    assert not CONTROLS.search(said.out)
    main_failing(["table", f"{tmp_path}/nothing{HOSTILE}"])
    assert not CONTROLS.search(capsys.readouterr().err)


def main_failing(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


def test_the_end_of_a_run_prints_no_control_characters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile_runs(tmp_path)
    report(RunDirectory(tmp_path / "b"), Console(), per_type=True)
    Console().print(_pictures([Again(HOSTILE, 0, 0.0, 99.0, {})]))
    said = capsys.readouterr().out
    assert "failed" in said
    assert not CONTROLS.search(said)


def test_a_dataset_is_checked_without_control_characters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def problems(dataset: object, report: Report) -> list[str]:
        report.notes[HOSTILE] += 1
        return [f"case {HOSTILE}: no"]

    monkeypatch.setattr("zerocon.datasets.check.check_cases", problems)
    with pytest.raises(SystemExit):
        main(["dataset", "check", "dataset=shapes"])
    assert not CONTROLS.search(capsys.readouterr().out)

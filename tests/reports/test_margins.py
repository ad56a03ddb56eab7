"""`zerocon compare --margin`: is a run worse by no more than a margin?"""

from __future__ import annotations

from pathlib import Path

import pytest
from made_up import ok, write_run

from zerocon.cli import main
from zerocon.core.checks import ConfigError
from zerocon.core.records import Record
from zerocon.reports.margins import Margin, share_at_most
from zerocon.reports.statistics import Paired


def cases(lpips: float) -> list[Record]:
    """40 cases with a mean of 50, moved by `lpips` and a little by chance."""
    return [
        ok(str(i), "1", lpips_bg=30.5 + i + lpips + 0.1 * (-1) ** i * (lpips > 0), edit_success=1.0)
        for i in range(40)
    ]


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    main(["compare", *arguments, "--format", "markdown", "--resamples", "500"])
    return capsys.readouterr().out


def test_within_a_margin_and_beyond_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(write_run(tmp_path / f"{x}", cases(x))) for x in (0.0, 3.0, 6.0)]
    metrics = ["--metrics", "lpips_bg,edit_success"]
    printed = said(capsys, *runs, *metrics, "--margin", "lpips_bg=10%", "edit_success=0.05")
    lines = [line for line in printed.splitlines() if "margin" in line]
    assert [line.endswith("not worse by more than the margin") for line in lines] == [
        True, False, False, False,
    ]  # fmt: skip
    assert "lpips_bg: margin 5 (10 % of 50), at most 3.0" in lines[0]
    assert lines[2].endswith("not shown")


def test_which_direction_is_worse() -> None:
    test = Paired(9, -0.04, -0.06, 0.02, 0.5, 0.1)
    assert Margin("a", 0.05).words(1, test, "higher").endswith("not shown")
    assert Margin("a", 0.05).words(1, test, "lower").endswith("not worse by more than the margin")
    assert "no interval" in Margin("a", 0.05).words(1, Paired(1, 0, *[float("nan")] * 4), "lower")


def test_few_pairs_that_differ_show_little() -> None:
    """Ten ties do not show that success falls by less than 5 points; a hundred do."""
    margin = Margin("edit_success", 0.05)
    for n, shown in ((10, False), (70, False), (100, True)):
        said = margin.words(0.9, Paired(n, 0, 0, 0, 1, 0), "higher", (0, 0))
        assert said.endswith("not worse by more than the margin") == shown
    assert share_at_most(0, 10) == pytest.approx(1 - 0.025 ** (1 / 10))
    assert share_at_most(3, 50) == pytest.approx(0.1655, abs=1e-4)  # of the tables
    assert share_at_most(4, 4) == 1


@pytest.mark.parametrize("text", ["lpips_bg", "lpips_bg=", "lpips_bg=-1", "=5%", "lpips_bg=inf"])
def test_bad_margins_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"such as edit_success=0\.05"):
        Margin.read(text)

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

import numpy as np
import pytest
from made_up import failed, ok, write_run

from zerocon.cli import main
from zerocon.core.checks import ConfigError
from zerocon.core.records import Record
from zerocon.reports.comparison import compare

NOISE = np.random.default_rng(0).normal(0, 1, (2, 40))


def cases(psnr: float, lpips: float, count: int = 40, success: int = 0) -> list[Record]:
    """Case i's value: a common base, its difficulty, and the given offsets."""
    return [
        ok(
            str(i), str(i % 2), psnr_bg=20 + i / 10 + psnr * (1 + NOISE[0, i] / 2),
            lpips_bg=50 + i + lpips * (1 + NOISE[1, i] / 2), edit_success=float(i < success),
        )
        for i in range(count)
    ]  # fmt: skip


def rows(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, str]]:
    main(["compare", *arguments, "--format", "csv", "--resamples", "2000"])
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


def test_better_worse_and_not_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = write_run(tmp_path / "first", cases(0, 0, success=20))
    second = write_run(tmp_path / "second", cases(1.0, 8.0, success=21))
    told = {row["metric"]: row for row in rows(capsys, str(first), str(second))}
    assert told["psnr_bg"]["verdict"] == "better, large effect"
    assert told["lpips_bg"]["verdict"] == "worse, large effect"  # more of it, and lower is better
    assert told["edit_success"]["verdict"] == "no difference shown"
    assert [told["edit_success"][k] for k in ("wins", "ties", "losses")] == ["1", "39", "0"]
    assert int(told["psnr_bg"]["wins"]) == (NOISE[0] > -2 + 0.01).sum()
    mean = (1 + NOISE[0] / 2).mean()
    assert float(told["psnr_bg"]["difference"]) == pytest.approx(mean)
    assert float(told["psnr_bg"]["low"]) < mean < float(told["psnr_bg"]["high"])
    assert float(told["psnr_bg"]["effect d"]) == pytest.approx(mean / (NOISE[0] / 2).std(ddof=1))
    assert float(told["psnr_bg"]["p (Holm)"]) > float(told["psnr_bg"]["p"])


def test_a_run_against_itself_ties_everywhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = write_run(tmp_path / "first", cases(0, 0))
    second = write_run(tmp_path / "second", cases(0, 0))
    for row in rows(capsys, str(first), str(second), "--per-type"):
        assert row["verdict"] == "no difference shown"
        assert (row["wins"], row["losses"], row["p"]) == ("0", "0", "1.0")
        assert row["ties"] == row["n"]


def test_the_verdicts_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "first", cases(0, 0))
    write_run(tmp_path / "second", cases(1.0, 0))
    main(["compare", f"{tmp_path}/*", "--markdown", "--metrics", "psnr_bg,lpips_bg"])
    assert (
        "second against first: the data support a difference in psnr_bg (better); "
        "no difference shown: lpips_bg"
    ) in capsys.readouterr().out


def test_edit_types_are_compared_separately(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "first", cases(0, 0))
    changed = [
        r if r.edit_type == "1" else o for r, o in zip(cases(3, 0), cases(0, 0), strict=True)
    ]
    write_run(tmp_path / "second", changed)
    told = rows(capsys, str(tmp_path), "--per-type", "--metrics", "psnr_bg")
    assert [(row["edit_type"], row["n"]) for row in told] == [
        ("all", "40"),
        ("0", "20"),
        ("1", "20"),
    ]
    assert told[1]["verdict"] == "no difference shown"
    assert told[2]["verdict"] == "better, large effect"


def test_missing_pairs_are_left_out_with_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = cases(0, 0)
    first[0] = failed("0", "0")
    first[1] = ok("1", "1", psnr_bg=math.inf, lpips_bg=1.0)
    write_run(tmp_path / "first", first)
    write_run(tmp_path / "second", cases(1, 0))
    counts = {row["metric"]: row["n"] for row in rows(capsys, str(tmp_path))}
    assert counts == {"psnr_bg": "39", "lpips_bg": "39", "edit_success": "38"}
    main(["compare", str(tmp_path), "--markdown"])
    assert "1 failed in first and are in no pair: 0" in capsys.readouterr().out


def test_runs_over_different_cases_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs: list[str | Path] = [
        write_run(tmp_path / "first", cases(0, 0)),
        write_run(
            tmp_path / "second", cases(1, 0, count=37),
            dataset={"name": "shapes_pie_20", "fingerprint": "its first 37"},
        ),
    ]  # fmt: skip
    with pytest.raises(ConfigError, match=r"second lacks 3 of 40 \(37, 38, 39\).*--intersection"):
        compare(runs)
    shared = rows(capsys, *map(str, runs), "--intersection")
    assert {row["n"] for row in shared} == {"37"}
    compare(runs, intersection=True, form="markdown", resamples=100)
    assert "only the 37 cases that all runs have; second lacks 3 of 40" in capsys.readouterr().out


def test_cases_that_only_share_a_name_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "first", [ok("1"), ok("2")])
    other = {"name": "shapes_pie_20", "fingerprint": "other"}
    write_run(tmp_path / "second", [ok("1"), ok("2")], dataset=other)
    with pytest.raises(ConfigError, match="content changed"):
        compare([tmp_path])
    write_run(tmp_path / "third", [ok("1"), ok("2", prompt="a dog")])
    with pytest.raises(ConfigError, match="prompts of these cases differ between the runs: 2"):
        compare([tmp_path / "first", tmp_path / "third"])
    write_run(tmp_path / "fourth", [ok("9")])
    with pytest.raises(ConfigError, match="no case in common"):
        compare([tmp_path / "first", tmp_path / "fourth"], intersection=True)


@pytest.mark.parametrize(
    ("origin", "what"),
    [
        ({"protocol": "published"}, "protocol"),
        ({"judges": {}}, "the judges' weights"),
        ({"dataset": {"name": "other", "fingerprint": "d0"}}, "dataset"),
    ],
)
def test_runs_with_another_evaluation_are_refused(
    tmp_path: Path, origin: dict[str, object], what: str
) -> None:
    write_run(tmp_path / "first", [ok("1")])
    write_run(tmp_path / "second", [ok("1")], **origin)
    with pytest.raises(ConfigError, match=f"they differ in {what}"):
        compare([tmp_path], intersection=True)


def test_a_run_that_had_the_mask_is_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "first", cases(0, 0))
    write_run(tmp_path / "second", cases(1, 0), uses_mask=True)
    main(["compare", str(tmp_path), "--markdown"])
    assert "not a fair comparison: only second had the mask" in capsys.readouterr().out


def test_one_run_is_no_comparison(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two runs or more"):
        compare([write_run(tmp_path / "first", [ok("1")])])


def test_three_runs_are_corrected_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, psnr in (("a", 0.0), ("b", 0.1), ("c", 0.2)):
        write_run(tmp_path / name, cases(psnr, 0))
    two = rows(capsys, str(tmp_path / "a"), str(tmp_path / "b"), "--metrics", "psnr_bg")
    three = rows(capsys, str(tmp_path), "--metrics", "psnr_bg")
    assert [row["run"] for row in three] == ["b", "c"]
    assert two[0]["p"] == three[0]["p"]
    assert float(two[0]["p (Holm)"]) < float(three[0]["p (Holm)"])


def untouched(psnr: float, infinite: int, count: int = 100) -> list[Record]:
    """The background of the first cases is unchanged."""
    return [ok(str(i), psnr_bg=math.inf if i < infinite else psnr + i / 10) for i in range(count)]


def test_an_untouched_background_wins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = write_run(tmp_path / "first", untouched(30, 0))
    second = write_run(tmp_path / "second", untouched(25, 90))  # worse only where it is finite
    (told,) = rows(capsys, str(first), str(second), "--metrics", "psnr_bg")
    assert told["verdict"] == "better, large effect"
    assert [told[k] for k in ("n", "wins", "ties", "losses")] == ["100", "90", "0", "10"]
    assert (told["difference"], told["run mean"], told["low"]) == ("inf", "inf", "")
    assert (told["baseline infinite"], told["run infinite"]) == ("0", "90")
    assert float(told["p"]) < 1e-10
    (back,) = rows(capsys, str(second), str(first), "--metrics", "psnr_bg")
    assert back["verdict"] == "worse, large effect"
    assert back["p"] == told["p"]
    main(["compare", str(first), str(second), "--metrics", "psnr_bg", "--markdown"])
    text = capsys.readouterr().out
    assert "psnr_bg (better; infinite in 90 of 100 pairs, the baseline in 0)" in text
    assert "| +∞ |" in text
    assert "an infinite value" in text


def test_two_untouched_backgrounds_are_a_tie(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "first", untouched(30, 20))
    write_run(tmp_path / "second", untouched(30, 20))
    (told,) = rows(capsys, str(tmp_path), "--metrics", "psnr_bg")
    assert [told[k] for k in ("n", "wins", "ties", "losses")] == ["100", "0", "100", "0"]
    assert (told["difference"], told["p"], told["verdict"]) == ("0.0", "1.0", "no difference shown")


def test_infinite_pairs_of_both_signs_have_no_mean(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "first", untouched(30, 20))
    write_run(tmp_path / "second", untouched(30, 20)[::-1])
    second = [ok(str(i), psnr_bg=math.inf if i >= 70 else 30 + i / 10) for i in range(100)]
    write_run(tmp_path / "third", second)
    (told,) = rows(capsys, str(tmp_path / "first"), str(tmp_path / "third"), "--metrics", "psnr_bg")
    assert (told["difference"], told["wins"], told["losses"]) == ("nan", "30", "20")
    main(["compare", str(tmp_path / "first"), str(tmp_path / "third"), "--markdown"])
    assert "infinite in 30 of 100 pairs, the baseline in 20" in capsys.readouterr().out


def test_a_metric_is_tested_as_if_it_were_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Successes have many ties; these must not change the test of a metric without ties."""
    write_run(tmp_path / "first", cases(0, 0, count=20, success=10))
    write_run(tmp_path / "second", cases(0.3, 0, count=20, success=12))
    (alone,) = rows(capsys, str(tmp_path), "--metrics", "psnr_bg")
    beside = rows(capsys, str(tmp_path), "--metrics", "psnr_bg,edit_success")
    assert beside[0]["p"] == alone["p"]

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from made_up import SUCCESS, failed, method, ok, write_run
from PIL import Image
from scipy import stats

from zerocon.cli import main
from zerocon.core.checks import ConfigError
from zerocon.reports.calibration.findings import _draws, _number
from zerocon.reports.calibration.measures import (
    Detection,
    correlation_of_runs,
    correlations_within_cases,
    mean_over_cases,
    ranking_of_runs,
    run_means,
)
from zerocon.reports.calibration.table import calibrate

LPIPS_TRUTH = {"name": "lpips_truth", "unit": "1e-3", "better": "lower", "digits": 1}
PSNR_TRUTH = {"name": "psnr_truth", "unit": "dB", "better": "higher", "digits": 2}
CLIP = {"name": "clip_whole", "unit": "", "better": "higher", "digits": 2}
STRUCTURE = {"name": "structure", "unit": "1e-3", "better": "lower", "digits": 1}
SHARE = {"name": "bg_share", "unit": "", "better": "", "digits": 2}
COLUMNS = (CLIP, STRUCTURE, LPIPS_TRUTH, PSNR_TRUTH, SUCCESS)
NAN = float("nan")


def once(cases: int) -> np.ndarray:
    return np.ones((1, cases), np.int64)


def rows(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, str]]:
    main(["calibrate", *arguments, "--format", "csv"])
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


def number(found: Sequence[dict[str, str]], **wanted: str) -> float:
    (row,) = [
        r for r in found if all(r[k] == v for k, v in ({"edit_type": "all"} | wanted).items())
    ]
    return float(row["value"])


def edits(skill: float, seed: int, count: int = 30) -> list[Any]:
    """Edits whose quality is known; clip_whole sees it with noise, structure not at all."""
    random = np.random.default_rng((seed, count))
    quality = skill + random.normal(0, 1, count)
    return [
        ok(
            f"c{i}", str(i % 2), edit_success=float(q > 0), lpips_truth=200 - 30 * q,
            psnr_truth=20 + q, clip_whole=30 + q + random.normal(0, 0.5),
            structure=50 + random.normal(0, 5),
        )
        for i, q in enumerate(quality)
    ]  # fmt: skip


def write_runs(folder: Path, count: int = 4, **origin: Any) -> None:
    for i in range(count):
        write_run(folder / f"run-{i}", edits(i / 2 - 1, i), method("M", i), COLUMNS, **origin)


# Three cases, two runs. Case 0: success 5, failure 3. Case 1: success 2, failure 2.
# Case 2: failures 4 and 1.
SCORES = np.array([[5.0, 2.0, 4.0], [3.0, 2.0, 1.0]])
DONE = np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])


def test_auc_and_false_passes_by_hand() -> None:
    found = Detection(SCORES, DONE)
    # success 5 beats 3, 2, 4, 1; success 2 beats 1, ties with 2: 5.5 of 8 pairs
    assert found.auc(once(3))[0] == 5.5 / 8
    assert found.auc_within(once(3))[0] == (1 + 0.5) / 2  # cases 0 and 1; case 2 has no success
    # 90 % of two successes are both: the threshold is 2, which 3, 2 and 4 pass
    assert found.threshold() == 2
    assert found.false_passes(once(3))[0] == 3 / 4
    # without case 1, whose success is the lower one, the threshold rises to 5
    assert found.false_passes(np.array([[3, 0, 1]]))[0] == 0
    assert found.auc(np.array([[3, 0, 1]]))[0] == 1
    # with case 1 twice, of 8 pairs 4 tie (half each), 2 are lost to case 2's 4, 2 won against its 1
    assert found.auc(np.array([[0, 2, 1]]))[0] == 4 / 8


def test_nine_of_ten_successes_pass() -> None:
    scores = np.array([[*range(1, 11), 1.5, 2.0, 0.5, 9.0]])
    done = np.array([[1.0] * 10 + [0.0] * 4])
    found = Detection(scores, done)
    assert found.threshold() == 2  # the success of score 1 may fail it
    assert found.false_passes(once(14))[0] == 2 / 4


def test_without_a_success_or_a_failure_nothing_is_known() -> None:
    for done in (0.0, 1.0):
        found = Detection(np.array([[1.0, 2.0]]), np.full((1, 2), done))
        assert np.isnan([found.auc(once(2)), found.auc_within(once(2)), found.false_passes(once(2))]
                        ).all()  # fmt: skip


def brute_force_auc(scores: np.ndarray, done: np.ndarray) -> float:
    good, bad = scores[done == 1], scores[done == 0]
    return float(np.mean([(g > b) + 0.5 * (g == b) for g in good for b in bad]))


def brute_force_false_passes(scores: np.ndarray, done: np.ndarray) -> float:
    good = scores[done == 1]
    threshold = max(t for t in good if np.mean(good >= t) >= 0.9 - 1e-12)
    return float(np.mean(scores[done == 0] >= threshold))


def test_a_resample_equals_copies_of_its_cases() -> None:
    """Drawing a case twice is the same as having all its records twice."""
    random = np.random.default_rng(0)
    scores = np.round(random.normal(0, 1, (5, 12)), 1)  # with ties
    scores[random.random(scores.shape) < 0.1] = np.nan
    done = (random.random(scores.shape) < 0.4).astype(float)
    counts = random.multinomial(12, [1 / 12] * 12, size=20)
    found = Detection(scores, done)
    aucs, passes = found.auc(counts), found.false_passes(counts)
    for drawn, auc, passed in zip(counts, aucs, passes, strict=True):
        copies = np.repeat(np.arange(12), drawn)
        there = ~np.isnan(scores[:, copies])
        flat = scores[:, copies][there], done[:, copies][there]
        assert auc == pytest.approx(brute_force_auc(*flat), abs=1e-12)
        assert passed == pytest.approx(brute_force_false_passes(*flat), abs=1e-12)


def test_correlations_within_cases_equal_scipys() -> None:
    random = np.random.default_rng(1)
    scores, truth = np.round(random.normal(0, 1, (2, 8, 30)), 1)
    scores[random.random(scores.shape) < 0.2] = np.nan
    scores[0, 0] = np.inf  # a PSNR may be infinite: the best
    found = correlations_within_cases(scores, truth)
    for case, rho in enumerate(found):
        there = ~np.isnan(scores[:, case])
        expected: Any = stats.spearmanr(scores[there, case], truth[there, case])
        assert rho == pytest.approx(expected.statistic, abs=1e-12)


def test_which_cases_have_a_correlation() -> None:
    truth = np.array([[1.0, 1.0, 5.0, 1.0], [2.0, 2.0, 5.0, 2.0], [3.0, NAN, 5.0, 3.0]])
    scores = np.array([[2.0, 1.0, 1.0, 7.0], [1.0, 2.0, 2.0, 7.0], [3.0, 3.0, 3.0, 7.0]])
    found = correlations_within_cases(scores, truth)
    # by hand 1 - 6·2/(3·8); two records; all truths equal; all scores equal
    np.testing.assert_array_equal(found, [0.5, NAN, NAN, 0.0])
    assert mean_over_cases(found, once(4))[0] == 0.25
    assert mean_over_cases(found, np.array([[3, 0, 0, 1]]))[0] == 0.375


def test_rankings_of_runs_equal_scipys() -> None:
    random = np.random.default_rng(2)
    means, truth = np.round(random.normal(0, 1, (2, 6, 9)), 1)
    tau, wrong = ranking_of_runs(means, truth)
    rho = correlation_of_runs(means, truth)
    for i in range(6):
        expected: Any = stats.kendalltau(means[i], truth[i])
        assert tau[i] == pytest.approx(expected.statistic, abs=1e-12)
        pairs = [(a, b) for a in range(9) for b in range(a)]
        apart = [(means[i, a] - means[i, b]) * (truth[i, a] - truth[i, b]) < 0 for a, b in pairs]
        assert wrong[i] == sum(apart)
        expected = stats.spearmanr(means[i], truth[i])
        assert rho[i] == pytest.approx(expected.statistic, abs=1e-12)


def test_means_of_runs_that_are_equal_tie() -> None:
    """Sums in another order differ in their last bits."""
    first = np.array([0.1, 0.2, 0.3, 0.7, 0.6])
    means = run_means(np.stack([first, first[::-1]]), once(5))
    assert means[0, 0] == means[0, 1]
    infinite = run_means(np.array([[np.inf, 1.0, 3.0], [NAN, NAN, np.inf]]), once(3))
    np.testing.assert_array_equal(infinite, [[2.0, NAN]])  # as in tables


SOME = arrays(np.float64, (4, 6), elements=st.integers(-5, 5).map(float))
FLAGS = arrays(np.float64, (4, 6), elements=st.sampled_from([0.0, 1.0]))


@settings(max_examples=30, deadline=None)
@given(SOME, FLAGS, SOME)
def test_a_monotone_transformation_changes_no_rank_measure(
    scores: np.ndarray, done: np.ndarray, truth: np.ndarray
) -> None:
    bent = np.exp(scores) - 3
    before, after = Detection(scores, done), Detection(bent, done)
    counts = np.array([[1] * 6, [2, 0, 1, 3, 0, 0]])
    for measure in ("auc", "auc_within", "false_passes"):
        np.testing.assert_array_equal(
            getattr(before, measure)(counts), getattr(after, measure)(counts)
        )
    np.testing.assert_array_equal(
        correlations_within_cases(scores, truth), correlations_within_cases(bent, truth)
    )


@settings(max_examples=30, deadline=None)
@given(FLAGS)
def test_a_column_that_is_the_truth_is_perfect(done: np.ndarray) -> None:
    found = Detection(done, done)
    defined = 0 < done.sum() < done.size
    expected = [1.0, 0.0] if defined else [NAN, NAN]
    numbers = [found.auc(once(6))[0], found.false_passes(once(6))[0]]
    np.testing.assert_array_equal(numbers, expected)
    worst = Detection(-done, done)
    np.testing.assert_array_equal(worst.auc(once(6))[0], 0.0 if defined else NAN)


def test_intervals_of_the_auc_cover_the_truth() -> None:
    """Two normal distributions one apart, with a case's difficulty in all of its records."""
    truth = stats.norm.cdf(1 / np.sqrt(2 * (1 + 0.5)))
    covered = 0
    for seed in range(100):
        random = np.random.default_rng(seed)
        done = (random.random((4, 50)) < 0.5).astype(float)
        scores = done + random.normal(0, 1, (4, 50)) + random.normal(0, 0.5**0.5, 50)
        found = _number(Detection(scores, done).auc(_draws(50, 300, seed)), 50)
        covered += found.low <= truth <= found.high
    assert covered >= 88, covered


def test_the_metric_that_sees_is_told_from_the_one_that_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_runs(tmp_path)
    found = rows(capsys, str(tmp_path), "--per-type", "--resamples", "200")
    assert {row["column"] for row in found} == {"clip_whole", "structure"}  # no true column
    assert {row["edit_type"] for row in found} == {"all", "0", "1"}
    clip, blind = {"column": "clip_whole"}, {"column": "structure"}
    assert number(found, **clip, measure="AUC") > 0.85
    assert 0.35 < number(found, **blind, measure="AUC") < 0.65
    within = {"measure": "Spearman within case", "truth": "lpips_truth"}
    assert number(found, **clip, **within) > 0.6  # lower is better there, and it is turned
    assert abs(number(found, **blind, **within)) < 0.4
    ranking = {"measure": "Kendall's tau across runs", "truth": "edit_success"}
    assert number(found, **clip, **ranking) > 0.6
    for row in found:
        if row["value"] != "nan" and row["low"] != "nan":
            assert float(row["low"]) <= float(row["value"]) <= float(row["high"])


def test_every_number_has_an_interval_and_its_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_runs(tmp_path)
    for row in rows(capsys, str(tmp_path), "--resamples", "200"):
        assert np.isfinite([float(row[k]) for k in ("value", "low", "high")]).all(), row
        assert row["records"] == "120"
        assert row["runs ranked"] == "4"
        assert row["pairs"] == ("6" if "runs" in row["measure"] and "Spearman" not in row["measure"]
                                else "")  # fmt: skip


def test_tables_say_what_was_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_runs(tmp_path)
    some = edits(0, 9)
    columns = [*COLUMNS, SHARE, {**CLIP, "name": "my_judge"}]
    broken = [failed("c0"), *some[1:29], ok("c29", clip_whole=3.0)]
    for record in broken[1:11]:
        record.metrics["my_judge"] = record.metrics["edit_success"]
    write_run(tmp_path / "mine", broken, method("Mine"), columns, judges={"Mine": "m0"})
    write_run(tmp_path / "photos", [ok("p", clip_whole=3.0)], method("P"), [CLIP])
    calibrate([tmp_path], form="markdown", resamples=200, per_type=True)
    text = capsys.readouterr().out
    for said in (
        "148 records of 30 cases in 5 runs",
        "left out: 1 records of edits that ended in an error",
        "left out: 1 records whose edit_success is not known, of mine",
        "my_judge was not measured in run-0, run-1, run-2, run-3",
        "no better direction, left out (--metrics asks for them): bg_share",
        "left out, as no true edit is known (edit_success): photos",
        "columns with fewer records: my_judge 10",
        "AUC by edit type",
    ):
        assert said in text
    line = next(line for line in text.splitlines() if "my_judge ↑" in line)
    assert "1.00" in line
    assert "0.00" in line


def test_columns_can_be_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    columns = [*COLUMNS, SHARE]
    for i in range(3):
        some = edits(0, i)
        for record in some:
            record.metrics["bg_share"] = record.metrics["clip_whole"]
        write_run(tmp_path / str(i), some, method("M", i), columns)
    calibrate([tmp_path], metrics=["bg_share"], form="markdown", resamples=200)
    assert "no better direction, read as higher is better: bg_share" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="no run measured 'clip_hole'"):
        calibrate([tmp_path], metrics=["clip_hole"], resamples=200)


def test_what_can_not_be_calibrated_is_refused_in_words(tmp_path: Path) -> None:
    write_run(tmp_path / "photos", edits(0, 0), method("P"), [CLIP])
    with pytest.raises(ConfigError, match=r"none of the 1 runs has the column edit_success"):
        calibrate([tmp_path / "photos"])
    write_run(tmp_path / "few", edits(0, 0)[:9], method("P"), COLUMNS)
    with pytest.raises(ConfigError, match=r"have 9 cases .* needs at least 10"):
        calibrate([tmp_path / "few"])
    half = [ok(f"c{i}", edit_success=0.5, clip_whole=1.0) for i in range(12)]
    write_run(tmp_path / "half", half, method("P"), COLUMNS)
    with pytest.raises(ConfigError, match=r"edit_success is 0\.5 .* needs 1 or 0"):
        calibrate([tmp_path / "half"])
    write_run(tmp_path / "true", edits(0, 0), method("P"), [LPIPS_TRUTH, SUCCESS])
    with pytest.raises(ConfigError, match="no values in any column with a better direction"):
        calibrate([tmp_path / "true"])
    with pytest.raises(ConfigError, match="at least 100"):
        calibrate([tmp_path / "few"], resamples=10)


def test_a_single_run_or_one_outcome_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "one", edits(99, 0), method("P"), COLUMNS)
    calibrate([tmp_path], form="markdown", resamples=200)
    text = capsys.readouterr().out
    assert "no AUC and no false passes: every edit succeeded" in text
    assert "no correlation within case: no case has 3 records" in text
    assert "no ranking: it needs 3 runs or settings, there are 1" in text
    assert "Does it rank the runs" not in text


def test_other_protocols_and_judges_have_tables_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_runs(tmp_path / "masked")
    write_runs(tmp_path / "published", protocol="published")
    found = rows(capsys, str(tmp_path), "--resamples", "200", "--plot", str(tmp_path / "p.png"))
    assert {row["evaluation"] for row in found} == {
        "shapes_pie_20, protocol masked", "shapes_pie_20, protocol published",
    }  # fmt: skip
    assert {row["records"] for row in found} == {"120"}
    assert Image.open(tmp_path / "p.png").size[0] == 1350
    write_runs(tmp_path / "judge", judges={"ClipScore": "j1"})
    found = rows(capsys, str(tmp_path / "masked"), str(tmp_path / "judge"), "--resamples", "200")
    assert {row["records"] for row in found} == {"120"}


def test_parts_of_a_benchmark_are_pooled_and_other_splits_are_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "all", edits(0, 0), method("M"), COLUMNS)
    part = {"name": "shapes_pie_10", "fingerprint": "d1"}
    write_run(tmp_path / "part", edits(0, 1)[:20], method("M"), COLUMNS, dataset=part)
    calibrate([tmp_path], form="markdown", resamples=200)
    text = capsys.readouterr().out
    assert "50 records of 30 cases in 2 runs" in text
    assert "the runs do not have the same cases" in text
    calibrate([tmp_path], form="markdown", resamples=200, intersection=True)
    text = capsys.readouterr().out
    assert "40 records of 20 cases in 2 runs" in text
    assert "left out: 10 cases that some runs lack" in text
    other = [ok(r.case, prompt="a dog", **r.metrics) for r in edits(0, 2)]
    split = {"name": "shapes_pie_20_validation", "fingerprint": "d2"}
    write_run(tmp_path / "split", other, method("M"), COLUMNS, dataset=split)
    found = rows(capsys, str(tmp_path / "all"), str(tmp_path / "split"), "--resamples", "200")
    assert {row["records"] for row in found} == {"30"}
    same = {"name": "shapes_pie_20", "fingerprint": "d0"}
    write_run(tmp_path / "same", other, method("M"), COLUMNS, dataset=same)
    with pytest.raises(ConfigError, match="the prompts of these cases of shapes_pie_20 differ"):
        calibrate([tmp_path / "all", tmp_path / "same"], resamples=200)


def test_seeds_can_be_gathered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for cls in ("A", "B", "C"):
        for seed in range(2):
            skill = ord(cls) - ord("B")
            write_run(tmp_path / f"{cls}{seed}", edits(skill, seed), method(cls, seed), COLUMNS)
    found = rows(capsys, str(tmp_path), "--by", "method", "--resamples", "200")
    assert {row["runs ranked"] for row in found} == {"3"}
    assert {row["pairs"] for row in found} == {"", "3"}
    tau = {"measure": "Kendall's tau across runs", "truth": "lpips_truth"}
    assert number(found, column="clip_whole", **tau) == 1
    assert {row["runs ranked"] for row in rows(capsys, str(tmp_path), "--resamples", "200")} == {
        "6"
    }


def test_the_threshold_is_in_the_columns_unit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a column for which lower is better, an edit passes below it."""
    some = [
        ok(f"c{i}", edit_success=float(i < 10), structure=float(i), lpips_truth=float(i))
        for i in range(20)
    ]
    write_run(tmp_path / "r", some, method("M"), COLUMNS)
    found = rows(capsys, str(tmp_path), "--resamples", "200")
    (row,) = [r for r in found if r["measure"] == "false passes"]
    assert (row["threshold"], row["value"]) == ("8.0", "0.0")  # nine of ten: 0 to 8
    calibrate([tmp_path], form="markdown", resamples=200)
    assert "≤ 8.0" in capsys.readouterr().out


def test_intervals_within_cases_are_as_wide_as_few_cases_require(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two of 30 cases are in three runs: nothing about other cases makes them more certain."""
    write_run(tmp_path / "all", edits(0, 0), method("M"), COLUMNS)
    for i in (1, 2):
        write_run(tmp_path / f"two-{i}", edits(0, i)[:2], method("M", i), COLUMNS)
    found = rows(capsys, str(tmp_path), "--resamples", "400")
    chosen = [r for r in found if r["measure"] == "Spearman within case"]
    assert {row["cases"] for row in chosen} == {"2"}
    alone = rows(capsys, str(tmp_path), "--resamples", "400", "--metrics", "clip_whole")
    assert [r for r in found if r["column"] == "clip_whole"] == alone
    each = [float(r["low"]) for r in chosen] + [float(r["high"]) for r in chosen]
    assert np.isnan(each).all()  # in many resamples none of the two is drawn

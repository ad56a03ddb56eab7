from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from zerocon.reports.statistics import (
    bootstrap_means,
    effect,
    holm,
    interval,
    paired,
    resampling,
    signed_ranks,
    wilcoxon,
)

REPETITIONS = 1000


@pytest.mark.slow
@pytest.mark.parametrize("cases", [40, 100])
def test_the_interval_covers_a_known_effect_as_often_as_it_says(cases: int) -> None:
    """Both runs share a case's difficulty; the second is 0.3 better, not equally in all cases."""
    random = np.random.default_rng(cases)
    difficulty = random.normal(20, 5, (cases, REPETITIONS))
    first = difficulty + random.normal(0, 0.5, difficulty.shape)
    second = difficulty + 0.3 + random.normal(0, 0.8, difficulty.shape)
    low, high = bootstrap_means(second - first)
    assert 0.93 <= ((low <= 0.3) & (high >= 0.3)).mean() <= 0.97


def test_the_interval_covers_also_where_a_success_is_all_or_nothing() -> None:
    random = np.random.default_rng(0)
    changes = random.choice([-1.0, 0.0, 1.0], p=[0.1, 0.6, 0.3], size=(80, REPETITIONS))
    low, high = bootstrap_means(changes, resamples=4000)
    assert 0.93 <= ((low <= 0.2) & (high >= 0.2)).mean() <= 0.97


@pytest.mark.parametrize(("cases", "least"), [(40, 0.925), (100, 0.93)])
def test_the_interval_covers_also_where_differences_are_skewed(cases: int, least: float) -> None:
    """For log-normal differences; percentiles alone cover 91 and 92 %."""
    random = np.random.default_rng(cases)
    low, high = bootstrap_means(random.lognormal(0, 1, (cases, REPETITIONS)), resamples=2000)
    true = math.exp(0.5)
    assert least <= ((low <= true) & (high >= true)).mean() <= 0.97


def test_rare_successes_have_an_interval_within_what_is_possible() -> None:
    """Their resamples often have no spread, and then no t statistic."""
    values = np.repeat([1.0, 0.0], [38, 2])[:, None]
    low, high = bootstrap_means(values)
    assert 0.8 < float(low[0]) < 0.95 < float(high[0]) <= 1


def test_the_interval_does_not_depend_on_what_is_resampled_beside() -> None:
    """For successes many resamples equal the mean; rounding of sums must not hide that."""
    successes = np.repeat([1.0, 0.0], [94, 6])[:, None]
    alone = bootstrap_means(successes)
    for others in (1, 2, 5, 16):
        beside = np.hstack([successes, np.random.default_rng(0).normal(size=(100, others))])
        low, high = bootstrap_means(beside)
        assert (low[0], high[0]) == pytest.approx((alone[0][0], alone[1][0]), rel=1e-12)
    resampled = np.array([[0.3], [0.1 + 0.2], [0.2], [0.4]])
    both = interval(resampled, np.array([0.3]), 100, 0.95)
    exact = interval(np.array([[3.0], [3.0], [2.0], [4.0]]), np.array([3.0]), 100, 0.95)
    assert np.ravel(both) == pytest.approx(np.ravel(exact) / 10)


@pytest.mark.parametrize("cases", [40, 100])
def test_without_an_effect_the_test_rejects_as_often_as_it_says(cases: int) -> None:
    random = np.random.default_rng(cases + 1)
    rejected = wilcoxon(random.normal(0, 2, (cases, REPETITIONS))) < 0.05
    assert 0.03 <= rejected.mean() <= 0.07


def test_corrected_tests_seldom_reject_any_of_eight_true_hypotheses() -> None:
    random = np.random.default_rng(2)
    p = wilcoxon(random.normal(0, 1, (50, 8 * REPETITIONS))).reshape(REPETITIONS, 8)
    assert (p < 0.05).any(1).mean() > 0.1  # without correction
    corrected = np.array([holm(row) for row in p])
    assert 0.03 <= (corrected < 0.05).any(1).mean() <= 0.07


def test_holm_by_hand() -> None:
    # in order .01 .02 .03 .04, times 4 3 2 1: .04 .06 .06 .04, never falling: .04 .06 .06 .06
    p = np.array([0.02, 0.04, math.nan, 0.01, 0.03])
    np.testing.assert_allclose(holm(p), [0.06, 0.06, math.nan, 0.04, 0.06])
    np.testing.assert_allclose(holm(np.array([0.9, 0.8])), [1, 1])


def test_wilcoxon_by_hand_and_where_all_are_equal() -> None:
    # 1, 2, …, 6, all positive: two of 2^6 sign patterns are as extreme
    differences = np.stack([np.arange(1.0, 7), np.zeros(6), -np.arange(1.0, 7)], axis=1)
    np.testing.assert_allclose(wilcoxon(differences), [2 / 64, 1, 2 / 64])


def test_effect_by_hand() -> None:
    # 1, 3: mean 2, standard deviation sqrt(2)
    samples = np.array([[1.0, 0.0, 2.0, -2.0], [3.0, 0.0, 2.0, -2.0]])
    np.testing.assert_allclose(effect(samples), [math.sqrt(2), 0, math.inf, -math.inf])


def test_a_normal_mean_has_nearly_the_interval_of_the_t_distribution() -> None:
    values = stats.norm.ppf((np.arange(30) + 0.5) / 30)[:, None]
    half = stats.t.ppf(0.975, 29) * values.std(ddof=1) / math.sqrt(30)
    low, high = bootstrap_means(values, resamples=40_000)
    assert float(high[0]) == pytest.approx(half, rel=0.03)
    assert float(low[0]) == pytest.approx(-half, rel=0.03)


def test_resamples_are_seeded_and_keep_the_number_of_cases() -> None:
    drawn = np.concatenate(list(resampling(7, 500, seed=3)))
    assert drawn.shape == (500, 7)
    np.testing.assert_allclose(drawn.sum(1), 1)
    np.testing.assert_array_equal(drawn, np.concatenate(list(resampling(7, 500, seed=3))))
    assert (drawn != np.concatenate(list(resampling(7, 500, seed=4)))).any()
    large = list(resampling(10**6, 6, seed=0))
    assert [len(part) for part in large] == [4, 2]  # in parts that fit into memory


def test_missing_pairs_are_left_out_of_their_sample_only() -> None:
    random = np.random.default_rng(0)
    full = random.normal(1, 1, (30, 3))
    holes = full.copy()
    holes[[4, 9], 1] = math.nan
    some, every = paired(holes, resamples=500), paired(full, resamples=500)
    assert (some[0], some[2]) == (every[0], every[2])
    (alone,) = paired(np.delete(full[:, 1:2], [4, 9], axis=0), resamples=500)
    assert some[1] == alone
    assert some[1].n == 28


def test_too_few_pairs_say_nothing() -> None:
    one, none = paired(np.array([[2.0, math.nan]]))
    assert (one.n, one.mean) == (1, 2.0)
    assert none.n == 0
    assert all(map(math.isnan, (one.low, one.high, one.p, one.effect, none.mean, none.p)))


def test_a_constant_difference_has_an_interval_of_no_width() -> None:
    low, high = interval(np.full((100, 1), 0.5), np.array([0.5]), 10, 0.95)
    assert (float(low[0]), float(high[0])) == (0.5, 0.5)


def test_each_column_is_tested_as_scipy_tests_it_alone() -> None:
    random = np.random.default_rng(0)
    for n in (5, 8, 20, 50, 51, 100):
        smooth, whole = random.normal(0.2, 1, n), random.integers(-2, 3, n).astype(float)
        columns = [smooth, whole, np.round(smooth, 1), random.choice([0.0, 1.0], n)]
        alone = [stats.wilcoxon(column, zero_method="pratt").pvalue for column in columns]
        np.testing.assert_allclose(wilcoxon(np.stack(columns, axis=1)), alone, rtol=1e-12)


def test_infinite_differences_rank_highest() -> None:
    differences = np.array([[math.inf, 1.0, -2.0, 0.0, -math.inf, math.inf]]).T
    assert signed_ranks(differences)[:, 0].tolist() == [5, 2, -3, 0, -5, 5]
    large = np.where(np.isinf(differences), np.sign(differences) * 1e9, differences)
    assert wilcoxon(differences) == wilcoxon(large)
    (test,) = paired(differences, resamples=500)
    assert (test.n, test.by_ranks, math.isnan(test.mean)) == (6, True, True)
    assert all(map(math.isfinite, (test.low, test.high, test.effect)))

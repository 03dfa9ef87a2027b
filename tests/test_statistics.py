"""Statistics against closed forms, hand computation and scipy."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from lra_bench.report.statistics import (
    average_difference_interval,
    difference_interval,
    mean_interval,
    shares_differ,
    summarize,
    wilson,
)

ACCURACIES = st.lists(st.floats(0, 1), min_size=1, max_size=12)


def test_summary_by_hand():
    found = summarize([0.5, 0.75, 1.0])
    assert (found.n, found.mean, found.std, found.min, found.max) == (3, 0.75, 0.25, 0.5, 1.0)
    assert summarize([0.4]).std is None


@given(ACCURACIES)
def test_summary_is_ordered_and_agrees_with_the_definition(values):
    found = summarize(values)
    assert found.min - 1e-12 <= found.mean <= found.max + 1e-12
    if len(values) > 1:
        deviation = math.sqrt(math.fsum((value - found.mean) ** 2 for value in values) / (len(values) - 1))
        assert found.std == pytest.approx(deviation, abs=1e-12)


@pytest.mark.parametrize(("right", "n"), [(1243, 2000), (0, 50), (50, 50), (1, 3)])
def test_wilson_is_the_closed_form(right, n):
    z = scipy.stats.norm.ppf(0.975)
    p = right / n
    center = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    found = wilson(p, n)
    assert found.kind == "Wilson"
    assert (found.low, found.high) == pytest.approx((center - half, center + half), abs=1e-9)


def test_one_listops_run_is_worth_about_two_points():
    found = wilson(0.62, 2000)
    assert 0.0205 < (found.high - found.low) / 2 < 0.0220


def test_without_test_noise_the_interval_is_students():
    values = [0.60, 0.62, 0.61, 0.64]
    expected = scipy.stats.t.interval(0.95, 3, loc=np.mean(values), scale=scipy.stats.sem(values))
    found = mean_interval(values, 10**12)
    assert found.kind == "t"
    assert (found.low, found.high) == pytest.approx(expected, abs=1e-6)


def test_without_a_spread_the_interval_is_the_test_sets():
    found = mean_interval([0.6] * 4, 2000)
    half = scipy.stats.norm.ppf(0.975) * math.sqrt(0.6 * 0.4 / 2000)
    assert (found.low, found.high) == pytest.approx((0.6 - half, 0.6 + half))


def test_one_run_has_wilsons_interval():
    assert mean_interval([0.6], 2000) == wilson(0.6, 2000)


@given(ACCURACIES, st.integers(1, 30_000))
def test_an_interval_holds_its_mean_and_stays_between_0_and_1(values, n_test):
    found, mean = mean_interval(values, n_test), np.mean(values)
    assert 0.0 <= found.low <= found.high <= 1.0
    if len(values) > 1:
        assert found.low - 1e-12 <= mean <= found.high + 1e-12


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("spread", [0.0, 0.004, 0.02])
def test_intervals_cover_what_they_say(seeds, spread):
    """Runs of one test set of 2,000 examples, which all seeds share, and with a spread over seeds."""
    rng, p, n_test, trials = np.random.default_rng(seeds), 0.62, 2000, 1500
    sample = rng.binomial(n_test, p, trials) / n_test
    runs = np.clip(sample[:, None] + spread * rng.standard_normal((trials, seeds)), 0, 1)
    found = [mean_interval(list(row), n_test) for row in runs]
    covered = np.mean([interval.low <= p <= interval.high for interval in found])
    assert covered > 0.935


def test_welchs_interval_is_scipys_where_the_test_set_is_large():
    a, b = [0.60, 0.62, 0.61, 0.64], [0.55, 0.58, 0.50]
    expected = scipy.stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    found = difference_interval(a, b, 10**12)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-6)
    back = difference_interval(b, a, 10**12)
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low))


def test_a_difference_needs_two_seeds_of_each():
    assert difference_interval([0.6], [0.5, 0.5], 2000) is None
    assert difference_interval([0.6, 0.6], [0.5], 2000) is None


def test_shares_are_told_apart_by_fishers_exact_test():
    assert shares_differ((5, 5), (1, 5))
    assert shares_differ((0, 4), (4, 4))
    assert not shares_differ((5, 5), (4, 5))
    assert not shares_differ((0, 3), (3, 3)), "three seeds each cannot show it"


def test_the_test_sets_noise_is_in_a_difference():
    """Two points apart on ListOps' 2,000 examples, without any spread over seeds, is no difference; ten are one."""
    assert difference_interval([0.62] * 5, [0.60] * 5, 2000).holds_zero
    assert not difference_interval([0.62] * 5, [0.52] * 5, 2000).holds_zero


def test_the_interval_of_averages_covers_what_it_says():
    """Six tasks of three seeds, one with a spread ten times that of the others; the true difference is zero."""
    rng, spreads, n_test, trials = np.random.default_rng(0), [0.004] * 5 + [0.04], [2000] * 5 + [20_000], 1000
    covered = 0
    for _ in range(trials):
        runs = [
            [
                rng.binomial(n, 0.7) / n + spread * rng.standard_normal(3)
                for n, spread in zip(n_test, spreads, strict=True)
            ]
            for _ in range(2)
        ]
        covered += average_difference_interval(*runs, n_test).holds_zero
    assert covered / trials > 0.935


def test_the_average_of_one_task_is_the_task():
    a, b = [0.60, 0.62, 0.61], [0.55, 0.58]
    assert average_difference_interval([a], [b], [2000]) == difference_interval(a, b, 2000)
    twice = average_difference_interval([a, a], [b, b], [2000] * 2)
    assert twice.high - twice.low < 0.75 * (difference_interval(a, b, 2000).high - difference_interval(a, b, 2000).low)
    assert average_difference_interval([a, [0.6]], [b, b], [2000] * 2) is None

"""Statistics of a few seeds: summaries, intervals that fit the number of runs, and differences of two models.

Accuracies are shares in [0, 1], and intervals are at 95 %, within [0, 1]. There are no significance stars.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

CONFIDENCE = 0.95
"""The confidence level of all intervals."""

IntervalKind = Literal["Wilson", "t"]
"""The method that an interval comes from."""


@dataclass(frozen=True)
class Summary:
    """The summary of n values. `std` is the sample standard deviation (n − 1), None for a single value."""

    n: int
    mean: float
    std: float | None
    min: float
    max: float


@dataclass(frozen=True)
class Interval:
    """An interval at 95 % and the method it comes from.

    Wilson is that of a share, such as the accuracy of one run on its test set. t is that of the mean of several runs,
    over the choice of the seed and of the test set, or of the difference of two such means.
    """

    kind: IntervalKind
    low: float
    high: float

    @property
    def holds_zero(self) -> bool:
        """Whether zero is within the interval."""
        return self.low <= 0.0 <= self.high


def summarize(values: Sequence[float]) -> Summary:
    """Return the summary of at least one value."""
    x = np.asarray(values, dtype=np.float64)
    std = float(x.std(ddof=1)) if x.size > 1 else None
    return Summary(x.size, float(x.mean()), std, float(x.min()), float(x.max()))


def wilson(share: float, n: int) -> Interval:
    """Return Wilson's score interval of a share of n trials (Wilson 1927, computed by scipy)."""
    from scipy.stats import binomtest

    found = binomtest(round(share * n), n).proportion_ci(CONFIDENCE, method="wilson")
    return Interval("Wilson", float(found.low), float(found.high))


def mean_interval(values: Sequence[float], n_test: int) -> Interval:
    """Return the interval of the mean accuracy of runs on one test set: Wilson's for one run, from two on t.

    That of several runs adds, in quadrature, Student's interval over seeds and the normal one over test examples. All
    runs share the test set, so more seeds do not make the second one smaller. A bootstrap over so few seeds covers too
    little: with five, the bias-corrected one covers 85 % instead of 95 %.
    """
    if len(values) == 1:
        return wilson(values[0], n_test)
    found = summarize(values)
    half = math.hypot(_seed_half(found), _test_half(found.mean * (1 - found.mean), n_test))
    return Interval("t", max(0.0, found.mean - half), min(1.0, found.mean + half))


def difference_interval(a: Sequence[float], b: Sequence[float], n_test: int) -> Interval | None:
    """Return the interval of the mean of `a` minus that of `b`, two models on one test set; None for a single run.

    It adds, in quadrature, Welch's interval over seeds and the normal one over test examples, taken as independent for
    the two models. They answer the same examples, so the latter is at most that wide.
    """
    return average_difference_interval([a], [b], [n_test])


def difference_of_means(a: Sequence[float], b: Sequence[float], variance: float, n_test: int) -> Interval:
    """Return the interval of the mean of `a` minus that of `b`, two seeds each at least.

    `variance` is that of the difference at one of the `n_test` examples. It adds Welch's interval over seeds and the
    normal one over examples in quadrature.
    """
    cells = [summarize(a), summarize(b)]
    middle, half = cells[0].mean - cells[1].mean, math.hypot(_welch_half(cells), _test_half(variance, n_test))
    return Interval("t", max(-1.0, middle - half), min(1.0, middle + half))


def average_difference_interval(
    a: Sequence[Sequence[float]], b: Sequence[Sequence[float]], n_test: Sequence[int]
) -> Interval | None:
    """Return the interval of the average of `a` minus that of `b`, two models on the same tasks in the same order.

    Each has the runs of every task, and `n_test` the test examples of every task. The cells are independent, so that
    their squared standard errors add; the freedom is Welch's and Satterthwaite's, over all cells. None where a cell
    has a single run.
    """
    cells = [summarize(values) for values in (*a, *b)]
    if min(found.n for found in cells) < 2:
        return None
    tasks = len(n_test)
    middle = (
        math.fsum(found.mean for found in cells[:tasks]) - math.fsum(found.mean for found in cells[tasks:])
    ) / tasks
    noise = math.fsum(found.mean * (1 - found.mean) / n for found, n in zip(cells, [*n_test] * 2, strict=True))
    half = math.hypot(_welch_half(cells), _test_half(noise, 1)) / tasks
    return Interval("t", max(-1.0, middle - half), min(1.0, middle + half))


def shares_differ(a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Whether two shares, each as (successes, trials), can be told apart by Fisher's exact test, two-sided."""
    from scipy.stats import fisher_exact

    table = [[successes, trials - successes] for successes, trials in (a, b)]
    return bool(fisher_exact(table).pvalue < 1 - CONFIDENCE)


def _variance_of_mean(found: Summary) -> float:
    assert found.std is not None
    return found.std**2 / found.n


def _t_quantile(freedom: float) -> float:
    """The quantile of Student's distribution at the upper end of an interval."""
    # scipy.stats.t.ppf is this same function within checks that take a hundred times as long.
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.5 + CONFIDENCE / 2))


def _seed_half(found: Summary) -> float:
    """Half the width of Student's interval of the mean, over seeds."""
    return _t_quantile(found.n - 1) * math.sqrt(_variance_of_mean(found))


def _welch_half(cells: Sequence[Summary]) -> float:
    """Half the width of Welch's interval of a sum or difference of the means of all cells, over seeds."""
    parts = [_variance_of_mean(found) for found in cells]
    if sum(parts) == 0.0:
        return 0.0
    freedom = sum(parts) ** 2 / sum(part**2 / (found.n - 1) for part, found in zip(parts, cells, strict=True))
    return _t_quantile(freedom) * math.sqrt(sum(parts))


def _test_half(variance: float, n_test: int) -> float:
    """Half the width of the normal interval over test examples, from the variance of one example."""
    from scipy.special import ndtri

    return float(ndtri(0.5 + CONFIDENCE / 2)) * math.sqrt(max(variance, 0.0) / n_test)

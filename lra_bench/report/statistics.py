"""Statistics of a few seeds: summaries, intervals that fit the number of runs, and comparisons paired by seed.

Accuracies are shares in [0, 1], and intervals are at 95 %. There are no significance stars: with the usual three to
five seeds, unpaired tests find differences that do not exist (arXiv 2511.19794, 2103.03098).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

CONFIDENCE = 0.95
"""The confidence level of all intervals."""

RESAMPLES = 9999
"""The number of bootstrap resamples."""

IntervalKind = Literal["Wilson", "t", "BCa"]
"""The method that an interval comes from."""


@dataclass(frozen=True)
class Summary:
    """The summary of n values. `std` is the sample standard deviation (n − 1), None for a single value."""

    n: int
    mean: float
    std: float | None
    min: float
    max: float
    median: float


@dataclass(frozen=True)
class Interval:
    """An interval at 95 % and the method it comes from.

    Wilson covers the sampling of the test set for one run; t and BCa cover the choice of the seed.
    """

    kind: IntervalKind
    low: float
    high: float


@dataclass(frozen=True)
class Paired:
    """The difference a − b of two models over the seeds that both have.

    `wins` and `losses` are the numbers of seeds on which a is better or worse.
    """

    seeds: tuple[int, ...]
    mean: float
    std: float | None
    interval: Interval | None
    wins: int
    losses: int


def summarize(values: Sequence[float]) -> Summary:
    """Return the summary of at least one value."""
    x = np.asarray(values, dtype=np.float64)
    std = float(x.std(ddof=1)) if x.size > 1 else None
    return Summary(x.size, float(x.mean()), std, float(x.min()), float(x.max()), float(np.median(x)))


def wilson(accuracy: float, n_test: int) -> Interval:
    """Return Wilson's score interval of one run's accuracy on `n_test` examples (Wilson 1927, computed by scipy)."""
    from scipy.stats import binomtest

    found = binomtest(round(accuracy * n_test), n_test).proportion_ci(CONFIDENCE, method="wilson")
    return Interval("Wilson", float(found.low), float(found.high))


def t_interval(values: Sequence[float]) -> Interval:
    """Return Student's t interval of the mean. Raises ValueError for fewer than three values."""
    from scipy.stats import t

    if len(values) < 3:
        raise ValueError("a t interval is given from three seeds on")
    x = np.asarray(values, dtype=np.float64)
    half = float(t.ppf(0.5 + CONFIDENCE / 2, x.size - 1)) * float(x.std(ddof=1)) / math.sqrt(x.size)
    return Interval("t", float(x.mean()) - half, float(x.mean()) + half)


def bca_interval(values: Sequence[float]) -> Interval:
    """Return the bias-corrected and accelerated bootstrap interval of the mean (Efron 1987, computed by scipy).

    The random generator is seeded, so that the same values always give the same interval. Raises ValueError for fewer
    than five values.
    """
    from scipy.stats import bootstrap

    if len(values) < 5:
        raise ValueError("a BCa bootstrap is given from five seeds on")
    x = np.asarray(values, dtype=np.float64)
    if np.ptp(x) == 0:  # equal values, for which scipy's acceleration is 0/0
        return Interval("BCa", float(x[0]), float(x[0]))
    found = bootstrap(
        (x,), np.mean, n_resamples=RESAMPLES, confidence_level=CONFIDENCE, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval
    return Interval("BCa", float(found.low), float(found.high))


def interval(values: Sequence[float], n_test: int) -> Interval | None:
    """Return the interval that the number of runs allows: Wilson for one, None for two, t to four, BCa from five."""
    if len(values) == 1:
        return wilson(values[0], n_test)
    return _over_seeds(values)


def paired(a: Mapping[int, float], b: Mapping[int, float]) -> Paired | None:
    """Compare the accuracies by seed of two models over the seeds that both have; None where there are none."""
    seeds = tuple(sorted(a.keys() & b.keys()))
    if not seeds:
        return None
    differences = [a[seed] - b[seed] for seed in seeds]
    found = summarize(differences)
    wins = sum(difference > 0 for difference in differences)
    losses = sum(difference < 0 for difference in differences)
    return Paired(seeds, found.mean, found.std, _over_seeds(differences), wins, losses)


def _over_seeds(values: Sequence[float]) -> Interval | None:
    """Return the interval of the mean over the choice of the seed, None for fewer than three values."""
    if len(values) < 3:
        return None
    return t_interval(values) if len(values) < 5 else bca_interval(values)

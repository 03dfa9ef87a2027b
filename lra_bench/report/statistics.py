"""What a handful of seeds can say: summaries, intervals that fit the number of runs, comparisons paired by seed.

Accuracies go in and come out as shares in [0, 1]. Intervals are at 95 %. There are no significance stars: with the
three to five seeds usual here, unpaired tests find differences that are not there (arXiv 2511.19794, 2103.03098).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 9999

IntervalKind = Literal["Wilson", "t", "BCa"]


@dataclass(frozen=True)
class Summary:
    """A summary of one cell's runs. `std` is the sample standard deviation (n − 1), None for a single run."""

    n: int
    mean: float
    std: float | None
    min: float
    max: float
    median: float


@dataclass(frozen=True)
class Interval:
    """95 % interval and the method it comes from.

    Wilson covers the sampling of the test set for one run; t and BCa cover the choice of the seed.
    """

    kind: IntervalKind
    low: float
    high: float


@dataclass(frozen=True)
class Paired:
    """The difference a − b over the seeds both have."""

    seeds: tuple[int, ...]
    mean: float
    std: float | None
    interval: Interval | None
    wins: int
    losses: int


def summarize(values: Sequence[float]) -> Summary:
    """n, mean, sample deviation, range and median of at least one value."""
    x = np.asarray(values, dtype=np.float64)
    std = float(x.std(ddof=1)) if x.size > 1 else None
    return Summary(x.size, float(x.mean()), std, float(x.min()), float(x.max()), float(np.median(x)))


def wilson(accuracy: float, n_test: int) -> Interval:
    """Wilson's score interval of one run's accuracy on `n_test` examples (Wilson 1927, by scipy)."""
    from scipy.stats import binomtest

    found = binomtest(round(accuracy * n_test), n_test).proportion_ci(CONFIDENCE, method="wilson")
    return Interval("Wilson", float(found.low), float(found.high))


def t_interval(values: Sequence[float]) -> Interval:
    """Student's interval of the mean; needs three values or more."""
    from scipy.stats import t

    if len(values) < 3:
        raise ValueError("a t interval is given from three seeds on")
    x = np.asarray(values, dtype=np.float64)
    half = float(t.ppf(0.5 + CONFIDENCE / 2, x.size - 1)) * float(x.std(ddof=1)) / math.sqrt(x.size)
    return Interval("t", float(x.mean()) - half, float(x.mean()) + half)


def bca_interval(values: Sequence[float]) -> Interval:
    """Bias-corrected and accelerated bootstrap of the mean (Efron 1987, by scipy); needs five values or more.

    The resampling is seeded, so the same values always give the same interval.
    """
    from scipy.stats import bootstrap

    if len(values) < 5:
        raise ValueError("a BCa bootstrap is given from five seeds on")
    x = np.asarray(values, dtype=np.float64)
    if np.ptp(x) == 0:  # scipy's acceleration is 0/0 here
        return Interval("BCa", float(x[0]), float(x[0]))
    found = bootstrap(
        (x,), np.mean, n_resamples=RESAMPLES, confidence_level=CONFIDENCE, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval
    return Interval("BCa", float(found.low), float(found.high))


def interval(values: Sequence[float], n_test: int) -> Interval | None:
    """The interval this many runs allow: Wilson for one, none for two, t for three and four, BCa from five."""
    if len(values) == 1:
        return wilson(values[0], n_test)
    return _over_seeds(values)


def paired(a: Mapping[int, float], b: Mapping[int, float]) -> Paired | None:
    """Compare two models by the seeds they share; None where they share none."""
    seeds = tuple(sorted(a.keys() & b.keys()))
    if not seeds:
        return None
    differences = [a[seed] - b[seed] for seed in seeds]
    found = summarize(differences)
    wins = sum(difference > 0 for difference in differences)
    losses = sum(difference < 0 for difference in differences)
    return Paired(seeds, found.mean, found.std, _over_seeds(differences), wins, losses)


def _over_seeds(values: Sequence[float]) -> Interval | None:
    if len(values) < 3:
        return None
    return t_interval(values) if len(values) < 5 else bca_interval(values)

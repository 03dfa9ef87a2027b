"""Two models on the same test examples: McNemar's exact test of two runs, a paired bootstrap over several seeds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lra_bench.report.statistics import CONFIDENCE, Interval

RESAMPLES = 5000
"""The number of resamples of the bootstrap."""

CHUNK = 250
"""The resamples that are drawn at once, to bound the memory."""


@dataclass(frozen=True)
class McNemar:
    """McNemar's test of two runs on the same examples.

    `only_a` and `only_b` are the examples that only one of the runs classifies correctly. `statistic` is his χ² without
    a correction, `p` the exact two-sided p-value: the binomial one of a fair coin for each of these examples.
    """

    only_a: int
    only_b: int
    statistic: float
    p: float


def mcnemar(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> McNemar:
    """Test whether two runs, correct on the examples `a` and `b`, (examples,), err equally often (McNemar 1947)."""
    from scipy.stats import binomtest

    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    n = only_a + only_b
    if not n:
        return McNemar(0, 0, 0.0, 1.0)
    return McNemar(only_a, only_b, (only_a - only_b) ** 2 / n, float(binomtest(only_a, n).pvalue))


def paired_bootstrap(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> Interval:
    """Return the interval of the mean accuracy of `a` minus that of `b`: (seeds, examples) each, of the same examples.

    Each resample draws examples, the same for all runs, and seeds of each model apart, because a seed has no meaning
    across models. It draws one seed fewer than there are, which makes the variance over seeds the unbiased one (Rao and
    Wu 1988). Both models need two seeds at least. The same input gives the same interval.
    """
    rng, n = np.random.default_rng(0), a.shape[1]
    # Examples on which all runs agree in the same way are alike, so only their number is drawn.
    patterns, counts = np.unique(np.concatenate([a, b]), axis=1, return_counts=True)
    differences = []
    for _ in range(RESAMPLES // CHUNK):
        drawn = rng.multinomial(n, counts / n, size=CHUNK)
        accuracies = drawn @ patterns.T.astype(np.float64) / n
        of_a, of_b = accuracies[:, : len(a)], accuracies[:, len(a) :]
        differences.append(_drawn_mean(rng, of_a) - _drawn_mean(rng, of_b))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.concatenate(differences), (tail, 1 - tail))
    return Interval("bootstrap", float(low), float(high))


def _drawn_mean(rng: np.random.Generator, accuracies: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean over drawn seeds in each resample; (resamples, seeds) → (resamples,)."""
    resamples, seeds = accuracies.shape
    drawn = rng.multinomial(seeds - 1, np.full(seeds, 1 / seeds), size=resamples)
    return (accuracies * drawn).sum(axis=1) / (seeds - 1)

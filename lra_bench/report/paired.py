"""Two models on the same test examples: McNemar's exact test of two runs, and an interval over several seeds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lra_bench.report.statistics import Interval, difference_of_means


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


def paired_interval(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> Interval:
    """Return the interval of the mean accuracy of `a` minus that of `b`: (seeds, examples) each, of the same examples.

    It adds, in quadrature, Welch's interval over seeds and the normal one over examples, whose differences are paired.
    Seeds are not, because a seed has no meaning across models. Both models need two seeds at least.
    """
    by_example = a.mean(0) - b.mean(0)
    return difference_of_means(a.mean(1).tolist(), b.mean(1).tolist(), float(by_example.var()), len(by_example))

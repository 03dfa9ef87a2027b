"""Solve for each PTD perturbation E that is shipped, and write them to `lra_bench/ssm/ptd.npz`.

    python benchmarks/perturbations.py

A recipe's E is data, because the digits of a solution depend on the versions of LAPACK and BLAS. Run this only where
the solver or a γ changes: the numbers of every run of S5-PTD and S4-PTD change with it.
"""

from __future__ import annotations

import numpy as np

from lra_bench.ssm.ptd import DEFAULT_GAMMA, SHIPPED, shipped_name, solve

if __name__ == "__main__":
    found = {shipped_name(n, gamma): solve(n, gamma) for n, gamma in DEFAULT_GAMMA.items()}
    np.savez(SHIPPED, **found)
    print(SHIPPED)

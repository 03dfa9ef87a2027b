"""Compare the transfer functions of PTD and S4D with that of HiPPO-LegS: the table of docs/recipes.md.

    python benchmarks/ptd_error.py                      # the default γ of 8, 16, 32 and 64 states, half a minute
    python benchmarks/ptd_error.py --states 32 --gamma 3

The error at ω is the norm of (iω − A)⁻¹B − (iω − A')⁻¹B', which is the largest error of the output for a C of length 1.
The largest one over 400 values of ω < 1 is printed, and the largest over these, 1,200 values up to 4 n² and 41 around
the frequency of each mode, where S4D's spikes are. All of it is float64.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np

from lra_bench.ssm import hippo, ptd


def resolvent(A: hippo.Complex | hippo.Real, B: hippo.Complex | hippo.Real, omega: hippo.Real) -> hippo.Complex:
    """Compute (iω − A)⁻¹B for every ω: (ω, N)."""
    matrices = 1j * omega[:, None, None] * np.eye(len(B)) - A
    return np.linalg.solve(matrices, np.broadcast_to(B[:, None], (len(omega), len(B), 1)).astype(complex))[..., 0]


def largest_errors(A: hippo.Complex | hippo.Real, B: hippo.Real, n: int) -> tuple[float, float]:
    """The largest error of the system (A, B) against HiPPO-LegS with n states: for ω < 1, and for all ω."""
    exact = hippo.legs(n)
    around_modes = (np.abs(np.linalg.eigvals(A).imag)[:, None] + np.linspace(-2.0, 2.0, 41)).ravel()
    errors = []
    for omega in (np.linspace(0.0, 1.0, 400), np.geomspace(1.0, 4.0 * n * n, 1200), around_modes):
        difference = resolvent(exact.A, exact.B, omega) - resolvent(A, B, omega)
        errors.append(float(np.linalg.norm(difference, axis=1).max()))
    return errors[0], max(errors)


def main() -> None:
    """Print one row for each number of states."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--states", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument(
        "--gamma", type=float, help="the same γ for every number of states; by default each has its own"
    )
    arguments = parser.parse_args()
    print("| n | γ | κ(V) | ‖E‖/‖A‖ | ω < 1 | all ω | S4D, ω < 1 | S4D, all ω |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for n in arguments.states:
        A, B = hippo.legs(n)
        gamma = ptd.default_gamma(n) if arguments.gamma is None else arguments.gamma
        solved = ptd.ptd(n, gamma)
        perturbed = largest_errors(A + solved.E, B, n)
        P = B / np.sqrt(2.0)
        diagonal = largest_errors(A + np.outer(P, P), B / 2.0, n)
        share = np.linalg.norm(solved.E, 2) / np.linalg.norm(A, 2)
        cells = [f"{n}", f"{gamma:g}", f"{np.linalg.cond(solved.V):.2g}", f"{100 * share:.1f} %"]
        cells += [f"{value:.2g}" for value in (*perturbed, *diagonal)]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()

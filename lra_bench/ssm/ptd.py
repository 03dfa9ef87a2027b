"""Perturb then diagonalize (PTD): eigenvalues and eigenvectors of A + E for HiPPO-LegS A and a small real E.

A itself cannot be diagonalized in floating point: its eigenvectors have condition 8e10 at 16 states and 5e18 at 32.
Without its rank-one part (S4D) the transfer function has spikes that no number of states removes. A + E, with E a few
percent of A, has neither fault. The idea is of Yu et al. 2024, "Robustifying State-space Models for Long Sequences via
Approximate Diagonalization" (arXiv 2310.01698), who minimize cond(V) + γ‖E‖. The objective, its gradient and the
solver here are our own. No matrix of the paper's authors is used, so E differs from theirs.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import math
import os
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from lra_bench.errors import UserError, WorkError
from lra_bench.paths import cache_folder
from lra_bench.ssm.hippo import Complex, Real, fix_phases, legs

log = logging.getLogger(__name__)

SOLVER_VERSION = 1
"""The version of the solver, part of the cached file's name. It rises whenever the solver's answer changes."""

SHIPPED = Path(__file__).with_suffix(".npz")
"""The file of each E for `DEFAULT_GAMMA`: those of all recipes. `benchmarks/perturbations.py` made it with `solve`."""

DEFAULT_GAMMA = {8: 0.3, 16: 0.3, 32: 0.1, 64: 0.02, 128: 0.006}
"""The weight γ of ‖E‖ by number of states. With it, E has about the relative size of the matrices behind the published
runs: 9, 5, 4, 4 and 3 % of A. The paper's own γ are not published."""

START = 0.05
"""The size of the random start, relative to ‖A‖₂."""

MARGIN = 0.5
"""The real parts' margin: each one above -MARGIN costs PENALTIES × (excess)². In HiPPO's normal part all real parts
are -MARGIN."""

PENALTIES = (0.01, 1.0)
"""The weights of the penalty, used one after the other. The weak one converges much sooner, and the strong one then
enforces the margin."""

TOLERANCE = 1e-7
"""The share of f below which L-BFGS stops when a step lowers f by less; 2e-9 gains 0.1 % in f and takes three times as
long."""

STEPS = 1000
"""The most steps of L-BFGS for each penalty."""


class Ptd(NamedTuple):
    """The decomposition A + E = V diag(Lambda) Vinv.

    Complex modes are exact conjugate pairs, k and n-1-k; real ones stand between them.
    """

    Lambda: Complex  # (n,), imaginary parts ascending, real parts negative
    V: Complex  # (n, n), columns of unit length whose first non-zero entry is real and positive
    Vinv: Complex  # (n, n), the true inverse: V is not unitary
    E: Real  # (n, n)
    kappa: float  # cond₂(V)
    relative_size: float  # ‖E‖₂ / ‖A‖₂


def default_gamma(n: int) -> float:
    """The γ for n states: `DEFAULT_GAMMA`, interpolated in log n and log γ. Up to n = 2 it is infinite: E = 0."""
    if n <= 2:
        return math.inf
    if n in DEFAULT_GAMMA:
        return DEFAULT_GAMMA[n]
    sizes, gammas = (np.log(list(part)) for part in (DEFAULT_GAMMA.keys(), DEFAULT_GAMMA.values()))
    return float(np.exp(np.interp(np.log(n), sizes, gammas)))


def ptd(n: int, gamma: float | None = None) -> Ptd:
    """The PTD initialization of n states. `gamma` None means `default_gamma(n)`.

    E is read from `SHIPPED`. One that is not there is solved for once, in about 0.02 s for n = 16, 1 s for 64 and 7 s
    for 128, and then read from the cache folder. The arrays are read-only, because callers share them.

    Raises UserError for an illegal n or γ, and WorkError where a mode of A + E does not decay.
    """
    return _in_process(n, _checked(n, gamma))


def solved_here(n: int, gamma: float | None = None) -> str | None:
    """The first digits of the SHA-256 of the E that `ptd` uses; None where every machine uses the same.

    The versions of LAPACK and BLAS decide the digits of a solution, so an E that is not shipped belongs to the identity
    of a run. It is solved for here if it is not in the cache folder. Raises as `ptd`.
    """
    gamma = _checked(n, gamma)
    if n <= 2 or shipped(n, gamma) is not None:
        return None
    return hashlib.sha256(ptd(n, gamma).E.tobytes()).hexdigest()[:12]


def _checked(n: int, gamma: float | None) -> float:
    if n < 1:
        raise UserError(f"PTD needs at least one state per block, got {n}.")
    if gamma is None:
        gamma = default_gamma(n)
    if not gamma > 0 or (math.isinf(gamma) and n > 2):
        raise UserError(
            f"PTD's gamma, the price of the perturbation, must be positive and finite, got {gamma} for n={n}."
        )
    return float(gamma)


@functools.lru_cache(maxsize=16)
def _in_process(n: int, gamma: float) -> Ptd:
    E = shipped(n, gamma)
    result = decompose(cached_perturbation(n, gamma) if E is None else E)
    for array in (result.Lambda, result.V, result.Vinv, result.E):
        array.flags.writeable = False
    return result


def decompose(E: Real) -> Ptd:
    """Compute eigenvalues and eigenvectors of A + E, in the order and phases that `Ptd` names.

    Raises WorkError where a mode grows.
    """
    n = len(E)
    A = legs(n).A
    Lambda, V = np.linalg.eig(A + E)
    if not Lambda.real.max() < 0:
        raise WorkError(f"the PTD perturbation of {n} states leaves a growing mode, real part {Lambda.real.max():.3g}.")
    order = np.lexsort((Lambda.real, Lambda.imag))
    Lambda, V = Lambda[order].astype(np.complex128), fix_phases(V[:, order].astype(np.complex128))
    # LAPACK's pairs are exact, but rounding can change their order, and the rows of an inverse are not exact pairs.
    half = int(np.sum(Lambda.imag < 0))
    real, mirror = slice(half, n - half), slice(n - half, n)
    Lambda[mirror] = Lambda[:half][::-1].conj()
    V[:, mirror] = V[:, :half][:, ::-1].conj()
    Vinv = np.linalg.inv(V).astype(np.complex128)
    Vinv[real] = Vinv[real].real
    Vinv[mirror] = Vinv[:half][::-1].conj()
    return Ptd(Lambda, V, Vinv, E, float(np.linalg.cond(V)), float(np.linalg.norm(E, 2) / np.linalg.norm(A, 2)))


def objective(E: Real, A: Real, gamma: float, rho: float) -> tuple[float, Real]:
    """The objective f(E) = ‖V⁻¹‖_F + γ‖E‖_F + ρ Σ max(0, Re λ + 1/2)² and its gradient (n, n); V has unit columns.

    ‖V⁻¹‖_F is an upper bound of cond₂(V) / √n and, unlike it, is smooth. First-order perturbation of eigenvalues and of
    normalized eigenvectors (Magnus 1985) gives the gradient without differentiating through an eigensolver.
    """
    Lambda, V = np.linalg.eig(A + E)
    W = np.linalg.inv(V)
    Vh, Wh = V.conj().T, W.conj().T
    condition, size = float(np.linalg.norm(W)), float(np.linalg.norm(E))
    excess = np.maximum(0.0, Lambda.real + MARGIN)
    # M is the gradient for a change of V in the eigenbasis. Y subtracts what scaling columns to unit length removes.
    M = -(Vh @ Wh) @ (W @ Wh)
    gap = Lambda[None, :] - Lambda[:, None]
    np.fill_diagonal(gap, np.inf)
    Y = (M - (Vh @ V) * M.diagonal().real) / gap.conj() / condition
    np.fill_diagonal(Y, 2 * rho * excess)
    value = condition + gamma * size + rho * float(np.sum(excess**2))
    return value, (Wh @ Y @ Vh).real + gamma / max(size, np.finfo(float).tiny) * E


def solve(n: int, gamma: float, seed: int = 0) -> Real:
    """Find the perturbation E (n, n) that minimizes `objective`, by L-BFGS from a seeded random start.

    E is 0 for an infinite γ. One BLAS thread is used: at these sizes more threads cost several times what they give,
    and one thread gives the same bits each time.
    """
    if n == 1 or math.isinf(gamma):
        return np.zeros((n, n))
    A = legs(n).A
    start = np.random.default_rng(seed).standard_normal((n, n))
    E = start * (START * np.linalg.norm(A, 2) / np.linalg.norm(start, 2))
    with threadpool_limits(limits=1, user_api="blas"):
        for rho in PENALTIES:
            E = _minimize(E, A, gamma, rho)
    return E


def _minimize(E: Real, A: Real, gamma: float, rho: float) -> Real:
    def flat(x: Real) -> tuple[float, Real]:
        value, gradient = objective(x.reshape(E.shape), A, gamma, rho)
        return value, gradient.ravel()

    options = {"maxiter": STEPS, "ftol": TOLERANCE}
    return minimize(flat, E.ravel(), jac=True, method="L-BFGS-B", options=options).x.reshape(E.shape)


def shipped(n: int, gamma: float) -> Real | None:
    """The E (n, n) of `SHIPPED` for n states and this γ; None where it is not there."""
    with np.load(SHIPPED, allow_pickle=False) as arrays:
        return arrays.get(shipped_name(n, gamma))


def shipped_name(n: int, gamma: float) -> str:
    """The name of an E in `SHIPPED`, such as `n16-gamma0.3`."""
    return f"n{n}-gamma{gamma!r}"


def cache_file(n: int, gamma: float) -> Path:
    """The file in the cache folder that holds E for n states and this γ."""
    return cache_folder() / "ptd" / f"{shipped_name(n, gamma)}-v{SOLVER_VERSION}.npz"


def cached_perturbation(n: int, gamma: float) -> Real:
    """Read E from the cache folder, or solve for it and keep it there.

    Where the file is damaged or holds other numbers, E is solved for again.
    """
    path = cache_file(n, gamma)
    E = _read(path, n, gamma)
    if E is None:
        log.info("solving the PTD perturbation for n=%d, gamma=%g, once; kept in %s", n, gamma, path)
        E = solve(n, gamma)
        _keep(path, n, gamma, E)
    return E


def _read(path: Path, n: int, gamma: float) -> Real | None:
    if not path.exists():
        return None
    try:
        # NumPy leaves a file open that it opened itself and that is no archive.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            E, key = kept["E"], (int(kept["n"]), float(kept["gamma"]))
        if key == (n, gamma) and E.shape == (n, n) and E.dtype == np.float64 and np.isfinite(E).all():
            decompose(E)
            return E
    except (OSError, EOFError, KeyError, ValueError, TypeError, zipfile.BadZipFile, WorkError) as error:
        log.warning("the cached perturbation %s cannot be used (%s); solving it anew", path, error)
        return None
    log.warning("the cached perturbation %s holds other numbers than its name says; solving it anew", path)
    return None


def _keep(path: Path, n: int, gamma: float, E: Real) -> None:
    """Write E to the cache file, whole or not at all. Where it cannot be written, only a warning is logged."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as out:
            temporary = Path(out.name)
            try:
                np.savez(out, E=E, n=n, gamma=gamma)
                out.flush()
                os.fsync(out.fileno())
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
    except OSError as error:
        log.warning("cannot keep the PTD perturbation in %s (%s); it will be solved again next time", path, error)

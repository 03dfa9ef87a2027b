"""HiPPO-LegS, its normal part, and the diagonal initializations of S4D.

All of it is computed in float64 numpy, once, before training.

Sources: Gu et al. 2020 (HiPPO), Gu, Goel, Ré 2022 (S4, appendix C.1), Gu et al. 2022 (S4D, section 4);
state-spaces/s4 `src/models/hippo/hippo.py` and `models/s4/s4d.py`, lindermanlab/S5 `s5/ssm_init.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lra_bench.spec import DiagonalInit, LowRankInit

Real = NDArray[np.float64]
Complex = NDArray[np.complex128]

B_CLIP = 2.0
"""The bound of the imaginary part of S4's and S4D's initial B from v4.0.0 on (state-spaces/s4 `hippo.py`, `B_clip`)."""

NO_ENTRY = 1e-8
"""The size below which an entry of a unit eigenvector is rounding, so that its phase means nothing."""


class Legs(NamedTuple):
    """HiPPO-LegS: the states of x' = A x + B u are coefficients of the past of u in Legendre polynomials."""

    A: Real  # (N, N), lower triangular
    B: Real  # (N,)


class NormalPart(NamedTuple):
    """The normal part S = A + P Pᵀ = V diag(Lambda) Vᴴ of HiPPO-LegS, so that A = V (diag(Lambda) - P̃ P̃ᴴ) Vᴴ."""

    Lambda: Complex  # (N,), real parts -1/2, imaginary parts ascending; Lambda[::-1] is conj(Lambda), bit for bit
    V: Complex  # (N, N), unitary, first row real and positive; V[:, ::-1] is conj(V)
    P_tilde: Complex  # (N,), Vᴴ P
    B_tilde: Complex  # (N,), Vᴴ B


class LowRank(NamedTuple):
    """A state space with A = diag(Lambda) - P Pᴴ, given by one state of each conjugate pair."""

    Lambda: Complex  # (N // 2,)
    P: Complex  # (N // 2,)
    B: Complex  # (N // 2,)


class Diagonal(NamedTuple):
    """A diagonal state space, given by one state of each conjugate pair."""

    Lambda: Complex  # (N // 2,)
    B: Complex  # (N // 2,)


def legs(N: int) -> Legs:
    """HiPPO-LegS with N states: A (N, N) with eigenvalues -1 … -N, and B (N,). Raises ValueError for N < 1."""
    if N < 1:
        raise ValueError(f"HiPPO-LegS needs at least one state, got N={N}")
    n = np.arange(N)
    B = np.sqrt(2.0 * n + 1.0)
    A = -np.tril(np.outer(B, B), k=-1) - np.diag(n + 1.0)
    return Legs(A, B)


def normal_part(N: int) -> NormalPart:
    """Compute the eigendecomposition of the normal part of HiPPO-LegS with N states.

    The phases of eigenvectors are free; here they make the first row real and positive. LAPACK returns the same phases
    up to sign, so the reference codes clip B in them too (`clip_imaginary`). With conjugate symmetry, keep the first
    N // 2 entries, which have the negative imaginary parts. Raises ValueError for N < 1.
    """
    A, B = legs(N)
    P = B / np.sqrt(2.0)
    skew = A + np.outer(P, P) + 0.5 * np.eye(N)
    # This makes it exactly skew: rounding in P Pᵀ would otherwise leave the two triangles an ulp apart.
    skew = 0.5 * (skew - skew.T)
    omega, V = np.linalg.eigh(-1j * skew)
    V = fix_phases(V)
    # A real matrix has conjugate pairs; LAPACK's complex solver gives them only up to rounding.
    half = N // 2
    omega[N - half :] = -omega[:half][::-1]
    V[:, N - half :] = V[:, :half][:, ::-1].conj()
    if N % 2:
        omega[half] = 0.0
        V[:, half] = V[:, half].real / np.linalg.norm(V[:, half].real)
    Vh = V.conj().T
    return NormalPart(-0.5 + 1j * omega, V, Vh @ P, Vh @ B)


def fix_phases(V: Complex) -> Complex:
    """Turn each unit column of V (N, N) by a phase, so that its first non-zero entry is real and positive.

    Conjugate columns have conjugate entries, so conjugate pairs stay conjugate pairs.
    """
    pivot = np.argmax(np.abs(V) > NO_ENTRY, axis=0), np.arange(V.shape[1])
    size = np.abs(V[pivot])
    turned = V * (V[pivot].conj() / size)
    turned[pivot] = size
    return turned


def clip_imaginary(B: Complex, limit: float = B_CLIP) -> Complex:
    """B with imaginary parts clipped to ±limit, as S4 and S4D do at initialization."""
    return B.real + 1j * np.clip(B.imag, -limit, limit)


def low_rank(name: LowRankInit, N: int) -> LowRank:
    """The S4 initialization `name` for an even number N of states: HiPPO-LegS with B clipped, or HiPPO-FouT.

    The normal part of FouT has the eigenvalues ±iπn for n < N/2, which nothing damps. Both states of n = 0 stand still.
    """
    half = N // 2
    if name == "legs":
        part = normal_part(N)
        return LowRank(part.Lambda[:half], part.P_tilde[:half], clip_imaginary(part.B_tilde[:half]))
    n = np.arange(half)[::-1]
    P = np.where(n == 0, 0.5**0.5, 1.0).astype(np.complex128)
    return LowRank(np.asarray(-1j * np.pi * n, np.complex128), P, P)


def diagonal(name: DiagonalInit, N: int, *, clipped: bool) -> Diagonal:
    """The S4D initialization `name` for N states, of which N // 2 are stored.

    `real` has N // 2 states without a conjugate partner. `legs` takes the full HiPPO B where the theory asks for B / 2,
    as the reference code does. `clipped` says whether the imaginary part of that B is clipped too. All others have
    B = 1. Raises ValueError for odd N.
    """
    if N < 2 or N % 2:
        raise ValueError(f"conjugate pairs need an even number of states, got N={N}")
    half = N // 2
    if name == "legs":
        part = normal_part(N)
        B = part.B_tilde[:half]
        return Diagonal(part.Lambda[:half], clip_imaginary(B) if clipped else B)
    ones = np.ones(half, np.complex128)
    if name == "diag-legs":
        return Diagonal(normal_part(N).Lambda[:half], ones)
    n = np.arange(half)
    decay, omega = {
        "inv": (np.full(half, 0.5), (N / np.pi) * (N / (2 * n + 1) - 1)),
        "lin": (np.full(half, 0.5), np.pi * n),
        "real": (n + 1.0, np.zeros(half)),
    }[name]
    return Diagonal(-(decay + 1j * omega), ones)

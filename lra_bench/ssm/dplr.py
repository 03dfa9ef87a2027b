"""Dense float64 form of a DPLR state space, on the host: folding C for a length, the recurrent mode, the oracle kernel.

The conjugate pairs are written as one real state [Re x, Im x] of the same size N as the dense matrix, which halves the
cost of a complex form and needs no inverse of a badly conditioned eigenvector matrix.

Sources: Gu, Goel, Ré 2022 (S4, appendix C.3); state-spaces/s4 `src/models/sequence/kernels/ssm.py` (`_setup_C`,
`_setup_state`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Real = NDArray[np.float64]
Complex = NDArray[np.complex128]


class Dense(NamedTuple):
    """x_k = A_bar x_{k-1} + B_bar u_k, y_k = C x_k, one system per channel, N real states each."""

    A_bar: Real  # (H, N, N)
    B_bar: Real  # (H, N)
    C: Real  # (c, H, N)


def bilinear(Lambda: Any, P: Any, B: Any, C: Any, step: Any) -> Dense:
    """Discretise diag(Λ) - P Pᴴ: Ā = (I - ΔA/2)⁻¹ (I + ΔA/2), B̄ = (I - ΔA/2)⁻¹ Δ B.

    Λ, P, B complex (H, N/2) or (N/2,), C complex (c, H, N/2), step real (H,); arrays of any kind.
    """
    Lambda, P, B, C = (np.asarray(x, np.complex128) for x in (Lambda, P, B, C))
    step = np.asarray(step, np.float64)[:, None, None]
    pairs = _pairs(P)
    A = _rotations(Lambda) - 2.0 * pairs[..., :, None] * pairs[..., None, :]
    identity = np.eye(A.shape[-1])
    backward = identity - 0.5 * step * A
    A_bar = np.linalg.solve(backward, identity + 0.5 * step * A)
    B_bar = np.linalg.solve(backward, step * _pairs(B)[..., :, None])[..., 0]
    return Dense(A_bar, np.broadcast_to(B_bar, A_bar.shape[:-1]), 2.0 * _pairs(C.conj()))


def fold(system: Dense, L: int) -> Complex:
    """C̃ = C (I - Āᴸ), complex (c, H, N/2): what S4 stores, so that its kernel is exactly L long."""
    return _unpaired(_apply(system.C, np.eye(system.A_bar.shape[-1]) - np.linalg.matrix_power(system.A_bar, L)))


def unfold(system: Dense, L: int) -> Complex:
    """C from a system whose C is a stored C̃ of length L, complex (c, H, N/2): for the recurrent mode."""
    I_minus_power = np.eye(system.A_bar.shape[-1]) - np.linalg.matrix_power(system.A_bar, L)
    C = np.linalg.solve(I_minus_power.swapaxes(-1, -2), np.moveaxis(system.C, 0, -1))
    return _unpaired(np.moveaxis(C, -1, 0))


def double(system: Dense, L: int) -> Complex:
    """The stored C̃ for length 2L from the one for length L: C̃ (I + Āᴸ), complex (c, H, N/2)."""
    return _unpaired(_apply(system.C, np.eye(system.A_bar.shape[-1]) + np.linalg.matrix_power(system.A_bar, L)))


def dense_kernel(system: Dense, L: int) -> Real:
    """K[l] = C Āˡ B̄ by L products: the oracle, real (c, H, L)."""
    x, K = system.B_bar[..., None], np.empty((*system.C.shape[:2], L))
    for k in range(L):
        K[..., k] = np.einsum("chn,hn->ch", system.C, x[..., 0])
        x = system.A_bar @ x
    return K


def _pairs(v: Complex) -> Real:
    return np.concatenate([v.real, v.imag], axis=-1)


def _unpaired(C: Real) -> Complex:
    """Complex (…, N/2) from the output row 2 [Re C, -Im C]."""
    re, im = np.split(0.5 * C, 2, axis=-1)
    return re - 1j * im


def _rotations(Lambda: Complex) -> Real:
    """diag(Λ) acting on [Re x, Im x]: (…, N, N)."""
    half = Lambda.shape[-1]
    A = np.zeros((*Lambda.shape[:-1], 2 * half, 2 * half))
    n = np.arange(half)
    A[..., n, n] = A[..., half + n, half + n] = Lambda.real
    A[..., n, half + n] = -Lambda.imag
    A[..., half + n, n] = Lambda.imag
    return A


def _apply(C: Real, M: Real) -> Real:
    return np.einsum("chn,hnm->chm", C, M)

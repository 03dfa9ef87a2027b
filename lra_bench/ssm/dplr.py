"""Dense form of a diagonal plus rank one (DPLR) state space: folding C for a length, the recurrent mode, the oracle.

The conjugate pairs are written as one real state [Re x, Im x], of the size N of the dense matrix: half the cost of the
complex form, and no inverse of a badly conditioned eigenvector matrix. The dtype is that of the arguments.

Nothing here calls a solver of `jnp.linalg`: on a CPU, jaxlib's batched triangular solve waits inside XLA's thread pool
for other threads of that pool, and as many solves side by side as there are threads (one per layer) wait forever.

Sources: Gu, Goel, Ré 2022 (S4, appendix C.3); state-spaces/s4 `src/models/sequence/kernels/ssm.py` (`_setup_C`,
`_setup_state`), which folds in complex64 too.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

_PRECISION = lax.Precision.HIGHEST


DOUBLINGS = 24
"""2²⁴ L steps: by then a mode with |λ Δ| ≥ 1e-6 has died out, and the slowest that S4 starts from has 5e-4."""


class Dense(NamedTuple):
    """x_k = A_bar x_{k-1} + B_bar u_k, y_k = C x_k, one system per channel, N real states each."""

    A_bar: Array  # (H, N, N)
    B_bar: Array  # (H, N)
    C: Array  # (c, H, N)


def discretize(Lambda: Array, P: Array, B: Array, C: Array, dt: Array) -> Dense:
    """Bilinear: Ā = (I - ΔA/2)⁻¹ (I + ΔA/2), B̄ = (I - ΔA/2)⁻¹ Δ B, for A = diag(Λ) - P Pᴴ on conjugate pairs.

    Λ, P, B complex (H, N/2) or (N/2,), C complex (c, H, N/2), step Δ real (H,).
    """
    dt = dt[:, None]
    diagonal = 1.0 / (1.0 - 0.5 * dt * Lambda)
    # I − ΔA/2 is a diagonal plus Δ P Pᴴ of the pairs, so that Sherman and Morrison's formula inverts it.
    left, right = _pairs(diagonal * P), _pairs(diagonal.conj() * P)
    weight = dt / (1.0 + dt * (_pairs(P) * left).sum(-1, keepdims=True))
    inverse = _rotations(diagonal) - weight[..., None] * left[..., :, None] * right[..., None, :]
    identity = jnp.eye(inverse.shape[-1], dtype=inverse.dtype)
    driven = dt * jnp.broadcast_to(_pairs(B), inverse.shape[:-1])
    B_bar = jnp.einsum("hnm,hm->hn", inverse, driven, precision=_PRECISION)
    return Dense(2.0 * inverse - identity, B_bar, output_row(C))


def output_row(C: Array) -> Array:
    """2 Re(C x) as a row acting on [Re x, Im x]: complex (…, N/2) → real (…, N)."""
    return 2.0 * _pairs(C.conj())


def fold(system: Dense, L: int) -> Array:
    """C̃ = C (I - Āᴸ), complex (c, H, N/2): what S4 stores, so that its kernel is exactly L long."""
    return _unpaired(system.C - _times(system.C, _power(system.A_bar, L)))


def unfold(system: Dense, L: int) -> Array:
    """C of a system whose C is a stored C̃ of length L, complex (c, H, N/2): for the recurrent mode.

    C̃ (I − Āᴸ)⁻¹ = C̃ (I + Āᴸ)(I + Ā²ᴸ)(I + Ā⁴ᴸ) …
    """

    def next_factor(_: int, state: tuple[Array, Array]) -> tuple[Array, Array]:
        C, power = state
        return C + _times(C, power), jnp.matmul(power, power, precision=_PRECISION)

    return _unpaired(lax.fori_loop(0, DOUBLINGS, next_factor, (system.C, _power(system.A_bar, L)))[0])


def double(system: Dense, L: int) -> Array:
    """The stored C̃ for length 2L from the one for length L: C̃ (I + Āᴸ), complex (c, H, N/2)."""
    return _unpaired(system.C + _times(system.C, _power(system.A_bar, L)))


def advance(system: Dense, x: Array, u_t: Array) -> tuple[Array, Array]:
    """One dt: states x (b, H, N) and inputs (b, H) → the next states and the first kernel's y_t (b, H)."""
    x = jnp.einsum("hnm,bhm->bhn", system.A_bar, x, precision=_PRECISION) + system.B_bar * u_t[..., None]
    return x, jnp.einsum("hn,bhn->bh", system.C[0], x, precision=_PRECISION)


@partial(jax.jit, static_argnames="L")
def dense_kernel(system: Dense, L: int) -> Array:
    """K[l] = C Āˡ B̄ by L products, real (c, H, L): the oracle of `cauchy`."""

    def tap(x: Array, _: None) -> tuple[Array, Array]:
        return jnp.einsum("hnm,hm->hn", system.A_bar, x), jnp.einsum("chn,hn->ch", system.C, x)

    return jnp.moveaxis(lax.scan(tap, system.B_bar, None, length=L)[1], 0, -1)


def _power(A_bar: Array, L: int) -> Array:
    with jax.default_matmul_precision("highest"):
        return jnp.linalg.matrix_power(A_bar, L)


def _pairs(v: Array) -> Array:
    return jnp.concatenate([v.real, v.imag], axis=-1)


def _unpaired(C: Array) -> Array:
    """The inverse of `output_row`."""
    re, im = jnp.split(0.5 * C, 2, axis=-1)
    return lax.complex(re, -im)


def _rotations(Lambda: Array) -> Array:
    """diag(Λ) acting on [Re x, Im x]: (…, N, N)."""
    diagonal = jnp.eye(Lambda.shape[-1], dtype=Lambda.real.dtype)
    re, im = Lambda.real[..., None] * diagonal, Lambda.imag[..., None] * diagonal
    return jnp.block([[re, -im], [im, re]])


def _times(C: Array, M: Array) -> Array:
    return jnp.einsum("chn,hnm->chm", C, M, precision=_PRECISION)

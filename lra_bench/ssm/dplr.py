"""The dense form of a diagonal plus rank one (DPLR) state space: folding C for a length, the recurrence, the oracle.

Each conjugate pair is written as a real state [Re x, Im x], so that the dense matrix is real and of size N. That costs
half of the complex form and needs no inverse of a badly conditioned eigenvector matrix. The dtype is the arguments'.

Nothing here calls a solver of `jnp.linalg`: on a CPU, jaxlib's batched triangular solve waits inside XLA's thread pool
for other threads of that pool, and with as many solves side by side as there are threads (one per layer) all of them
wait forever.

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
"""The number of factors that `unfold` multiplies. They reach 2²⁴ L steps, by which a mode with |λ dt| ≥ 1e-6 has
decayed; the slowest mode that S4 starts from has 5e-4."""


class Dense(NamedTuple):
    """A system x_k = A_bar x_{k-1} + B_bar u_k, y_k = C x_k for each feature, with N real states each."""

    A_bar: Array  # (H, N, N)
    B_bar: Array  # (H, N)
    C: Array  # (c, H, N)


def discretize(Lambda: Array, P: Array, B: Array, C: Array, dt: Array) -> Dense:
    """Discretize A = diag(Λ) - P Pᴴ on conjugate pairs by the bilinear rule.

    Ā = (I - dt A/2)⁻¹ (I + dt A/2) and B̄ = (I - dt A/2)⁻¹ dt B. Λ, P and B are complex (H, N/2) or (N/2,), C is complex
    (c, H, N/2), dt is real (H,).
    """
    dt = dt[:, None]
    diagonal = 1.0 / (1.0 - 0.5 * dt * Lambda)
    # I − dt A/2 is a diagonal plus dt P Pᴴ of the pairs, so the Sherman–Morrison formula inverts it.
    left, right = _pairs(diagonal * P), _pairs(diagonal.conj() * P)
    weight = dt / (1.0 + dt * (_pairs(P) * left).sum(-1, keepdims=True))
    inverse = _rotations(diagonal) - weight[..., None] * left[..., :, None] * right[..., None, :]
    identity = jnp.eye(inverse.shape[-1], dtype=inverse.dtype)
    driven = dt * jnp.broadcast_to(_pairs(B), inverse.shape[:-1])
    B_bar = jnp.einsum("hnm,hm->hn", inverse, driven, precision=_PRECISION)
    return Dense(2.0 * inverse - identity, B_bar, output_row(C))


def output_row(C: Array) -> Array:
    """The real row (…, N) that takes [Re x, Im x] to 2 Re(C x), for C complex (…, N/2)."""
    return 2.0 * _pairs(C.conj())


def fold(system: Dense, L: int) -> Array:
    """Compute C̃ = C (I - Āᴸ), complex (c, H, N/2). S4 stores C̃, which makes its kernel exactly L long."""
    return _unpaired(system.C - _times(system.C, _power(system.A_bar, L)))


def unfold(system: Dense, L: int) -> Array:
    """Compute C, complex (c, H, N/2), of a system whose `C` is a C̃ folded for length L. The recurrence needs C.

    C = C̃ (I − Āᴸ)⁻¹ = C̃ (I + Āᴸ)(I + Ā²ᴸ)(I + Ā⁴ᴸ) …, cut off after `DOUBLINGS` factors.
    """

    def next_factor(_: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        C, power = state
        return C + _times(C, power), jnp.matmul(power, power, precision=_PRECISION)

    return _unpaired(lax.fori_loop(0, DOUBLINGS, next_factor, (system.C, _power(system.A_bar, L)))[0])


def double(system: Dense, L: int) -> Array:
    """Fold C̃ of length L for length 2L: C̃ (I + Āᴸ), complex (c, H, N/2)."""
    return _unpaired(system.C + _times(system.C, _power(system.A_bar, L)))


def advance(system: Dense, x: Array, u_t: Array) -> tuple[Array, Array]:
    """Advance by one step: states x (b, H, N) and inputs (b, H) → the next states and the first kernel's y_t (b, H)."""
    x = jnp.einsum("hnm,bhm->bhn", system.A_bar, x, precision=_PRECISION) + system.B_bar * u_t[..., None]
    return x, jnp.einsum("hn,bhn->bh", system.C[0], x, precision=_PRECISION)


@partial(jax.jit, static_argnames="L")
def dense_kernel(system: Dense, L: int) -> Array:
    """Compute K[l] = C Āˡ B̄, real (c, H, L), by L matrix products. It is the oracle of `cauchy`."""

    def tap(x: Array, _: None) -> tuple[Array, Array]:
        return jnp.einsum("hnm,hm->hn", system.A_bar, x), jnp.einsum("chn,hn->ch", system.C, x)

    return jnp.moveaxis(lax.scan(tap, system.B_bar, None, length=L)[1], 0, -1)


def _power(A_bar: Array, L: int) -> Array:
    with jax.default_matmul_precision("highest"):
        return jnp.linalg.matrix_power(A_bar, L)


def _pairs(v: Array) -> Array:
    return jnp.concatenate([v.real, v.imag], axis=-1)


def _unpaired(C: Array) -> Array:
    """The complex C (…, N/2) of a real row (…, N): the inverse of `output_row`."""
    re, im = jnp.split(0.5 * C, 2, axis=-1)
    return lax.complex(re, -im)


def _rotations(Lambda: Array) -> Array:
    """The real matrix (…, N, N) by which diag(Λ) acts on [Re x, Im x]."""
    diagonal = jnp.eye(Lambda.shape[-1], dtype=Lambda.real.dtype)
    re, im = Lambda.real[..., None] * diagonal, Lambda.imag[..., None] * diagonal
    return jnp.block([[re, -im], [im, re]])


def _times(C: Array, M: Array) -> Array:
    return jnp.einsum("chn,hnm->chm", C, M, precision=_PRECISION)

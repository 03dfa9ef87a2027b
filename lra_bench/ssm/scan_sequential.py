"""The recurrence, one step after another: the fastest form on a CPU, and exact for every eigenvalue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from lra_bench.ssm.shapes import Pair, States

PACKED_CARRY_FROM = 64
"""The number P of states from which the loop carries `[Re | Im]` as one array, not two. Measured with b = 1, 8 and 50,
one array takes 0.25–0.85 of the time of two at P = 96 and 0.2–1 at P = 64, since XLA copies two at each step. At P ≤ 32
it takes 1.2–1.6 of the time, since slices of rows of a few registers vectorize badly."""


Parts = tuple[Array, Array]
"""The real and the imaginary part of a complex array of any shape."""


def advance(Lambda_bar: Pair, x: Sequence[Array], b: Sequence[Array]) -> Parts:
    """Compute Λ̄ x + b on real and imaginary parts, each (..., P)."""
    real, imag = Lambda_bar
    return real * x[0] - imag * x[1] + b[0], real * x[1] + imag * x[0] + b[1]


def sequential_states(Lambda_bar: Pair, b: States, reverse: bool) -> States:
    """Compute x_t = Λ̄ x_{t−1} + b_t (Λ̄ x_{t+1} + b_t with `reverse`); b and x are (L, batch, 2P), packed `[Re | Im]`.

    Each state replaces its own input in memory. That halves the memory used and is twice as fast as `lax.scan` on a
    CPU. It is not differentiable in reverse mode; `scan.recurrence` is.
    """
    L, P = b.shape[0], Lambda_bar[0].shape[0]
    packed = P >= PACKED_CARRY_FROM

    def body(count: Array, carry: tuple[Array, Any]) -> tuple[Array, Any]:
        buffer, x = carry
        t = L - 1 - count if reverse else count
        b_t = lax.dynamic_index_in_dim(buffer, t, keepdims=False)
        x = advance(Lambda_bar, jnp.split(x, 2, axis=-1) if packed else x, jnp.split(b_t, 2, axis=-1))
        row = jnp.concatenate(x, axis=-1)
        return lax.dynamic_update_index_in_dim(buffer, row, t, axis=0), row if packed else x

    zero = jnp.zeros_like(b, shape=(*b.shape[1:-1], P))
    start = jnp.concatenate([zero, zero], axis=-1) if packed else (zero, zero)
    return lax.fori_loop(0, L, body, (b, start))[0]

"""Linear recurrences with a diagonal complex state matrix: the one operator under S5, S5-PTD and the LRU.

Complex numbers are kept as pairs of reals, packed `[Re | Im]` along the last axis, so that B·u and C·x are real matrix
products of twice the width: a complex64 product costs about three times as much per useful flop on a CPU and cannot use
the tensor cores of a GPU. Time is the leading axis: one step of the recurrence reads and writes contiguous memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

PACKED_CARRY_FROM = 64
"""States P from which the sequential loop carries `[Re | Im]` as one array. Measured with b = 1, 8 and 50: one array takes
0.25–0.85 of the time of two at P = 96 and 0.2–1 at P = 64, since XLA copies two at each step; it takes 1.2–1.6 at P ≤ 32,
since slices of rows of a few registers vectorise badly."""

Pair = tuple[Array, Array]
"""Real and imaginary part of one complex vector, each (P,)."""


def diagonal_ssm(Lambda_bar: Pair, B: Array, C: Array, C_reverse: Array | None, u: Array) -> Array:
    """x_t = Λ̄ x_{t−1} + B u_t, y_t = C x_t, with x_{−1} = 0; every y at once (S5, section 3.3 and appendix A).

    Lambda_bar: Re and Im of the discretised diagonal, each (P,).
    B: (H, 2P), `[Re B̄ᵀ | Im B̄ᵀ]`.
    C, C_reverse: (2P, H), `[Re Cᵀ; −Im Cᵀ]`, any factor 2 for conjugate symmetry already folded in. With `C_reverse`,
    C_reverse x'_t is added to y_t, where x' is the same recurrence run from the end (x'_t includes the current u_t).
    u: (L, b, H). Returns y: (L, b, H) in u's dtype. Matrix products take their inputs in u's dtype; states have Λ̄'s.

    Raises ValueError when shapes disagree.
    """
    _check_shapes(Lambda_bar, B, C, C_reverse, u)
    driven = _tokens_times(u, B, Lambda_bar[0].dtype)
    y = _tokens_times(recurrence(Lambda_bar, driven).astype(u.dtype), C, Lambda_bar[0].dtype)
    if C_reverse is not None:
        y += _tokens_times(recurrence(Lambda_bar, driven, reverse=True).astype(u.dtype), C_reverse, Lambda_bar[0].dtype)
    return y.astype(u.dtype)


def step(Lambda_bar: Pair, B: Array, C: Array, state: Array, u_t: Array) -> Pair:
    """One step of the causal recurrence: state (b, 2P) and input (b, H) give the next state and y_t (b, H).

    From a state of zeros, applied to u_0 … u_{L−1}, it equals `diagonal_ssm` without `C_reverse`.
    """
    driven = _tokens_times(u_t, B, state.dtype)
    state = jnp.concatenate(_advance(Lambda_bar, jnp.split(state, 2, axis=-1), jnp.split(driven, 2, axis=-1)), axis=-1)
    return state, _tokens_times(state.astype(u_t.dtype), C, state.dtype).astype(u_t.dtype)


@partial(jax.custom_vjp, nondiff_argnames=("reverse",))
def recurrence(Lambda_bar: Pair, b: Array, reverse: bool = False) -> Array:
    """The states alone: x_t = Λ̄ x_{t−1} + b_t (Λ̄ x_{t+1} + b_t with `reverse`); b and x: (L, batch, 2P)."""
    return _sequential(Lambda_bar, b, reverse)


def _recurrence_forward(Lambda_bar: Pair, b: Array, reverse: bool) -> tuple[Array, tuple[Pair, Array]]:
    x = _sequential(Lambda_bar, b, reverse)
    return x, (Lambda_bar, x)


def _recurrence_backward(reverse: bool, residuals: tuple[Pair, Array], dx: Array) -> tuple[Pair, Array]:
    # The adjoint of a time-invariant recurrence is the same recurrence with Λ̄* run the other way.
    (real, imag), x = residuals
    db = _sequential((real, -imag), dx, not reverse)
    return _eigenvalue_gradient(db, x, reverse), db


recurrence.defvjp(_recurrence_forward, _recurrence_backward)


def _sequential(Lambda_bar: Pair, b: Array, reverse: bool) -> Array:
    """One step after another, each state written over its own input, which halves the memory touched (2x on a CPU)."""
    L, P = b.shape[0], Lambda_bar[0].shape[0]
    packed = P >= PACKED_CARRY_FROM

    def body(count: Array, carry: tuple[Array, Any]) -> tuple[Array, Any]:
        buffer, x = carry
        t = L - 1 - count if reverse else count
        b_t = lax.dynamic_index_in_dim(buffer, t, keepdims=False)
        x = _advance(Lambda_bar, jnp.split(x, 2, axis=-1) if packed else x, jnp.split(b_t, 2, axis=-1))
        row = jnp.concatenate(x, axis=-1)
        return lax.dynamic_update_index_in_dim(buffer, row, t, axis=0), row if packed else x

    zero = jnp.zeros_like(b, shape=(*b.shape[1:-1], P))
    start = jnp.concatenate([zero, zero], axis=-1) if packed else (zero, zero)
    return lax.fori_loop(0, L, body, (b, start))[0]


def _advance(Lambda_bar: Pair, x: Sequence[Array], b: Sequence[Array]) -> Pair:
    real, imag = Lambda_bar
    return real * x[0] - imag * x[1] + b[0], real * x[1] + imag * x[0] + b[1]


def _eigenvalue_gradient(db: Array, x: Array, reverse: bool) -> Pair:
    """dΛ̄ = Σ_t db_t · x_{t−1}*, one reduction apart from the loop, whose body it would break into many kernels."""
    batch, P = x.shape[1], x.shape[2] // 2
    db, x = db.reshape(-1, 2 * P), x.reshape(-1, 2 * P)
    last = x.shape[0] - batch
    db, x = (db[:last], x[batch:]) if reverse else (db[batch:], x[:last])
    real = (db[:, :P] * x[:, :P] + db[:, P:] * x[:, P:]).sum(0)
    imag = (db[:, P:] * x[:, :P] - db[:, :P] * x[:, P:]).sum(0)
    return real, imag


def _tokens_times(x: Array, weight: Array, dtype: jnp.dtype) -> Array:
    """x @ weight over the last axis as one 2-D product: on a CPU, XLA's weight gradient is 2.8x slower over (L, b)."""
    flat = jnp.dot(x.reshape(-1, x.shape[-1]), weight.astype(x.dtype), preferred_element_type=dtype)
    return flat.reshape(*x.shape[:-1], weight.shape[-1])


def _check_shapes(Lambda_bar: Pair, B: Array, C: Array, C_reverse: Array | None, u: Array) -> None:
    if u.ndim != 3:
        raise ValueError(f"u must be (L, b, H), time first; got {u.shape}.")
    P, H = Lambda_bar[0].shape[0], u.shape[2]
    expected = {"Lambda_bar[1]": (Lambda_bar[1], (P,)), "B": (B, (H, 2 * P)), "C": (C, (2 * P, H))}
    if C_reverse is not None:
        expected["C_reverse"] = (C_reverse, (2 * P, H))
    for name, (array, shape) in expected.items():
        if array.shape != shape:
            raise ValueError(f"{name} must be {shape} for P = {P} states and H = {H} features; got {array.shape}.")

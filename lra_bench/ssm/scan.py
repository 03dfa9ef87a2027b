"""Linear recurrences with a diagonal complex state matrix: the one operator under S5, S5-PTD and the LRU.

Complex numbers are kept as pairs of reals, packed `[Re | Im]` along the last axis, so that B·u and C·x are real matrix
products of twice the width: a complex64 product costs about three times as much per useful flop on a CPU and cannot use
the tensor cores of a GPU. Time is the leading axis: one step of the recurrence reads and writes contiguous memory.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array, lax

from lra_bench.ssm.scan_chunked import chunked_states
from lra_bench.ssm.scan_sequential import Pair, advance, sequential_states

Form = Literal["sequential", "chunked"]
"""How the states are computed; the results are the same. By default sequential on a CPU, where it is 2–6 times faster
than any parallel form, and chunked elsewhere."""

FEWEST_CHUNKED_STEPS = 64
"""Off the CPU, sequences up to this length run step by step, about as many launches as two levels of chunks."""


def diagonal_ssm(
    Lambda_bar: Pair,
    B: Array,
    C: Array,
    C_reverse: Array | None,
    u: Array,
    *,
    drive: Array | None = None,
    form: Form | None = None,
) -> Array:
    """x_t = Λ̄ x_{t−1} + B u_t, y_t = C x_t, with x_{−1} = 0; every y at once (S5, section 3.3 and appendix A).

    Lambda_bar: Re and Im of the discretized diagonal, each (P,).
    B: (H, 2P), `[Re B̄ᵀ | Im B̄ᵀ]`.
    C, C_reverse: (2P, H), `[Re Cᵀ; −Im Cᵀ]`, any factor 2 for conjugate symmetry already folded in. With `C_reverse`,
    C_reverse x'_t is added to y_t, where x' is the same recurrence run from the end (x'_t includes the current u_t).
    drive: (2P,), added to B u_t at every step.
    u: (L, b, H). Returns y: (L, b, H) in u's dtype. Matrix products take their inputs in u's dtype; states have Λ̄'s.
    form: by default the fastest for the device and the length.

    Raises ValueError when shapes disagree.
    """
    _check_shapes(Lambda_bar, B, C, C_reverse, u)
    dtype, (P2, H) = Lambda_bar[0].dtype, C.shape
    driven = _tokens_times(u, B, dtype)
    if drive is not None:
        driven += drive
    x = recurrence(Lambda_bar, driven, False, form).astype(u.dtype)
    if C_reverse is None:
        return _tokens_times(x, C, dtype).astype(u.dtype)
    x_reverse = recurrence(Lambda_bar, driven, True, form).astype(u.dtype)
    if 2 * P2 <= H:
        # One product for both directions: 7 % of ListOps' evaluation; with wider states, 4–8 % more time in training.
        both = jnp.concatenate([x, x_reverse], axis=-1), jnp.concatenate([C, C_reverse])
        return _tokens_times(*both, dtype).astype(u.dtype)
    return (_tokens_times(x, C, dtype) + _tokens_times(x_reverse, C_reverse, dtype)).astype(u.dtype)


def step(Lambda_bar: Pair, B: Array, C: Array, state: Array, u_t: Array) -> tuple[Array, Array]:
    """One step of the causal recurrence: state (b, 2P) and input (b, H) give the next state and y_t (b, H).

    From a state of zeros, applied to u_0 … u_{L−1}, it equals `diagonal_ssm` without `C_reverse`.
    """
    driven = _tokens_times(u_t, B, state.dtype)
    state = jnp.concatenate(advance(Lambda_bar, jnp.split(state, 2, axis=-1), jnp.split(driven, 2, axis=-1)), axis=-1)
    return state, _tokens_times(state.astype(u_t.dtype), C, state.dtype).astype(u_t.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def recurrence(Lambda_bar: Pair, b: Array, reverse: bool = False, form: Form | None = None) -> Array:
    """The states alone: x_t = Λ̄ x_{t−1} + b_t (Λ̄ x_{t+1} + b_t with `reverse`); b and x: (L, batch, 2P)."""
    return _states(Lambda_bar, b, reverse, form)


def _recurrence_forward(
    Lambda_bar: Pair, b: Array, reverse: bool, form: Form | None
) -> tuple[Array, tuple[Pair, Array]]:
    x = _states(Lambda_bar, b, reverse, form)
    return x, (Lambda_bar, x)


def _recurrence_backward(
    reverse: bool, form: Form | None, residuals: tuple[Pair, Array], dx: Array
) -> tuple[Pair, Array]:
    # The adjoint of a time-invariant recurrence is the same recurrence with Λ̄* run the other way.
    (real, imag), x = residuals
    db = _states((real, -imag), dx, not reverse, form)
    return _eigenvalue_gradient(db, x, reverse), db


recurrence.defvjp(_recurrence_forward, _recurrence_backward)


def _states(Lambda_bar: Pair, b: Array, reverse: bool, form: Form | None) -> Array:
    sequential = partial(sequential_states, reverse=reverse)
    chunked = partial(chunked_states, reverse=reverse)
    if form == "sequential" or (form is None and b.shape[0] <= FEWEST_CHUNKED_STEPS):
        return sequential(Lambda_bar, b)
    if form == "chunked":
        return chunked(Lambda_bar, b)
    return lax.platform_dependent(Lambda_bar, b, cpu=sequential, default=chunked)


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
    """x @ weight as one 2-D product: on a CPU, XLA's weight gradient is 2.8x slower over (L, b)."""
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

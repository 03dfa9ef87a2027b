"""Linear recurrences with a diagonal complex state matrix: the operator under S5, S5-PTD and the LRU.

Complex numbers are pairs of real ones, packed `[Re | Im]` along the last axis, so that B·u and C·x are real matrix
products of twice the width. A complex64 product costs about three times as much per useful flop on a CPU and cannot use
the tensor cores of a GPU. Time is the leading axis: one step of the recurrence reads and writes contiguous memory.

The recurrence has its own rule for gradients. Let g_t be the gradient with respect to b_t of x_t = Λ̄ x_{t−1} + b_t.
The state x_t enters the loss directly and through x_{t+1}, so that

    g_t = dx_t + Λ̄* g_{t+1},    dΛ̄ = Σ_t g_t · x_{t−1}*.

That is the same recurrence, run backward with conjugate eigenvalues, since Λ̄ does not depend on time. So one function
computes both passes, and the backward pass keeps nothing but Λ̄ and the states. JAX cannot differentiate the in-place
loop of `sequential_states` in reverse at all.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array

from lra_bench.kernels import projection, triton
from lra_bench.kernels import scan as kernel
from lra_bench.machine.platform import target_platform
from lra_bench.machine.products import product, tokens
from lra_bench.ssm.scan_chunked import chunked_states, powers_of
from lra_bench.ssm.scan_sequential import advance, sequential_states
from lra_bench.ssm.shapes import (
    DirectedOutputMatrix,
    DirectedStates,
    Drive,
    Features,
    FeaturesAt,
    InputMatrix,
    OutputMatrix,
    Pair,
    States,
    StatesAt,
)
from lra_bench.ssm.window import windowed_states

Form = Literal["sequential", "chunked", "loop"]
"""The way to compute the states; the results agree up to rounding."""

FEWEST_CHUNKED_STEPS = 64
"""The length up to which sequences run step by step on every device, with about as many launches as two levels of
chunks."""


def diagonal_ssm(
    Lambda_bar: Pair,
    B: InputMatrix,
    C: OutputMatrix,
    C_reverse: OutputMatrix | None,
    u: Features,
    *,
    drive: Drive | None = None,
    form: Form | None = None,
    window: int | None = None,
) -> Features:
    """Compute all y_t of x_t = Λ̄ x_{t−1} + B u_t, y_t = C x_t, with x_{−1} = 0 (S5, section 3.3 and appendix A).

    Lambda_bar: the real and the imaginary parts of the discretized diagonal, each (P,).
    B: (H, 2P), `[Re B̄ᵀ | Im B̄ᵀ]`.
    C, C_reverse: (2P, H), `[Re Cᵀ; −Im Cᵀ]`, which include any factor 2 for conjugate symmetry. With `C_reverse`,
    C_reverse x'_t is added to y_t, where x' is the same recurrence run from the end (x'_t includes the current u_t).
    drive: (2P,), added to B u_t at every step.
    u: (L, b, H). Returns y: (L, b, H) in u's dtype. Products take their inputs, and states are stored,
        in u's dtype; the recurrence itself has Λ̄'s.
    form: None means the fastest for the platform and the length.
    window: each y_t is of the inputs less than so many steps away (`window.py`), whatever the form; None means of all.

    Raises ValueError when shapes disagree.
    """
    _check_shapes(Lambda_bar, B, C, C_reverse, u)
    P2, H = C.shape
    form = form or fastest_form(u.shape[0], u.shape[1] * P2 * (1 if C_reverse is None else 2))
    driven = _tokens_times(u, B)
    if form == "loop" and window is None:
        constant = jnp.zeros(P2, driven.dtype) if drive is None else drive
        x = loop_recurrence(Lambda_bar, driven.astype(u.dtype), constant, C_reverse is not None)
        return _tokens_times(x, C if C_reverse is None else jnp.concatenate([C, C_reverse])).astype(u.dtype)
    driven = (driven if drive is None else driven + drive).astype(u.dtype)

    def states(reverse: bool) -> Array:
        if window is None:
            return recurrence(Lambda_bar, driven, reverse, form)
        return windowed_states(Lambda_bar, driven, window, reverse)

    x = states(False)
    if C_reverse is None:
        return _tokens_times(x, C).astype(u.dtype)
    x_reverse = states(True)
    if 2 * P2 <= H:
        # One product for both directions: 7 % of ListOps' evaluation; with wider states, 4–8 % more time in training.
        both = jnp.concatenate([x, x_reverse], axis=-1), jnp.concatenate([C, C_reverse])
        return _tokens_times(*both).astype(u.dtype)
    return (_tokens_times(x, C) + _tokens_times(x_reverse, C_reverse)).astype(u.dtype)


def step(
    Lambda_bar: Pair, B: InputMatrix, C: OutputMatrix, state: StatesAt, u_t: FeaturesAt
) -> tuple[StatesAt, FeaturesAt]:
    """Advance the causal recurrence by one step: state (b, 2P) and input (b, H) → the next state and y_t (b, H).

    From a state of zeros, applied to u_0 … u_{L−1}, it equals `diagonal_ssm` without `C_reverse`.
    """
    driven = _tokens_times(u_t, B)
    state = jnp.concatenate(advance(Lambda_bar, jnp.split(state, 2, axis=-1), jnp.split(driven, 2, axis=-1)), axis=-1)
    return state, _tokens_times(state.astype(u_t.dtype), C).astype(u_t.dtype)


def fastest_form(length: int, width: int) -> Form:
    """The form for a length on the platform that is traced for. width: the numbers of all states at one step.

    On a CPU the sequential form is 2–6 times faster than any parallel one. On a GPU the loop kernels move a third of
    the bytes of the chunked form. The latter needs nothing but XLA.
    """
    if target_platform() == "cpu" or length <= FEWEST_CHUNKED_STEPS:
        return "sequential"
    return "loop" if triton.usable(length * width) else "chunked"


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def loop_recurrence(Lambda_bar: Pair, b: States, drive: Drive, both: bool) -> DirectedStates:
    """Compute the states of x_t = Λ̄ x_{t−1} + b_t + drive by GPU kernels: (L, batch, 2P), and with `both` (L, batch,
    4P), in which those of the reverse direction follow those of the forward one. They are stored in b's dtype."""
    return loop_states(Lambda_bar, b, drive, both)


def _loop_forward(Lambda_bar: Pair, b: Array, drive: Array, both: bool) -> tuple[Array, tuple[Pair, Array]]:
    x = loop_states(Lambda_bar, b, drive, both)
    return x, (Lambda_bar, x)


def _loop_backward(both: bool, residuals: tuple[Pair, Array], dx: Array) -> tuple[Pair, Array, Array]:
    d_Lambda, d_drive, db = loop_gradient(*residuals, dx, both)
    return d_Lambda, db, d_drive


loop_recurrence.defvjp(_loop_forward, _loop_backward)


def loop_states(Lambda_bar: Pair, b: States, drive: Drive, both: bool, ends: Array | None = None) -> DirectedStates:
    """Compute `loop_recurrence`; it is not differentiable. `ends` are those of b's chunks, where they
    are known."""
    return kernel.loop_states(_modes(Lambda_bar, b.shape[0], *jnp.split(drive, 2)), b, both, ends)


def loop_gradient(
    Lambda_bar: Pair, x: DirectedStates, dx: DirectedStates, both: bool, ends: Array | None = None
) -> tuple[Pair, Drive, States]:
    """Compute the gradients of Λ̄, drive and b from the states of `loop_states` and their gradient."""
    real, imag = Lambda_bar
    modes = _modes((real, -imag), x.shape[0], jnp.zeros_like(real), jnp.zeros_like(real))
    d_Lambda, d_drive, db = kernel.loop_gradient(modes, x, dx, both, ends)
    return (d_Lambda[0], d_Lambda[1]), d_drive.reshape(-1), db


def driven_states(Lambda_bar: Pair, u: Features, B: InputMatrix, drive: Drive, both: bool) -> DirectedStates:
    """Compute the states of b = u B + drive by GPU kernels, with b never read for the ends of its chunks alone."""
    powers = projection.Powers(*powers_of(Lambda_bar, range(projection.ROWS + 1)))
    b, ends = projection.project(u, B, drive, powers, kernel.state_sources(both))
    return loop_states(Lambda_bar, b, jnp.zeros_like(drive), both, ends)


def driven_gradient(
    Lambda_bar: Pair, x: DirectedStates, dy: Features, C: DirectedOutputMatrix, both: bool
) -> tuple[Pair, Drive, States]:
    """Compute `loop_gradient` from the gradient of y = x C, where C is (2P, H), or (4P, H) for both directions."""
    real, imag = Lambda_bar
    powers = projection.Powers(*powers_of((real, -imag), range(projection.ROWS + 1)))
    sources = kernel.gradient_sources(both, len(real))
    dx, ends = projection.project(dy, C.T, jnp.zeros(C.shape[0], real.dtype), powers, sources)
    return loop_gradient(Lambda_bar, x, dx, both, ends)


def _modes(Lambda_bar: Pair, L: int, drive_real: Array, drive_imag: Array) -> kernel.Modes:
    power_real, power_imag = powers_of(Lambda_bar, [kernel.chunk_length(L)])
    return kernel.Modes(*Lambda_bar, power_real[0], power_imag[0], drive_real, drive_imag)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def recurrence(Lambda_bar: Pair, b: States, reverse: bool = False, form: Form | None = None) -> States:
    """Compute the states x_t = Λ̄ x_{t−1} + b_t (Λ̄ x_{t+1} + b_t with `reverse`); b and x are (L, batch, 2P).

    They are computed in Λ̄'s dtype and stored in b's. form: `sequential` or `chunked`; None means the faster one.
    """
    return _states(Lambda_bar, b, reverse, form).astype(b.dtype)


def _recurrence_forward(
    Lambda_bar: Pair, b: Array, reverse: bool, form: Form | None
) -> tuple[Array, tuple[Pair, Array]]:
    x = recurrence(Lambda_bar, b, reverse, form)
    return x, (Lambda_bar, x)


def _recurrence_backward(
    reverse: bool, form: Form | None, residuals: tuple[Pair, Array], dx: Array
) -> tuple[Pair, Array]:
    # The same recurrence with Λ̄*, run the other way: see the head of this file.
    (real, imag), x = residuals
    db = _states((real, -imag), dx, not reverse, form)
    return eigenvalue_gradient(db, x.astype(db.dtype), reverse), db.astype(dx.dtype)


recurrence.defvjp(_recurrence_forward, _recurrence_backward)


def _states(Lambda_bar: Pair, b: Array, reverse: bool, form: Form | None) -> Array:
    b = b.astype(jnp.promote_types(b.dtype, Lambda_bar[0].dtype))
    if form is None:
        form = "sequential" if fastest_form(b.shape[0], b.shape[1] * b.shape[2]) == "sequential" else "chunked"
    return (sequential_states if form == "sequential" else chunked_states)(Lambda_bar, b, reverse)


def eigenvalue_gradient(db: Array, x: Array, reverse: bool) -> Pair:
    """The gradient dΛ̄ = Σ_t db_t · x_{t−1}*.

    It is one reduction after the loop. Inside the loop it would break the body into many kernels.
    """
    L, P = x.shape[0], x.shape[2] // 2
    db, x = tokens(db), tokens(x)
    one = x.shape[0] // L  # the rows of one step
    db, x = (db[:-one], x[one:]) if reverse else (db[one:], x[:-one])
    axes = tuple(range(x.ndim - 1))
    real = (db[..., :P] * x[..., :P] + db[..., P:] * x[..., P:]).sum(axes)
    imag = (db[..., P:] * x[..., :P] - db[..., :P] * x[..., P:]).sum(axes)
    return real, imag


def _tokens_times(x: Array, weight: Array) -> Array:
    """Compute x @ weight, on one device as one two-dimensional product.

    Over the axes (L, b), XLA's gradient of the weight takes 2.8 times as long on a CPU.
    """
    return product(tokens(x), weight).reshape(*x.shape[:-1], weight.shape[-1])


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

"""Linear recurrences of oscillators, the operator under LinOSS: a state is a pair of a velocity z and a position y.

    z_t = a z_{t−1} − k y_{t−1} + f_t
    y_t = c y_{t−1} + d z_t + g_t

Each step first changes the velocity and then moves the position by it, which is exact for all coefficients. Its 2×2
matrix has no diagonal form where both eigenvalues are equal, as for a spring k of zero, so `scan.py` cannot compute it.
The step also rounds better than a product with that matrix: the small k and d are not lost beside ones.

The gradient runs the other way. Let Z_t and Y_t be the gradients with respect to f_t and g_t. Then

    Y_t = c Y_{t+1} − k Z_{t+1} + dy_t
    Z_t = a Z_{t+1} + d Y_t + dz_t,

which is the same recurrence, run backward, with Y as the velocity, Z as the position, and a and c exchanged. So one
function computes both passes, and the backward pass keeps nothing but the states: memory is linear in their number.

A complex oscillator is two real ones with the same coefficients. Time leads, and states are packed [z | y].
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from lra_bench.machine.platform import target_platform
from lra_bench.ssm.scan import FEWEST_CHUNKED_STEPS
from lra_bench.ssm.shapes import States, StatesAt, StateVector
from lra_bench.ssm.window import windowed_sums

Form = Literal["sequential", "chunked"]
"""The way to compute the states; the results agree up to rounding."""

CHUNK = 16
"""The length T of a chunk of the chunked form. A level costs 4T flops per real number."""


Oscillators = tuple[StateVector, StateVector, StateVector, StateVector]
"""The coefficients a, k, c and d of P oscillators, each (P,).

They are what a step keeps of the velocity, how much of the position it takes off the velocity, what it keeps of the
position, and how far it moves the position along the velocity."""


def advance(oscillators: Oscillators, x: StatesAt, b: StatesAt) -> StatesAt:
    """The next states (batch, 2P) from states x and inputs b = [f | g] of that shape."""
    a, k, c, d = oscillators
    (z, y), (f, g) = jnp.split(x, 2, axis=-1), jnp.split(b, 2, axis=-1)
    z = a * z - k * y + f
    return jnp.concatenate([z, c * y + d * z + g], axis=-1)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def recurrence(oscillators: Oscillators, b: States, reverse: bool = False, form: Form | None = None) -> States:
    """Compute all states (L, batch, 2P) from rest and from inputs b = [f | g] of that shape.

    With `reverse`, the last step comes first. The states are computed in the coefficients' dtype and stored in b's.
    form: None means the faster one for the platform.
    """
    return _states(oscillators, b, reverse, form).astype(b.dtype)


def _forward(
    oscillators: Oscillators, b: Array, reverse: bool, form: Form | None
) -> tuple[Array, tuple[Oscillators, Array]]:
    x = recurrence(oscillators, b, reverse, form)
    return x, (oscillators, x)


def _backward(
    reverse: bool, form: Form | None, residuals: tuple[Oscillators, Array], dx: Array
) -> tuple[Oscillators, Array]:
    (a, k, c, d), x = residuals
    db = _swapped(_states((c, k, a, d), _swapped(dx), not reverse, form))
    later, earlier = (slice(None, -1), slice(1, None)) if reverse else (slice(1, None), slice(None, -1))
    (Z, Y), (z, y) = jnp.split(db, 2, axis=-1), jnp.split(x, 2, axis=-1)

    def total(gradient: Array, state: Array) -> Array:
        return (gradient * state).sum((0, 1))

    da, dk = total(Z[later], z[earlier]), -total(Z[later], y[earlier])
    return (da, dk, total(Y[later], y[earlier]), total(Y, z)), db.astype(dx.dtype)


recurrence.defvjp(_forward, _backward)


def _swapped(x: Array) -> Array:
    return jnp.concatenate(jnp.split(x, 2, axis=-1)[::-1], axis=-1)


def _states(oscillators: Oscillators, b: Array, reverse: bool, form: Form | None) -> Array:
    b = b.astype(jnp.promote_types(b.dtype, oscillators[0].dtype))
    if form is None:
        form = "sequential" if target_platform() == "cpu" or len(b) <= FEWEST_CHUNKED_STEPS else "chunked"
    return (sequential_states if form == "sequential" else chunked_states)(oscillators, b, reverse)


def sequential_states(oscillators: Oscillators, b: States, reverse: bool) -> States:
    """Compute `recurrence` step by step, the fastest form on a CPU. Each state replaces its own input in memory."""
    L = len(b)

    def body(count: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        buffer, x = carry
        t = L - 1 - count if reverse else count
        x = advance(oscillators, x, lax.dynamic_index_in_dim(buffer, t, keepdims=False))
        return lax.dynamic_update_index_in_dim(buffer, x, t, axis=0), x

    return lax.fori_loop(0, L, body, (b, jnp.zeros_like(b[0])))[0]


def windowed_states(oscillators: Oscillators, b: States, window: int, reverse: bool) -> States:
    """Compute `recurrence` where each state remembers `window` inputs, the current one included (`window.py`)."""

    def power(n: int, x: Array) -> Array:
        with jax.enable_x64(True):
            M, result = _matrices(oscillators), None
            while n:
                if n & 1:
                    result = M if result is None else _composed(M, result)
                M, n = _composed(M, M), n >> 1
        if result is None:
            return x
        ((zz, zy), (yz, yy)) = (lax.convert_element_type(row, b.dtype) for row in result)
        z, y = jnp.split(x, 2, axis=-1)
        return jnp.concatenate([zz * z + zy * y, yz * z + yy * y], axis=-1)

    f, g = jnp.split(b, 2, axis=-1)
    return windowed_sums(power, jnp.concatenate([f, g + oscillators[3].astype(b.dtype) * f], axis=-1), window, reverse)


def _matrices(oscillators: Oscillators) -> Array:
    """The 2×2 matrices (2, 2, P) of a step, in float64."""
    a, k, c, d = (lax.convert_element_type(each, np.float64) for each in oscillators)
    return jnp.stack([jnp.stack([a, -k]), jnp.stack([d * a, c - d * k])])


def _composed(M: Array, N: Array) -> Array:
    """The matrix products M N of each oscillator, (2, 2, P)."""
    return (M[:, :, None] * N[None]).sum(1)


@partial(jax.jit, static_argnames="reverse")  # traced once for all layers of a model
def chunked_states(oscillators: Oscillators, b: States, reverse: bool) -> States:
    """Compute `recurrence` for accelerators: a few large products per level instead of one launch per step.

    In a chunk of T steps, the states are a product of the inputs with the powers M⁰ … M^{T−1} of each oscillator's 2×2
    matrix M. The last states of the chunks follow the same recurrence with M^T, so there are log_T L levels. The powers
    are computed in float64, because a rounding of M is 10⁴ roundings of M^10⁴.
    """
    with jax.enable_x64(True):
        M = _matrices(oscillators)
    f, g = jnp.split(b[::-1] if reverse else b, 2, axis=-1)
    x = _level(M, jnp.stack([f, g + oscillators[3] * f], axis=-2)).reshape(b.shape)
    return x[::-1] if reverse else x


def _level(M: Array, b: Array) -> Array:
    """Solve x_t = M x_{t−1} + b_t for b (L, batch, 2, P) and M (2, 2, P) in float64."""
    L, batch, _, P = b.shape
    T = min(CHUNK, L)
    chunks, lags = -(-L // T), np.subtract.outer(np.arange(T), np.arange(T))
    with jax.enable_x64(True):
        powers = [jnp.broadcast_to(jnp.eye(2, dtype=np.float64)[..., None], M.shape)]
        for _ in range(T):
            powers.append((M[:, :, None] * powers[-1][None]).sum(1))
        to_the_T, exact = powers[T], lax.convert_element_type(jnp.stack(powers), b.dtype)
    within = jnp.where((lags >= 0)[..., None, None, None], exact[np.maximum(lags, 0)], 0)
    padded = jnp.pad(b, ((0, chunks * T - L), (0, 0), (0, 0), (0, 0))).reshape(chunks, T, batch, 2, P)
    x = jnp.einsum("stijp,ctbjp->csbip", within, padded, precision=lax.Precision.HIGHEST)
    if chunks > 1:
        ends = _level(to_the_T, x[:, -1])
        arriving = jnp.concatenate([jnp.zeros_like(ends[:1]), ends[:-1]])
        x += jnp.einsum("sijp,cbjp->csbip", exact[1:], arriving, precision=lax.Precision.HIGHEST)
    return x.reshape(chunks * T, batch, 2, P)[:L]

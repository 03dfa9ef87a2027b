"""The selective recurrence, the operator under S6 (Mamba) and B²S6: a diagonal state space that changes at each step.

Each of H features has N states x (N,) and is in one of G blocks of p = H/G features, which share B_t and C_t:

    x_t = exp(Δ_t A) x_{t−1} + Δ_t u_t (B_t + β),    y_t = Re(C_t · x_t).

Δ_t and u_t are of the step and the feature, A and β of the feature. A, B and β are all real or all complex, and C is
real. Let g_t be the gradient with respect to x_t, and q_t that with respect to Δ_t A:

    g_t = C_t dy_t + exp(Δ_{t+1} A)* g_{t+1},    q_t = g_t (exp(Δ_t A) x_{t−1})*.

1. An array of all states would be N times as large as the activations. So the forward pass keeps one state of each
   `PIECE` steps, and the backward pass computes those of one piece at a time again.
2. One GPU has kernels for this (`kernels/selective.py`). On other accelerators the sequence is cut into chunks, which
   stand side by side as further rows of the batch. A first loop runs through all of them at once from zero. The states
   that arrive at each chunk follow from its results, since what arrives decays by exp(A ΣΔ_t). A second loop then
   starts from them.
3. The features are the last axis of states (batch, G, N, p), so that loops over them are vectorized.
4. States are computed in float32 or wider, whatever u is stored in.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax

from lra_bench.kernels import selective as kernel
from lra_bench.kernels import triton
from lra_bench.machine.complex_parts import Parts, conjugate, exponential, plus, times
from lra_bench.machine.platform import target_platform
from lra_bench.ssm.shapes import BlockVectors, Features, StatesOfFeatures

PIECE = 16
"""The steps from one state that is kept to the next."""

CHUNK = 512
"""The steps of a chunk on an accelerator. The states of a piece of every chunk, about six arrays of `PIECE` / `CHUNK`
of all states, are in memory at once, so shorter chunks would take more of it."""

T = TypeVar("T")


class Constants(NamedTuple):
    """The arguments that are the same at all steps, (G, N, p) each."""

    A: Parts
    bias: Parts


class Steps(NamedTuple):
    """The arguments of each step: dt and u (L, b, G, p), B and C (L, b, G, N). At one step, without L."""

    dt: Array
    u: Array
    B: Parts
    C: Array


def selective_scan(
    A: tuple[StatesOfFeatures, ...],
    bias: tuple[StatesOfFeatures, ...],
    dt: Features,
    u: Features,
    B: tuple[BlockVectors, ...],
    C: BlockVectors,
    reverse: bool = False,
    chunks: int | None = None,
) -> Features:
    """Compute all y_t (L, b, H), in u's dtype, from states of zeros; with `reverse`, the last step comes first.

    A, bias: the real part, or real and imaginary part, each (H, N); B: likewise, (L, b, G, N).
    dt, u: (L, b, H). C: (L, b, G, N).
    chunks: the chunks that run side by side; None means the fastest form for the platform and the length.
    """
    constants, steps = by_block(A, bias, dt, u, B, C)
    if chunks is None and triton.usable(kernel.largest_array(u, C, PIECE)):
        y = loop_recurrence(constants, steps, reverse)
    else:
        y = recurrence(constants, steps, reverse, fastest_chunks(len(u)) if chunks is None else chunks)
    return y.reshape(u.shape).astype(u.dtype)


def by_block(A: Parts, bias: Parts, dt: Array, u: Array, B: Parts, C: Array) -> tuple[Constants, Steps]:
    """The arguments of `selective_scan` with a block's features in an axis of their own, in float32 or wider."""
    G, dtype = C.shape[-2], jnp.promote_types(u.dtype, jnp.float32)

    def constant(x: Array) -> Array:
        return x.reshape(G, -1, x.shape[-1]).swapaxes(1, 2)

    def at_steps(x: Array) -> Array:
        return x.reshape(*x.shape[:-1], G, -1)

    found = Constants(tuple(map(constant, A)), tuple(map(constant, bias))), Steps(at_steps(dt), at_steps(u), B, C)
    return jax.tree.map(lambda x: x.astype(dtype), found)


def fastest_chunks(length: int) -> int:
    """The number of chunks: one on a CPU; elsewhere so many that each has about `CHUNK` steps."""
    return 1 if target_platform() == "cpu" else max(1, length // CHUNK)


def at_rest(constants: Constants, batch: int) -> Parts:
    """States of zeros, (batch, G, N, p) each."""
    return tuple(jnp.zeros((batch, *part.shape), part.dtype) for part in constants.A)


def advance(constants: Constants, x: Parts, step: Steps) -> tuple[Parts, Array]:
    """The next states (b, G, N, p), and y_t (b, G, p), from the arguments of one step."""
    x = plus(times(_decay(constants.A, step.dt), x), _driven(constants, step))
    return x, _over_states(step.C, x[0])


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def recurrence(constants: Constants, steps: Steps, reverse: bool, chunks: int) -> Array:
    """Compute all y_t (L, b, G, p)."""
    return _forward(constants, steps, reverse, chunks)[0]


def _forward(
    constants: Constants, steps: Steps, reverse: bool, chunks: int
) -> tuple[Array, tuple[Constants, Steps, Parts]]:
    cut = _cut(steps, chunks)
    start = at_rest(constants, cut.u.shape[2])
    if chunks > 1:

        def end(x: Parts, step: Steps) -> tuple[Parts, None]:
            return plus(times(_decay(constants.A, step.dt), x), _driven(constants, step)), None

        ends = lax.scan(end, start, _flat(cut), reverse=reverse)[0]
        start = _arriving(constants.A, cut, ends, chunks, reverse)

    def piece(x: Parts, steps: Steps) -> tuple[Parts, tuple[Array, Parts]]:
        end, y = lax.scan(partial(advance, constants), x, steps, reverse=reverse)
        return end, (y, x)

    _, (y, kept) = lax.scan(piece, start, cut, reverse=reverse)
    return _joined(y, chunks, len(steps.u)), (constants, steps, kept)


def _backward(
    reverse: bool, chunks: int, residuals: tuple[Constants, Steps, Parts], dy: Array
) -> tuple[Constants, Steps]:
    constants, steps, kept = residuals
    cut, dy = _cut((steps, dy), chunks)

    def earlier(g: Parts, at: tuple[Parts, Array, Array]) -> tuple[Parts, Parts]:
        decay, C, dy_t = at
        g = (g[0] + C[..., None] * dy_t[..., None, :], *g[1:])
        return times(conjugate(decay), g), g

    start = at_rest(constants, dy.shape[2])
    if chunks > 1:

        def end(g: Parts, at: tuple[Steps, Array]) -> tuple[Parts, None]:
            step, dy_t = at
            return earlier(g, (_decay(constants.A, step.dt), step.C, dy_t))[0], None

        ends = lax.scan(end, start, _flat((cut, dy)), reverse=not reverse)[0]
        start = _arriving(conjugate(constants.A), cut, ends, chunks, not reverse)

    def piece(carry: tuple[Parts, Constants], at: tuple[Steps, Array, Parts]) -> tuple[tuple[Parts, Constants], Steps]:
        (g, total), (steps, dy, first) = carry, at
        decay = _decay(constants.A, steps.dt)

        def later(x: Parts, at: tuple[Parts, Steps]) -> tuple[Parts, Parts]:
            kept = times(at[0], x)
            return plus(kept, _driven(constants, at[1])), kept

        kept = lax.scan(later, first, (decay, steps), reverse=reverse)[1]
        g, gs = lax.scan(earlier, g, (decay, steps.C, dy), reverse=not reverse)
        of_constants, of_steps = _gradients(constants, steps, dy, kept, gs)
        return (g, jax.tree.map(jnp.add, total, of_constants)), of_steps

    zero = jax.tree.map(jnp.zeros_like, constants)
    (_, of_constants), of_steps = lax.scan(piece, (start, zero), (cut, dy, kept), reverse=not reverse)
    return of_constants, jax.tree.map(lambda x: _joined(x, chunks, len(steps.u)), of_steps)


recurrence.defvjp(_forward, _backward)


def _arguments(constants: Constants, steps: Steps) -> kernel.Arguments:
    return kernel.Arguments(constants.A, constants.bias, steps.dt, steps.u, steps.B, steps.C)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def loop_recurrence(constants: Constants, steps: Steps, reverse: bool) -> Array:
    """Compute `recurrence` by GPU kernels."""
    return _loop_forward(constants, steps, reverse)[0]


def _loop_forward(constants: Constants, steps: Steps, reverse: bool) -> tuple[Array, tuple[Constants, Steps, Parts]]:
    y, kept = kernel.loop_states(_arguments(constants, steps), reverse, PIECE)
    return y, (constants, steps, kept)


def _loop_backward(reverse: bool, residuals: tuple[Constants, Steps, Parts], dy: Array) -> tuple[Constants, Steps]:
    constants, steps, kept = residuals
    found = kernel.loop_gradient(_arguments(constants, steps), kept, dy, reverse, PIECE)
    return Constants(found.A, found.bias), Steps(found.dt, found.u, found.B, found.C)


loop_recurrence.defvjp(_loop_forward, _loop_backward)


def _gradients(constants: Constants, steps: Steps, dy: Array, kept: Parts, g: Parts) -> tuple[Constants, Steps]:
    """The gradients of a piece's arguments, from dy, exp(Δ_t A) x_{t−1} and g at all its steps."""
    drive = steps.dt * steps.u
    q = times(g, conjugate(kept))
    of_A = tuple((steps.dt[..., None, :] * part).sum((0, 1)) for part in q)
    of_bias = tuple((drive[..., None, :] * part).sum((0, 1)) for part in g[: len(constants.bias)])
    of_B = tuple(_over_features(drive, part) for part in g)
    # Of x_t = kept + Δ u (B + β), only the first part is an array of states.
    now = dy * drive
    of_C = _over_features(dy, kept[0]) + steps.B[0] * now.sum(-1, keepdims=True)
    if constants.bias:
        of_C += jnp.einsum("...gp,gnp->...gn", now, constants.bias[0], precision=lax.Precision.HIGHEST)
    of_drive = sum(map(_over_states, steps.B, g)) + _paired(constants.bias, g)
    return Constants(of_A, of_bias), Steps(
        _paired(constants.A, q) + steps.u * of_drive, steps.dt * of_drive, of_B, of_C
    )


def _arriving(A: Parts, cut: Steps, ends: Parts, chunks: int, reverse: bool) -> Parts:
    """The states that arrive at each chunk, from those at its end had it started from zero."""

    def by_chunk(x: Array) -> Array:
        return x.reshape(-1, chunks, *x.shape[1:]).swapaxes(0, 1)

    def add(x: Parts, at: tuple[Array, Parts]) -> tuple[Parts, Parts]:
        total, end = at
        return plus(times(_decay(A, total), x), end), x

    ends = jax.tree.map(by_chunk, ends)
    rest = jax.tree.map(lambda x: jnp.zeros_like(x[0]), ends)
    arriving = lax.scan(add, rest, (by_chunk(cut.dt.sum((0, 1))), ends), reverse=reverse)[1]
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), arriving)


def _cut(arrays: T, chunks: int) -> T:
    """Cut arrays (L, b, …) to (pieces, PIECE, b · chunks, …). Steps of zeros, which change no state, fill them up.

    The axis b comes first of both, so that several devices can divide it.
    """

    def cut(x: Array) -> Array:
        pieces = -(-len(x) // (PIECE * chunks))
        x = jnp.pad(x, ((0, pieces * PIECE * chunks - len(x)), *((0, 0),) * (x.ndim - 1)))
        x = jnp.moveaxis(x.reshape(chunks, pieces, PIECE, *x.shape[1:]), 0, 3)
        return x.reshape(pieces, PIECE, -1, *x.shape[4:])

    return jax.tree.map(cut, arrays)


def _joined(x: Array, chunks: int, length: int) -> Array:
    """Undo `_cut`: (pieces, PIECE, b · chunks, …) → (L, b, …)."""
    x = jnp.moveaxis(x.reshape(*x.shape[:2], -1, chunks, *x.shape[3:]), 3, 0)
    return x.reshape(-1, *x.shape[3:])[:length]


def _flat(arrays: T) -> T:
    """The steps of all pieces in one axis."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), arrays)


def _decay(A: Parts, dt: Array) -> Parts:
    """exp(Δ A) for dt (…, G, p): (…, G, N, p) each."""
    return exponential(tuple(dt[..., None, :] * part for part in A))


def _driven(constants: Constants, steps: Steps) -> Parts:
    """The inputs Δ u (B + β) to the states."""
    drive = (steps.dt * steps.u)[..., None, :]
    vector = tuple(part[..., None] for part in steps.B)
    return tuple(drive * part for part in (plus(vector, constants.bias) if constants.bias else vector))


def _over_features(a: Array, x: Array) -> Array:
    """The sum over a block's features of a (…, p) times x (…, N, p)."""
    return jnp.einsum("...p,...np->...n", a, x, precision=lax.Precision.HIGHEST)


def _over_states(a: Array, x: Array) -> Array:
    """The sum over the states of a (…, N) times x (…, N, p)."""
    return jnp.einsum("...n,...np->...p", a, x, precision=lax.Precision.HIGHEST)


def _paired(a: Parts, x: Parts) -> Array | int:
    """The sum over the states n of Re(a_n* x_n); zero where a is empty. XLA's own reduction takes a CPU 20 times as
    long."""
    return sum(
        one[..., n, :] * other[..., n, :] for one, other in zip(a, x, strict=bool(a)) for n in range(x[0].shape[-2])
    )

"""The whole operator, u → y, in two GPU kernels: neither B u nor the states reach memory.

One program holds a tile of T steps of one example. The first kernel finds the state in which each tile alone would
end, in both directions; XLA carries those from tile to tile, in the chunked form; the second kernel computes the
tile's states from the one that arrives and multiplies them by C. Inside a tile the recurrence is solved by doubling,
x ← x + λ^(2^k) · (x moved by 2^k steps): only positive powers, so every eigenvalue is safe. Triton cannot move a tile's
rows; a product with a matrix that has ones on one off-diagonal does it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from lra_bench.ssm.scan_chunked import chunked_states, powers_of
from lra_bench.ssm.scan_sequential import Pair

TILES = (64, 32, 16)
"""T is the first that divides L. A tile reads all weights once, from L2: at 64 rows about a sixth of the bytes that the
chunked form moves through memory; the accumulators of 128 rows would leave no registers."""

STATE_BLOCK = 32
"""States a program works on at a time. P is filled up to a multiple of it with states that stay zero."""

FEATURES = (16, 32, 64, 128, 256)
"""Triton's blocks are powers of two, its products at least 16 wide; 512 features of a tile do not fit in registers."""


def fits(L: int, H: int) -> bool:
    """Whether the kernels take sequences of L steps of H features."""
    return H in FEATURES and any(L % T == 0 for T in TILES)


def fused_forward(
    Lambda_bar: Pair, B: Array, C: Array, C_reverse: Array | None, u: Array, interpret: bool = False
) -> Array:
    """`scan.diagonal_ssm` for shapes that `fits`, float32 or bfloat16, without a derivative of its own.

    interpret: run the kernels' operations one by one in plain JAX, on any device.
    """
    L, batch, H = u.shape
    T = next(T for T in TILES if L % T == 0)
    readouts = [C] if C_reverse is None else [C, C_reverse]
    Lambda_bar, B, *readouts = _filled_up(Lambda_bar, B, *readouts)
    P = Lambda_bar[0].shape[0]
    directions = len(readouts)
    power = jnp.stack(powers_of(Lambda_bar, range(T + 1)))

    tokens = pl.BlockSpec((T, None, H), lambda b, c: (c, b, 0))
    states = pl.BlockSpec((directions, 2, None, None, P), lambda b, c: (0, 0, c, b, 0))
    call: Callable[..., Callable[..., Array]] = partial(
        pl.pallas_call, grid=(batch, L // T), interpret=interpret, **_compiler_options(interpret)
    )

    # λ^(T−1−t) for the state at the end, λ^t for the state at the start of the reversed run.
    weights = jnp.stack([power[:, T - 1 :: -1], power[:, :T]][:directions])
    input_map = B.reshape(H, 2, P).swapaxes(0, 1)
    ends = call(
        _ends_kernel,
        in_specs=[tokens, _whole(input_map), _whole(weights)],
        out_specs=states,
        out_shape=jax.ShapeDtypeStruct((directions, 2, L // T, batch, P), Lambda_bar[0].dtype),
    )(u, input_map, weights)

    doubled = jnp.stack([power[:, 1 << k] for k in range(T.bit_length() - 1)], axis=1)
    output_maps = jnp.stack([readout.reshape(2, P, H) for readout in readouts])
    return call(
        _outputs_kernel,
        in_specs=[tokens, _whole(input_map), _whole(output_maps), _whole(doubled), states],
        out_specs=tokens,
        out_shape=jax.ShapeDtypeStruct(u.shape, u.dtype),
    )(u, input_map, output_maps, doubled, _arriving(Lambda_bar, ends, T))


def _ends_kernel(u: Any, input_map: Any, weights: Any, ends: Any) -> None:
    x = u[...]

    def block(k: Array, _: None) -> None:
        chosen = pl.ds(k * STATE_BLOCK, STATE_BLOCK)
        real, imag = _driven(x, input_map, chosen)
        for direction in range(weights.shape[0]):
            power_real, power_imag = weights[direction, 0, :, chosen], weights[direction, 1, :, chosen]
            ends[direction, 0, chosen] = jnp.sum(power_real * real - power_imag * imag, axis=0)
            ends[direction, 1, chosen] = jnp.sum(power_real * imag + power_imag * real, axis=0)

    lax.fori_loop(0, input_map.shape[2] // STATE_BLOCK, block, None)


def _outputs_kernel(u: Any, input_map: Any, output_maps: Any, doubled: Any, arriving: Any, y: Any) -> None:
    x, T = u[...], u.shape[0]
    row, column = (lax.broadcasted_iota(jnp.int32, (T, T), axis) for axis in (0, 1))
    state_row = lax.broadcasted_iota(jnp.int32, (T, STATE_BLOCK), 0)

    def block(k: Array, total: Array) -> Array:
        chosen = pl.ds(k * STATE_BLOCK, STATE_BLOCK)
        driven = _driven(x, input_map, chosen)
        for direction in range(output_maps.shape[0]):
            before = -1 if direction == 0 else 1
            first = state_row == (0 if direction == 0 else T - 1)
            carried = _times(
                (doubled[0, 0, chosen], doubled[1, 0, chosen]),
                (arriving[direction, 0, chosen], arriving[direction, 1, chosen]),
            )
            states = [b + jnp.where(first, c[None], 0) for b, c in zip(driven, carried, strict=True)]
            for power in range(doubled.shape[1]):
                move = (column - row == before * (1 << power)).astype(x.dtype)
                moved = [_exactly_moved(move, part) for part in states]
                added = _times((doubled[0, power, chosen], doubled[1, power, chosen]), moved)
                states = [part + more for part, more in zip(states, added, strict=True)]
            for part, state in enumerate(states):
                readout = output_maps[direction, part, chosen, :].astype(x.dtype)
                total += jnp.dot(state.astype(x.dtype), readout, preferred_element_type=total.dtype)
        return total

    zero = jnp.zeros(u.shape, arriving.dtype)
    y[...] = lax.fori_loop(0, input_map.shape[2] // STATE_BLOCK, block, zero).astype(y.dtype)


def _driven(x: Array, input_map: Any, chosen: Any) -> tuple[Array, Array]:
    """Real and imaginary part of B u for the chosen states, each (T, STATE_BLOCK)."""
    dtype = input_map.dtype
    real, imag = (
        jnp.dot(x, input_map[part, :, chosen].astype(x.dtype), preferred_element_type=dtype) for part in (0, 1)
    )
    return real, imag


def _exactly_moved(move: Array, state: Array) -> Array:
    """move @ state. In bfloat16 the state goes in two parts, or each doubling would round it to three digits."""
    if move.dtype == state.dtype:
        return jnp.dot(move, state, precision=lax.Precision.HIGHEST)
    high = state.astype(move.dtype)
    low = (state - high.astype(state.dtype)).astype(move.dtype)
    product = partial(jnp.dot, preferred_element_type=state.dtype)
    return product(move, high) + product(move, low)


def _times(a: Any, b: Any) -> Pair:
    return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


def _arriving(Lambda_bar: Pair, ends: Array, T: int) -> Array:
    """The state that enters each tile from those in which the tiles alone end; (directions, 2, tiles, batch, P)."""
    real, imag = powers_of(Lambda_bar, [T])
    to_the_T = real[0], imag[0]
    arriving = []
    for direction, parts in enumerate(ends):
        final = chunked_states(to_the_T, jnp.concatenate(parts, axis=-1), reverse=direction == 1)
        zero = jnp.zeros_like(final[:1])
        entering = jnp.concatenate([final[1:], zero] if direction else [zero, final[:-1]])
        arriving.append(jnp.stack(jnp.split(entering, 2, axis=-1)))
    return jnp.stack(arriving)


def _filled_up(Lambda_bar: Pair, B: Array, *readouts: Array) -> tuple:
    """The arguments with P a multiple of STATE_BLOCK: the added states are never driven and never read."""
    P = Lambda_bar[0].shape[0]
    extra = -P % STATE_BLOCK
    H = B.shape[0]
    eigenvalues = jnp.pad(Lambda_bar[0], (0, extra)), jnp.pad(Lambda_bar[1], (0, extra))
    B = jnp.pad(B.reshape(H, 2, P), ((0, 0), (0, 0), (0, extra))).reshape(H, -1)
    filled = (jnp.pad(r.reshape(2, P, H), ((0, 0), (0, extra), (0, 0))).reshape(-1, H) for r in readouts)
    return eigenvalues, B, *filled


def _whole(array: Array) -> pl.BlockSpec:
    return pl.BlockSpec(array.shape, lambda b, c: (0,) * array.ndim)


def _compiler_options(interpret: bool) -> dict[str, Any]:
    return {} if interpret else {"compiler_params": triton.CompilerParams(num_warps=8, num_stages=2)}

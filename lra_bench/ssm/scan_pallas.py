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
from typing import Any, NamedTuple

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


class Runs(NamedTuple):
    """Recurrences over the same input, added up: y = Σ_d O_d x^d, x^d the states of run d driven by I_d u."""

    Lambda_bar: Pair
    input_maps: Array  # I (1 or directions, 2, H, P); one serves all
    output_maps: Array  # O (1 or directions, 2, P, H)
    reverses: tuple[bool, ...]

    @classmethod
    def of(cls, Lambda_bar: Pair, B: Array, C: Array, C_reverse: Array | None) -> Runs:
        """P filled up to a multiple of STATE_BLOCK: the added states are never driven and never read."""
        readouts = [C] if C_reverse is None else [C, C_reverse]
        P, H = Lambda_bar[0].shape[0], B.shape[0]
        extra = -P % STATE_BLOCK
        real, imag = (jnp.pad(part, (0, extra)) for part in Lambda_bar)
        input_map = jnp.pad(B.reshape(H, 2, P), ((0, 0), (0, 0), (0, extra))).swapaxes(0, 1)
        output_maps = [jnp.pad(readout.reshape(2, P, H), ((0, 0), (0, extra), (0, 0))) for readout in readouts]
        return cls((real, imag), input_map[None], jnp.stack(output_maps), (False, True)[: len(readouts)])

    @property
    def adjoint(self) -> Runs:
        """Of these runs: what turns dy into du. Its states are the gradients of what drives these."""
        (real, imag), transposed = self.Lambda_bar, [maps.swapaxes(2, 3) for maps in self[1:3]]
        return Runs((real, -imag), transposed[1], transposed[0], tuple(not reverse for reverse in self.reverses))


def fused_forward(
    Lambda_bar: Pair, B: Array, C: Array, C_reverse: Array | None, u: Array, interpret: bool = False
) -> Array:
    """`scan.diagonal_ssm` for shapes that `fits`, float32 or bfloat16; `scan_pallas_gradient` has its derivative.

    interpret: run the kernels' operations one by one in plain JAX, on any device.
    """
    runs = Runs.of(Lambda_bar, B, C, C_reverse)
    return outputs(runs, u, arriving_states(runs, u, interpret), interpret)


def tile_length(u: Array) -> int:
    return next(T for T in TILES if u.shape[0] % T == 0)


def arriving_states(runs: Runs, u: Array, interpret: bool) -> Array:
    """The state that enters each tile, (directions, 2, tiles, batch, P): the first kernel, and the carry over tiles."""
    L, batch, H = u.shape
    T, P = tile_length(u), runs.Lambda_bar[0].shape[0]
    power = jnp.stack(powers_of(runs.Lambda_bar, range(T)))
    # λ^(T−1−t) for the state at the end, λ^t for the state at the start of a reversed run.
    weights = jnp.stack([power if reverse else power[:, ::-1] for reverse in runs.reverses])
    directions = len(runs.reverses)
    ends = kernel_call(
        _ends_kernel,
        interpret,
        grid=(batch, L // T),
        in_specs=[pl.BlockSpec((T, None, H), lambda b, c: (c, b, 0)), _whole(runs.input_maps), _whole(weights)],
        out_specs=pl.BlockSpec((directions, 2, None, None, P), lambda b, c: (0, 0, c, b, 0)),
        out_shape=jax.ShapeDtypeStruct((directions, 2, L // T, batch, P), runs.Lambda_bar[0].dtype),
    )(u, runs.input_maps, weights)
    return _carried(runs, ends, T)


def outputs(runs: Runs, u: Array, arriving: Array, interpret: bool) -> Array:
    """y (L, batch, H): the second kernel."""
    L, batch, H = u.shape
    T, P = tile_length(u), runs.Lambda_bar[0].shape[0]
    doubled = doubled_powers(runs.Lambda_bar, T)
    tokens = pl.BlockSpec((T, None, H), lambda b, c: (c, b, 0))
    states = pl.BlockSpec((len(runs.reverses), 2, None, None, P), lambda b, c: (0, 0, c, b, 0))
    maps = runs.input_maps, runs.output_maps
    return kernel_call(
        partial(_outputs_kernel, runs.reverses),
        interpret,
        grid=(batch, L // T),
        in_specs=[tokens, *map(_whole, maps), _whole(doubled), states],
        out_specs=tokens,
        out_shape=jax.ShapeDtypeStruct(u.shape, u.dtype),
    )(u, *maps, doubled, arriving)


def doubled_powers(Lambda_bar: Pair, T: int) -> Array:
    """λ^1, λ^2, λ^4, … λ^(T/2); (2, log₂ T, P)."""
    return jnp.stack(powers_of(Lambda_bar, [1 << k for k in range(T.bit_length() - 1)]))


def kernel_call(kernel: Callable[..., None], interpret: bool, **shapes: Any) -> Callable[..., Any]:
    options: dict[str, Any] = {} if interpret else {"compiler_params": triton.CompilerParams(num_warps=8, num_stages=2)}
    return pl.pallas_call(kernel, interpret=interpret, **shapes, **options)


def _ends_kernel(u: Any, input_maps: Any, weights: Any, ends: Any) -> None:
    x = u[...]

    def block(k: Array, _: None) -> None:
        chosen = pl.ds(k * STATE_BLOCK, STATE_BLOCK)
        drives = [driven(x, input_maps, i, chosen) for i in range(input_maps.shape[0])]
        for direction in range(weights.shape[0]):
            real, imag = drives[direction % len(drives)]
            power_real, power_imag = weights[direction, 0, :, chosen], weights[direction, 1, :, chosen]
            ends[direction, 0, chosen] = jnp.sum(power_real * real - power_imag * imag, axis=0)
            ends[direction, 1, chosen] = jnp.sum(power_real * imag + power_imag * real, axis=0)

    lax.fori_loop(0, input_maps.shape[3] // STATE_BLOCK, block, None)


def _outputs_kernel(
    reverses: tuple[bool, ...], u: Any, input_maps: Any, output_maps: Any, doubled: Any, arriving: Any, y: Any
) -> None:
    x = u[...]

    def block(k: Array, total: Array) -> Array:
        chosen = pl.ds(k * STATE_BLOCK, STATE_BLOCK)
        drives = [driven(x, input_maps, i, chosen) for i in range(input_maps.shape[0])]
        for direction, reverse in enumerate(reverses):
            entering = arriving[direction, 0, chosen], arriving[direction, 1, chosen]
            states = tile_states(drives[direction % len(drives)], entering, doubled, chosen, reverse, x.dtype)
            for part, state in enumerate(states):
                readout = output_maps[direction % output_maps.shape[0], part, chosen, :].astype(x.dtype)
                total += jnp.dot(state.astype(x.dtype), readout, preferred_element_type=total.dtype)
        return total

    zero = jnp.zeros(u.shape, arriving.dtype)
    y[...] = lax.fori_loop(0, input_maps.shape[3] // STATE_BLOCK, block, zero).astype(y.dtype)


def driven(x: Array, input_maps: Any, number: int, chosen: Any) -> Pair:
    """Real and imaginary part of I x for the chosen states, each (T, STATE_BLOCK)."""
    dtype = input_maps.dtype
    real, imag = (
        jnp.dot(x, input_maps[number, part, :, chosen].astype(x.dtype), preferred_element_type=dtype) for part in (0, 1)
    )
    return real, imag


def tile_states(
    drive: Pair, entering: Pair, doubled: Any, chosen: Any, reverse: bool, dtype: jnp.dtype, conjugate: bool = False
) -> Pair:
    """The states of a tile from the one that enters it, parts (T, block). dtype: of products, see `moved`.

    conjugate: take λ* for λ in `doubled`.
    """
    sign = -1 if conjugate else 1
    powers = [(doubled[0, k, chosen], sign * doubled[1, k, chosen]) for k in range(doubled.shape[1])]
    carried = _times(powers[0], entering)
    real, imag = (b + _only_first(part, b.shape, reverse) for b, part in zip(drive, carried, strict=True))
    for k, power in enumerate(powers):
        added = _times(power, (moved(real, 1 << k, reverse, dtype), moved(imag, 1 << k, reverse, dtype)))
        real, imag = real + added[0], imag + added[1]
    return real, imag


def previous_states(states: Pair, entering: Pair, reverse: bool, dtype: jnp.dtype) -> list[Array]:
    """At each step of a tile, the state before it in the run."""
    return [
        moved(part, 1, reverse, dtype) + _only_first(first, part.shape, reverse)
        for part, first in zip(states, entering, strict=True)
    ]


def _only_first(row: Array, shape: tuple[int, ...], reverse: bool) -> Array:
    """`row` where the run starts, zeros elsewhere."""
    start = shape[0] - 1 if reverse else 0
    return jnp.where(lax.broadcasted_iota(jnp.int32, shape, 0) == start, row[None], 0)


def moved(state: Array, steps: int, reverse: bool, dtype: jnp.dtype) -> Array:
    """`state` (T, block) so many steps later in the run, zeros before its start: exactly, also in bfloat16, where the
    state goes in two parts, or each doubling would round it to three digits."""
    T = state.shape[0]
    row, column = (lax.broadcasted_iota(jnp.int32, (T, T), axis) for axis in (0, 1))
    move = (column - row == (steps if reverse else -steps)).astype(dtype)
    if dtype == state.dtype:
        return jnp.dot(move, state, precision=lax.Precision.HIGHEST)
    high = state.astype(dtype)
    low = (state - high.astype(state.dtype)).astype(dtype)
    product = partial(jnp.dot, preferred_element_type=state.dtype)
    return product(move, high) + product(move, low)


def _times(a: Any, b: Any) -> Pair:
    return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


def _carried(runs: Runs, ends: Array, T: int) -> Array:
    """The state that enters each tile from those in which the tiles alone end."""
    real, imag = powers_of(runs.Lambda_bar, [T])
    to_the_T = real[0], imag[0]
    arriving = []
    for reverse, parts in zip(runs.reverses, ends, strict=True):
        final = chunked_states(to_the_T, jnp.concatenate(parts, axis=-1), reverse=reverse)
        zero = jnp.zeros_like(final[:1])
        entering = jnp.concatenate([final[1:], zero] if reverse else [zero, final[:-1]])
        arriving.append(jnp.stack(jnp.split(entering, 2, axis=-1)))
    return jnp.stack(arriving)


def _whole(array: Array) -> pl.BlockSpec:
    return pl.BlockSpec(array.shape, lambda b, c: (0,) * array.ndim)

"""The inputs of a recurrence and the ends of its chunks in one GPU kernel: b = x W + d, and Σ_s λᵏ b_s over each chunk.

Without it the scan reads all inputs once only to find the ends (`kernels/scan.py`, step 1). A program has one chunk of
one example. Its tokens are `ROWS` consecutive steps at a time, so the sum over steps is a sum within a block of the
product. The plain twin is a product and that first kernel.

    end = Σ_s λ^(T−1−s) b_s,        reverse end = Σ_s λ^s b_s
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from lra_bench.kernels import triton
from lra_bench.kernels.gate import column_block
from lra_bench.kernels.scan import Complex, Source, chunk_length, multiplied, plus
from lra_bench.kernels.triton import Shape, Work, load, program_id, store

ROWS = 64
"""The steps of one example that a program has at a time."""


class Powers(NamedTuple):
    """The powers λ⁰ … λ^ROWS of the eigenvalues: real and imaginary parts, (ROWS + 1, P) each."""

    real: Array
    imag: Array


class _Layout(NamedTuple):
    L: int
    batch: int
    H: int
    P: int
    width: int
    sources: tuple[Source, ...]

    @property
    def states(self) -> int:
        """The states in a block of the product: at least 16, of which some may be none."""
        return column_block(self.P) or 16


def project(x: Array, W: Array, drive: Array, powers: Powers, sources: tuple[Source, ...]) -> tuple[Array, Array]:
    """Compute b = x W + drive, (L, b, width) in x's dtype, and the ends of its chunks, flat as `scan.py` takes them.

    x is (L, b, H), W (H, width), drive (width,), which is 2P or 4P. A source is a place in a row and a direction.
    """
    (L, batch, H), width = x.shape, W.shape[1]
    layout = _Layout(L, batch, H, powers.real.shape[1], width, sources)
    chunks = -(-L // chunk_length(L))
    outputs = [
        Shape((L * batch * width,), x.dtype),
        Shape((chunks * batch * 2 * layout.P * len(sources),), jnp.float32),
    ]
    arguments = [x, W.astype(x.dtype), drive, *powers]
    work = Work(flops=2 * x.size * width)
    b, ends = triton.call(partial(_kernel, layout), "project", (chunks, batch), arguments, outputs, 8, work)
    return b.reshape(L, batch, width), ends


def _kernel(layout: _Layout, x: Any, W: Any, drive: Any, real: Any, imag: Any, out: Any, ends: Any) -> None:
    chunk, row, T = program_id(0), program_id(1), chunk_length(layout.L)
    depth = column_block(layout.H)
    steps = jnp.arange(ROWS)
    offsets = sorted({offset for offset, _ in layout.sources})

    def block(i: Any, place: int) -> tuple[Array, Array]:
        """A block of features at the i-th group of steps, and the times of those steps."""
        t = chunk * T + i * ROWS + steps
        inside = jnp.broadcast_to((t < layout.L)[:, None], (ROWS, depth))
        at = (t[:, None] * layout.batch + row) * layout.H + place * depth + jnp.arange(depth)[None]
        return load(x, at, inside), t

    def group(i: Any, carry: list[tuple[Complex, Complex]]) -> list[tuple[Complex, Complex]]:
        loaded = [block(i, place) for place in range(layout.H // depth)]
        t, found, carry = loaded[0][1], iter(carry), []
        for first in range(0, layout.P, layout.states):
            state = first + jnp.arange(layout.states)
            real_state = state < layout.P
            for offset in offsets:
                parts = []
                for column in (offset + state, offset + layout.P + state):
                    total = _product(layout, [part for part, _ in loaded], W, column, real_state)
                    total += load(drive, column, real_state)[None]
                    inside = (t < layout.L)[:, None] & real_state[None]
                    total = jnp.where(inside, total, 0.0)
                    at = (t[:, None] * layout.batch + row) * layout.width + column[None]
                    store(out, at, total, inside)
                    parts.append(total)
                for _, reverse in (source for source in layout.sources if source[0] == offset):
                    end, power = next(found)
                    carry.append(_add(end, power, (parts[0], parts[1]), (real, imag), state, layout.P, reverse))
        return carry

    zero, one = (jnp.full(layout.states, value, jnp.float32) for value in (0.0, 1.0))
    pairs = -(-layout.P // layout.states) * len(layout.sources)
    carry = lax.fori_loop(0, T // ROWS, group, [((zero, zero), (one, zero))] * pairs)
    order = [source for offset in offsets for source in layout.sources if source[0] == offset]
    for number, ((end_real, end_imag), _) in enumerate(carry):
        block_number, which = divmod(number, len(order))
        state = block_number * layout.states + jnp.arange(layout.states)
        first = (chunk * layout.batch + row) * 2 * layout.P * len(order)
        first += 2 * layout.P * layout.sources.index(order[which]) + state
        store(ends, first, end_real, state < layout.P)
        store(ends, first + layout.P, end_imag, state < layout.P)


def _product(layout: _Layout, loaded: list[Array], W: Any, column: Array, real_state: Array) -> Array:
    """A block of x W, (ROWS, states)."""
    depth = loaded[0].shape[1]
    total = jnp.zeros((ROWS, layout.states), jnp.float32)
    for place, part in enumerate(loaded):
        feature = place * depth + jnp.arange(depth)
        at = feature[:, None] * layout.width + column[None]
        weight = load(W, at, jnp.broadcast_to(real_state[None], at.shape))
        total += jax.lax.dot(part, weight, preferred_element_type=jnp.float32)
    return total


def _add(
    end: Complex, power: Complex, b: Complex, powers: tuple[Any, Any], state: Array, P: int, reverse: bool
) -> tuple[Complex, Complex]:
    """The end of a chunk with ROWS more steps: λ^ROWS end + Σ λ^(ROWS−1−s) b_s, or end + power Σ λ^s b_s in reverse,
    where `power` is that of all steps before."""
    steps, inside = jnp.arange(ROWS), state < P

    def of(exponents: Array) -> Complex:
        at = exponents * P + state if exponents.ndim == 0 else exponents[:, None] * P + state[None]
        mask = inside if exponents.ndim == 0 else jnp.broadcast_to(inside[None], at.shape)
        return load(powers[0], at, mask), load(powers[1], at, mask)

    weighted = multiplied(of(steps if reverse else ROWS - 1 - steps), b)
    total = weighted[0].sum(0), weighted[1].sum(0)
    whole = of(jnp.int32(ROWS))
    if reverse:
        return plus(end, multiplied(power, total)), multiplied(whole, power)
    return plus(multiplied(whole, end), total), power

"""The gradients of a block's input and of its input matrix as one GPU kernel: dx = r + db Bᵀ and dB = xᵀ db.

XLA would write the first product and read it again, and read db twice. Where B is wide, its gradient does not fit in
the registers of a program, and is left to XLA. The plain twin is these two expressions.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from lra_bench.kernels import triton
from lra_bench.kernels.gate import PROGRAMS, Rows, add_at, column_block
from lra_bench.kernels.projection import ROWS
from lra_bench.kernels.triton import Shape, Work, load, program_id, store
from lra_bench.machine.products import product

LARGEST = 128 * 256
"""The most numbers of B whose gradient a program keeps in its registers."""


class _Layout(NamedTuple):
    tokens: int
    H: int
    width: int  # 2P

    @property
    def accumulates(self) -> bool:
        return self.H * self.width <= LARGEST

    @property
    def columns(self) -> int:
        """The features in a block of a row of x."""
        return column_block(self.H)

    @property
    def states(self) -> list[Array]:
        """The places of each block of a row of db."""
        size = column_block(self.width)
        return [first + jnp.arange(size) for first in range(0, self.width, size)]


def input_gradients(r: Array, x: Array, db: Array, B: Array) -> tuple[Array, Array]:
    """Compute dx = r + db Bᵀ (L, b, H) and dB = xᵀ db (H, 2P) for r and x (L, b, H), db (L, b, 2P) and B (H, 2P)."""
    H, width = B.shape
    layout = _Layout(r.shape[0] * r.shape[1], H, width)
    groups = -(-layout.tokens // ROWS)
    programs = min(groups, PROGRAMS) if layout.accumulates else groups
    outputs = [Shape((r.size,), r.dtype)]
    outputs += [Shape((programs * H * width,), jnp.float32)] * layout.accumulates
    arguments = [r, db, B.T.astype(r.dtype), *([x] * layout.accumulates)]
    work = Work(flops=2 * layout.tokens * H * width * (1 + layout.accumulates))
    dx, *dB = triton.call(
        partial(_kernel, layout, programs), "input_gradients", (programs,), arguments, outputs, 16, work
    )
    if layout.accumulates:
        return dx.reshape(r.shape), dB[0].reshape(programs, H, width).sum(0)
    return dx.reshape(r.shape), product(x.reshape(-1, H).T, db.reshape(-1, width))


def _kernel(layout: _Layout, programs: int, r: Any, db: Any, B: Any, *refs: Any) -> None:
    """Blocks of features are a loop of the kernel, for the same reason as in `kernels/gate.py`."""
    *x, dx = refs[:-1] if layout.accumulates else refs
    first, blocks = program_id(0), layout.H // layout.columns

    def group(i: Any, dB: Rows) -> Rows:
        rows = (first + i * programs) * ROWS + jnp.arange(ROWS)

        def at(width: int, places: Array) -> tuple[Array, Array]:
            index = rows[:, None] * width + places[None]
            return index, jnp.broadcast_to((rows < layout.tokens)[:, None], index.shape)

        def block(number: Any, dB: Rows) -> Rows:
            dB = [list(row) for row in dB]
            features = number * layout.columns + jnp.arange(layout.columns)
            index, inside = at(layout.H, features)
            total = load(r, index, inside).astype(jnp.float32)
            for k, places in enumerate(layout.states):
                db_block = load(db, *at(layout.width, places))
                total += _dot(db_block, load(B, places[:, None] * layout.H + features[None]), (1, 0))
                if layout.accumulates:
                    add_at(dB, k, number, _dot(load(x[0], index, inside), db_block, (0, 0)))
            store(dx, index, total, inside)
            return dB

        return jax.lax.fori_loop(0, blocks, block, dB)

    zeros = [
        [jnp.zeros((layout.columns, len(places)), jnp.float32) for _ in range(blocks)]
        for places in layout.states
        if layout.accumulates
    ]
    found = jax.lax.fori_loop(0, -(-layout.tokens // (ROWS * programs)), group, zeros)
    for places, row in zip(layout.states, found, strict=False):
        for number, part in enumerate(row):
            features = number * layout.columns + jnp.arange(layout.columns)
            store(refs[-1], (first * layout.H + features[:, None]) * layout.width + places[None], part)


def _dot(a: Array, b: Array, contracted: tuple[int, int]) -> Array:
    dimensions = (((contracted[0],), (contracted[1],)), ((), ()))
    return jax.lax.dot_general(a, b, dimensions, preferred_element_type=jnp.float32)

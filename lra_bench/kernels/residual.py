"""A product that is added to an array, as one GPU kernel: dx = r + db Bᵀ, the gradient of a block's input.

XLA would write the product and read it again. The plain twin is that expression.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from lra_bench.kernels import triton
from lra_bench.kernels.gate import ROWS, column_block
from lra_bench.kernels.triton import Shape, Work, load, program_id, store


class _Layout(NamedTuple):
    tokens: int
    H: int
    width: int  # 2P


def add_product(r: Array, db: Array, B: Array) -> Array:
    """Compute r + db Bᵀ for r (L, b, H), db (L, b, 2P) and B (H, 2P), in r's dtype."""
    layout = _Layout(r.shape[0] * r.shape[1], r.shape[2], B.shape[1])
    arguments = [r, db, B.T.astype(r.dtype)]
    work, output = Work(flops=2 * layout.tokens * layout.H * layout.width), Shape((r.size,), r.dtype)
    grid = (-(-layout.tokens // ROWS),)
    (dx,) = triton.call(partial(_kernel, layout), "add_product", grid, arguments, [output], 8, work)
    return dx.reshape(r.shape)


def _kernel(layout: _Layout, r: Any, db: Any, B: Any, out: Any) -> None:
    rows = program_id(0) * ROWS + jnp.arange(ROWS)
    inside = (rows < layout.tokens)[:, None]
    depth, columns = column_block(layout.width), column_block(layout.H)

    def block(array: Any, width: int, features: Array) -> Array:
        at = rows[:, None] * width + features[None]
        return load(array, at, jnp.broadcast_to(inside, at.shape))

    parts = [k * depth + jnp.arange(depth) for k in range(layout.width // depth)]
    loaded = [block(db, layout.width, part) for part in parts]
    for number in range(layout.H // columns):
        features = number * columns + jnp.arange(columns)
        total = block(r, layout.H, features).astype(jnp.float32)
        for part, db_k in zip(parts, loaded, strict=True):
            weight = load(B, part[:, None] * layout.H + features[None])
            total += jax.lax.dot(db_k, weight, preferred_element_type=jnp.float32)
        at = rows[:, None] * layout.H + features[None]
        store(out, at, total, jnp.broadcast_to(inside, at.shape))

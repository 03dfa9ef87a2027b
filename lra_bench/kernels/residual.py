"""The gradient of a block's input as one GPU kernel: a product and all that is added to it.

    dx = db Bᵀ + skip ∘ dz + dout + α + β ∘ x

with the gradients of the state space's inputs, of its skip, of the residual, and of BatchNorm's two moments. XLA would
write the product and read it again with the other four arrays. The plain twin is JAX's own gradient of a block.
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


class PerFeature(NamedTuple):
    """The three vectors (H,) of the sum."""

    skip: Array
    alpha: Array
    beta: Array


class _Layout(NamedTuple):
    tokens: int
    H: int
    width: int  # 2P


def input_gradient(db: Array, B: Array, dz: Array, dout: Array, x: Array, vectors: PerFeature) -> Array:
    """Compute dx (L, b, H) from db (L, b, 2P), B (H, 2P), and dz, dout and x (L, b, H)."""
    layout = _Layout(x.shape[0] * x.shape[1], x.shape[2], B.shape[1])
    arguments = [db, B.T.astype(x.dtype), dz, dout, x, *vectors]
    grid = (-(-layout.tokens // ROWS),)
    work, output = Work(flops=2 * layout.tokens * layout.H * layout.width), Shape((x.size,), x.dtype)
    (dx,) = triton.call(partial(_kernel, layout), "input_gradient", grid, arguments, [output], 8, work)
    return dx.reshape(x.shape)


def _kernel(
    layout: _Layout, db: Any, B: Any, dz: Any, dout: Any, x: Any, skip: Any, alpha: Any, beta: Any, out: Any
) -> None:
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
        total = jnp.zeros((ROWS, columns), jnp.float32)
        for part, db_k in zip(parts, loaded, strict=True):
            weight = load(B, part[:, None] * layout.H + features[None])
            total += jax.lax.dot(db_k, weight, preferred_element_type=jnp.float32)
        dz_b, dout_b, x_b = (block(array, layout.H, features).astype(jnp.float32) for array in (dz, dout, x))
        skip_b, alpha_b, beta_b = (load(vector, features)[None] for vector in (skip, alpha, beta))
        total += skip_b * dz_b + dout_b + alpha_b + beta_b * x_b
        at = rows[:, None] * layout.H + features[None]
        store(out, at, total, jnp.broadcast_to(inside, at.shape))

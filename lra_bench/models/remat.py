"""Rematerialization: a block keeps only its input for the backward pass, which computes the rest again.

`jax.checkpoint` does the same on a GPU but has no effect on a CPU. There XLA drops its barriers and then merges equal
computations.
"""

from __future__ import annotations

from typing import Any

import jax
from flax import nnx
from jax import Array, lax

from lra_bench.machine.xla import not_before


def rematerialized(block: nnx.Module, x: Array, *rest: Any) -> Array:
    """Compute block(x, *rest) with rematerialization; x and the result are (L, b, H).

    Values and gradients are those of the call, and it updates the block's statistics likewise. `rest` is not
    differentiated.
    """
    graph, (params, state) = nnx.graphdef(block), nnx.state(block, nnx.Param, ...)

    def plain(params: Any, x: Array) -> tuple[Array, Any]:
        copy: Any = nnx.merge(graph, params, state, copy=True)
        return copy(x, *rest), nnx.state(copy, nnx.BatchStat)

    @jax.custom_vjp
    def call(params: Any, x: Array) -> tuple[Array, Any]:
        return plain(params, x)

    def forward(params: Any, x: Array) -> tuple[tuple[Array, Any], tuple[Any, Array]]:
        return plain(params, x), (params, x)

    def backward(kept: tuple[Any, Array], cotangents: tuple[Array, Any]) -> tuple[Any, Array]:
        (params, x), (dy, _) = kept, cotangents
        _, pullback, _ = jax.vjp(plain, params, not_before(dy[0], x), has_aux=True)
        dparams, dx = pullback(dy)
        # Without this, the compiler delays the products that make dparams and keeps the arguments of all blocks' ones.
        return dparams, not_before(dparams, dx)

    call.defvjp(forward, backward)
    y, stats = call(params, x)
    # Without stop_gradient, JAX 0.10 turns the zero tangents of `stats` into arguments of the compiled program, and
    # calling it fails because they are missing.
    nnx.update(block, lax.stop_gradient(stats))
    return y

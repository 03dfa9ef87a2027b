"""Attention with a learned bias of each lag and one head, in chunks that do not see each other (MEGA).

The sources are Ma et al. 2023 (arXiv 2209.10655) and facebookresearch/mega @ aeaa4b4
fairseq/modules/moving_average_gated_attention.py. One chunk of the whole length is full attention. As in
`attention.py`, the queries are taken in groups whose weights the backward pass computes again, so that at most about
`QUERIES_AT_ONCE` weights for each token are in memory at once: Path-X has 16,384 of them. `attention.attend` is not
used, because its gradient is that of a softmax without a bias.

The Laplace function of the scores needs no sum over the keys, unlike the softmax. No recipe has dropout on weights.
"""

from __future__ import annotations

import math
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array, lax

from lra_bench.machine.products import contraction
from lra_bench.models.attention import MASKED, QUERIES_AT_ONCE
from lra_bench.models.shapes import AttentionKeys, AttentionValues, PerLag, RealPositions

AttentionFunction = Literal["softmax", "laplace"]
"""The function from scores to weights: a softmax over the keys, or the Laplace function of each score."""


def laplace(scores: Array) -> Array:
    """Compute ½ (1 + erf((s − √½) / (σ √2))) with σ² = 1/4π, which comes near the square of a ReLU and is bounded."""
    return 0.5 * (1.0 + lax.erf((scores - math.sqrt(0.5)) * math.sqrt(2.0 * math.pi)))


def attend_in_chunks(
    q: AttentionKeys,
    k: AttentionKeys,
    v: AttentionValues,
    bias: PerLag,
    real: RealPositions | None,
    function: AttentionFunction,
) -> AttentionValues:
    """Compute f(q kᵀ scale + bias) v within each chunk, for q, k (L, b, z) and v (L, b, V).

    bias: (2 C − 1,) for chunks of C positions. Key s of a chunk has bias[s − t + C − 1] for query t. Where L is less
    than C, there is one chunk of L. A last chunk that is not full is filled up with padding.
    real: (L, b), True where a position is not padding; None where all are. Keys of padding have no weight. A chunk of
    padding alone has weights of no meaning, which nothing real sees.
    The scale is 1/√z for the softmax, and one over the number of real keys in the chunk for the Laplace function.
    """
    L, b = q.shape[:2]
    size = min(L, (len(bias) + 1) // 2)
    chunks = -(-L // size)
    fill = chunks * size - L
    bias = lax.slice_in_dim(bias, len(bias) // 2 - size + 1, len(bias) // 2 + size)
    if real is None and fill:
        real = jnp.ones((L, b), bool)

    def chunked(x: Array) -> Array:
        """Lay out (L, b, …) as (b, chunks, size, …)."""
        x = jnp.pad(x, ((0, fill), *((0, 0),) * (x.ndim - 1)))
        return jnp.moveaxis(x.reshape(chunks, size, *x.shape[1:]), 2, 0)

    seen = None if real is None else chunked(real)[:, :, None]
    y = _by_group(chunked(q), chunked(k), chunked(v), bias, seen, function)
    return jnp.moveaxis(y, 0, 2).reshape(chunks * size, b, -1)[:L]


def _by_group(q: Array, k: Array, v: Array, bias: Array, seen: Array | None, function: AttentionFunction) -> Array:
    """Attention of chunks, (b, chunks, size, z or V), with `seen` (b, chunks, 1, size), one group of queries at a time.

    The queries are filled up to a multiple of the groups. What those beyond the size see is dropped.
    """
    size, z = q.shape[2:]
    groups = max(1, round(size / QUERIES_AT_ONCE))
    rows = -(-size // groups)
    beyond = groups * rows - size
    bias = jnp.pad(bias, (beyond, 0))
    grouped = jnp.pad(q, ((0, 0), (0, 0), (0, beyond), (0, 0))).reshape(*q.shape[:2], groups, rows, z)
    keys = size if seen is None else jnp.maximum(seen.sum(-1, keepdims=True), 1)
    scale = z**-0.5 if function == "softmax" else 1.0 / keys
    dtype = v.dtype
    # In float32 here, so that the gradient's sum over the groups is.
    k, v = (x.astype(jnp.promote_types(dtype, jnp.float32)) for x in (k, v))

    @jax.checkpoint
    def one(group: tuple[Array, Array]) -> Array:
        number, q_g = group
        lags = lax.dynamic_slice_in_dim(bias, (groups - 1 - number) * rows, size + rows - 1)
        scores = contraction("bnqz,bnkz->bnqk", q_g, k.astype(dtype)) * scale + _by_lag(lags, rows)
        if function == "softmax":
            weights = jax.nn.softmax(scores if seen is None else jnp.where(seen, scores, MASKED))
        else:
            weights = laplace(scores) if seen is None else jnp.where(seen, laplace(scores), 0.0)
        return contraction("bnqk,bnkv->bnqv", weights.astype(dtype), v.astype(dtype)).astype(dtype)

    y = lax.map(one, (jnp.arange(groups), jnp.moveaxis(grouped, 2, 0)))
    return jnp.moveaxis(y, 0, 2).reshape(*v.shape[:2], groups * rows, -1)[:, :, :size]


def _by_lag(lags: Array, rows: int) -> Array:
    """The matrix (rows, keys) with lags[k − q + rows − 1] in row q and column k, where keys = len(lags) − rows + 1.

    It is the row repeated and cut one number shorter each time. Its gradient then is a sum, where that of a gather
    would be additions in no fixed order on a GPU.
    """
    n = len(lags)
    return jnp.tile(jnp.pad(lags, (0, 1)), rows)[: rows * n].reshape(rows, n)[:, rows - 1 :]

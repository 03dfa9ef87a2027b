"""Attention that takes the queries in groups, so that the weights of all pairs are never in memory at once.

There are two forms with the same results. On a CPU, `_by_query` computes each query on its own, 256 in a batch,
and JAX derives the gradient. On a GPU, `_by_group` stores the heads before the positions and has a gradient of its own:

1. Forward, the maximum m and the sum l of each query's exponentials are kept, two numbers for a row of weights, and
   the division by l comes after the product with the values.
2. Backward, the weights are exp(s − m) / l again without a reduction. The reduction that the softmax's gradient needs,
   Σ_k w_k (dw)_k, is the product of the output and its gradient (Dao et al. 2022, FlashAttention, section B.4), which
   needs no weights either. So one pass over the scores makes all factors of the products.
3. Heads of at most `FEW` numbers have scores that are cheaper to compute again than to read.

Compiled for an H200 in TF32, a training step of ListOps moves 381 GB, and 521 GB with the form for a CPU. Of
Pathfinder, whose heads have 4 numbers, it moves 278 GB instead of 665. In bfloat16, they move 283 and 146 GB.

cuDNN's attention is not used: JAX's interface to it has no dropout on weights, which all recipes train with, and JAX
asks the GPU itself whether it applies, so that it cannot be compiled ahead of time.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from lra_bench.machine.platform import target_platform
from lra_bench.machine.products import contraction
from lra_bench.models.dropout import kept
from lra_bench.models.shapes import HeadFeatures, HeadFeaturesAt, RealPositions, RealSteps, Step

QUERIES_AT_ONCE = 256
"""The number of queries in a group, about."""

KEYS_AT_ONCE = 256
"""The number of keys in a block of a cache."""

FEW = 8
"""The greatest width of a head for which a product of two positions is not worth storing."""

MASKED = -1e10
"""The score of a masked pair of positions. It is not −∞, so that a row with masked scores only has equal weights."""


def attend(
    q: HeadFeatures,
    k: HeadFeatures,
    v: HeadFeatures,
    real: RealPositions | None,
    rate: float,
    key: Array | None,
    causal: bool = False,
) -> HeadFeatures:
    """Compute softmax(q kᵀ / √d) v with dropout on the weights; q, k, v and the result are (L, b, heads, d).

    `real` (L, b) is True where a position is not padding. A pair of positions is masked unless both are real. In the
    LRA code padding attends to all positions equally, which changes nothing except in mean pooling over padding. With
    `causal` no position, padding included, attends to a later one.
    Products are of numbers in q's dtype; their sums, the scores and the softmax are in float32.
    """
    form = _by_group if target_platform() == "gpu" else _by_query
    return form(q, k, v, real, rate, key, causal)


def attend_near(
    q: HeadFeatures,
    k: HeadFeatures,
    v: HeadFeatures,
    real: RealPositions | None,
    window: int,
    class_token: bool,
    causal: bool = False,
) -> HeadFeatures:
    """`attend` without dropout where a position sees those less than `window` steps away, itself included.

    With `class_token`, the first position is no step: it sees all, and the steps see it only where nothing is cut,
    because it would tell each step of all the others.
    """
    L = len(q)
    positions = jnp.arange(L)

    def one(query: tuple[Array, Array, Array | None]) -> Array:
        t, q_t, real_t = query
        near = jnp.abs(positions - t) < window
        if causal:
            near &= positions <= t
        if class_token:
            near = (t == 0) | (near & ((positions > 0) | (window >= L - 1)))
        scores = contraction("bhd,kbhd->bhk", q_t, k) * q.shape[-1] ** -0.5
        if real is not None and real_t is not None:
            scores = jnp.where((real_t & real).T[:, None], scores, MASKED)
        # Below a masked pair within the window, so that padding attends equally to the window, not to all.
        weights = jax.nn.softmax(jnp.where(near, scores, 2 * MASKED)).astype(v.dtype)
        return contraction("bhk,kbhd->bhd", weights, v).astype(q.dtype)

    return lax.map(one, (positions, q, real), batch_size=QUERIES_AT_ONCE)


class Cache(NamedTuple):
    """The keys and the values of the steps so far, both (b, heads, steps, d), with room for so many steps."""

    k: Array
    v: Array

    @classmethod
    def empty(cls, batch: int, heads: int, steps: int, width: int, dtype: Any) -> Cache:
        """A cache of zeros for at least so many steps, which are filled up to whole blocks."""
        room = steps if steps <= KEYS_AT_ONCE else -(-steps // KEYS_AT_ONCE) * KEYS_AT_ONCE
        return cls(*(jnp.zeros((batch, heads, room, width), dtype) for _ in cls._fields))

    def with_step(self, k_t: HeadFeaturesAt, v_t: HeadFeaturesAt, t: Step) -> Cache:
        """The cache with the key and the value of step t."""
        return Cache(
            *(
                lax.dynamic_update_slice_in_dim(old, new[:, :, None], t, 2)
                for old, new in zip(self, (k_t, v_t), strict=True)
            )
        )


def attend_to_past(q_t: HeadFeaturesAt, cache: Cache, real: RealSteps, t: Step) -> HeadFeaturesAt:
    """Causal `attend` without dropout for the query (b, heads, d) of step t alone, which the cache holds already.

    `real` tells which of the cache's steps are not padding. Keys are taken in blocks, and only those that have been
    filled, so that the time grows with t. Between blocks, a running maximum keeps the exponentials finite.
    """
    size = min(KEYS_AT_ONCE, cache.k.shape[2])
    scale, wide = q_t.shape[-1] ** -0.5, jnp.promote_types(q_t.dtype, jnp.float32)

    def block(i: Array, sums: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        largest, total, y = sums
        k, v = (lax.dynamic_slice_in_dim(x, i * size, size, 2) for x in cache)
        seen = (lax.dynamic_slice_in_dim(real, i * size, size) & real[t]).T[:, None]
        scores = jnp.where(seen, contraction("bhd,bhkd->bhk", q_t, k) * scale, MASKED)
        scores = jnp.where(i * size + jnp.arange(size) <= t, scores, -jnp.inf)
        higher = jnp.maximum(largest, scores.max(-1, keepdims=True))
        powers, shrink = jnp.exp(scores - higher), jnp.exp(largest - higher)
        y = y * shrink + contraction("bhk,bhkd->bhd", powers.astype(v.dtype), v)
        return higher, total * shrink + powers.sum(-1, keepdims=True), y

    nothing = jnp.zeros((*q_t.shape[:2], 1), wide)
    start = jnp.full_like(nothing, -jnp.inf), nothing, jnp.zeros(q_t.shape, wide)
    _, total, y = lax.fori_loop(0, t // size + 1, block, start)
    return (y / total).astype(q_t.dtype)


def dropout(x: Array, rate: float, key: Array | None, documents: int, together: int) -> Array:
    """Set single numbers of x to zero at random. `key` None means evaluation, where nothing changes.

    `documents` and `together` say which numbers are of the same document, as for `models.dropout.kept`.
    """
    if key is None or rate == 0.0:
        return x
    return jnp.where(kept(key, rate, x.shape, documents, together), x / (1.0 - rate), 0.0)


def _weight_dropout(weights: Array, rate: float, key: Array | None) -> Array:
    """`dropout` of weights (b, …)."""
    return dropout(weights, rate, key, len(weights), math.prod(weights.shape[1:]))


def _by_query(
    q: Array, k: Array, v: Array, real: Array | None, rate: float, key: Array | None, causal: bool = False
) -> Array:
    """`attend` with a loop over queries."""
    steps = jnp.arange(q.shape[0]) if causal else None

    @jax.checkpoint
    def one(query: tuple[Array, Array | None, Array | None, Array | None]) -> Array:
        q_t, real_t, key_t, t = query
        scores = contraction("bhd,kbhd->bhk", q_t, k) * q.shape[-1] ** -0.5
        if real is not None and real_t is not None:
            scores = jnp.where((real_t & real).T[:, None], scores, MASKED)
        if steps is not None and t is not None:
            scores = jnp.where(steps <= t, scores, -jnp.inf)
        weights = _weight_dropout(jax.nn.softmax(scores), rate, key_t).astype(v.dtype)
        return contraction("bhk,kbhd->bhd", weights, v).astype(q.dtype)

    keys = None if key is None else jax.random.split(key, q.shape[0])
    return lax.map(one, (q, real, keys, steps), batch_size=QUERIES_AT_ONCE)


def _by_group(
    q: Array, k: Array, v: Array, real: Array | None, rate: float, key: Array | None, causal: bool = False
) -> Array:
    """`attend` with a loop over groups of queries, in the layout (b, heads, L, d).

    L is filled up to a multiple of the groups and of 8. The queries beyond L are dropped; the keys there have no
    weight.
    """
    L, b = q.shape[:2]
    groups = max(1, round(L / QUERIES_AT_ONCE))
    size = -(-L // groups)
    size = -(-size // 8) * 8 if groups * size % 8 else size
    fill = groups * size - L
    q, k, v = (jnp.pad(x, ((0, fill), (0, 0), (0, 0), (0, 0))).transpose(1, 2, 0, 3) for x in (q, k, v))
    real = jnp.ones((L, b), bool) if real is None else real
    real = jnp.pad(real, ((0, fill), (0, 0))).T
    inside = jnp.arange(L + fill) < L
    keys = None if key is None or rate == 0.0 else jax.random.split(key, groups)
    steps = jnp.arange(L + fill).reshape(groups, -1) if causal else None
    y = _grouped(q, k, v, _Fixed(real, inside, keys, steps), groups, rate)
    return y[:, :, :L].transpose(2, 0, 1, 3)


class _Fixed(NamedTuple):
    """What attention takes beside queries, keys and values, and what has no gradient."""

    real: Array
    """Whether a position is real (b, L)."""
    inside: Array
    """Whether a position is below the length (L,), not a filling."""
    keys: Array | None
    """A key of the dropout for each group."""
    steps: Array | None
    """The positions (groups, queries) of the queries of each group where attention is causal."""


_Residuals = tuple[Array, Array, Array, _Fixed, Array, Array, Array]
"""Queries, keys, values and what is fixed; then of each group the output, the maxima and the sums."""


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _grouped(q: Array, k: Array, v: Array, fixed: _Fixed, groups: int, rate: float) -> Array:
    """Attention of q on k and v, all (b, heads, L, d), with so many groups of queries."""
    return _forward(q, k, v, fixed, groups, rate)[0]


def _scores(q: Array, k: Array, real: Array, fixed: _Fixed, steps: Array | None) -> tuple[Array, Array]:
    """The scores (b, heads, queries, L) in float32, and where they are not masked (b, 1, queries, L).

    `steps` are the positions (queries,) of the queries where attention is causal.
    """
    seen = (real[:, :, None] & fixed.real[:, None])[:, None]
    scores = _of_pairs(q, k) * q.shape[-1] ** -0.5
    inside = fixed.inside if steps is None else fixed.inside & (jnp.arange(k.shape[2]) <= steps[:, None])
    return jnp.where(inside, jnp.where(seen, scores, MASKED), -jnp.inf), seen


def _of_pairs(a: Array, b: Array) -> Array:
    """The product a bᵀ of (b, heads, queries, d) and (b, heads, L, d), which is (b, heads, queries, L) in float32.

    With few numbers to sum, it is a sum of outer products, which XLA computes where it is used and does not store.
    """
    if a.shape[-1] > FEW:
        return contraction("bhqd,bhkd->bhqk", a, b)
    a, b = _wide(a)[..., None, :], _wide(b)[:, :, None]
    return sum((a[..., i] * b[..., i] for i in range(1, a.shape[-1])), a[..., 0] * b[..., 0])


def _forward(q: Array, k: Array, v: Array, fixed: _Fixed, groups: int, rate: float) -> tuple[Array, _Residuals]:
    def one(group: tuple[Array, Array, Array | None, Array | None]) -> tuple[Array, Array, Array]:
        q_g, real_g, key, steps = group
        scores, _ = _scores(q_g, k, real_g, fixed, steps)
        largest = scores.max(-1, keepdims=True)
        powers = jnp.exp(scores - largest)
        total = powers.sum(-1, keepdims=True)
        if q.shape[-1] <= FEW:
            # All is computed three times. Without the barriers, XLA would store the scores and read them again.
            again, largest = lax.optimization_barrier((q_g, largest))
            total = jnp.exp(_scores(again, k, real_g, fixed, steps)[0] - largest).sum(-1, keepdims=True)
            again, largest, total = lax.optimization_barrier((again, largest, total))
            powers = jnp.exp(_scores(again, k, real_g, fixed, steps)[0] - largest)
        y = contraction("bhqk,bhkd->bhqd", _weight_dropout(powers, rate, key).astype(v.dtype), v) / total
        return y.astype(q.dtype), largest, total

    y, largest, total = lax.map(one, (_split(q, groups), _split(fixed.real, groups, 1), fixed.keys, fixed.steps))
    return _joined(y), (q, k, v, fixed, y, largest, total)


def _backward(groups: int, rate: float, residuals: _Residuals, dy: Array) -> tuple[Array | None, ...]:
    q, k, v, fixed, y, largest, total = residuals

    def one(sums: tuple[Array, Array], group: tuple[Any, ...]) -> tuple[tuple[Array, Array], Array]:
        q_g, real_g, key, steps, y_g, largest_g, total_g, dy_g = group
        scores, seen = _scores(q_g, k, real_g, fixed, steps)
        weights = jnp.exp(scores - largest_g) / total_g
        factors = _weight_dropout(jnp.ones_like(weights), rate, key)
        mean = (_wide(y_g) * _wide(dy_g)).sum(-1, keepdims=True)
        d_weights = _of_pairs(dy_g, v)
        d_scores = jnp.where(seen, weights * (factors * d_weights - mean), 0.0) * q.shape[-1] ** -0.5
        kept_weights, d_scores = (weights * factors).astype(q.dtype), d_scores.astype(q.dtype)
        d_k = sums[0] + contraction("bhqk,bhqd->bhkd", d_scores, q_g)
        d_v = sums[1] + contraction("bhqk,bhqd->bhkd", kept_weights, dy_g)
        return (d_k, d_v), contraction("bhqk,bhkd->bhqd", d_scores, k).astype(q.dtype)

    zero = jnp.zeros(k.shape, jnp.promote_types(k.dtype, jnp.float32))
    of_queries = _split(q, groups), _split(fixed.real, groups, 1), fixed.keys, fixed.steps
    of_groups = *of_queries, y, largest, total, _split(dy, groups)
    (d_k, d_v), d_q = lax.scan(one, (zero, zero), of_groups)
    return _joined(d_q), d_k.astype(k.dtype), d_v.astype(v.dtype), None


_grouped.defvjp(_forward, _backward)


def _wide(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _split(x: Array, groups: int, axis: int = 2) -> Array:
    """The groups of positions, first: (groups, …)."""
    shape = *x.shape[:axis], groups, -1, *x.shape[axis + 1 :]
    return jnp.moveaxis(x.reshape(shape), axis, 0)


def _joined(x: Array) -> Array:
    """The positions (b, heads, L, d) of all groups (groups, b, heads, size, d)."""
    groups, b, heads, size, d = x.shape
    return x.transpose(1, 2, 0, 3, 4).reshape(b, heads, groups * size, d)

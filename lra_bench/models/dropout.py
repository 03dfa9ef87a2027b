"""Dropout, whose random numbers a part of a batch draws as the whole batch would.

JAX's generator is a hash of a number's place in its array, so any places can be drawn alone.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from contextvars import ContextVar
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.random import threefry2x32_p
from jax.typing import DTypeLike

from lra_bench.errors import UserError
from lra_bench.machine.xla import computed_once
from lra_bench.models.shapes import AnyFeatures, DropoutMasks


class _Rows(NamedTuple):
    """The examples that a program computes: their places in a batch, (rows,) int32, and the size of that batch."""

    places: Array
    batch_size: int


_rows: ContextVar[_Rows | None] = ContextVar("rows", default=None)


@contextlib.contextmanager
def rows_of_batch(places: Array, batch_size: int) -> Iterator[None]:
    """Let what is traced inside draw, for the examples at these places (rows,), what it would draw in a whole batch."""
    token = _rows.set(_Rows(places, batch_size))
    try:
        yield
    finally:
        _rows.reset(token)


def kept(key: Array, rate: float, shape: tuple[int, ...], documents: int, together: int) -> Array:
    """Draw whether each number of an array of this shape is kept: True with probability 1 − rate.

    documents: the documents in the array; with two to an example, all first ones stand before all second ones.
    together: the numbers of one document that lie side by side, as H in (L, b, H).

    Raises UserError where a whole batch would draw 2³² numbers or more for `rows_of_batch`.
    """
    rows = _rows.get()
    if rows is None:
        return jax.random.bernoulli(key, 1.0 - rate, shape)
    per_example = documents // len(rows.places)
    whole = per_example * rows.batch_size
    numbers = math.prod(shape)
    if numbers // documents * whole >= 2**32:
        raise UserError(f"a batch of {rows.batch_size} draws too many numbers at once for --microbatch; leave it out.")
    documents_here = jnp.concatenate([rows.places + i * rows.batch_size for i in range(per_example)]).astype(jnp.uint32)
    groups = documents_here + whole * jnp.arange(numbers // (documents * together), dtype=jnp.uint32)[:, None]
    counts = together * groups[..., None] + jnp.arange(together, dtype=jnp.uint32)
    words = jax.random.key_data(key)
    first, second = threefry2x32_p.bind(words[0], words[1], jnp.zeros_like(counts), counts)
    # As in `jax.random.uniform`: 23 bits are the mantissa of a number in [1, 2).
    mantissa = ((first ^ second) >> 9) | jnp.float32(1.0).view(jnp.uint32)
    uniform = jax.lax.bitcast_convert_type(mantissa, jnp.float32) - 1.0
    return (uniform < 1.0 - rate).reshape(shape)


def dropout_masks(key: Array | None, rate: float, shape: tuple[int, ...], dtype: DTypeLike) -> list[Array] | None:
    """Draw the factors of features, 0 or 1/(1 − rate): for each block an array (masks, b, H).

    `shape` is (blocks, masks, b, H). Returns None where nothing is dropped, as in evaluation, which has no key.
    """
    if key is None or rate == 0.0:
        return None

    def draw(key: Array) -> list[Array]:
        # All numbers are drawn as one row. With all axes, drawing them takes the compiler half a second longer, and
        # with one draw for each mask, one second.
        numbers = kept(key, rate, (math.prod(shape),), *shape[2:])
        return list(numbers.astype(dtype).reshape(shape) / (1.0 - rate))

    return computed_once(draw, key, shape, dtype)


def dropout(x: AnyFeatures, masks: DropoutMasks | None, number: int) -> AnyFeatures:
    """Drop features of (L, b, H) by one of the block's masks (masks, b, H), the same ones at all steps."""
    return x if masks is None else (x * masks[number]).astype(x.dtype)


def dropout_each_step(x: AnyFeatures, rate: float, key: Array | None) -> AnyFeatures:
    """Drop single numbers of (L, b, H). Without a key, as in evaluation, nothing is dropped."""
    if key is None or rate == 0.0:
        return x
    return jnp.where(kept(key, rate, x.shape, *x.shape[1:]), x / (1.0 - rate), 0.0)

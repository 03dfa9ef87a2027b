"""Matrix products of tokens and weights, in the precision of the run."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from lra_bench.machine.platform import default_product_precision, target_has_bfloat16_products, target_platform


def product(a: Array, b: Array) -> Array:
    """Compute a @ b of real arrays in a's dtype, summed up and returned in float32 or wider; b has two axes.

    Where exact float32 products are asked for, a GPU with tensor cores for bfloat16 makes three of bfloat16 parts.
    """
    wide = jnp.promote_types(a.dtype, jnp.float32)
    return jnp.dot(a, b.astype(a.dtype), precision=_algorithm(a.dtype), preferred_element_type=wide)


def tokens(x: Array) -> Array:
    """The tokens of x (…, H) as rows of one matrix (n, H), of which XLA on a CPU computes a weight's gradient faster.

    Several devices divide the axis of the documents, and x stays as it is. Merged with that of the steps, XLA cannot
    divide it, and would gather all documents on every device (docs/references.md, "Batches on several devices").
    """
    return x.reshape(-1, x.shape[-1]) if jax.device_count() == 1 else x


def contraction(subscripts: str, a: Array, b: Array) -> Array:
    """Compute jnp.einsum(subscripts, a, b) of arrays of one dtype, such as stacks of matrices, as `product` does."""
    wide = jnp.promote_types(a.dtype, jnp.float32)
    if a.dtype == jnp.bfloat16 and target_platform() == "cpu":
        a, b = a.astype(wide), b.astype(wide)  # the same products; XLA has those of 16 bits for some shapes only
    return jnp.einsum(subscripts, a, b, precision=_algorithm(a.dtype), preferred_element_type=wide)


def exact_product(a: Array, b: Array) -> Array:
    """Compute a @ b of small float32 arrays exactly, where rounding would meet every token."""
    return jnp.dot(a, b, precision=lax.Precision.HIGHEST)


def _algorithm(dtype: Any) -> Any:
    if default_product_precision() == "highest" and dtype == jnp.float32 and target_has_bfloat16_products():
        return lax.DotAlgorithmPreset.BF16_BF16_F32_X3
    return None

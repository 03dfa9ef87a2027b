"""ScaleNorm: root mean square normalization with one learned number for all features.

The sources are Nguyen & Salazar 2019 (arXiv 1910.05895) and facebookresearch/mega fairseq/modules/scale_norm.py.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from lra_bench.models.shapes import AnyFeatures


class ScaleNorm(nnx.Module):
    """Divide the features of each step by the root of their mean square, and multiply them by one number g."""

    def __init__(self, epsilon: float):
        self.scale = nnx.Param(jnp.ones(1), role="norm")
        self.epsilon = epsilon

    def __call__(self, x: AnyFeatures, train: bool) -> AnyFeatures:
        """Normalize (L, b, H), or (b, H) at one step, in the same way in training and evaluation."""
        del train
        y = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        root = jax.lax.rsqrt((y * y).mean(-1, keepdims=True) + self.epsilon)
        return (self.scale[...] * y * root).astype(x.dtype)

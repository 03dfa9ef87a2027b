"""MEGA: gated attention with one head, whose queries, keys and gates come from a moving average of the input.

The sources are Ma et al. 2023 (arXiv 2209.10655) and facebookresearch/mega @ aeaa4b4, with the accuracies of its
examples/mega/README.lra.md. It is a network of its own, not a layer in the S5 block: attention and a feed-forward
network alternate, both with a norm, and dropout draws a mask at each position. MEGA-chunk is the same network with
attention in chunks.

What stands at padding reaches no other position: the moving average takes zeros there, keys there have no weight, and
pooling leaves them out. So the embedding is not set to zero there, as it is in the code.
"""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from lra_bench.errors import UserError
from lra_bench.machine.products import product, tokens
from lra_bench.models import classifier
from lra_bench.models.attention import dropout
from lra_bench.models.chunk_attention import attend_in_chunks
from lra_bench.models.layers import TORCH, DataShape, make_norm, ssm_parameter, wide
from lra_bench.models.remat import rematerialized
from lra_bench.models.shapes import (
    AnyFeatures,
    DenseInput,
    DenseOutput,
    DocumentTokens,
    Lengths,
    Logits,
    Pooled,
    RealPositions,
    Tokens,
)
from lra_bench.models.transformer import split_key
from lra_bench.recipes.mega import Config
from lra_bench.spec import Recipe
from lra_bench.ssm.convolution import channel_major, convolve
from lra_bench.ssm.ema import damped_kernels
from lra_bench.ssm.shapes import Features, Kernels

CONVENTIONS = TORCH
"""The conventions of torch, of which MEGA's code uses those of norms."""

_normal = nnx.initializers.normal(0.02)


def linear(inputs: int, outputs: int, rngs: nnx.Rngs) -> nnx.Linear:
    """Make a dense layer of the blocks: weights normal with deviation 0.02, biases zero."""
    return nnx.Linear(inputs, outputs, kernel_init=_normal, bias_metadata={"role": "bias"}, rngs=rngs)


def dense(layer: nnx.Linear, x: DenseInput) -> DenseOutput:
    """Apply a dense layer to (…, inputs) in x's dtype; returns (…, outputs) in float32."""
    y = product(tokens(x), layer.kernel[...]).reshape(*x.shape[:-1], -1)
    return y if layer.bias is None else y + layer.bias[...]


def stored(y: DenseOutput, x: Features) -> DenseOutput:
    """Round y to the dtype of the activations x, in which it is then kept for the backward pass."""
    return wide(y.astype(x.dtype))


class MovingAverage(nnx.Module):
    """The layer silu(k * u + k' * u + ω u) for (L, b, H), where k sees the past, k' the future, and both see now."""

    def __init__(self, features: int, config: Config, *, rngs: nnx.Rngs):
        shape = 2, features, config.ema_dim

        def normal(deviation: float, *shape: int) -> Array:
            return deviation * jax.random.normal(rngs.params(), shape)

        self.truncation = config.truncation
        self.delta = ssm_parameter(normal(0.2, *shape), "eigenvalues")
        self.alpha = ssm_parameter(normal(0.2, *shape), "eigenvalues")
        signs = jnp.where(jnp.arange(config.ema_dim) % 2, -1.0, 1.0)
        self.beta = ssm_parameter(signs + normal(0.02, *shape), "input")
        self.gamma = ssm_parameter(normal(1.0, *shape), "output")
        self.omega = ssm_parameter(normal(1.0, features), "skip")

    def kernels(self, L: int) -> Kernels:
        """The kernels (2, H, L) of the past with the present, and of the future from the next step on."""
        M = min(self.truncation, L)
        K = damped_kernels(self.delta[...], self.alpha[...], self.beta[...], self.gamma[...], M)
        now = K[:, :, 0].sum(0) + self.omega[...]
        future = jnp.pad(K[1, :, 1:], ((0, 0), (0, 1)))
        return jnp.pad(jnp.stack([K[0].at[:, 0].set(now), future]), ((0, 0), (0, 0), (0, L - M)))

    def __call__(self, u: Features, real: RealPositions | None) -> Features:
        """Apply the layer to (L, b, H), where u counts as zero at padding."""
        u = u if real is None else jnp.where(real[..., None], u, 0.0).astype(u.dtype)
        y = channel_major(convolve(channel_major(u), *self.kernels(len(u))))
        return jax.nn.silu(wide(y)).astype(u.dtype)


class MegaBlock(nnx.Module):
    """A block over (L, b, H): gated attention over a moving average, then a feed-forward network, each with a norm."""

    def __init__(self, recipe: Recipe, config: Config, length: int, *, rngs: nnx.Rngs):
        H, V, z = recipe.d_model, config.hidden_dim, config.z_dim
        self.norm = make_norm(recipe, CONVENTIONS, rngs=rngs)
        self.average = MovingAverage(H, config, rngs=rngs)
        self.value = linear(H, V, rngs)
        self.gates = linear(H, H + z + V + H, rngs)
        self.output = linear(V, H, rngs)
        self.gamma = nnx.Param(_normal(rngs.params(), (2, z)))
        self.beta = nnx.Param(jnp.zeros((2, z)))
        self.bias = nnx.Param(_normal(rngs.params(), (2 * (config.chunk_size or length) - 1,)))
        self.norm_mlp = make_norm(recipe, CONVENTIONS, rngs=rngs)
        self.hidden = linear(H, V, rngs)
        self.back = linear(V, H, rngs)
        self.prenorm, self.rate, self.config = recipe.prenorm, recipe.dropout, config

    def __call__(self, x: Features, real: RealPositions | None, train: bool, key: Array | None) -> Features:
        """Apply the block to (L, b, H); `real` (L, b) is True where a position is not padding, None where all are.

        Products are of numbers in x's dtype, summed in float32. What is added to x is rounded once, in the sum.
        """
        keys = split_key(key, 3)
        y = self._attention(self.norm(x, train) if self.prenorm else x, x, real, keys)
        y = y if self.prenorm else self.norm(y, train)
        normed = self.norm_mlp(y, train) if self.prenorm else y
        inner = jax.nn.silu(stored(dense(self.hidden, normed), x)).astype(x.dtype)
        y = (wide(y) + self._dropped(dense(self.back, inner), keys[2])).astype(x.dtype)
        return y if self.prenorm else self.norm_mlp(y, train)

    def _attention(self, u: Array, x: Array, real: Array | None, keys: list[Array | None]) -> Array:
        """The input x and what attention computes from the normed u, mixed by a gate."""
        H, V, z = x.shape[-1], self.config.hidden_dim, self.config.z_dim
        v = jax.nn.silu(stored(dense(self.value, u), x)).astype(x.dtype)
        average = self._dropped(self.average(u, real), keys[0]).astype(x.dtype)
        gates = stored(dense(self.gates, average), x)
        update, shared, direct = jnp.split(gates, [H, H + z + V], axis=-1)
        shared, reset = jnp.split(jax.nn.silu(shared), [z], axis=-1)
        q, k = ((shared * self.gamma[i] + self.beta[i]).astype(x.dtype) for i in range(2))
        seen = attend_in_chunks(q, k, v, self.bias[...], real, self.config.attention)
        h = jax.nn.silu(direct + dense(self.output, (wide(seen) * reset).astype(x.dtype)))
        h = self._dropped(h, keys[1])
        return (wide(x) + jax.nn.sigmoid(update) * (h - wide(x))).astype(x.dtype)

    def _dropped(self, x: Array, key: Array | None) -> Array:
        return dropout(x, self.rate, key, *x.shape[1:])


class Embedding(nnx.Module):
    """The embedding of tokens, normal with deviation 1/√H, or of pixels, x w + b with deviations 1 and 0.1."""

    def __init__(self, recipe: Recipe, *, rngs: nnx.Rngs):
        H, self.pixels = recipe.d_model, recipe.pixels
        if recipe.embedding is None:
            self.scale = nnx.Param(jax.random.normal(rngs.params(), (H,)))
            self.shift = nnx.Param(0.1 * jax.random.normal(rngs.params(), (H,)))
        else:
            self.table = nnx.Param(H**-0.5 * jax.random.normal(rngs.params(), (recipe.embedding, H)))

    def __call__(self, inputs: DocumentTokens) -> AnyFeatures:
        """Embed inputs (b, L) of uint8 as (L, b, H)."""
        if self.pixels is None:
            return self.table[...][inputs.T.astype(jnp.int32)]
        mean, deviation = classifier.PIXEL_SCALES[self.pixels]
        return ((inputs.T.astype(jnp.float32) - mean) / deviation)[..., None] * self.scale[...] + self.shift[...]


class Head(nnx.Module):
    """The head: pooled features → one hidden layer with dropout, then GELU → logits.

    For pairs, the features of both documents stand side by side.
    """

    def __init__(self, recipe: Recipe, config: Config, shape: DataShape, *, rngs: nnx.Rngs):
        xavier, width = nnx.initializers.xavier_uniform(), recipe.d_model * shape.documents
        self.hidden = nnx.Linear(width, config.hidden_dim, kernel_init=xavier, rngs=rngs)
        self.output = nnx.Linear(config.hidden_dim, shape.classes, use_bias=False, kernel_init=xavier, rngs=rngs)
        self.documents, self.rate = shape.documents, recipe.dropout

    def __call__(self, pooled: Pooled, key: Array | None) -> Logits:
        """Compute logits (b, classes) from pooled features (b, H), or (2b, H) with all first documents before all
        second ones."""
        hidden = self.hidden(jnp.concatenate(jnp.split(pooled, self.documents), axis=-1))
        hidden = dropout(hidden, self.rate, key, *hidden.shape)
        return self.output(jax.nn.gelu(hidden, approximate=False))


class Mega(nnx.Module):
    """The whole network, called as a `Classifier`: inputs (b, L) or (b, 2, L) uint8 → logits (b, classes)."""

    batched_products: ClassVar[bool] = True
    """Whether most of the time goes into products of many small matrices, as in attention."""
    remat: bool = False
    """Whether training keeps only the inputs of blocks and computes the rest again in the backward pass."""
    activations: Any = None
    """The dtype of activations between the embedding and pooling; None means the embedding's. Parameters, the moments
    of norms, attention's scores and logits are in float32."""
    ignores_padding = True
    """Whether, in evaluation, padding changes nothing. In training BatchNorm's statistics include it always."""

    def __init__(self, recipe: Recipe, config: Config, shape: DataShape, *, rngs: nnx.Rngs):
        self.embedding = Embedding(recipe, rngs=rngs)
        self.blocks = nnx.List([MegaBlock(recipe, config, shape.length, rngs=rngs) for _ in range(recipe.n_layers)])
        self.final_norm = make_norm(recipe, CONVENTIONS, rngs=rngs) if recipe.prenorm else None
        self.head = Head(recipe, config, shape, rngs=rngs)
        self.rate, self.shape = recipe.dropout, shape

    def __call__(self, inputs: Tokens, lengths: Lengths, *, train: bool, key: Array | None) -> Logits:
        """Compute the logits of a batch. `key` draws the dropout; None means none."""
        if self.shape.documents == 2:
            inputs, lengths = classifier.as_one_batch(inputs, lengths)
        first, last, *keys = split_key(key, 2 + len(self.blocks))
        true_lengths = lengths if self.shape.variable_length else None
        real = None if true_lengths is None else jnp.arange(inputs.shape[1])[:, None] < true_lengths[None]
        x = self.embedding(inputs)
        x = dropout(x, self.rate, first, *x.shape[1:])
        x = x if self.activations is None else x.astype(self.activations)
        for block, block_key in zip(self.blocks, keys, strict=True):
            arguments = x, real, train, block_key
            x = rematerialized(block, *arguments) if self.remat and train else block(*arguments)
        if self.final_norm is not None:
            x = self.final_norm(x, train)
        return self.head(classifier.pool(wide(x), true_lengths, "mean"), last)


def network(recipe: Recipe, config: Config, shape: DataShape, *, rngs: nnx.Rngs) -> Mega:
    """Make the network of the recipe for data of this shape. Raises UserError for settings that this network lacks."""
    if not recipe.bidirectional:
        raise UserError("MEGA is bidirectional only, because its attention reads all steps of a chunk. Leave it true.")
    if not recipe.residual:
        raise UserError("MEGA's blocks are residual only. Leave residual true.")
    if recipe.pooling != "mean":
        raise UserError(f"MEGA's pooling must be mean, got {recipe.pooling!r}.")
    if shape.channels > 1 or recipe.pixels == "color":
        raise UserError("MEGA reads tokens and shades of gray only, no images in color. Leave pixels as it is.")
    return Mega(recipe, config, shape, rngs=rngs)

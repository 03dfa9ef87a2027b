"""The Transformer encoder of the LRA paper, the reference row of the tables.

The sources are Tay et al. 2021 and google-research/long-range-arena @ cd31e5c6 models/transformer, models/layers. It is
a network of its own, not a layer in the S5 block: pixels are 256 tokens, the head reads one position, positions are
added, and dropout draws a mask at each position. Attention takes the queries in groups and computes their weights again
for the gradient, so that Path-X's 16,384² weights per head are never in memory at once (`attention.py`). The numbers
are the same. Where attention is causal, the network also runs step by step, with a cache of keys and values.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from lra_bench.errors import UserError
from lra_bench.machine.products import product, tokens
from lra_bench.models.attention import Cache, attend, attend_near, attend_to_past, dropout
from lra_bench.models.classifier import InputMask, as_one_batch, pool
from lra_bench.models.layers import DataShape, refuse_steps_if, wide
from lra_bench.models.remat import rematerialized
from lra_bench.models.shapes import (
    DenseInput,
    DenseOutput,
    DocumentLengths,
    DocumentTokens,
    HeadFeatures,
    Lengths,
    Logits,
    Pooled,
    RealPositions,
    RealPositionsAt,
    RealSteps,
    Step,
    StepFeatures,
    Tokens,
    TokensAt,
)
from lra_bench.recipes.transformer import Config
from lra_bench.spec import Recipe
from lra_bench.ssm.shapes import Features, FeaturesAt


def split_key(key: Array | None, n: int) -> list[Array | None]:
    """Split a key into n; None stays None, n times."""
    return [None] * n if key is None else list(jax.random.split(key, n))


def sinusoids(length: int, features: int) -> np.ndarray:
    """The table (L, H) of positions: sines of falling frequency at even features, cosines at odd ones."""
    angle = np.arange(length)[:, None] * 10_000.0 ** (-np.arange(0, features, 2) / features)
    table = np.zeros((length, features), np.float32)
    table[:, 0::2], table[:, 1::2] = np.sin(angle), np.cos(angle)[:, : features // 2]
    return table


def xavier(inputs: int, outputs: int, bias: bool, rngs: nnx.Rngs) -> nnx.Linear:
    """Make a dense layer with Xavier's uniform initialization and, if any, a bias of deviation 1e-6."""
    kernel, offset = jax.nn.initializers.xavier_uniform(), jax.nn.initializers.normal(1e-6)
    return nnx.Linear(inputs, outputs, use_bias=bias, kernel_init=kernel, bias_init=offset, rngs=rngs)


def dense(layer: nnx.Linear, x: DenseInput) -> DenseOutput:
    """Apply a dense layer to tokens (…, inputs) in x's dtype; returns (…, outputs) in float32."""
    y = product(x, layer.kernel[...])
    return y if layer.bias is None else y + layer.bias[...]


def rotation(length: int, width: int) -> np.ndarray:
    """The cosines and sines (2, L, d/2) of the angles t · 10000^(−2i/d), for heads of `width` d."""
    angle = np.arange(length)[:, None] * 10_000.0 ** (-np.arange(0, width, 2) / width)
    return np.stack([np.cos(angle), np.sin(angle)]).astype(np.float32)


def rotated(x: HeadFeatures, rotation: np.ndarray | Array) -> HeadFeatures:
    """Turn the pairs (i, i + d/2) of each head's numbers of (L, b, heads, d) by the angles of `rotation` (2, L, d/2).

    A product of a rotated query and a rotated key depends on the difference of their steps only (Su et al. 2021,
    arXiv 2104.09864, where the pairs are neighbors; which numbers are paired changes nothing but their names).
    """
    cos, sin = rotation[:, :, None, None]
    first, second = jnp.split(wide(x), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, first * sin + second * cos], axis=-1).astype(x.dtype)


class TransformerBlock(nnx.Module):
    """A block over (L, b, H): x + attention(norm x), then x + MLP(norm x)."""

    window: int | None = None
    """How many steps away, less one, a position sees in evaluation; None means all."""

    def __init__(self, recipe: Recipe, config: Config, *, rngs: nnx.Rngs):
        H = recipe.d_model
        self.norm_attention = nnx.LayerNorm(H, rngs=rngs)
        self.query = xavier(H, config.qkv_dim, False, rngs)
        self.key = xavier(H, config.qkv_dim, False, rngs)
        self.value = xavier(H, config.qkv_dim, False, rngs)
        self.output = xavier(config.qkv_dim, H, False, rngs)
        self.norm_mlp = nnx.LayerNorm(H, rngs=rngs)
        self.hidden = xavier(H, config.mlp_dim, True, rngs)
        self.back = xavier(config.mlp_dim, H, True, rngs)
        self.heads, self.rate, self.attention_rate = config.heads, recipe.dropout, config.attention_dropout
        self.rotary, self.causal = config.positions == "rotary", not recipe.bidirectional
        self.class_token = recipe.pooling == "cls"

    def __call__(self, x: Features, real: RealPositions | None, key: Array | None) -> Features:
        """Apply the block to (L, b, H); `real` (L, b) is True where a position is not padding.

        Products are of numbers in x's dtype, summed in float32. What is added to x is rounded once, in the sum.
        """
        keys = split_key(key, 4)
        q, k, v = self.projected(x)
        if self.rotary:
            q, k = (rotated(each, rotation(len(x), each.shape[-1])) for each in (q, k))
        if self.window is None:
            seen = attend(q, k, v, real, self.attention_rate, keys[0], self.causal)
        else:
            seen = attend_near(q, k, v, real, self.window, self.class_token, self.causal)
        return self.after_attention(x, seen, keys[1:])

    def projected(self, x: Features) -> tuple[HeadFeatures, HeadFeatures, HeadFeatures]:
        """The queries, keys and values, (L, b, heads, d) each, of (L, b, H)."""
        normed = self.norm_attention(tokens(x)).astype(x.dtype)
        q, k, v = (
            dense(project, normed).astype(x.dtype).reshape(*x.shape[:2], self.heads, -1)
            for project in (self.query, self.key, self.value)
        )
        return q, k, v

    def after_attention(self, x: Features, seen: HeadFeatures, keys: list[Array | None]) -> Features:
        """The block's output from its input (L, b, H) and what attention saw; three keys draw the dropout."""
        y = tokens(x)
        seen = seen.reshape(*y.shape[:-1], -1)
        y = (wide(y) + dropout(dense(self.output, seen), self.rate, keys[0], *x.shape[1:])).astype(x.dtype)
        inner = dense(self.hidden, self.norm_mlp(y).astype(x.dtype))
        inner = dropout(jax.nn.gelu(inner), self.rate, keys[1], x.shape[1], inner.shape[-1]).astype(x.dtype)
        y = wide(y) + dropout(dense(self.back, inner), self.rate, keys[2], *x.shape[1:])
        return y.astype(x.dtype).reshape(x.shape)

    def empty_cache(self, batch: int, steps: int, dtype: Any) -> Cache:
        """The cache of `batch` documents before the first of so many steps."""
        return Cache.empty(batch, self.heads, steps, self.key.kernel.shape[1] // self.heads, dtype)

    def step(self, cache: Cache, x_t: FeaturesAt, real: RealSteps, t: Step) -> tuple[Cache, FeaturesAt]:
        """Apply the block, as in evaluation, to step t (b, H): the next cache and the output (b, H).

        `real` tells which of the cache's steps are not padding.
        """
        q, k, v = self.projected(x_t[None])
        if self.rotary:
            now = jnp.asarray(rotation(len(real), q.shape[-1]))[:, t][:, None]
            q, k = rotated(q, now), rotated(k, now)
        cache = cache.with_step(k[0], v[0], t)
        seen = attend_to_past(q[0], cache, real, t)
        return cache, self.after_attention(x_t[None], seen[None], [None] * 3)[0]


class CachedReading(NamedTuple):
    """The state of a network that has read a part of its sequences."""

    caches: list[Cache]
    """The keys and values of each block."""
    real: Array
    """Whether a step of the caches is not padding, (steps, b)."""
    total: Array
    """The sum (b, H) of the features over the steps so far, from which pooling makes the mean."""
    steps: Array
    """The number of steps so far, an integer ()."""


class Head(nnx.Module):
    """The head: pooled features → one hidden layer of ReLUs → logits.

    For pairs, the features of both documents stand side by side, and there are two hidden layers.
    """

    def __init__(self, recipe: Recipe, config: Config, shape: DataShape, *, rngs: nnx.Rngs):
        widths = [recipe.d_model * shape.documents, config.mlp_dim]
        widths += [config.mlp_dim // 2] if shape.documents == 2 else []
        self.hidden = nnx.List([nnx.Linear(a, b, rngs=rngs) for a, b in pairwise(widths)])
        self.output = nnx.Linear(widths[-1], shape.classes, rngs=rngs)
        self.documents = shape.documents

    def __call__(self, pooled: Pooled) -> Logits:
        """Compute logits (b, classes) from pooled features (b, H), or (2b, H) with all first documents before all
        second ones."""
        x = jnp.concatenate(jnp.split(pooled, self.documents), axis=-1)
        for layer in self.hidden:
            x = jax.nn.relu(layer(x))
        return self.output(x)


class Transformer(nnx.Module):
    """The whole network, called as a `Classifier`: inputs (b, L) or (b, 2, L) uint8 → logits (b, classes)."""

    batched_products: ClassVar[bool] = True
    """Whether most of the time goes into products of many small matrices, as in attention."""
    remat: bool = False
    """Whether training keeps only the inputs of blocks and computes the rest again in the backward pass."""
    activations: Any = None
    """The dtype of activations between the embedding and pooling; None means the embedding's. Parameters, the moments
    of norms, the softmax and logits are in float32."""
    ignores_padding = True
    """Whether, in evaluation, padding changes nothing."""

    def __init__(self, recipe: Recipe, config: Config, shape: DataShape, *, rngs: nnx.Rngs):
        H = recipe.d_model
        assert recipe.embedding is not None
        self.table = nnx.Param(jax.random.normal(rngs.params(), (recipe.embedding, H)))
        self.class_token = nnx.Param(jnp.zeros(H)) if recipe.pooling == "cls" else None
        steps = shape.length + (recipe.pooling == "cls")
        learned = config.positions == "learned"
        self.learned = nnx.Param(0.02 * jax.random.normal(rngs.params(), (steps, H))) if learned else None
        self.blocks = nnx.List([TransformerBlock(recipe, config, rngs=rngs) for _ in range(recipe.n_layers)])
        self.norm = nnx.LayerNorm(H, rngs=rngs)
        self.head = Head(recipe, config, shape, rngs=rngs)
        self.rate, self.pooling, self.shape = recipe.dropout, recipe.pooling, shape
        self.rotary = config.positions == "rotary"
        # The LRA code's mean is over padding, too. What that code does not have takes the mean over true positions.
        self.pools_true = shape.variable_length and (self.rotary or not recipe.bidirectional)

    def __call__(self, inputs: Tokens, lengths: Lengths, *, train: bool, key: Array | None) -> Logits:
        """Compute the logits of a batch. `key` draws the dropout; None means none."""
        if self.shape.documents == 2:
            inputs, lengths = as_one_batch(inputs, lengths)
        x = self.sequence_features(inputs, lengths, key=key, train=train)
        if self.pooling in ("cls", "first"):
            return self.head(x[0])
        return self.head(pool(x, lengths if self.pools_true else None, "mean"))

    def sequence_features(
        self,
        inputs: DocumentTokens,
        lengths: DocumentLengths,
        *,
        train: bool,
        key: Array | None,
        mask: InputMask | None = None,
    ) -> StepFeatures:
        """Compute the features (L, b, H) of each position, before pooling, in float32; of the class token first."""
        first, *keys = split_key(key, 1 + len(self.blocks))
        real = self.true_steps(inputs, lengths)
        x = self.table[...][inputs.T.astype(jnp.int32)]
        if mask is not None:
            # A masked pixel may be black, which nobody is to know.
            x, real = mask.put_into(x), real if self.shape.variable_length else real | mask.masked
        if self.class_token is not None:
            token = jnp.broadcast_to(self.class_token[...], (1, *x.shape[1:]))
            x, real = jnp.concatenate([token, x]), jnp.concatenate([real[:1], real])
        if not self.rotary:
            table = sinusoids(x.shape[0], x.shape[2]) if self.learned is None else self.learned[...]
            x = x + table[:, None]
        x = dropout(x, self.rate, first, *x.shape[1:])
        x = x if self.activations is None else x.astype(self.activations)
        for block, block_key in zip(self.blocks, keys, strict=True):
            x = rematerialized(block, x, real, block_key) if self.remat and train else block(x, real, block_key)
        return self.norm(wide(x))

    def true_steps(self, inputs: DocumentTokens, lengths: DocumentLengths) -> RealPositions:
        """The mask (L, b) of real positions: those below the length in texts, and those that are not black in images.

        That is the LRA code's rule, by which 0 is padding at any place. The class token is real if the first position
        is.
        """
        if self.shape.variable_length:
            return jnp.arange(inputs.shape[1])[:, None] < lengths[None]
        return inputs.T > 0

    def initial_state(self, batch: int) -> CachedReading:
        """The state of `batch` documents before their first step, with room for as many steps as the data is long.

        Raises UserError for a bidirectional network.
        """
        refuse_steps_if(not self.blocks[0].causal)
        dtype = self.table[...].dtype if self.activations is None else self.activations
        caches = [block.empty_cache(batch, self.shape.length, dtype) for block in self.blocks]
        real = jnp.zeros((caches[0].k.shape[2], batch), bool)
        return CachedReading(caches, real, jnp.zeros((batch, self.table.shape[1])), jnp.zeros((), jnp.int32))

    def step(self, state: CachedReading, inputs_t: TokensAt) -> tuple[CachedReading, Logits]:
        """Read one input (b,) of each document: the next state, and the logits of evaluation on all inputs so far."""
        t = state.steps
        x_t = self.table[...][inputs_t.astype(jnp.int32)]
        if not self.rotary:
            table = jnp.asarray(sinusoids(len(state.real), x_t.shape[1])) if self.learned is None else self.learned[...]
            x_t = x_t + table[t]
        x_t = x_t if self.activations is None else x_t.astype(self.activations)
        real = state.real.at[t].set(self.true_step(inputs_t))
        caches = []
        for block, cache in zip(self.blocks, state.caches, strict=True):
            cache, x_t = block.step(cache, x_t, real, t)
            caches.append(cache)
        total = state.total + self.norm(wide(x_t))
        return CachedReading(caches, real, total, t + 1), self.head(total / (t + 1))

    def true_step(self, inputs_t: TokensAt) -> RealPositionsAt:
        """Whether the inputs (b,) of one step are real positions, by the rule of `true_steps`: all are in texts."""
        return jnp.full(inputs_t.shape, True) if self.shape.variable_length else inputs_t > 0


def network(recipe: Recipe, config: Config, shape: DataShape, *, rngs: nnx.Rngs) -> Transformer:
    """Make the network of the recipe for data of this shape. Raises UserError for settings that this encoder lacks."""
    fixed = {"norm": "layer", "prenorm": True, "residual": True, "pixels": None}
    for name, value in fixed.items():
        if getattr(recipe, name) != value:
            raise UserError(f"the transformer has {name} = {value} only, got {getattr(recipe, name)!r}.")
    if recipe.pooling not in ("cls", "first", "mean"):
        raise UserError(f"the transformer's pooling must be cls, first or mean, got {recipe.pooling!r}.")
    if recipe.pooling != "mean" and not recipe.bidirectional:
        raise UserError(
            "bidirectional = False needs pooling = mean, because the transformer's head reads the first position, "
            "which would see nothing else. Type --set pooling=mean."
        )
    if shape.channels > 1:
        raise UserError("the transformer reads tokens and shades of gray only, no images in color.")
    return Transformer(recipe, config, shape, rngs=rngs)

"""The whole network: encoder, a stack of blocks, pooling, head.

Inputs arrive as prepared data has them, (b, L) or (b, 2, L) of uint8; inside, time leads: (L, b, H).
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from lra_bench.errors import UserError
from lra_bench.models.layers import Block, Conventions, DataShape, Dense, dropout_masks, gelu, make_norm
from lra_bench.models.remat import rematerialized
from lra_bench.spec import Recipe

PIXEL_SCALES: dict[str, tuple[float, float]] = {
    "unit": (0.0, 255.0),
    "signed": (127.5, 127.5),
    "standard": (122.6, 61.0),
}
"""(mean, deviation) of the uint8 scale: S4 Pathfinder; S5 Pathfinder; CIFAR-10 in gray (docs/references.md,
"Pixel scales")."""


class InputEncoder(nnx.Module):
    """uint8 tokens or pixels (L, b) → features (L, b, H)."""

    def __init__(self, recipe: Recipe, conventions: Conventions, *, rngs: nnx.Rngs):
        self.pixels = recipe.pixels
        self.token_bias = conventions.token_bias and recipe.pixels is None
        if recipe.pixels is not None or self.token_bias:
            self.dense = Dense(recipe.embedding or 1, recipe.d_model, conventions, rngs=rngs)
        else:
            assert recipe.embedding is not None
            self.table = nnx.Param(jax.random.normal(rngs.params(), (recipe.embedding, recipe.d_model)))

    def __call__(self, inputs: Array) -> Array:
        if self.pixels is not None:
            mean, deviation = PIXEL_SCALES[self.pixels]
            return self.dense(((inputs.astype(self.dense.kernel.dtype) - mean) / deviation)[..., None])
        table = self.dense.kernel[...] + self.dense.bias[...] if self.token_bias else self.table[...]
        return table[inputs.astype(jnp.int32)]


def pool(x: Array, lengths: Array | None, how: str) -> Array:
    """(L, b, H) → (b, H); `lengths` (b,) restricts the mean, or picks the last step, to true positions."""
    if how == "last":
        return x[-1] if lengths is None else x[lengths - 1, jnp.arange(x.shape[1])]
    if lengths is None:
        return x.mean(0)
    # Not an einsum: as a batched product of matrix and vector this sum takes a quarter of an evaluation.
    mask = (jnp.arange(x.shape[0])[:, None, None] < lengths[None, :, None]).astype(x.dtype)
    return (x * mask).sum(0) / lengths[:, None].astype(x.dtype)


class PairHead(nnx.Module):
    """Retrieval: [a, b, a − b, a·b] → Dense(H) → GELU → Dense(classes)."""

    def __init__(self, features: int, classes: int, conventions: Conventions, *, rngs: nnx.Rngs):
        self.hidden = Dense(4 * features, features, conventions, rngs=rngs)
        self.output = Dense(features, classes, conventions, rngs=rngs)
        self.conventions = conventions

    def __call__(self, pooled: Array) -> Array:
        a, b = jnp.split(pooled, 2, axis=0)
        return self.output(gelu(self.hidden(jnp.concatenate([a, b, a - b, a * b], axis=-1)), self.conventions))


def as_one_batch(inputs: Array, lengths: Array) -> tuple[Array, Array]:
    """Pairs of documents (b, 2, L) and (b, 2) as 2b documents: the first of every pair, then the second."""
    return jnp.concatenate([inputs[:, 0], inputs[:, 1]]), jnp.concatenate([lengths[:, 0], lengths[:, 1]])


class Reading(NamedTuple):
    """A network half-way through its sequences: the state of each block, and what pooling has seen of the b
    documents."""

    blocks: list[Any]
    total: Array
    steps: Array


class Classifier(nnx.Module):
    """The whole network: inputs (b, L) or (b, 2, L) uint8 and lengths (b,) or (b, 2) → logits (b, classes)."""

    batched_products: ClassVar[bool] = False
    """Whether its time goes into products of many small matrices, as in attention."""
    remat: bool = False
    """Whether training computes what is inside the blocks again in the backward pass, instead of keeping it."""

    def __init__(
        self, recipe: Recipe, shape: DataShape, blocks: list[Block], conventions: Conventions, *, rngs: nnx.Rngs
    ):
        if recipe.pooling == "cls":
            raise UserError("pooling must be mean or last, got 'cls': only the transformer has a class token.")
        self.encoder = InputEncoder(recipe, conventions, rngs=rngs)
        self.blocks = nnx.List(blocks)
        has_final_norm = conventions.final_norm and recipe.prenorm
        self.final_norm = make_norm(recipe, conventions, rngs=rngs) if has_final_norm else None
        if shape.documents == 2:
            self.head: PairHead | Dense = PairHead(recipe.d_model, shape.classes, conventions, rngs=rngs)
        else:
            self.head = Dense(recipe.d_model, shape.classes, conventions, rngs=rngs)
        self.pooling, self.dropout = recipe.pooling, recipe.dropout
        self.ignores_padding = conventions.mask_before_layer or not recipe.bidirectional
        """In evaluation. In training BatchNorm's statistics see padding in either case."""
        self.features = recipe.d_model
        self.shape = shape

    def __call__(self, inputs: Array, lengths: Array, *, train: bool, key: Array | None) -> Array:
        if self.shape.documents == 2:
            inputs, lengths = as_one_batch(inputs, lengths)
        return self.classify(self.encoder(inputs.T), lengths, train=train, key=key)

    def classify(self, x: Array, lengths: Array, *, train: bool, key: Array | None) -> Array:
        """Encoded inputs (L, b, H) → logits. Two documents: the first of every pair, then the second."""
        true_lengths = lengths if self.shape.variable_length else None
        mask = None
        if true_lengths is not None:
            mask = (jnp.arange(x.shape[0])[:, None, None] < true_lengths[None, :, None]).astype(x.dtype)
        shape = len(self.blocks), max(block.gate.masks for block in self.blocks), *x.shape[1:]
        masks = dropout_masks(key, self.dropout, shape, x.dtype)
        for i, block in enumerate(self.blocks):
            arguments = x, mask, train, None if masks is None else masks[i]
            x = rematerialized(block, *arguments) if self.remat and train else block(*arguments)
        if self.final_norm is not None:
            x = self.final_norm(x, train)
        return self.head(pool(x, true_lengths, self.pooling))

    def initial_state(self, batch: int) -> Reading:
        """The state of `batch` documents before their first step. Raises UserError where a layer has no causal form."""
        zero = jnp.zeros((batch, self.features))
        return Reading([block.initial_state(batch) for block in self.blocks], zero, jnp.zeros((), jnp.int32))

    def step(self, state: Reading, inputs_t: Array) -> tuple[Reading, Array]:
        """One input (b,) of each document → logits of what was read so far, as evaluation would give them."""
        x_t, blocks = self.encoder(inputs_t), []
        for block, block_state in zip(self.blocks, state.blocks, strict=True):
            block_state, x_t = block.step(block_state, x_t)
            blocks.append(block_state)
        if self.final_norm is not None:
            x_t = self.final_norm(x_t, False)
        state = Reading(blocks, state.total + x_t, state.steps + 1)
        return state, self.head(x_t if self.pooling == "last" else state.total / state.steps)


def count_parameters(module: nnx.Module) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))

"""The whole network: an encoder, a stack of blocks, pooling and a head.

Inputs have the shape of prepared data: (b, L), (b, 2, L) or (b, L, 3) of uint8. Inside, time leads: (L, b, H).
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from lra_bench.data.raw import cifar
from lra_bench.errors import UserError
from lra_bench.models.dropout import dropout_masks
from lra_bench.models.fused import can_fuse, fused, fused_evaluation, moments_of
from lra_bench.models.layers import Block, Conventions, DataShape, Dense, gelu, make_norm, wide
from lra_bench.models.remat import rematerialized
from lra_bench.models.shapes import (
    AnyFeatures,
    DocumentFeatures,
    DocumentLengths,
    DocumentTokens,
    Lengths,
    LengthsOfPairs,
    Logits,
    Mask,
    PerFeature,
    Pooled,
    RealPositions,
    TimeMajorTokens,
    Tokens,
    TokensAt,
    TokensOfPairs,
)
from lra_bench.spec import Recipe
from lra_bench.ssm.shapes import Features

PIXEL_SCALES: dict[str, tuple[Any, Any]] = {
    "unit": (0.0, 255.0),
    "signed": (127.5, 127.5),
    "standard": (122.6, 61.0),
    "color": (np.array(cifar.MEANS, np.float32), np.array(cifar.DEVIATIONS, np.float32)),
}
"""The mean and the standard deviation of pixels, on their scale from 0 to 255: of S4's Pathfinder, S5's Pathfinder, and
CIFAR-10 in gray and by color (docs/references.md, "Pixel scales")."""


class InputEncoder(nnx.Module):
    """The encoder: tokens or pixels (L, b), or pixels in color (L, b, 3), of uint8 → features (L, b, H).

    Raises UserError where the recipe's form of inputs does not go with their number of channels.
    """

    def __init__(self, recipe: Recipe, conventions: Conventions, channels: Literal[1, 3] = 1, *, rngs: nnx.Rngs):
        refuse_other_channels(recipe, channels)
        self.pixels, self.channels = recipe.pixels, channels
        self.token_bias = conventions.token_bias and recipe.pixels is None
        if recipe.pixels is not None or self.token_bias:
            self.dense = Dense(recipe.embedding or channels, recipe.d_model, conventions, rngs=rngs)
        else:
            assert recipe.embedding is not None
            self.table = nnx.Param(jax.random.normal(rngs.params(), (recipe.embedding, recipe.d_model)))

    def __call__(self, inputs: TimeMajorTokens) -> AnyFeatures:
        """Encode inputs (L, b) or (L, b, 3); without L at one step."""
        if self.pixels is not None:
            mean, deviation = PIXEL_SCALES[self.pixels]
            scaled = (inputs.astype(self.dense.kernel.dtype) - mean) / deviation
            return self.dense(scaled[..., None] if self.channels == 1 else scaled)
        # A one-hot vector times the dense layer is a row of its kernel plus the bias.
        table = self.dense.kernel[...] + self.dense.bias[...] if self.token_bias else self.table[...]
        return table[inputs.astype(jnp.int32)]


def refuse_other_channels(recipe: Recipe, channels: int) -> None:
    """Check the recipe's form of inputs. Raises UserError where it does not go with their number of channels."""
    if channels > 1 and recipe.pixels is None:
        raise UserError("images in color are no tokens. Type --set embedding=null --set pixels=color.")
    if channels == 1 and recipe.pixels == "color":
        raise UserError("pixels=color is the scale of images in color; these inputs take unit, signed or standard.")


def pool(x: DocumentFeatures, lengths: DocumentLengths | None, how: str) -> Pooled:
    """Pool (L, b, H) over the length to (b, H), by `how`: the mean, that of the last half, or the last step.

    With `lengths` (b,), the mean is over true positions only, and the last step is the last true one.
    """
    if how == "last":
        return x[-1] if lengths is None else x[lengths - 1, jnp.arange(x.shape[1])]
    half = how == "last_half"
    if lengths is None:
        return x[x.shape[0] // 2 :].mean(0) if half else x.mean(0)
    # This is no einsum, because as a batched product of matrix and vector the sum takes a quarter of an evaluation.
    steps = jnp.arange(x.shape[0])[:, None, None]
    mask = (steps < lengths[None, :, None]).astype(x.dtype)
    if half:
        mask, lengths = mask * (steps >= lengths[None, :, None] // 2), lengths - lengths // 2
    return (x * mask).sum(0) / lengths[:, None].astype(x.dtype)


class InputMask(NamedTuple):
    """Which positions of the documents are hidden from a network, and the features that stand in their place."""

    masked: RealPositions
    """Whether a position is hidden (L, b)."""
    vector: PerFeature
    """What every hidden position has instead of its encoded input, (H,)."""

    def put_into(self, x: DocumentFeatures) -> DocumentFeatures:
        """Replace the hidden positions of encoded inputs (L, b, H)."""
        return jnp.where(self.masked[..., None], self.vector, x)


class PairHead(nnx.Module):
    """The head for pairs of documents (Retrieval): [a, b, a − b, a·b] → Dense(H) → GELU → Dense(classes)."""

    def __init__(self, features: int, classes: int, conventions: Conventions, *, rngs: nnx.Rngs):
        self.hidden = Dense(4 * features, features, conventions, rngs=rngs)
        self.output = Dense(features, classes, conventions, rngs=rngs)
        self.conventions = conventions

    def __call__(self, pooled: Pooled) -> Logits:
        """Compute logits (b, classes) from the features (2b, H) of all first documents, then all second ones."""
        a, b = jnp.split(pooled, 2, axis=0)
        return self.output(gelu(self.hidden(jnp.concatenate([a, b, a - b, a * b], axis=-1)), self.conventions))


def as_one_batch(inputs: TokensOfPairs, lengths: LengthsOfPairs) -> tuple[DocumentTokens, DocumentLengths]:
    """Rearrange pairs of documents (b, 2, L) and (b, 2) to 2b documents: all first ones, then all second ones."""
    return jnp.concatenate([inputs[:, 0], inputs[:, 1]]), jnp.concatenate([lengths[:, 0], lengths[:, 1]])


class Reading(NamedTuple):
    """The state of a network that has read a part of its sequences."""

    blocks: list[Any]
    """The state of each block."""
    total: Array
    """The sum (b, H) over the steps so far, from which pooling makes the mean."""
    steps: Array
    """The number of steps so far, an integer ()."""


class Classifier(nnx.Module):
    """The whole network: inputs (b, L), (b, 2, L) or (b, L, 3) uint8, lengths (b,) or (b, 2) → logits (b, classes).

    Raises UserError where the recipe's pooling is `cls` or `first`.
    """

    batched_products: ClassVar[bool] = False
    """Whether most of the time goes into products of many small matrices, as in attention."""
    remat: bool = False
    """Whether training keeps only the inputs of blocks and computes the rest again in the backward pass."""
    activations: Any = None
    """The dtype of activations between the encoder and pooling; None means the encoder's. Parameters, moments and
    logits are in float32."""

    def __init__(
        self, recipe: Recipe, shape: DataShape, blocks: list[Block], conventions: Conventions, *, rngs: nnx.Rngs
    ):
        if recipe.pooling in ("cls", "first"):
            legal = "mean, last or last_half"
            raise UserError(f"pooling must be {legal}, got {recipe.pooling!r}, which only the transformer has.")
        self.encoder = InputEncoder(recipe, conventions, shape.channels, rngs=rngs)
        self.blocks = nnx.List(blocks)
        has_final_norm = conventions.final_norm and recipe.prenorm
        self.final_norm = make_norm(recipe, conventions, rngs=rngs) if has_final_norm else None
        if shape.documents == 2:
            self.head: PairHead | Dense = PairHead(recipe.d_model, shape.classes, conventions, rngs=rngs)
        else:
            self.head = Dense(recipe.d_model, shape.classes, conventions, rngs=rngs)
        self.pooling, self.dropout = recipe.pooling, recipe.dropout
        self.ignores_padding = conventions.mask_before_layer or not recipe.bidirectional
        """Whether, in evaluation, padding changes nothing. In training BatchNorm's statistics include it always."""
        self.features = recipe.d_model
        self.shape = shape

    def __call__(self, inputs: Tokens, lengths: Lengths, *, train: bool, key: Array | None) -> Logits:
        """Compute the logits of a batch. `key` draws the dropout; None means none."""
        if self.shape.documents == 2:
            inputs, lengths = as_one_batch(inputs, lengths)
        return self.classify(self.encoder(jnp.swapaxes(inputs, 0, 1)), lengths, train=train, key=key)

    def classify(self, x: DocumentFeatures, lengths: DocumentLengths, *, train: bool, key: Array | None) -> Logits:
        """Compute the logits (b, classes) of encoded inputs (L, b, H).

        With two documents to an example, the inputs are (L, 2b, H): all first ones, then all second ones.
        """
        features = self.after_blocks(x, lengths, train=train, key=key)
        return self.head(pool(features, lengths if self.shape.variable_length else None, self.pooling))

    def sequence_features(
        self,
        inputs: DocumentTokens,
        lengths: DocumentLengths,
        *,
        train: bool,
        key: Array | None,
        mask: InputMask | None = None,
    ) -> DocumentFeatures:
        """Compute the features (L, b, H) of each position, before pooling, in float32."""
        x = self.encoder(inputs.T)
        return self.after_blocks(x if mask is None else mask.put_into(x), lengths, train=train, key=key)

    def after_blocks(
        self, x: DocumentFeatures, lengths: DocumentLengths, *, train: bool, key: Array | None
    ) -> DocumentFeatures:
        """Compute the features (L, b, H) of encoded inputs (L, b, H) after all blocks and the last norm, in float32."""
        x = self.stored(x)
        mask = None
        if self.shape.variable_length:
            mask = (jnp.arange(x.shape[0])[:, None, None] < lengths[None, :, None]).astype(x.dtype)
        x = self.through_blocks(x, mask, train=train, key=key)
        return wide(x if self.final_norm is None else self.final_norm(x, train))

    def through_blocks(self, x: Features, mask: Mask | None, *, train: bool, key: Array | None) -> Features:
        """Apply all blocks to (L, b, H). `mask` (L, b, 1) is zero on padding."""
        step_key = None
        if key is not None and any(block.draws_each_step for block in self.blocks):
            key, step_key = jax.random.split(key)
        shape = len(self.blocks), max(block.masks for block in self.blocks), *x.shape[1:]
        masks = dropout_masks(key, self.dropout, shape, jnp.promote_types(x.dtype, jnp.float32))
        moments = None
        for i, block in enumerate(self.blocks):
            if not (train and self.remat) and can_fuse(block, x):
                if train:
                    moments = moments_of(x) if moments is None else moments
                    x, moments = fused(block, x, moments, None if masks is None else masks[i])
                else:
                    x = fused_evaluation(block, x)
                continue
            own_key = None if step_key is None else jax.random.fold_in(step_key, i)
            arguments = x, mask, train, None if masks is None else masks[i], own_key
            x = rematerialized(block, *arguments) if self.remat and train else block(*arguments)
        return x

    def stored(self, x: AnyFeatures) -> AnyFeatures:
        """The features in the dtype of activations."""
        return x if self.activations is None else x.astype(self.activations)

    def initial_state(self, batch: int) -> Reading:
        """The state of `batch` documents before their first step. Raises UserError where a layer has no step, or where
        pooling must know the length."""
        if self.pooling == "last_half":
            raise UserError("with pooling=last_half a network cannot run step by step. Type --set pooling=mean.")
        zero = jnp.zeros((batch, self.features))
        return Reading([block.initial_state(batch) for block in self.blocks], zero, jnp.zeros((), jnp.int32))

    def step(self, state: Reading, inputs_t: TokensAt) -> tuple[Reading, Logits]:
        """Read one input of each document: the next state, and the logits of evaluation on all inputs so far.

        Inputs are (b,), or (b, 3) in color.
        """
        x_t, blocks = self.stored(self.encoder(inputs_t)), []
        for block, block_state in zip(self.blocks, state.blocks, strict=True):
            block_state, x_t = block.step(block_state, x_t)
            blocks.append(block_state)
        if self.final_norm is not None:
            x_t = self.final_norm(x_t, False)
        x_t = wide(x_t)
        state = Reading(blocks, state.total + x_t, state.steps + 1)
        return state, self.head(x_t if self.pooling == "last" else state.total / state.steps)


def count_parameters(module: nnx.Module) -> int:
    """The number of trained numbers of a module."""
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))

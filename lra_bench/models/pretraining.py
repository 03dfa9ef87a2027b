"""A network that learns to predict its own inputs, before it is trained on a task.

The network of the task has its head taken off. A dense layer predicts the input at each position instead: hidden ones
(masked), or the one that comes next (causal).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

from lra_bench.models.classifier import PIXEL_SCALES, InputMask, as_one_batch
from lra_bench.models.layers import FLAX, Dense
from lra_bench.models.network import PretrainableNetwork
from lra_bench.models.shapes import (
    DocumentLengths,
    DocumentTokens,
    Lengths,
    PositionLosses,
    Predictions,
    RealPositions,
    TimeMajorDocuments,
    Tokens,
)
from lra_bench.runs.pretraining import Pretraining
from lra_bench.spec import Recipe

PIXEL_VALUES = 256
"""The values of a pixel, which is what cross-entropy is over where pixels enter as real numbers."""


def hidden_positions(key: Array, ratio: float, lengths: DocumentLengths, length: int) -> RealPositions:
    """Draw the positions (L, b) of documents of these lengths to hide: each with probability `ratio`, padding never."""
    drawn = jax.random.bernoulli(key, ratio, (length, lengths.shape[0]))
    return drawn & (jnp.arange(length)[:, None] < lengths)


def next_inputs(inputs: TimeMajorDocuments, lengths: DocumentLengths) -> tuple[TimeMajorDocuments, RealPositions]:
    """The input (L, b) that follows each position, and whether there is one that is not padding."""
    there = jnp.arange(1, inputs.shape[0] + 1)[:, None] < lengths
    return jnp.roll(inputs, -1, axis=0), there


def position_losses(
    predicted: Predictions, targets: TimeMajorDocuments, pixels: tuple[float, float] | None
) -> PositionLosses:
    """The loss (L, b) of each position.

    It is the cross-entropy of predictions (L, b, values); where `pixels` gives the mean and the deviation of a scale,
    it is the distance of predictions (L, b, 1) from the pixels on that scale.
    """
    if pixels is None:
        return optax.softmax_cross_entropy_with_integer_labels(predicted, targets.astype(jnp.int32))
    mean, deviation = pixels
    return jnp.abs(predicted[..., 0] - (targets.astype(jnp.float32) - mean) / deviation)


class Predictor(nnx.Module):
    """The network of a task without its head, and a dense layer that predicts the input at each position."""

    def __init__(self, network: Any, recipe: Recipe, pretraining: Pretraining, *, rngs: nnx.Rngs):
        network.head = None
        self.network: PretrainableNetwork = network
        values, H = recipe.embedding or PIXEL_VALUES, recipe.d_model
        self.pixels = PIXEL_SCALES[recipe.pixels or "standard"] if pretraining.pretrain_loss == "l1" else None
        self.output = Dense(H, values if self.pixels is None else 1, FLAX, rngs=rngs)
        self.ratio = pretraining.mask_ratio
        masked = self.ratio is not None
        self.mask_vector = nnx.Param(jax.random.normal(rngs.params(), (H,))) if masked else None

    @property
    def batched_products(self) -> bool:
        """Whether most of the time goes into products of many small matrices, as in attention."""
        return self.network.batched_products

    def __call__(
        self, inputs: Tokens, lengths: Lengths, mask_key: Array, *, train: bool, key: Array | None
    ) -> tuple[PositionLosses, RealPositions]:
        """Compute the loss (L, documents) of each position, and at which of them something was to be predicted.

        `mask_key` draws what is hidden, and `key` the dropout; None means none. Of pairs, all first documents come
        before all second ones.
        """
        if inputs.ndim == 3:
            inputs, lengths = as_one_batch(inputs, lengths)
        return self.losses(inputs, lengths, mask_key, train=train, key=key)

    def losses(
        self, inputs: DocumentTokens, lengths: DocumentLengths, mask_key: Array, *, train: bool, key: Array | None
    ) -> tuple[PositionLosses, RealPositions]:
        """Compute what a call does, where every document has its own row."""
        targets, mask = inputs.T, None
        if self.ratio is not None and self.mask_vector is not None:
            wanted = hidden_positions(mask_key, self.ratio, lengths, inputs.shape[1])
            mask = InputMask(wanted, self.mask_vector[...])
        else:
            targets, wanted = next_inputs(targets, lengths)
        features = self.network.sequence_features(inputs, lengths, train=train, key=key, mask=mask)
        predicted = self.output(features[-inputs.shape[1] :])  # a class token, which comes first, predicts nothing
        return position_losses(predicted, targets, self.pixels), wanted

"""What the programs on the device take and give, and the random streams of a run."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array


class Examples(NamedTuple):
    """Rows on the device: inputs (n, L), (n, 2, L) or (n, L, 3) uint8, lengths (n,) or (n, 2), labels (n,) int32."""

    inputs: Array
    lengths: Array
    labels: Array


class Batches(NamedTuple):
    """What the training program runs through: batches `first` … `first` + `n` − 1 of `order`, rows of `examples`."""

    examples: Examples
    order: Array  # (rows,) int32
    first: Array  # () int32
    n: Array  # () int32


class EvalRows(NamedTuple):
    """What the evaluation program scores: the first `n` rows of `examples`, in their own order."""

    examples: Examples
    n: Array  # () int32


class Totals(NamedTuple):
    """Sums over the examples seen: of the loss, and of correct answers."""

    loss: Array
    correct: Array

    @staticmethod
    def zero() -> Totals:
        """The totals before the first example."""
        return Totals(jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32))


class TrainState(NamedTuple):
    """All that a training step changes.

    The order of the examples and the dropout follow from `step` and the seed, so this is enough to resume.
    """

    params: nnx.State
    stats: nnx.State
    optimizer: optax.OptState
    step: Array
    totals: Totals
    """Sums over the current epoch."""
    first_bad: Array
    """Number of the first step whose loss or gradient was not finite; −1 while there is none."""


def stream_key(seed: int, stream: int) -> Array:
    """The key of an independent random stream of a run: 0 parameters, 1 order of the examples, 2 dropout.

    Those of its self-pretraining are 3, masks and dropout, and 4, the masks of validation.
    """
    return jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), stream)


@partial(jax.jit, static_argnames="n")
def epoch_order(key: Array, epoch: Array, n: int) -> Array:
    """The order (n,) in which `epoch` visits the n training examples."""
    return jax.random.permutation(jax.random.fold_in(key, epoch), n)

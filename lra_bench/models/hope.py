"""HOPE-SSM: a state space for each feature, with the Markov parameters of its Hankel operator as the parameters.

The sources are Yu et al. 2025 (arXiv 2405.13975) and AnnanYu/HOPE-SSM @ 553ffde, a fork of state-spaces/s4. It has two
forms. In `models/s4/HOPE_SSM.py`, of Image, Pathfinder and Path-X, the network sees each sequence and its reversal as
one of 2L steps. In `src/models/sequence/modules/s4block.py`, of the other three, each layer joins the two, and its two
outputs enter the dense layer side by side.
"""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from lra_bench.errors import UserError
from lra_bench.models.classifier import Classifier
from lra_bench.models.dropout import dropout
from lra_bench.models.layers import (
    TORCH,
    Block,
    Conventions,
    DataShape,
    Dense,
    GLUOutput,
    as_complex,
    as_pair,
    gelu,
    ssm_parameter,
    wide,
)
from lra_bench.models.long_convolution import block_around, dt_of, initial_inv_dt, normal_C, skip_weights
from lra_bench.models.shapes import DenseInput, DenseOutput, DropoutMasks, Mask
from lra_bench.recipes.hope import Config
from lra_bench.spec import Recipe
from lra_bench.ssm.convolution import channel_major, convolve_circular
from lra_bench.ssm.hankel import circular_kernel
from lra_bench.ssm.shapes import CircularKernel, Features, PairedFeatures

LAYER_CONVENTIONS = replace(TORCH, output_dropout="none")
"""The conventions of the fork of state-spaces/s4, of the form in which layers join a sequence with its reversal."""

NETWORK_CONVENTIONS = replace(LAYER_CONVENTIONS, final_norm=False)
"""The conventions of the scripts, of the form in which the network sees both."""


class HankelConvolution(nnx.Module):
    """The parameters of both forms, and their circular convolution kernel.

    Raises UserError where the recipe is causal, or `n_ssm` does not divide the features.
    """

    def __init__(self, recipe: Recipe, config: Config, *, rngs: nnx.Rngs):
        if not recipe.bidirectional:
            raise UserError("HOPE is bidirectional: its convolution is circular, so that every step sees all others.")
        H, both = recipe.d_model, config.reversal == "network"
        S = config.n_ssm or H
        if H % S:
            raise UserError(f"n_ssm must divide d_model = {H}, got {S}.")
        self.config = config
        h = config.h_deviation * normal_C(rngs.params(), 2, S, config.d_state // 2)
        self.h = ssm_parameter(as_pair(h), "output")
        inv_dt = initial_inv_dt(rngs.params(), (2 if both else 1, H), config)
        # What is not trained is kept with the statistics, so that saved steps have it.
        self.inv_dt: nnx.Variable = ssm_parameter(inv_dt, "dt") if config.dt_trained else nnx.BatchStat(inv_dt)
        self.D = skip_weights((1 if both else 2, H), config, rngs=rngs)

    def kernel(self, L: int) -> CircularKernel:
        """The kernel (H, 2L) of a sequence of L steps and its reversal, without D."""
        return circular_kernel(as_complex(self.h), dt_of(self.inv_dt[...], self.config), L)


class HOPELayer(HankelConvolution):
    """The layer y = k * u + D u for (2L, b, H), where u is a sequence and its reversal, and * is circular."""

    def __call__(self, u: Features) -> Features:
        """Apply the layer to (2L, b, H)."""
        kernel = self.kernel(len(u) // 2).at[:, 0].add(self.D[0])
        return channel_major(convolve_circular(channel_major(u), kernel))


class PairedHOPELayer(HankelConvolution):
    """The layer from (L, b, H) to (L, b, 2H): the output of `HOPELayer` at each step, and at its place in the reversal.

    The two have a D each.
    """

    def __call__(self, u: Features) -> PairedFeatures:
        """Apply the layer to (L, b, H)."""
        L = len(u)
        y = channel_major(convolve_circular(channel_major(with_reversal(u)), self.kernel(L)))
        return jnp.concatenate([y[:L] + self.D[0] * u, y[L:][::-1] + self.D[1] * u], axis=-1).astype(u.dtype)


class PairedGLUOutput(GLUOutput):
    """The nonlinearity of `GLUOutput` from (L, b, 2H) to (L, b, H)."""

    masks: int = 3
    """The number of dropout masks that a call takes: one for each half of the input, and one for the output."""

    def __init__(self, features: int, conventions: Conventions, *, rngs: nnx.Rngs):
        self.conventions = conventions
        self.linear = Dense(2 * features, 2 * features, conventions, "bias", rngs=rngs)

    def __call__(self, x: DenseInput, masks: DropoutMasks | None, key: Array | None = None) -> DenseOutput:
        """Apply the gate to (L, b, 2H); `masks` (3, b, H) are the dropout's. `key` is not used."""
        del key
        halves = jnp.split(gelu(wide(x), self.conventions), 2, axis=-1)
        activated = jnp.concatenate([dropout(half, masks, i) for i, half in enumerate(halves)], axis=-1)
        value, gate = jnp.split(wide(self.linear(activated.astype(x.dtype))), 2, axis=-1)
        return dropout(value * jax.nn.sigmoid(gate), masks, 2).astype(x.dtype)


class ReversalClassifier(Classifier):
    """A classifier whose blocks see each sequence and its reversal as one of 2L steps.

    Pooling takes the mean of both at each position.
    """

    def through_blocks(self, x: Features, mask: Mask | None, *, train: bool, key: Array | None) -> Features:
        """Apply all blocks to (L, b, H) and its reversal. `mask` (L, b, 1) is zero on padding."""
        L, both = len(x), None if mask is None else with_reversal(mask)
        y = wide(super().through_blocks(with_reversal(x), both, train=train, key=key))
        return 0.5 * (y[:L] + y[L:][::-1])


def with_reversal(x: Array) -> Array:
    """Join (L, …) with its reversal to (2L, …)."""
    return jnp.concatenate([x, x[::-1]])


def block(recipe: Recipe, config: Config, *, rngs: nnx.Rngs) -> Block:
    """Make one residual block of the recipe."""
    if config.reversal == "network":
        return block_around(recipe, HOPELayer(recipe, config, rngs=rngs), NETWORK_CONVENTIONS, rngs=rngs)
    gate = PairedGLUOutput(recipe.d_model, LAYER_CONVENTIONS, rngs=rngs)
    return Block(recipe, PairedHOPELayer(recipe, config, rngs=rngs), gate, LAYER_CONVENTIONS, rngs=rngs)


def network(recipe: Recipe, config: Config, shape: DataShape, *, rngs: nnx.Rngs) -> Classifier:
    """Make the network of the recipe for data of this shape."""
    blocks = [block(recipe, config, rngs=rngs) for _ in range(recipe.n_layers)]
    if config.reversal == "network":
        return ReversalClassifier(recipe, shape, blocks, NETWORK_CONVENTIONS, rngs=rngs)
    return Classifier(recipe, shape, blocks, LAYER_CONVENTIONS, rngs=rngs)

"""RTF: a rational transfer function for each feature, with its coefficients as the parameters.

The sources are Parnichkun et al. 2024 (arXiv 2405.06147) and ruke1ire/RTF @ 1d9e1e5, whose block is that of
state-spaces/s4. Poles are free, so a trained one may lie outside the unit circle.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from lra_bench.errors import UserError
from lra_bench.models.classifier import Classifier
from lra_bench.models.layers import TORCH, Block, DataShape, GLUOutput, refuse_steps_if, ssm_parameter
from lra_bench.recipes.rtf import Config
from lra_bench.spec import Recipe
from lra_bench.ssm.convolution import channel_major, convolve
from lra_bench.ssm.shapes import Features, FeaturesAt, Kernels
from lra_bench.ssm.transfer_function import per_feature, rational_kernel, unfolded_numerator
from lra_bench.ssm.window import cut

CONVENTIONS = replace(TORCH, output_dropout="none")
"""The conventions of state-spaces/s4, but nothing is dropped before GELU: the block of RTF's experiments builds its
layer without a dropout."""


class FilterState(NamedTuple):
    """The recurrence, made once, and the last n values of the filtered input, the newest first: x (b, H, n)."""

    now: Array
    a: Array
    b: Array
    x: Array


class RTFLayer(nnx.Module):
    """The layer y = k * u + k' * u over the strict future for (L, b, H), with parameters a, b and h_0.

    Raises UserError where `num_a` does not divide the features, or the length does not exceed the number of states.
    """

    window: int | None = None
    """The number of taps of each kernel that are used; None means all (`ssm/window.py`)."""

    def __init__(self, recipe: Recipe, config: Config, length: int, *, rngs: nnx.Rngs):
        H, n = recipe.d_model, config.d_state
        num_a = config.num_a or H
        if H % num_a:
            raise UserError(f"num_a must divide d_model = {H}, got {num_a}.")
        if n >= length:
            raise UserError(f"d_state must be less than the length {length} of the sequences, got {n}.")
        channels = 2 if recipe.bidirectional else 1
        self.length = length
        self.a = ssm_parameter(jnp.zeros((channels, num_a, n)), "eigenvalues")
        self.b = ssm_parameter(jnp.zeros((channels, H, n)), "output")
        self.h_0 = ssm_parameter(jax.random.normal(rngs.params(), (channels, H)), "skip")

    def kernel(self) -> Kernels:
        """The kernels (c, H, L) of every direction, where L is the length that the layer was made for."""
        return rational_kernel(self.a[...], self.b[...], self.h_0[...], self.length)

    def __call__(self, u: Features) -> Features:
        """Apply the layer to (L, b, H), where L is at most the length that the layer was made for."""
        kernels = self.kernel()[..., : len(u)]
        kernels = kernels if self.window is None else cut(kernels, self.window)
        return channel_major(convolve(channel_major(u), *kernels))

    def initial_state(self, batch: int) -> FilterState:
        """The state before the first step: rest. Raises UserError for a bidirectional layer."""
        refuse_steps_if(len(self.h_0) == 2)
        k, (_, H, n) = self.kernel()[0], self.b.shape
        a = jnp.broadcast_to(per_feature(self.a[...], H)[0], (H, n))
        return FilterState(k[:, 0], a, unfolded_numerator(a, k), jnp.zeros((batch, H, n)))

    def step(self, state: FilterState, u_t: FeaturesAt) -> tuple[FilterState, FeaturesAt]:
        """The next state and y_t (b, H) from the inputs u_t (b, H)."""
        y_t = state.now * u_t + (state.b * state.x).sum(-1)
        newest = u_t - (state.a * state.x).sum(-1)
        x = jnp.concatenate([newest[..., None], state.x[..., :-1]], axis=-1)
        return state._replace(x=x), y_t.astype(u_t.dtype)


def block(recipe: Recipe, config: Config, length: int, *, rngs: nnx.Rngs) -> Block:
    """Make one residual block of the recipe for sequences of this length."""
    gate = GLUOutput(recipe.d_model, CONVENTIONS, config.layer_dropout, rngs=rngs)
    return Block(recipe, RTFLayer(recipe, config, length, rngs=rngs), gate, CONVENTIONS, rngs=rngs)


def network(recipe: Recipe, config: Config, shape: DataShape, *, rngs: nnx.Rngs) -> Classifier:
    """Make the network of the recipe for data of this shape."""
    blocks = [block(recipe, config, shape.length, rngs=rngs) for _ in range(recipe.n_layers)]
    return Classifier(recipe, shape, blocks, CONVENTIONS, rngs=rngs)

"""S6: Mamba's selective state space, without the convolution and the gate of Mamba's own block.

The source is Gu & Dao 2023 (arXiv 2312.00752, algorithm 2), with dt of rank one as there. A is real and starts at −1 …
−N for each feature, and the factor of the input is dt, both as in state-spaces/mamba. The block is that of S4.
"""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
from flax import nnx

from lra_bench.machine.complex_parts import Parts
from lra_bench.models.classifier import Classifier
from lra_bench.models.layers import TORCH, Block, DataShape, ssm_parameter
from lra_bench.models.long_convolution import block_around
from lra_bench.models.selective import SelectiveSSM
from lra_bench.recipes.s6 import Config
from lra_bench.spec import Recipe

CONVENTIONS = replace(TORCH, output_dropout="none")
"""The conventions of state-spaces/s4 v3.0.0, in whose block the layer stands."""


class S6Layer(SelectiveSSM):
    """The S6 layer: one block of real states, with A = −exp(a) for each feature and state."""

    def __init__(self, recipe: Recipe, config: Config, *, rngs: nnx.Rngs):
        super().__init__(recipe, config, 1, rngs=rngs)
        H, N = recipe.d_model, config.d_state
        self.a = ssm_parameter(jnp.tile(jnp.log(jnp.arange(1.0, N + 1.0)), (H, 1)), "eigenvalues")
        self.B = ssm_parameter(self.uniform(H, rngs, N), "input")

    def eigenvalues(self) -> Parts:
        """A as one real part, (H, N)."""
        return (-jnp.exp(self.a[...]),)

    def inputs(self) -> Parts:
        """W_B as one real part, (1, H, N)."""
        return (self.B[...],)

    def bias(self) -> Parts:
        """Nothing."""
        return ()


def block(recipe: Recipe, config: Config, *, rngs: nnx.Rngs) -> Block:
    """Make one residual block of the recipe."""
    return block_around(recipe, S6Layer(recipe, config, rngs=rngs), CONVENTIONS, rngs=rngs)


def network(recipe: Recipe, config: Config, shape: DataShape, *, rngs: nnx.Rngs) -> Classifier:
    """Make the network of the recipe for data of this shape."""
    blocks = [block(recipe, config, rngs=rngs) for _ in range(recipe.n_layers)]
    return Classifier(recipe, shape, blocks, CONVENTIONS, rngs=rngs)

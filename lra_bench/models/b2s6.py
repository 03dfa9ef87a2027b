"""B²S6: a selective state space in blocks of features, with a bias of B for each feature and complex states.

The source is Yu & Erichson 2025 (arXiv 2505.09022, algorithm 2 and section 7), without the code of its supplement. A,
W_B and β are complex there, and C is real. The rest of the layer is S6's (`models/selective.py`), and the block that
of S4.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from lra_bench.machine.complex_parts import Parts
from lra_bench.models.classifier import Classifier
from lra_bench.models.layers import Block, DataShape, ssm_parameter
from lra_bench.models.long_convolution import block_around
from lra_bench.models.s6 import CONVENTIONS
from lra_bench.models.selective import SelectiveSSM
from lra_bench.recipes.b2s6 import Config
from lra_bench.spec import Recipe
from lra_bench.ssm import hippo


class B2S6Layer(SelectiveSSM):
    """The B²S6 layer: all features share A, which starts at the eigenvalues of S4D-Lin."""

    def __init__(self, recipe: Recipe, config: Config, *, rngs: nnx.Rngs):
        super().__init__(recipe, config, config.blocks, rngs=rngs)
        H, N = recipe.d_model, config.d_state
        self.features = H
        A = hippo.diagonal("lin", 2 * N, clipped=False).Lambda
        self.A_real = ssm_parameter(jnp.asarray(np.log(-A.real), jnp.float32), "eigenvalues")
        self.A_imag = ssm_parameter(jnp.asarray(A.imag, jnp.float32), "eigenvalues")
        self.B = ssm_parameter(self.uniform(H // config.blocks, rngs, N, 2), "input")
        self.beta = ssm_parameter(jax.random.normal(rngs.params(), (H, N, 2)) * 0.5**0.5, "input")

    def eigenvalues(self) -> Parts:
        """Real and imaginary part of A, repeated for all features."""
        return self._repeated(-jnp.exp(self.A_real[...])), self._repeated(self.A_imag[...])

    def inputs(self) -> Parts:
        """Real and imaginary part of W_B."""
        return self.B[..., 0], self.B[..., 1]

    def bias(self) -> Parts:
        """Real and imaginary part of β."""
        return self.beta[..., 0], self.beta[..., 1]

    def _repeated(self, x: Array) -> Array:
        return jnp.broadcast_to(x, (self.features, len(x)))


def block(recipe: Recipe, config: Config, *, rngs: nnx.Rngs) -> Block:
    """Make one residual block of the recipe."""
    return block_around(recipe, B2S6Layer(recipe, config, rngs=rngs), CONVENTIONS, rngs=rngs)


def network(recipe: Recipe, config: Config, shape: DataShape, *, rngs: nnx.Rngs) -> Classifier:
    """Make the network of the recipe for data of this shape."""
    blocks = [block(recipe, config, rngs=rngs) for _ in range(recipe.n_layers)]
    return Classifier(recipe, shape, blocks, CONVENTIONS, rngs=rngs)

"""S4D: S4 with a diagonal state matrix, so that its kernel is a Vandermonde product.

The sources are Gu, Gupta, Goel & Ré 2022 and state-spaces/s4 @ e757cef5 `src/models/sequence/kernels/ssm.py`, with
`mode: diag`.
"""

from __future__ import annotations

import numpy as np
from flax import nnx

from lra_bench.models.classifier import Classifier
from lra_bench.models.layers import Block, DataShape, as_complex, as_pair, ssm_parameter
from lra_bench.models.long_convolution import CONVENTIONS, SMALLEST, DiagonalConvolution, block_around, normal_C
from lra_bench.recipes.s4d import Config
from lra_bench.spec import Recipe
from lra_bench.ssm import hippo
from lra_bench.ssm.shapes import SharedModes


class S4DLayer(DiagonalConvolution):
    """The S4D layer: B and C are trained, both complex, and hold one state of each conjugate pair."""

    def __init__(self, recipe: Recipe, config: Config, *, rngs: nnx.Rngs):
        Lambda, B = hippo.diagonal(config.init, config.d_state)
        Lambda = Lambda.real - 1j * np.maximum(-Lambda.imag, SMALLEST)
        super().__init__(recipe, config, Lambda, rngs=rngs)
        self.discretization = config.discretization
        self.B = ssm_parameter(self._copies(as_pair(B)), "input")
        C = normal_C(rngs.params(), self.channels, recipe.d_model, len(Lambda))
        self.C = ssm_parameter(as_pair(C), "output")

    def inputs(self) -> SharedModes:
        """The input matrix B, complex (H or 1, N')."""
        return self._per_channel(as_complex(self.B))


def block(recipe: Recipe, config: Config, *, rngs: nnx.Rngs) -> Block:
    """Make one residual block of the recipe."""
    return block_around(recipe, S4DLayer(recipe, config, rngs=rngs), rngs=rngs)


def network(recipe: Recipe, config: Config, shape: DataShape, *, rngs: nnx.Rngs) -> Classifier:
    """Make the network of the recipe for data of this shape."""
    blocks = [block(recipe, config, rngs=rngs) for _ in range(recipe.n_layers)]
    return Classifier(recipe, shape, blocks, CONVENTIONS, rngs=rngs)

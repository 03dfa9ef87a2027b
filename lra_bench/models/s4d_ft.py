"""S4D-FT: S4D-Lin with its frequencies scaled at the start, and a trained filter over the frequencies of its output.

The source is arXiv 2410.02035 and its code (`src/models/sequence/modules/s4block.py`, a fork of state-spaces/s4). The
code draws B and does not use it, so B is 1. `d_state` there counts the stored states; here it counts both of each pair.
"""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
from flax import nnx

from lra_bench.errors import UserError
from lra_bench.models.classifier import Classifier
from lra_bench.models.layers import TORCH, Block, DataShape, as_complex, as_pair, ssm_parameter
from lra_bench.models.long_convolution import LongConvolution, block_around, clamped, normal_C
from lra_bench.recipes.s4d_ft import Config
from lra_bench.spec import Recipe
from lra_bench.ssm import hippo
from lra_bench.ssm.frequency_filter import filtered
from lra_bench.ssm.shapes import Kernels
from lra_bench.ssm.vandermonde import diagonal_kernel

CONVENTIONS = replace(TORCH, output_dropout="tied")
"""The conventions of the authors' fork of state-spaces/s4."""


class S4DFTLayer(LongConvolution):
    """The S4D-FT layer: Λ, C, D, dt and the filter's exponent s are trained.

    Its filter reads the future, so it has no causal form and no step. Raises UserError where the recipe is causal.
    """

    def __init__(self, recipe: Recipe, config: Config, *, rngs: nnx.Rngs):
        if not recipe.bidirectional:
            raise UserError("S4D-FT is bidirectional: its filter over frequencies reads the future of each step.")
        Lambda = hippo.diagonal("lin", config.d_state, clipped=False).Lambda
        Lambda = Lambda.real + 1j * config.frequency_scale * Lambda.imag
        super().__init__(recipe, config, clamped(Lambda), rngs=rngs)
        self.C = ssm_parameter(as_pair(normal_C(rngs.params(), 2, recipe.d_model, len(Lambda))), "output")
        self.s = ssm_parameter(jnp.zeros(recipe.d_model), "filter")

    def kernel(self, L: int) -> Kernels:
        """The filtered kernels (2, H, L) of both directions."""
        C = as_complex(self.C)
        kernels = diagonal_kernel(self.Lambda(), jnp.ones((1, 1), C.dtype), C, self.dt(), L, "zoh")
        return filtered(kernels, self.s[...])


def block(recipe: Recipe, config: Config, *, rngs: nnx.Rngs) -> Block:
    """Make one residual block of the recipe."""
    return block_around(recipe, S4DFTLayer(recipe, config, rngs=rngs), CONVENTIONS, rngs=rngs)


def network(recipe: Recipe, config: Config, shape: DataShape, *, rngs: nnx.Rngs) -> Classifier:
    """Make the network of the recipe for data of this shape."""
    blocks = [block(recipe, config, rngs=rngs) for _ in range(recipe.n_layers)]
    return Classifier(recipe, shape, blocks, CONVENTIONS, rngs=rngs)

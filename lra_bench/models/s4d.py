"""S4D: S4 with a diagonal state matrix, so that its kernel is a Vandermonde product.

The sources are Gu, Gupta, Goel & Ré 2022 and two versions of state-spaces/s4, with `mode: diag`. v3.0.0
(`src/models/sequence/ss`) was released with the paper: C starts as normal numbers times B, HiPPO's B is not clipped,
and nothing is dropped before GELU. In e757cef5 (`src/models/sequence/kernels/ssm.py`), the latest commit, C does not
depend on B, HiPPO's B is clipped, −Im Λ is at least 1e-4, and there is a third dropout.
"""

from __future__ import annotations

from dataclasses import replace

from flax import nnx

from lra_bench.models.classifier import Classifier
from lra_bench.models.layers import Block, DataShape, as_complex, as_pair, ssm_parameter
from lra_bench.models.long_convolution import CONVENTIONS, DiagonalConvolution, block_around, clamped, normal_C
from lra_bench.recipes.s4d import Config
from lra_bench.spec import Recipe
from lra_bench.ssm import hippo
from lra_bench.ssm.shapes import SharedModes

V3_CONVENTIONS = replace(CONVENTIONS, output_dropout="none")
"""The conventions of state-spaces/s4 v3.0.0."""


class S4DLayer(DiagonalConvolution):
    """The S4D layer: B and C are trained, both complex, and hold one state of each conjugate pair."""

    def __init__(self, recipe: Recipe, config: Config, *, rngs: nnx.Rngs):
        last = config.version == "e757cef5"
        Lambda, B = hippo.diagonal(config.init, config.d_state, clipped=last)
        super().__init__(recipe, config, clamped(Lambda) if last else Lambda, rngs=rngs)
        self.discretization = config.discretization
        self.B = ssm_parameter(self._copies(as_pair(B)), "input")
        C = normal_C(rngs.params(), self.channels, recipe.d_model, len(Lambda))
        self.C = ssm_parameter(as_pair(C if last else C * B), "output")

    def inputs(self) -> SharedModes:
        """The input matrix B, complex (H or 1, N')."""
        return self._per_channel(as_complex(self.B))


def block(recipe: Recipe, config: Config, *, rngs: nnx.Rngs) -> Block:
    """Make one residual block of the recipe."""
    conventions = CONVENTIONS if config.version == "e757cef5" else V3_CONVENTIONS
    return block_around(recipe, S4DLayer(recipe, config, rngs=rngs), conventions, rngs=rngs)


def network(recipe: Recipe, config: Config, shape: DataShape, *, rngs: nnx.Rngs) -> Classifier:
    """Make the network of the recipe for data of this shape."""
    blocks = [block(recipe, config, rngs=rngs) for _ in range(recipe.n_layers)]
    return Classifier(recipe, shape, blocks, CONVENTIONS, rngs=rngs)

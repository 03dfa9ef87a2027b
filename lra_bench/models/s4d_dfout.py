"""S4D-DFouT: S4D whose poles start evenly around the unit circle, in discrete time.

The source is Solozabal et al. 2025 (arXiv 2508.20441, section 4.2), without its code. The poles of feature h are
λ̄ = exp(−ξ/2 ± iΩ) with Ω = 2πn/N + 2πh/(NH), for n of the upper half circle, 0 to N/2. S4D's dt scales decays and
frequencies; ξ has its place and scales the decays alone. B̄ is not stated. Here it is that of zero-order hold at step
ξ, so that S4D with Λ = −1/2 − iΩ/ξ and dt = ξ starts as the same function.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax

from lra_bench.models.classifier import Classifier
from lra_bench.models.layers import Block, DataShape, as_complex, as_pair, ssm_parameter
from lra_bench.models.long_convolution import CONVENTIONS, DiagonalConvolution, block_around, normal_C
from lra_bench.models.s4d import V3_CONVENTIONS
from lra_bench.recipes.s4d_dfout import Config
from lra_bench.spec import Discretization, Recipe
from lra_bench.ssm.shapes import SharedModes

DECAY = 0.5
"""The initial −ln |λ̄| / ξ."""


def frequencies(N: int, S: int) -> np.ndarray:
    """The initial Ω in radians per step, (S, N/2 + 1), ascending: S systems that share the circle evenly."""
    return 2 * np.pi * (np.arange(N // 2 + 1) + np.arange(S)[:, None] / S) / N


class S4DDFouTLayer(DiagonalConvolution):
    """The S4D-DFouT layer: decays, frequencies Ω, B, C, D and ξ are trained. The parameter of ξ is `inv_dt`."""

    discretization: Discretization = "zoh"

    def __init__(self, recipe: Recipe, config: Config, *, rngs: nnx.Rngs):
        N = config.d_state // 2 + 1
        super().__init__(recipe, config, np.full(N, -DECAY, np.complex128), rngs=rngs)
        self.A_imag[...] = jnp.asarray(frequencies(config.d_state, self.n_ssm), jnp.float32)
        self.B = ssm_parameter(self._copies(as_pair(np.ones(N, np.complex128))), "input")
        self.C = ssm_parameter(as_pair(normal_C(rngs.params(), self.channels, recipe.d_model, N)), "output")

    def xi(self) -> Array:
        """The ξ of each feature (H,)."""
        return super().dt()

    def dt(self) -> Array:
        """The step size (H,): 1, because the poles are those of a step."""
        return jnp.ones_like(self.D[...])

    def Lambda(self) -> Array:
        """The logarithms ln λ̄ of the poles, complex (H, N')."""
        decay = self.xi()[:, None] * self._per_channel(self.decay())
        return lax.complex(-decay, -jnp.broadcast_to(self._per_channel(self.A_imag[...]), decay.shape))

    def inputs(self) -> SharedModes:
        """The input matrix ξ B, complex (H, N')."""
        return self.xi()[:, None] * self._per_channel(as_complex(self.B))


def block(recipe: Recipe, config: Config, *, rngs: nnx.Rngs) -> Block:
    """Make one residual block of the recipe."""
    conventions = CONVENTIONS if config.version == "e757cef5" else V3_CONVENTIONS
    return block_around(recipe, S4DDFouTLayer(recipe, config, rngs=rngs), conventions, rngs=rngs)


def network(recipe: Recipe, config: Config, shape: DataShape, *, rngs: nnx.Rngs) -> Classifier:
    """Make the network of the recipe for data of this shape."""
    blocks = [block(recipe, config, rngs=rngs) for _ in range(recipe.n_layers)]
    return Classifier(recipe, shape, blocks, CONVENTIONS, rngs=rngs)

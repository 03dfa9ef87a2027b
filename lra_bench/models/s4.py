"""S4: a diagonal plus rank one state space for each feature, computed as a long convolution.

The sources are Gu, Goel & Ré 2022 and state-spaces/s4 @ e757cef5. As there, the stored C is
C̃ = C (I − Āᴸ) for the length L of the data. Padded positions are set to zero before each layer and left out of the
mean; BatchNorm includes them.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax import Array

from lra_bench.models.classifier import Classifier
from lra_bench.models.layers import Block, DataShape, as_complex, as_pair, refuse_steps_if, ssm_parameter
from lra_bench.models.long_convolution import CONVENTIONS, LongConvolution, block_around, clamped, normal_C
from lra_bench.recipes.s4 import Config
from lra_bench.spec import Recipe
from lra_bench.ssm import dplr, hippo
from lra_bench.ssm.cauchy import cauchy_direct, dplr_kernel
from lra_bench.ssm.shapes import FeaturesAt, Kernels


class DenseState(NamedTuple):
    """The dense system, made once, and the states x (b, H, N)."""

    system: dplr.Dense
    x: Array


class S4Layer(LongConvolution):
    """The S4 layer: a HiPPO matrix as Λ − P Pᴴ, the bilinear rule, and the kernel by Cauchy sums (`ssm/cauchy.py`)."""

    def __init__(self, recipe: Recipe, config: Config, length: int, *, rngs: nnx.Rngs):
        start = hippo.low_rank(config.init, config.d_state)
        super().__init__(recipe, config, clamped(start.Lambda), rngs=rngs)
        self.length = length
        # The modes of FouT hardly decay, and `dplr_kernel` loses digits there.
        self.dplr_kernel = dplr_kernel if config.init == "legs" else cauchy_direct
        self.P = ssm_parameter(self._copies(as_pair(start.P)), "low_rank")
        self.B = ssm_parameter(self._copies(as_pair(start.B)), "input")
        C = normal_C(rngs.params(), self.channels, recipe.d_model, config.d_state // 2)
        self.C = ssm_parameter(as_pair(dplr.fold(self._dense(C), length)), "output")

    def _low_rank_and_input(self) -> tuple[Array, Array]:
        return self._per_channel(as_complex(self.P)), self._per_channel(as_complex(self.B))

    def _dense(self, C: Array) -> dplr.Dense:
        return dplr.discretize(self.Lambda(), *self._low_rank_and_input(), C, self.dt())

    def kernel(self, L: int) -> Kernels:
        """The kernels (c, H, L) of every direction. For an L above the stored length, C̃ is folded for twice as much."""
        C_tilde, length = as_complex(self.C), self.length
        while length < L:
            C_tilde, length = dplr.double(self._dense(C_tilde), length), 2 * length
        return self.dplr_kernel(self.Lambda(), *self._low_rank_and_input(), C_tilde, self.dt(), length)[..., :L]

    def initial_state(self, batch: int) -> DenseState:
        """The states before the first step. Raises UserError for a bidirectional layer."""
        refuse_steps_if(self.channels == 2)
        system = self._dense(as_complex(self.C))
        system = system._replace(C=dplr.output_row(dplr.unfold(system, self.length)))
        return DenseState(system, jnp.zeros((batch, *system.B_bar.shape), system.B_bar.dtype))

    def step(self, state: DenseState, u_t: FeaturesAt) -> tuple[DenseState, FeaturesAt]:
        """The next states and y_t (b, H) from the inputs u_t (b, H)."""
        x, y_t = dplr.advance(state.system, state.x, u_t)
        return DenseState(state.system, x), (y_t + self.D[...] * u_t).astype(u_t.dtype)


def block(recipe: Recipe, config: Config, length: int, *, rngs: nnx.Rngs) -> Block:
    """Make one residual block for data of this length, for which C is folded."""
    return block_around(recipe, S4Layer(recipe, config, length, rngs=rngs), CONVENTIONS, rngs=rngs)


def network(recipe: Recipe, config: Config, shape: DataShape, *, rngs: nnx.Rngs) -> Classifier:
    """Make the network of the recipe for data of this shape."""
    blocks = [block(recipe, config, shape.length, rngs=rngs) for _ in range(recipe.n_layers)]
    return Classifier(recipe, shape, blocks, CONVENTIONS, rngs=rngs)

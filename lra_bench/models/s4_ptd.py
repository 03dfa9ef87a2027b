"""S4-PTD: S4D whose Λ starts from a perturbed HiPPO matrix, without conjugate symmetry.

The sources are Yu et al. 2024 (arXiv 2310.01698) and AnnanYu/Approximate_Diagonal @ ec98d6a6 S4-PTD. All N modes of
A_HiPPO + E = V Λ V⁻¹ are stored. C starts as a real normal matrix times V, times V⁻¹ B, and there is no parameter B.
The kernel keeps S4D's factor 2. The perturbation E is our own and real (`ssm/ptd.py`); the authors' is complex.

The published code then clamps −Im Λ at 1e-4, as S4D's does, where all modes have Im Λ ≤ 0. Here half have Im Λ > 0 and
so start almost real: V Λ V⁻¹ is no longer A_HiPPO + E. The setting `init` decides between the two.
"""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lra_bench.models.classifier import Classifier
from lra_bench.models.layers import Block, DataShape, ssm_parameter
from lra_bench.models.long_convolution import CONVENTIONS as S4_CONVENTIONS
from lra_bench.models.long_convolution import DiagonalConvolution, block_around, clamped
from lra_bench.recipes.s4_ptd import Config
from lra_bench.spec import Discretization, Recipe
from lra_bench.ssm import hippo, ptd
from lra_bench.ssm.shapes import SharedModes

CONVENTIONS = replace(S4_CONVENTIONS, output_dropout="tied")
"""The conventions of state-spaces/s4 v4.0.0, of which the authors' code is a fork."""


class S4PTDLayer(DiagonalConvolution):
    """The S4-PTD layer: Λ, C, D and dt are trained, and B is 1."""

    discretization: Discretization = "zoh"

    def __init__(self, recipe: Recipe, config: Config, *, rngs: nnx.Rngs):
        solved = ptd.ptd(*config.problem)
        Lambda = -np.abs(solved.Lambda.real) + 1j * solved.Lambda.imag
        super().__init__(recipe, config, Lambda if config.init == "paper" else clamped(Lambda), rngs=rngs)
        output = jax.random.normal(rngs.params(), (self.channels, recipe.d_model, config.d_state))
        B = solved.Vinv @ hippo.legs(config.d_state).B
        C = [output @ jnp.asarray(part, jnp.float32) for part in ((solved.V * B).real, (solved.V * B).imag)]
        self.C = ssm_parameter(jnp.stack(C, axis=-1), "output")

    def inputs(self) -> SharedModes:
        """The input matrix B: one, (1, 1), because C includes V⁻¹ B."""
        return jnp.ones((1, 1), self.C.dtype)


def block(recipe: Recipe, config: Config, *, rngs: nnx.Rngs) -> Block:
    """Make one residual block of the recipe."""
    return block_around(recipe, S4PTDLayer(recipe, config, rngs=rngs), CONVENTIONS, rngs=rngs)


def network(recipe: Recipe, config: Config, shape: DataShape, *, rngs: nnx.Rngs) -> Classifier:
    """Make the network of the recipe for data of this shape."""
    blocks = [block(recipe, config, rngs=rngs) for _ in range(recipe.n_layers)]
    return Classifier(recipe, shape, blocks, CONVENTIONS, rngs=rngs)

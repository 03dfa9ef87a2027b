"""S5-PTD: S5 whose Λ and V start from a perturbed HiPPO matrix (Yu et al. 2024, arXiv 2310.01698).

PTD changes the initialization only. A_HiPPO + E = V Λ V⁻¹ is well conditioned, but V⁻¹ ≠ Vᴴ. There is no conjugate
symmetry: all P modes are stored, and y = Re(C x). The perturbation E is our own (`ssm/ptd.py`).
"""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from lra_bench.models import s5
from lra_bench.models.classifier import Classifier
from lra_bench.models.layers import Block, DataShape, Gate
from lra_bench.recipes.s5 import Config as S5Config
from lra_bench.recipes.s5_ptd import Config
from lra_bench.spec import Recipe
from lra_bench.ssm import hippo, ptd

CONVENTIONS = s5.CONVENTIONS
"""The conventions of S5."""


class S5PTDLayer(s5.S5Layer):
    """The S5-PTD layer: an S5 layer with other initial values and without conjugate symmetry."""

    conjugate_symmetry: ClassVar[bool] = False

    def initial_modes(self, config: S5Config) -> s5.Modes:
        """All modes of the perturbed HiPPO matrix."""
        assert isinstance(config, Config)
        solved = ptd.ptd(*config.problem)
        return s5.repeat_blocks(solved.Lambda, solved.V, solved.Vinv, config.blocks)

    def initial_B(self, key: Array, config: S5Config, H: int) -> Array:
        """The input matrix B₀ (P, H) before the change of basis: drawn, or HiPPO-LegS's own B for every feature."""
        assert isinstance(config, Config)
        if config.b_init == "lecun_normal":
            return super().initial_B(key, config, H)
        _, B = hippo.legs(config.d_state // config.blocks)
        rows = np.tile(B, config.blocks) if config.b_init == "hippo" else np.repeat(B, config.blocks)
        return jnp.asarray(rows[:, None].repeat(H, axis=1), jnp.float32)

    def eigenvalues(self) -> tuple[Array, Array]:
        """The eigenvalues as Re Λ and Im Λ, each (P',), with Re Λ made negative where the recipe asks for it."""
        assert isinstance(self.config, Config)
        real, imag = super().eigenvalues()
        return (-jnp.abs(real) if self.config.force_negative else real), imag


def block(recipe: Recipe, config: Config, *, rngs: nnx.Rngs) -> Block:
    """Make one residual block of the recipe."""
    gate = Gate(config.activation, recipe.d_model, CONVENTIONS, rngs=rngs)
    return Block(recipe, S5PTDLayer(recipe, config, rngs=rngs), gate, CONVENTIONS, rngs=rngs)


def network(recipe: Recipe, config: Config, shape: DataShape, *, rngs: nnx.Rngs) -> Classifier:
    """Make the network of the recipe for data of this shape."""
    blocks = [block(recipe, config, rngs=rngs) for _ in range(recipe.n_layers)]
    return Classifier(recipe, shape, blocks, CONVENTIONS, rngs=rngs)

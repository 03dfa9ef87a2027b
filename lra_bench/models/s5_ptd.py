"""S5-PTD: S5 whose Λ, V start from a perturbed HiPPO matrix, so well conditioned and without conjugate symmetry (Yu
et al. 2024).

PTD changes the initialization only (arXiv 2310.01698): A_HiPPO + E = V Λ V⁻¹ with V⁻¹ ≠ Vᴴ, all P
modes stored and y = Re(C x). The perturbation E is our own (`ssm/ptd.py`).
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


class S5PTDLayer(s5.S5Layer):
    conjugate_symmetry: ClassVar[bool] = False

    def initial_modes(self, config: S5Config) -> s5.Modes:
        assert isinstance(config, Config)
        block = config.d_state // config.blocks
        solved = ptd.ptd(block, config.gamma if block > 2 else None)
        return s5.repeat_blocks(solved.Lambda, solved.V, solved.Vinv, config.blocks)

    def initial_B(self, key: Array, config: S5Config, H: int) -> Array:
        assert isinstance(config, Config)
        if config.b_init == "lecun_normal":
            return super().initial_B(key, config, H)
        _, B = hippo.legs(config.d_state // config.blocks)
        return jnp.asarray(np.tile(B, config.blocks)[:, None].repeat(H, axis=1), jnp.float32)

    def eigenvalues(self) -> tuple[Array, Array]:
        assert isinstance(self.config, Config)
        real, imag = super().eigenvalues()
        return (-jnp.abs(real) if self.config.force_negative else real), imag


def block(recipe: Recipe, config: Config, *, rngs: nnx.Rngs) -> Block:
    gate = Gate(config.activation, recipe.d_model, CONVENTIONS, rngs=rngs)
    return Block(recipe, S5PTDLayer(recipe, config, rngs=rngs), gate, CONVENTIONS, rngs=rngs)


def network(recipe: Recipe, config: Config, shape: DataShape, *, rngs: nnx.Rngs) -> Classifier:
    blocks = [block(recipe, config, rngs=rngs) for _ in range(recipe.n_layers)]
    return Classifier(recipe, shape, blocks, CONVENTIONS, rngs=rngs)

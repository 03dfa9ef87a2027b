"""S5-PTD: S5 whose Λ, V start from a perturbed HiPPO matrix, so well conditioned and without conjugate symmetry (Yu
et al. 2024).

PTD changes the initialisation only (arXiv 2310.01698; models.md §1.6): A_HiPPO + E = V Λ V⁻¹ with V⁻¹ ≠ Vᴴ, all P
modes stored and y = Re(C x). The perturbation E is our own (`ssm/ptd.py`).
"""

from __future__ import annotations

from typing import ClassVar, Literal

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from pydantic import Field

from lra_bench.layers import Block, Gate
from lra_bench.models import s5
from lra_bench.spec import Recipe
from lra_bench.ssm import hippo, ptd

CONVENTIONS = s5.CONVENTIONS


class Config(s5.Config):
    """S5's settings and three of its own."""

    gamma: float = Field(
        gt=0, description="weight of ‖E‖ against the condition number; unused for blocks of size 2, where E = 0"
    )
    force_negative: bool = Field(description="Re Λ ← −|Re Λ| at every step (Path-X)")
    b_init: Literal["lecun_normal", "hippo"] = Field(
        description="B₀ random, or HiPPO-LegS's own B for every feature (Image)"
    )


class S5PTDLayer(s5.S5Layer):
    conjugate_symmetry: ClassVar[bool] = False

    def initial_modes(self, config: s5.Config) -> s5.Modes:
        assert isinstance(config, Config)
        block = config.d_state // config.blocks
        solved = ptd.ptd(block, config.gamma if block > 2 else None)
        return s5.repeat_blocks(solved.Lambda, solved.V, solved.Vinv, config.blocks)

    def initial_B(self, key: Array, config: s5.Config, H: int) -> Array:
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

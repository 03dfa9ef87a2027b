"""S5: a diagonal state space layer with many inputs and outputs.

The sources are Smith, Warrington & Linderman 2023 and lindermanlab/S5 @ 3c18fdb6.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from lra_bench.models.classifier import Classifier
from lra_bench.models.diagonal import DiagonalSSM
from lra_bench.models.layers import FLAX, Block, DataShape, Gate, as_pair, ssm_parameter
from lra_bench.recipes.s5 import Config
from lra_bench.spec import Recipe
from lra_bench.ssm import discretization, hippo
from lra_bench.ssm.shapes import Pair

CONVENTIONS = FLAX
"""The conventions of the reference code."""


class Modes(NamedTuple):
    """The eigenvalues and eigenvectors that Λ, B and C start from: Λ (P',), V (P, P'), V⁻¹ (P', P).

    P is the number of states and P' that of the stored ones: half of them with conjugate symmetry.
    """

    Lambda: np.ndarray
    V: np.ndarray
    Vinv: np.ndarray


def repeat_blocks(Lambda: np.ndarray, V: np.ndarray, Vinv: np.ndarray, blocks: int) -> Modes:
    """Put so many copies of one block's modes on the diagonal of a larger system."""
    eye = np.eye(blocks)
    return Modes(np.tile(Lambda, blocks), np.kron(eye, V), np.kron(eye, Vinv))


def sample_C(key: Array, kind: str, H: int, V: np.ndarray, directions: int) -> list[Array]:
    """Draw one complex (H, P') matrix for each direction by one of the three laws of the reference's `--C_init`.

    `lecun_normal` has deviation 1/√(P·H), not 1/√P: the reference's initializer counts H as the receptive field
    (lindermanlab/S5 @ 3c18fdb6 s5/ssm_init.py; docs/references.md, "S5: laws of the initial B and C").
    """
    P, stored = V.shape
    if kind == "complex_normal":
        draws = jax.random.normal(key, (directions, H, stored, 2)) * 0.5**0.5
        return [jax.lax.complex(d[..., 0], d[..., 1]) for d in draws]
    batch_axis = 0 if kind == "trunc_standard_normal" else ()
    initialize = jax.nn.initializers.lecun_normal(batch_axis=batch_axis)
    draws_C0 = [initialize(k, (H, P, 2)) for k in jax.random.split(key, directions)]
    return [jax.lax.complex(d[..., 0], d[..., 1]) @ jnp.asarray(V, jnp.complex64) for d in draws_C0]


class S5Layer(DiagonalSSM):
    """The S5 layer: Λ, B, C, D and dt are trained, and two directions share all but C."""

    conjugate_symmetry: ClassVar[bool] = True
    """Whether only one state of each conjugate pair is stored."""

    def __init__(self, recipe: Recipe, config: Config, *, rngs: nnx.Rngs):
        self.config = config
        modes = self.initial_modes(config)
        H, P = recipe.d_model, modes.Lambda.shape[0]
        directions = 2 if recipe.bidirectional else 1
        self.Lambda_re = ssm_parameter(jnp.asarray(modes.Lambda.real, jnp.float32), "eigenvalues")
        self.Lambda_im = ssm_parameter(jnp.asarray(modes.Lambda.imag, jnp.float32), "eigenvalues")
        B0 = self.initial_B(rngs.params(), config, H)
        self.B = ssm_parameter(as_pair(jnp.asarray(modes.Vinv, jnp.complex64) @ B0), "input")
        C = sample_C(rngs.params(), config.c_init, H, modes.V, directions)
        self.C = ssm_parameter(as_pair(C[0]), "output")
        self.C_reverse = ssm_parameter(as_pair(C[1]), "output") if directions == 2 else None
        self.D = ssm_parameter(jax.random.normal(rngs.params(), (H,)), "skip")
        low, high = np.log(config.dt_min), np.log(config.dt_max)
        self.log_dt = ssm_parameter(jax.random.uniform(rngs.params(), (P,), minval=low, maxval=high), "dt")

    def initial_modes(self, config: Config) -> Modes:
        """The half with Im Λ < 0 of HiPPO-LegS's normal part."""
        block = config.d_state // config.blocks
        Lambda, V, *_ = hippo.normal_part(block)
        half = block // 2
        return repeat_blocks(Lambda[:half], V[:, :half], V[:, :half].conj().T, config.blocks)

    def initial_B(self, key: Array, config: Config, H: int) -> Array:
        """Draw B₀ (P, H), the input matrix before the change of basis."""
        return jax.nn.initializers.lecun_normal()(key, (config.d_state, H))

    def eigenvalues(self) -> tuple[Array, Array]:
        """The eigenvalues of the continuous system as Re Λ and Im Λ, each (P',)."""
        real = self.Lambda_re[...]
        return jnp.minimum(real, -1e-4) if self.config.clip_eigs else real, self.Lambda_im[...]

    def discretized(self) -> tuple[Pair, Array, Array, Array | None]:
        """The system as `scan.diagonal_ssm` takes it."""
        rule = discretization.DISCRETIZATIONS[self.config.discretization]
        bar_re, bar_im, factor_re, factor_im = rule(*self.eigenvalues(), jnp.exp(self.log_dt[...]))
        B_re, B_im = self.B[..., 0], self.B[..., 1]
        f_re, f_im = factor_re[:, None], factor_im[:, None]
        B = jnp.concatenate([(f_re * B_re - f_im * B_im).T, (f_re * B_im + f_im * B_re).T], axis=1)
        return (
            (bar_re, bar_im),
            B,
            self._output(self.C),
            None if self.C_reverse is None else self._output(self.C_reverse),
        )

    def _output(self, C: nnx.Param) -> Array:
        factor = 2.0 if self.conjugate_symmetry else 1.0
        return factor * jnp.concatenate([C[..., 0].T, -C[..., 1].T], axis=0)


def block(recipe: Recipe, config: Config, *, rngs: nnx.Rngs) -> Block:
    """Make one residual block of the recipe."""
    gate = Gate(config.activation, recipe.d_model, CONVENTIONS, rngs=rngs)
    return Block(recipe, S5Layer(recipe, config, rngs=rngs), gate, CONVENTIONS, rngs=rngs)


def network(recipe: Recipe, config: Config, shape: DataShape, *, rngs: nnx.Rngs) -> Classifier:
    """Make the network of the recipe for data of this shape."""
    blocks = [block(recipe, config, rngs=rngs) for _ in range(recipe.n_layers)]
    return Classifier(recipe, shape, blocks, CONVENTIONS, rngs=rngs)

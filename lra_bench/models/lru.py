"""The LRU: a linear recurrence with eigenvalues in the unit disc (Orvieto et al. 2023, arXiv 2303.06349).

It has no continuous time and no step size. Details that the paper leaves open follow NicolasZucchet/minimal-LRU @
bbd71b1, but means leave padding out, and pairs, which that code has not, have S5's head. Two directions share λ, B and
γ and have a C each, as in S5, from whose code the LRU authors started; the paper says only that Pathfinder and Path-X
are bidirectional.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from lra_bench.models.classifier import Classifier
from lra_bench.models.diagonal import DiagonalSSM
from lra_bench.models.layers import FLAX, Block, DataShape, Gate, ssm_parameter
from lra_bench.recipes.lru import Config
from lra_bench.spec import Recipe
from lra_bench.ssm.shapes import Pair

CONVENTIONS = FLAX
"""The conventions of the reference code."""


def ring(key: Array, N: int, r_min: float, r_max: float) -> Array:
    """Draw ν_log (N,) such that λ with |λ| = exp(−exp(ν_log)) is uniform on the ring's area (paper, lemma 3.2)."""
    limits = jnp.finfo(jnp.float32)
    u = jax.random.uniform(key, (N,), minval=limits.tiny)
    # |λ| = 1 has no finite ν_log, and rounding reaches it where r_max = 1.
    squared = jnp.minimum(u * (r_max**2 - r_min**2) + r_min**2, 1.0 - limits.epsneg)
    return jnp.log(-0.5 * jnp.log(squared))


def log_normalizer(nu_log: Array) -> Array:
    """Compute γ_log = ½ log(1 − |λ|²), without the cancellation that costs five digits near |λ| = 1 in float32."""
    return 0.5 * jnp.log(-jnp.expm1(-2.0 * jnp.exp(nu_log)))


class LRULayer(DiagonalSSM):
    """The layer x_t = λ x_{t−1} + e^{γ_log} ∘ (B u_t), y_t = Re(C x_t) + D u_t over (L, b, H)."""

    def __init__(self, recipe: Recipe, config: Config, *, rngs: nnx.Rngs):
        H, N = recipe.d_model, config.d_state

        def normal(*shape: int) -> Array:
            return jax.random.normal(rngs.params(), shape)

        self.nu_log = ssm_parameter(ring(rngs.params(), N, config.r_min, config.r_max), "eigenvalues")
        phase = jax.random.uniform(rngs.params(), (N,), minval=jnp.finfo(jnp.float32).tiny)
        self.theta_log = ssm_parameter(jnp.log(config.max_phase * phase), "eigenvalues")
        self.gamma_log = ssm_parameter(log_normalizer(self.nu_log[...]), "input")
        self.B = ssm_parameter(normal(N, H, 2) * (2 * H) ** -0.5, "input")
        self.C = ssm_parameter(normal(H, N, 2) * N**-0.5, "output")
        self.C_reverse = ssm_parameter(normal(H, N, 2) * N**-0.5, "output") if recipe.bidirectional else None
        self.D = ssm_parameter(normal(H), "skip")

    def eigenvalues(self) -> Pair:
        """The eigenvalues as Re λ and Im λ, each (N,)."""
        modulus, phase = jnp.exp(-jnp.exp(self.nu_log[...])), jnp.exp(self.theta_log[...])
        return modulus * jnp.cos(phase), modulus * jnp.sin(phase)

    def _input(self) -> Array:
        """The input matrix (H, 2N) as `scan.diagonal_ssm` takes it."""
        B = jnp.exp(self.gamma_log[...])[:, None, None] * self.B[...]
        return jnp.concatenate([B[..., 0].T, B[..., 1].T], axis=1)

    def _output(self, C: nnx.Param) -> Array:
        return jnp.concatenate([C[..., 0].T, -C[..., 1].T], axis=0)

    def discretized(self) -> tuple[Pair, Array, Array, Array | None]:
        """The system as `scan.diagonal_ssm` takes it."""
        C_reverse = None if self.C_reverse is None else self._output(self.C_reverse)
        return self.eigenvalues(), self._input(), self._output(self.C), C_reverse


def block(recipe: Recipe, config: Config, *, rngs: nnx.Rngs) -> Block:
    """Make one residual block of the recipe."""
    gate = Gate(config.activation, recipe.d_model, CONVENTIONS, rngs=rngs)
    return Block(recipe, LRULayer(recipe, config, rngs=rngs), gate, CONVENTIONS, rngs=rngs)


def network(recipe: Recipe, config: Config, shape: DataShape, *, rngs: nnx.Rngs) -> Classifier:
    """Make the network of the recipe for data of this shape."""
    blocks = [block(recipe, config, rngs=rngs) for _ in range(recipe.n_layers)]
    return Classifier(recipe, shape, blocks, CONVENTIONS, rngs=rngs)

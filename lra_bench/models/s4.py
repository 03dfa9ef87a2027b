"""S4: a diagonal plus rank one state space per channel, computed as one long convolution (Gu, Goel & Ré 2022;
state-spaces/s4 @ e757cef5, its fourth version).

The stored C is C̃ = C (I − Āᴸ) for the length L of the data, as there. Padded positions are zeroed on entering each
block and left out of the mean; BatchNorm sees them.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from pydantic import Field, model_validator

from lra_bench import UserError
from lra_bench.classifier import Classifier
from lra_bench.layers import TORCH, Block, DataShape, GLUOutput, refuse_steps_if, ssm_parameter
from lra_bench.spec import WIDEST, Frozen, Recipe
from lra_bench.ssm import dplr, hippo
from lra_bench.ssm.cauchy import dplr_kernel
from lra_bench.ssm.convolution import channel_major, convolve

CONVENTIONS = TORCH

SMALLEST = 1e-4
"""−Re Λ and −Im Λ start no smaller (state-spaces/s4 kernels/ssm.py): S4D-Lin's first mode turns, slowly."""


class Config(Frozen):
    """Settings of the S4 layer, named as the reference's."""

    d_state: int = Field(ge=2, le=WIDEST, multiple_of=2, description="N, states of each channel; N/2 are stored")
    n_ssm: int | None = Field(
        ge=1, description="S, different Λ, P, B; channel h uses number h modulo S. None: one for each channel"
    )
    dt_min: float = Field(gt=0)
    dt_max: float = Field(gt=0)
    dt_transform: Literal["softplus", "exp"] = Field(description="from the parameter to Δ")

    @model_validator(mode="after")
    def _order(self) -> Config:
        if self.dt_min > self.dt_max:
            raise ValueError(f"dt_min must not exceed dt_max, got {self.dt_min} > {self.dt_max}")
        return self


def as_pair(z: Array | np.ndarray) -> Array:
    """Complex → real with a last axis (re, im): optimisers see real numbers only."""
    return jnp.stack([jnp.asarray(z.real, jnp.float32), jnp.asarray(z.imag, jnp.float32)], axis=-1)


def as_complex(pair: nnx.Param) -> Array:
    return jax.lax.complex(pair[..., 0], pair[..., 1])


class S4Base(nnx.Module):
    """y = k * u + k' * u over the strict future + D u for (L, b, H); what S4, S4D and S4-PTD share: Λ, Δ, C, D."""

    def __init__(self, recipe: Recipe, config: Config, Lambda: np.ndarray, *, rngs: nnx.Rngs):
        H = recipe.d_model
        self.n_ssm = config.n_ssm or H
        if H % self.n_ssm:
            raise UserError(f"n_ssm must divide d_model = {H}, got {self.n_ssm}.")
        self.config = config
        self.channels = 2 if recipe.bidirectional else 1
        self.A_real = ssm_parameter(self._copies(np.log(np.maximum(-Lambda.real, SMALLEST))), "eigenvalues")
        self.A_imag = ssm_parameter(self._copies(-Lambda.imag), "eigenvalues")
        low, high = np.log(config.dt_min), np.log(config.dt_max)
        log_dt = jax.random.uniform(rngs.params(), (H,), minval=low, maxval=high)
        if config.dt_transform == "softplus":
            log_dt = jnp.exp(log_dt) + jnp.log(-jnp.expm1(-jnp.exp(log_dt)))
        self.inv_dt = ssm_parameter(log_dt, "step")
        self.D = ssm_parameter(jax.random.normal(rngs.params(), (H,)), "skip")

    def _copies(self, values: np.ndarray | Array) -> Array:
        """The same values for each of the S systems, stacked."""
        return jnp.stack([jnp.asarray(values, jnp.float32)] * self.n_ssm)

    def _per_channel(self, x: Array) -> Array:
        """(S, N) → (H, N), or (1, N) left to broadcast."""
        return x if len(x) == 1 else jnp.tile(x, (self.D.shape[0] // len(x), 1))

    def Lambda(self) -> Array:
        """Complex (H or 1, N')."""
        return self._per_channel(jax.lax.complex(-jnp.exp(self.A_real[...]), -self.A_imag[...]))

    def steps(self) -> Array:
        """Δ (H,)."""
        transform = jax.nn.softplus if self.config.dt_transform == "softplus" else jnp.exp
        return transform(self.inv_dt[...])

    def kernel(self, L: int) -> Array:
        """(c, H, L)."""
        raise AssertionError("a layer computes its own kernel")

    def __call__(self, u: Array) -> Array:
        kernels = self.kernel(len(u))
        now = kernels[0].at[:, 0].add(self.D[...])  # D u is one more tap at lag 0
        future = kernels[1] if self.channels == 2 else None
        return channel_major(convolve(channel_major(u), now, future))


def normal_C(key: Array, channels: int, H: int, N: int) -> Array:
    """Complex standard normal, (c, H, N)."""
    re, im = jax.random.normal(key, (2, channels, H, N)) * 0.5**0.5
    return jax.lax.complex(re, im)


class Recurrence(NamedTuple):
    """The dense system, made once, and the states x (b, H, N) of each document."""

    system: dplr.Dense
    x: Array


class S4Layer(S4Base):
    """HiPPO-LegS as Λ − P Pᴴ, bilinear, by Cauchy sums."""

    def __init__(self, recipe: Recipe, config: Config, length: int, *, rngs: nnx.Rngs):
        part, half = hippo.normal_part(config.d_state), config.d_state // 2
        super().__init__(recipe, config, part.Lambda[:half], rngs=rngs)
        self.length = length
        self.P = ssm_parameter(self._copies(as_pair(part.P_tilde[:half])), "low_rank")
        self.B = ssm_parameter(self._copies(as_pair(hippo.clip_imaginary(part.B_tilde[:half]))), "input")
        C = normal_C(rngs.params(), self.channels, recipe.d_model, half)
        self.C = ssm_parameter(as_pair(dplr.fold(self._dense(C), length)), "output")

    def _low_rank_and_input(self) -> tuple[Array, Array]:
        return self._per_channel(as_complex(self.P)), self._per_channel(as_complex(self.B))

    def _dense(self, C: Array) -> dplr.Dense:
        return dplr.discretise(self.Lambda(), *self._low_rank_and_input(), C, self.steps())

    def kernel(self, L: int) -> Array:
        """For inputs longer than the stored length, C̃ is folded on by doubling."""
        C_tilde, length = as_complex(self.C), self.length
        while length < L:
            C_tilde, length = dplr.double(self._dense(C_tilde), length), 2 * length
        return dplr_kernel(self.Lambda(), *self._low_rank_and_input(), C_tilde, self.steps(), length)[..., :L]

    def initial_state(self, batch: int) -> Recurrence:
        refuse_steps_if(self.channels == 2)
        system = self._dense(as_complex(self.C))
        system = system._replace(C=dplr.output_row(dplr.unfold(system, self.length)))
        return Recurrence(system, jnp.zeros((batch, *system.B_bar.shape), system.B_bar.dtype))

    def step(self, state: Recurrence, u_t: Array) -> tuple[Recurrence, Array]:
        x, y_t = dplr.advance(state.system, state.x, u_t)
        return Recurrence(state.system, x), y_t + self.D[...] * u_t


def s4_block(recipe: Recipe, layer: Any, *, rngs: nnx.Rngs) -> Block:
    """The S4 block around a layer: GELU, GLU and three dropouts after it."""
    gate = GLUOutput(recipe.d_model, CONVENTIONS, rngs=rngs)
    return Block(recipe, layer, gate, CONVENTIONS, rngs=rngs)


def network(recipe: Recipe, config: Config, shape: DataShape, *, rngs: nnx.Rngs) -> Classifier:
    """A whole network and not a block, because C is folded for the length of the data."""
    blocks = [
        s4_block(recipe, S4Layer(recipe, config, shape.length, rngs=rngs), rngs=rngs) for _ in range(recipe.n_layers)
    ]
    return Classifier(recipe, shape, blocks, CONVENTIONS, rngs=rngs)

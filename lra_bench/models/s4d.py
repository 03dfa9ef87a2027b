"""S4D: S4 with a diagonal state matrix, so that its kernel is a Vandermonde product (Gu, Gupta, Goel & Ré 2022;
state-spaces/s4 @ e757cef5 `src/models/sequence/kernels/ssm.py`, `mode: diag`)."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax
from pydantic import Field

from lra_bench.layers import Block, refuse_steps_if, ssm_parameter
from lra_bench.models import s4
from lra_bench.spec import Recipe
from lra_bench.ssm import discretise, hippo
from lra_bench.ssm.vandermonde import diagonal_kernel

CONVENTIONS = s4.CONVENTIONS


class Config(s4.Config):
    """S4's settings and two of its own."""

    init: hippo.DiagonalName = Field(description="Λ and B at the start: S4D-LegS, -Inv, -Lin or -Real")
    discretisation: discretise.Discretisation


class Recurrence(NamedTuple):
    """Ā, B̄ (H or 1, N'), made once, and the states x (b, H, N') of each document."""

    A_bar: Array
    B_bar: Array
    x: Array


class DiagonalLayer(s4.S4Base):
    """Any diagonal Λ by its Vandermonde product; `inputs` is B."""

    discretisation: discretise.Discretisation
    C: nnx.Param

    def inputs(self) -> Array:
        """B, complex (H or 1, N')."""
        raise AssertionError("a layer has its own B")

    def kernel(self, L: int) -> Array:
        C = s4.as_complex(self.C)
        return diagonal_kernel(self.Lambda(), self.inputs(), C, self.steps(), L, self.discretisation)

    def initial_state(self, batch: int) -> Recurrence:
        refuse_steps_if(self.channels == 2)
        Lambda = self.Lambda()
        rule = discretise.DISCRETISATIONS[self.discretisation]
        discrete = rule(Lambda.real, Lambda.imag, self.steps()[:, None])
        B_bar = lax.complex(discrete.factor_re, discrete.factor_im) * self.inputs()
        return Recurrence(
            lax.complex(discrete.Lambda_bar_re, discrete.Lambda_bar_im),
            B_bar,
            jnp.zeros((batch, *B_bar.shape), B_bar.dtype),
        )

    def step(self, state: Recurrence, u_t: Array) -> tuple[Recurrence, Array]:
        x = state.A_bar * state.x + state.B_bar * u_t[..., None]
        y_t = 2.0 * (s4.as_complex(self.C)[0] * x).real.sum(-1)
        return state._replace(x=x), y_t + self.D[...] * u_t


class S4DLayer(DiagonalLayer):
    """Trained B beside C, both complex, one of each conjugate pair."""

    def __init__(self, recipe: Recipe, config: Config, *, rngs: nnx.Rngs):
        Lambda, B = hippo.diagonal(config.init, config.d_state)
        Lambda = Lambda.real - 1j * np.maximum(-Lambda.imag, s4.SMALLEST)
        super().__init__(recipe, config, Lambda, rngs=rngs)
        self.discretisation = config.discretisation
        self.B = ssm_parameter(self._copies(s4.as_pair(B)), "input")
        C = s4.normal_C(rngs.params(), self.channels, recipe.d_model, len(Lambda))
        self.C = ssm_parameter(s4.as_pair(C), "output")

    def inputs(self) -> Array:
        return self._per_channel(s4.as_complex(self.B))


def block(recipe: Recipe, config: Config, *, rngs: nnx.Rngs) -> Block:
    return s4.s4_block(recipe, S4DLayer(recipe, config, rngs=rngs), rngs=rngs)

"""What S5, S5-PTD and the LRU share: a diagonal state space run as a recurrence, in one direction or both."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax import Array

from lra_bench.models.layers import refuse_steps_if
from lra_bench.ssm import scan


class DiagonalState(NamedTuple):
    """The discretized system, made once, and the states x (b, 2P) of each document, in the layout of `scan.step`."""

    Lambda_bar: scan.Pair
    B: Array
    C: Array
    x: Array

    @classmethod
    def at_rest(cls, Lambda_bar: scan.Pair, B: Array, C: Array, batch: int) -> DiagonalState:
        return cls(Lambda_bar, B, C, jnp.zeros((batch, C.shape[0]), C.dtype))

    def step(self, u_t: Array) -> tuple[DiagonalState, Array]:
        x, y_t = scan.step(self.Lambda_bar, self.B, self.C, self.x, u_t)
        return self._replace(x=x), y_t


class DiagonalSSM(nnx.Module):
    """y = C x + D u over (L, b, H), with x the recurrence of `discretized()` in one direction or both."""

    D: nnx.Param
    C_reverse: nnx.Param | None

    def discretized(self) -> tuple[scan.Pair, Array, Array, Array | None]:
        """Λ̄ (two of (P,)), B̄ (H, 2P), C and C_reverse (2P, H), in the layout of `scan.diagonal_ssm`."""
        raise AssertionError("a layer has its own system")

    def __call__(self, u: Array) -> Array:
        return scan.diagonal_ssm(*self.discretized(), u) + self.D[...] * u

    def folded(self, x: Array, scale: Array, shift: Array) -> Array:
        Lambda_bar, B, C, C_reverse = self.discretized()
        y = scan.diagonal_ssm(Lambda_bar, scale[:, None] * B, C, C_reverse, x, drive=shift @ B)
        return y + ((self.D[...] * scale) * x + self.D[...] * shift)

    def initial_state(self, batch: int) -> DiagonalState:
        refuse_steps_if(self.C_reverse is not None)
        Lambda_bar, B, C, _ = self.discretized()
        return DiagonalState.at_rest(Lambda_bar, B, C, batch)

    def step(self, state: DiagonalState, u_t: Array) -> tuple[DiagonalState, Array]:
        state, y_t = state.step(u_t)
        return state, y_t + self.D[...] * u_t

"""The base of S5, S5-PTD and the LRU: a diagonal state space run as a recurrence, in one direction or both."""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax import Array

from lra_bench.models.layers import refuse_steps_if
from lra_bench.models.shapes import PerFeature
from lra_bench.ssm import scan
from lra_bench.ssm.shapes import Features, FeaturesAt, Pair


class DiagonalState(NamedTuple):
    """The discretized system, made once, and the packed states x (b, 2P), all in the layout of `scan.step`."""

    Lambda_bar: Pair
    B: Array
    C: Array
    x: Array

    @classmethod
    def at_rest(cls, Lambda_bar: Pair, B: Array, C: Array, batch: int) -> DiagonalState:
        """The states of `batch` documents before their first step: zeros."""
        return cls(Lambda_bar, B, C, jnp.zeros((batch, C.shape[0]), C.dtype))

    def step(self, u_t: FeaturesAt) -> tuple[DiagonalState, FeaturesAt]:
        """The next states, and C x_t (b, H), from the inputs u_t (b, H)."""
        x, y_t = scan.step(self.Lambda_bar, self.B, self.C, self.x, u_t)
        return self._replace(x=x), y_t


class DiagonalSSM(nnx.Module):
    """The layer y = C x + D u over (L, b, H), where x is the recurrence of `discretized()` in one direction or both."""

    D: nnx.Param
    C_reverse: nnx.Param | None
    window: int | None = None
    """The number of inputs that a state remembers; None means all (`ssm/window.py`)."""

    @abstractmethod
    def discretized(self) -> tuple[Pair, Array, Array, Array | None]:
        """The system as `scan.diagonal_ssm` takes it: Λ̄ (two of (P,)), B̄ (H, 2P), C and C_reverse (2P, H)."""

    @property
    def discretized_width(self) -> int:
        """The length 2P of a row of packed states."""
        return self.discretized()[1].shape[1]

    def __call__(self, u: Features) -> Features:
        """Apply the layer to (L, b, H)."""
        return (scan.diagonal_ssm(*self.discretized(), u, window=self.window) + self.D[...] * u).astype(u.dtype)

    def folded(self, x: Features, scale: PerFeature, shift: PerFeature) -> Features:
        """Apply the layer to scale · x + shift, with the map put into B, D and a constant drive."""
        Lambda_bar, B, C, C_reverse = self.discretized()
        y = scan.diagonal_ssm(Lambda_bar, scale[:, None] * B, C, C_reverse, x, drive=shift @ B, window=self.window)
        return (y + ((self.D[...] * scale) * x + self.D[...] * shift)).astype(x.dtype)

    def initial_state(self, batch: int) -> DiagonalState:
        """The states before the first step. Raises UserError for a bidirectional layer."""
        refuse_steps_if(self.C_reverse is not None)
        Lambda_bar, B, C, _ = self.discretized()
        return DiagonalState.at_rest(Lambda_bar, B, C, batch)

    def step(self, state: DiagonalState, u_t: FeaturesAt) -> tuple[DiagonalState, FeaturesAt]:
        """The next states and y_t (b, H) from the inputs u_t (b, H)."""
        state, y_t = state.step(u_t)
        return state, (y_t + self.D[...] * u_t).astype(u_t.dtype)

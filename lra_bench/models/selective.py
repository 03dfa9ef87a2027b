"""The base of S6 and B²S6: a state space for each feature whose dt, B and C are functions of the input at each step."""

from __future__ import annotations

from abc import abstractmethod

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from lra_bench.errors import UserError
from lra_bench.machine.complex_parts import Parts
from lra_bench.machine.products import contraction, tokens
from lra_bench.models.layers import refuse_steps_if, ssm_parameter
from lra_bench.recipes.b2s6 import SelectiveConfig
from lra_bench.spec import Recipe
from lra_bench.ssm.selective import Constants, Steps, advance, at_rest, by_block, selective_scan
from lra_bench.ssm.shapes import Features, FeaturesAt


class SelectiveSSM(nnx.Module):
    """The layer y_t = Re(C_t · x_t) + D u_t over (L, b, H), where x are the states of `ssm/selective.py`.

    Features are in G blocks of p. Within a block, B_t = W_B u_t, C_t = W_C u_t and dt_t = softplus(wᵀu_t + b). Two
    directions share all but W_C, and both include the current step. Raises UserError where G does not divide H.
    """

    def __init__(self, recipe: Recipe, config: SelectiveConfig, blocks: int, *, rngs: nnx.Rngs):
        H = recipe.d_model
        if H % blocks:
            raise UserError(f"blocks must divide d_model = {H}, got {blocks}.")
        self.blocks = blocks
        self.w = ssm_parameter(self.uniform(H // blocks, rngs), "dt")
        low, high = np.log(config.dt_min), np.log(config.dt_max)
        dt = jnp.exp(jax.random.uniform(rngs.params(), (H,), minval=low, maxval=high))
        self.b = ssm_parameter(dt + jnp.log(-jnp.expm1(-dt)), "dt")  # the inverse of softplus
        self.C = ssm_parameter(self.uniform(H // blocks, rngs, config.d_state), "output")
        reverse = self.uniform(H // blocks, rngs, config.d_state) if recipe.bidirectional else None
        self.C_reverse = None if reverse is None else ssm_parameter(reverse, "output")
        self.D = ssm_parameter(jnp.ones(H), "skip")

    def uniform(self, p: int, rngs: nnx.Rngs, *shape: int) -> Array:
        """Draw weights (G, p, …) from the law of torch's dense layers, uniform within ±1/√p."""
        return jax.random.uniform(rngs.params(), (self.blocks, p, *shape), minval=-(p**-0.5), maxval=p**-0.5)

    @abstractmethod
    def eigenvalues(self) -> Parts:
        """A, or its real and imaginary part, (H, N) each."""

    @abstractmethod
    def inputs(self) -> Parts:
        """W_B, or its real and imaginary part, (G, p, N) each."""

    @abstractmethod
    def bias(self) -> Parts:
        """What is added to W_B u_t for each feature, (H, N) each; nothing where there is no such vector."""

    def selected(self, u: Array) -> tuple[Array, Parts, list[Array]]:
        """dt (…, H), the parts of B (…, G, N), and C (…, G, N) of each direction, from inputs u (…, H)."""
        C = [each[...] for each in (self.C, self.C_reverse) if each is not None]
        weights = [self.w[...][..., None], *self.inputs(), *C]
        by_feature = tokens(u).reshape(*tokens(u).shape[:-1], self.blocks, -1)
        found = contraction("...gp,gpm->...gm", by_feature, jnp.concatenate(weights, axis=-1).astype(u.dtype))
        found = found.reshape(*u.shape[:-1], *found.shape[-2:])
        step, *rest = jnp.split(found, np.cumsum([each.shape[-1] for each in weights])[:-1], axis=-1)
        dt = jax.nn.softplus(step + self.b[...].reshape(self.blocks, -1)).reshape(u.shape)
        return dt, tuple(rest[: -len(C)]), rest[-len(C) :]

    def __call__(self, u: Features) -> Features:
        """Apply the layer to (L, b, H)."""
        dt, B, directions = self.selected(u)
        y = self.D[...] * u
        for reverse, C in zip((False, True), directions, strict=False):
            y += selective_scan(self.eigenvalues(), self.bias(), dt, u, B, C, reverse)
        return y.astype(u.dtype)

    def initial_state(self, batch: int) -> Parts:
        """The states before the first step: zeros. Raises UserError for a bidirectional layer."""
        refuse_steps_if(self.C_reverse is not None)
        return at_rest(self._at(jnp.zeros((batch, self.D.shape[0])))[0], batch)

    def step(self, state: Parts, u_t: FeaturesAt) -> tuple[Parts, FeaturesAt]:
        """The next states and y_t (b, H) from the inputs u_t (b, H)."""
        constants, step = self._at(u_t)
        state, y_t = advance(constants, state, step)
        return state, (y_t.reshape(u_t.shape) + self.D[...] * u_t).astype(u_t.dtype)

    def _at(self, u_t: Array) -> tuple[Constants, Steps]:
        dt, B, (C,) = self.selected(u_t)
        return by_block(self.eigenvalues(), self.bias(), dt, u_t, B, C)

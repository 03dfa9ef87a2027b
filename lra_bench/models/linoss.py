"""LinOSS: forced harmonic oscillators with many inputs and outputs.

The sources are Rusch & Rus 2025 (arXiv 2410.03943) and tk-rusch/linoss @ 83e6318. There the layer is causal; two
directions share all but C, as in S5. The block is S5's with the gate that both use, and its BatchNorm has a scale and a
bias, which that code leaves out.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from lra_bench.machine.products import product
from lra_bench.models.classifier import Classifier
from lra_bench.models.layers import FLAX, Block, DataShape, Gate, refuse_steps_if, ssm_parameter
from lra_bench.recipes.linoss import Config
from lra_bench.spec import Recipe
from lra_bench.ssm.oscillators import Oscillators, advance, recurrence, windowed_states
from lra_bench.ssm.shapes import Features, FeaturesAt

CONVENTIONS = FLAX
"""The conventions of S5's code, which is in JAX too."""


class OscillatorState(NamedTuple):
    """The discretized system, made once, and the packed states x (b, 4P)."""

    oscillators: Oscillators
    B: Array
    C: Array
    x: Array


class LinOSSLayer(nnx.Module):
    """The layer y = Re(C x) + D u over (L, b, H), where x are the positions of x'' = −A x + B u at steps of dt.

    A = relu(a) and dt = σ(s). B and C are complex, and the states of their real and imaginary parts are oscillators of
    their own with the same coefficients.
    """

    window: int | None = None
    """The number of inputs that a state remembers; None means all (`ssm/window.py`)."""

    def __init__(self, recipe: Recipe, config: Config, *, rngs: nnx.Rngs):
        H, P = recipe.d_model, config.d_state

        def uniform(*shape: int, bound: float) -> Array:
            return jax.random.uniform(rngs.params(), shape, minval=-bound, maxval=bound)

        self.implicit = config.discretization == "im"
        self.a = ssm_parameter(jax.random.uniform(rngs.params(), (P,)), "eigenvalues")
        self.s = ssm_parameter(jax.random.uniform(rngs.params(), (P,)), "dt")
        self.B = ssm_parameter(uniform(P, H, 2, bound=H**-0.5), "input")
        self.C = ssm_parameter(uniform(H, P, 2, bound=P**-0.5), "output")
        self.C_reverse = ssm_parameter(uniform(H, P, 2, bound=P**-0.5), "output") if recipe.bidirectional else None
        self.D = ssm_parameter(jax.random.normal(rngs.params(), (H,)), "skip")

    def discretized(self) -> tuple[Oscillators, Array]:
        """The 2P real oscillators, and the matrix (H, 2P) from u to their forces.

        The implicit form (IM) takes the force of the spring at the new position, the other (IMEX) at the old one. IM
        solved for the new velocity is IMEX with velocity, spring and input times S = 1/(1 + dt² A).
        """
        A, dt = jax.nn.relu(self.a[...]), jax.nn.sigmoid(self.s[...])
        S = 1.0 / (1.0 + dt * dt * A) if self.implicit else jnp.ones_like(A)
        a, k, c, d = (jnp.concatenate([x, x]) for x in (S, S * dt * A, jnp.ones_like(A), dt))
        B = (S * dt)[:, None, None] * self.B[...]
        return (a, k, c, d), jnp.concatenate([B[..., 0].T, B[..., 1].T], axis=1)

    def _output(self, C: nnx.Param) -> Array:
        """The matrix (2P, H) from positions to y."""
        return jnp.concatenate([C[..., 0].T, -C[..., 1].T], axis=0)

    def __call__(self, u: Features) -> Features:
        """Apply the layer to (L, b, H)."""
        oscillators, B = self.discretized()
        driven = _times(u, B).astype(u.dtype)
        b = jnp.concatenate([driven, jnp.zeros_like(driven)], axis=-1)

        def positions(reverse: bool) -> Array:
            if self.window is None:
                return _positions(recurrence(oscillators, b, reverse))
            return _positions(windowed_states(oscillators, b, self.window, reverse))

        y = _times(positions(False), self._output(self.C))
        if self.C_reverse is not None:
            y += _times(positions(True), self._output(self.C_reverse))
        return (y + self.D[...] * u).astype(u.dtype)

    def initial_state(self, batch: int) -> OscillatorState:
        """The states before the first step: rest. Raises UserError for a bidirectional layer."""
        refuse_steps_if(self.C_reverse is not None)
        oscillators, B = self.discretized()
        return OscillatorState(oscillators, B, self._output(self.C), jnp.zeros((batch, 2 * B.shape[1])))

    def step(self, state: OscillatorState, u_t: FeaturesAt) -> tuple[OscillatorState, FeaturesAt]:
        """The next states and y_t (b, H) from the inputs u_t (b, H)."""
        driven = _times(u_t, state.B)
        x = advance(state.oscillators, state.x, jnp.concatenate([driven, jnp.zeros_like(driven)], axis=-1))
        y_t = _times(_positions(x).astype(u_t.dtype), state.C) + self.D[...] * u_t
        return state._replace(x=x), y_t.astype(u_t.dtype)


def _positions(x: Array) -> Array:
    """The positions (..., 2P) of packed states (..., 4P)."""
    return jnp.split(x, 2, axis=-1)[1]


def _times(x: Array, weight: Array) -> Array:
    """Compute x @ weight as one two-dimensional product, as in `ssm/scan.py`."""
    return product(x.reshape(-1, x.shape[-1]), weight).reshape(*x.shape[:-1], -1)


def block(recipe: Recipe, config: Config, *, rngs: nnx.Rngs) -> Block:
    """Make one residual block of the recipe."""
    gate = Gate(config.activation, recipe.d_model, CONVENTIONS, rngs=rngs)
    return Block(recipe, LinOSSLayer(recipe, config, rngs=rngs), gate, CONVENTIONS, rngs=rngs)


def network(recipe: Recipe, config: Config, shape: DataShape, *, rngs: nnx.Rngs) -> Classifier:
    """Make the network of the recipe for data of this shape."""
    blocks = [block(recipe, config, rngs=rngs) for _ in range(recipe.n_layers)]
    return Classifier(recipe, shape, blocks, CONVENTIONS, rngs=rngs)

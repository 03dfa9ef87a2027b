"""The base of S4, S4D and S4-PTD: a state space for each feature, computed as a long convolution, and its block."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax

from lra_bench.errors import UserError
from lra_bench.models.layers import TORCH, Block, Conventions, GLUOutput, as_complex, refuse_steps_if, ssm_parameter
from lra_bench.recipes.s4 import FamilyConfig, SteppedConfig
from lra_bench.spec import Discretization, Recipe
from lra_bench.ssm.convolution import channel_major, convolve
from lra_bench.ssm.discretization import DISCRETIZATIONS
from lra_bench.ssm.real_transform import REAL_TRANSFORMS
from lra_bench.ssm.shapes import Features, FeaturesAt, Kernels, ModeWeights, SharedModes
from lra_bench.ssm.vandermonde import diagonal_kernel
from lra_bench.ssm.window import cut

CONVENTIONS = TORCH
"""The conventions of the S4 family."""

SMALLEST = 1e-4
"""The smallest initial −Re Λ and, from v4.0.0 on, the smallest initial −Im Λ (state-spaces/s4 kernels/ssm.py,
`inv_transform`)."""


class LongConvolution(nnx.Module):
    """The layer y = k * u + k' * u over the strict future + D u for (L, b, H), with parameters for Λ, dt and D.

    A subclass has B and C, and computes the kernels. Raises UserError where `n_ssm` does not divide the features, and
    where `real_transform` cannot give the initial Re Λ.
    """

    window: int | None = None
    """The number of taps of each kernel that are used; None means all (`ssm/window.py`)."""

    def __init__(self, recipe: Recipe, config: FamilyConfig, Lambda: np.ndarray, *, rngs: nnx.Rngs):
        H = recipe.d_model
        self.n_ssm = config.n_ssm or H
        if H % self.n_ssm:
            raise UserError(f"n_ssm must divide d_model = {H}, got {self.n_ssm}.")
        self.config = config
        self.channels = 2 if recipe.bidirectional else 1
        self.A_real = ssm_parameter(self._copies(initial_A_real(Lambda, config.real_transform)), "eigenvalues")
        self.A_imag = ssm_parameter(self._copies(-Lambda.imag), "eigenvalues")
        self.inv_dt = ssm_parameter(initial_inv_dt(rngs.params(), (H,), config), "dt")
        self.D = skip_weights((H,), config, rngs=rngs)

    def _copies(self, values: np.ndarray | Array) -> Array:
        """The same values for each of the S systems, stacked: (S, …)."""
        return jnp.stack([jnp.asarray(values, jnp.float32)] * self.n_ssm)

    def _per_channel(self, x: Array) -> Array:
        """Repeat (S, N) to (H, N). With S = 1 it stays (1, N) and broadcasts."""
        return x if len(x) == 1 else jnp.tile(x, (self.D.shape[0] // len(x), 1))

    def decay(self) -> Array:
        """The decay −Re Λ, (S, N'), where N' is the number of stored states."""
        return REAL_TRANSFORMS[self.config.real_transform].decay(self.A_real[...])

    def Lambda(self) -> Array:
        """The eigenvalues Λ, complex (H or 1, N')."""
        return self._per_channel(jax.lax.complex(-self.decay(), -self.A_imag[...]))

    def dt(self) -> Array:
        """The step size dt (H,)."""
        return dt_of(self.inv_dt[...], self.config)

    @abstractmethod
    def kernel(self, L: int) -> Kernels:
        """The kernels (c, H, L) of every direction."""

    def __call__(self, u: Features) -> Features:
        """Apply the layer to (L, b, H)."""
        kernels = self.kernel(len(u)) if self.window is None else cut(self.kernel(len(u)), self.window)
        now = kernels[0].at[:, 0].add(self.D[...])  # D u is a convolution with D at lag 0
        future = kernels[1] if self.channels == 2 else None
        return channel_major(convolve(channel_major(u), now, future))


class ModalState(NamedTuple):
    """The discretized Ā and B̄ (H or 1, N'), made once, and the states x (b, H, N')."""

    A_bar: Array
    B_bar: Array
    x: Array


class DiagonalConvolution(LongConvolution):
    """A long convolution whose Λ is diagonal, so that its kernel is a Vandermonde product."""

    discretization: Discretization
    C: nnx.Param

    @abstractmethod
    def inputs(self) -> SharedModes:
        """The input matrix B, (H or 1, N' or 1)."""

    def kernel(self, L: int) -> Kernels:
        """The kernels (c, H, L) of every direction."""
        C = as_complex(self.C)
        return diagonal_kernel(self.Lambda(), self.inputs(), C, self.dt(), L, self.discretization)

    def initial_state(self, batch: int) -> ModalState:
        """The states before the first step. Raises UserError for a bidirectional layer."""
        refuse_steps_if(self.channels == 2)
        Lambda = self.Lambda()
        rule = DISCRETIZATIONS[self.discretization]
        discrete = rule(Lambda.real, Lambda.imag, self.dt()[:, None])
        B_bar = lax.complex(discrete.factor_re, discrete.factor_im) * self.inputs()
        return ModalState(
            lax.complex(discrete.Lambda_bar_re, discrete.Lambda_bar_im),
            B_bar,
            jnp.zeros((batch, *B_bar.shape), B_bar.dtype),
        )

    def step(self, state: ModalState, u_t: FeaturesAt) -> tuple[ModalState, FeaturesAt]:
        """The next states and y_t (b, H) from the inputs u_t (b, H)."""
        x = state.A_bar * state.x + state.B_bar * u_t[..., None]
        y_t = 2.0 * (as_complex(self.C)[0] * x).real.sum(-1)
        return state._replace(x=x), (y_t + self.D[...] * u_t).astype(u_t.dtype)


def initial_A_real(Lambda: np.ndarray, name: str) -> np.ndarray:
    """The parameter that the named function takes to −Re Λ ≥ `SMALLEST`. Raises UserError where there is none."""
    decay = np.maximum(-Lambda.real, SMALLEST)
    transform = REAL_TRANSFORMS[name]
    if decay.max() >= transform.limit:
        raise UserError(
            f"real_transform={name} keeps −Re Λ below {transform.limit:g}, and the initial Λ has {decay.max():.3g}. "
            "Take exp or softplus."
        )
    return transform.weight(decay)


def skip_weights(shape: tuple[int, ...], config: SteppedConfig, *, rngs: nnx.Rngs) -> nnx.Variable:
    """Make D from normal numbers; without a skip it is zero and not trained."""
    if config.skip:
        return ssm_parameter(jax.random.normal(rngs.params(), shape), "skip")
    return nnx.BatchStat(jnp.zeros(shape))


def initial_inv_dt(key: Array, shape: tuple[int, ...], config: SteppedConfig) -> Array:
    """Draw the parameters of step sizes whose logarithm is uniform between those of dt_min and dt_max."""
    low, high = np.log(config.dt_min), np.log(config.dt_max)
    log_dt = jax.random.uniform(key, shape, minval=low, maxval=high)
    if config.dt_transform == "exp":
        return log_dt
    # The inverse of softplus at dt = exp(log_dt), in a form that does not overflow.
    return jnp.exp(log_dt) + jnp.log(-jnp.expm1(-jnp.exp(log_dt)))


def dt_of(inv_dt: Array, config: SteppedConfig) -> Array:
    """The step sizes of these parameters, of any shape."""
    return jax.nn.softplus(inv_dt) if config.dt_transform == "softplus" else jnp.exp(inv_dt)


def clamped(Lambda: np.ndarray) -> np.ndarray:
    """Λ with −Im Λ ≥ `SMALLEST`, as the code clamps it. A mode of the other sign of Im Λ then almost stands still."""
    return Lambda.real - 1j * np.maximum(-Lambda.imag, SMALLEST)


def normal_C(key: Array, channels: int, H: int, N: int) -> ModeWeights:
    """Draw C (c, H, N) from the complex standard normal law."""
    re, im = jax.random.normal(key, (2, channels, H, N)) * 0.5**0.5
    return jax.lax.complex(re, im)


def block_around(recipe: Recipe, layer: Any, conventions: Conventions, *, rngs: nnx.Rngs) -> Block:
    """Make the S4 block around a layer, with `GLUOutput` after it."""
    gate = GLUOutput(recipe.d_model, conventions, rngs=rngs)
    return Block(recipe, layer, gate, conventions, rngs=rngs)

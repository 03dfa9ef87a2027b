"""S5: a diagonal, multi-input multi-output state space layer (Smith, Warrington & Linderman 2023; lindermanlab/S5 @
3c18fdb6)."""

from __future__ import annotations

from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from pydantic import Field, model_validator

from lra_bench.layers import FLAX, Block, Gate, GateKind, refuse_steps_if, ssm_parameter
from lra_bench.spec import WIDEST, Frozen, Recipe
from lra_bench.ssm import discretise, hippo, scan

CONVENTIONS = FLAX


class Config(Frozen):
    """Settings of the S5 layer, named as the reference's where it has a name."""

    d_state: int = Field(ge=2, le=WIDEST, description="P, nominal states; with conjugate symmetry P/2 are stored")
    blocks: int = Field(ge=1, description="J, copies of a HiPPO block of size P/J that Λ starts from")
    activation: GateKind
    c_init: Literal["lecun_normal", "trunc_standard_normal", "complex_normal"]
    discretisation: discretise.Discretisation
    dt_min: float = Field(gt=0)
    dt_max: float = Field(gt=0)
    clip_eigenvalues: bool = Field(description="Re Λ ≤ −1e-4 at every step")

    @model_validator(mode="after")
    def _blocks_divide_states(self) -> Config:
        if self.d_state % (2 * self.blocks):
            raise ValueError(f"d_state must be a multiple of 2·blocks = {2 * self.blocks}, got {self.d_state}")
        if self.dt_min > self.dt_max:
            raise ValueError(f"dt_min must not exceed dt_max, got {self.dt_min} > {self.dt_max}")
        return self


class Modes(NamedTuple):
    """Eigenvalues and vectors that Λ, B and C start from: Λ (P',), V (P, P'), V⁻¹ (P', P)."""

    Lambda: np.ndarray
    V: np.ndarray
    Vinv: np.ndarray


class Recurrence(NamedTuple):
    """The discretised system, made once, and the states x (b, 2P) of each document, in the layout of `scan.step`."""

    Lambda_bar: scan.Pair
    B: Array
    C: Array
    x: Array

    @classmethod
    def at_rest(cls, Lambda_bar: scan.Pair, B: Array, C: Array, batch: int) -> Recurrence:
        return cls(Lambda_bar, B, C, jnp.zeros((batch, C.shape[0]), C.dtype))

    def step(self, u_t: Array) -> tuple[Recurrence, Array]:
        x, y_t = scan.step(self.Lambda_bar, self.B, self.C, self.x, u_t)
        return self._replace(x=x), y_t


def repeat_blocks(Lambda: np.ndarray, V: np.ndarray, Vinv: np.ndarray, blocks: int) -> Modes:
    """`blocks` copies of one block's modes, block-diagonal."""
    eye = np.eye(blocks)
    return Modes(np.tile(Lambda, blocks), np.kron(eye, V), np.kron(eye, Vinv))


def sample_C(key: Array, kind: str, H: int, V: np.ndarray, directions: int) -> list[Array]:
    """One complex (H, P') matrix per direction, with the three laws of the reference's `--C_init`.

    `lecun_normal` has deviation 1/√(P·H), not 1/√P: the reference's initialiser counts H as receptive field
    (models.md §1.4).
    """
    P, stored = V.shape
    if kind == "complex_normal":
        draws = jax.random.normal(key, (directions, H, stored, 2)) * 0.5**0.5
        return [jax.lax.complex(d[..., 0], d[..., 1]) for d in draws]
    batch_axis = 0 if kind == "trunc_standard_normal" else ()
    initialise = jax.nn.initializers.lecun_normal(batch_axis=batch_axis)
    draws_C0 = [initialise(k, (H, P, 2)) for k in jax.random.split(key, directions)]
    return [jax.lax.complex(d[..., 0], d[..., 1]) @ jnp.asarray(V, jnp.complex64) for d in draws_C0]


def as_pair(z: Array) -> Array:
    """Complex → real with a last axis (re, im): optimisers see real numbers only."""
    return jnp.stack([z.real, z.imag], axis=-1)


class DiagonalSSM(nnx.Module):
    """y = C x + D u over (L, b, H), with x the recurrence of `discretised()` in one direction or both."""

    D: nnx.Param
    C_reverse: nnx.Param | None

    def discretised(self) -> tuple[scan.Pair, Array, Array, Array | None]:
        """Λ̄ (two of (P,)), B̄ (H, 2P), C and C_reverse (2P, H), in the layout of `scan.diagonal_ssm`."""
        raise AssertionError("a layer has its own system")

    def __call__(self, u: Array) -> Array:
        return scan.diagonal_ssm(*self.discretised(), u) + self.D[...] * u

    def folded(self, x: Array, scale: Array, shift: Array) -> Array:
        Lambda_bar, B, C, C_reverse = self.discretised()
        y = scan.diagonal_ssm(Lambda_bar, scale[:, None] * B, C, C_reverse, x, drive=shift @ B)
        return y + ((self.D[...] * scale) * x + self.D[...] * shift)

    def initial_state(self, batch: int) -> Recurrence:
        refuse_steps_if(self.C_reverse is not None)
        Lambda_bar, B, C, _ = self.discretised()
        return Recurrence.at_rest(Lambda_bar, B, C, batch)

    def step(self, state: Recurrence, u_t: Array) -> tuple[Recurrence, Array]:
        state, y_t = state.step(u_t)
        return state, y_t + self.D[...] * u_t


class S5Layer(DiagonalSSM):
    """Λ, B, C and Δ trained; two directions share all but C."""

    conjugate_symmetry: ClassVar[bool] = True

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
        self.log_step = ssm_parameter(jax.random.uniform(rngs.params(), (P,), minval=low, maxval=high), "step")

    def initial_modes(self, config: Config) -> Modes:
        """HiPPO-LegS's normal part, the half with Im Λ < 0."""
        block = config.d_state // config.blocks
        Lambda, V, *_ = hippo.normal_part(block)
        half = block // 2
        return repeat_blocks(Lambda[:half], V[:, :half], V[:, :half].conj().T, config.blocks)

    def initial_B(self, key: Array, config: Config, H: int) -> Array:
        """B₀ (P, H), before the change of basis."""
        return jax.nn.initializers.lecun_normal()(key, (config.d_state, H))

    def eigenvalues(self) -> tuple[Array, Array]:
        real = self.Lambda_re[...]
        return jnp.minimum(real, -1e-4) if self.config.clip_eigenvalues else real, self.Lambda_im[...]

    def discretised(self) -> tuple[scan.Pair, Array, Array, Array | None]:
        rule = discretise.DISCRETISATIONS[self.config.discretisation]
        bar_re, bar_im, factor_re, factor_im = rule(*self.eigenvalues(), jnp.exp(self.log_step[...]))
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
    gate = Gate(config.activation, recipe.d_model, CONVENTIONS, rngs=rngs)
    return Block(recipe, S5Layer(recipe, config, rngs=rngs), gate, CONVENTIONS, rngs=rngs)

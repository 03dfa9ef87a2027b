"""What a network is built of around a sequence layer: norms, gates, residual blocks.

Activations are time-major, (L, b, H): a recurrence then reads contiguous memory, and `reshape(-1, H)` to the
two-dimensional tokens that matrix products want costs nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from lra_bench.errors import UserError
from lra_bench.machine.xla import computed_once
from lra_bench.spec import GateKind, Recipe, Role


@dataclass(frozen=True)
class Conventions:
    """What the papers leave open and the reference codes decide; one value per family of codes."""

    initializer: Literal["flax", "torch"]
    gelu: Literal["tanh", "exact"]
    token_bias: bool
    """Tokens are one-hot vectors through a dense layer with bias, instead of a table."""
    unbiased_running_variance: bool
    layer_norm_epsilon: float
    final_norm: bool
    """One more norm after the last prenorm block."""
    mask_before_layer: bool
    """Padded positions are zeroed on entering each sequence layer."""


FLAX = Conventions("flax", "tanh", True, False, 1e-6, False, False)
"""lindermanlab/S5 and NicolasZucchet/minimal-LRU."""
TORCH = Conventions("torch", "exact", False, True, 1e-5, True, True)
"""state-spaces/s4 V4."""


@dataclass(frozen=True)
class DataShape:
    """What the model must know of the data: steps L, classes, documents per example, whether true lengths differ."""

    length: int
    classes: int
    documents: Literal[1, 2]
    variable_length: bool


class SequenceLayer(Protocol):
    """Maps (L, b, H) to (L, b, H). Its state space parameters are `ssm_parameter`s, so each has a role."""

    def __call__(self, u: Array, /) -> Array: ...


@runtime_checkable
class RecurrentLayer(SequenceLayer, Protocol):
    """A layer whose causal form also runs step by step: from `initial_state`, the y_t of the steps are the call's
    y."""

    def initial_state(self, batch: int, /) -> Any:
        """Before the first step; its first line is `refuse_steps_if`."""

    def step(self, state: Any, u_t: Array, /) -> tuple[Any, Array]:
        """The next state and y_t (b, H) from u_t (b, H)."""


@runtime_checkable
class FoldingLayer(SequenceLayer, Protocol):
    """A layer that takes an affine map before it into its own weights."""

    def folded(self, x: Array, scale: Array, shift: Array, /) -> Array:
        """The call's value at scale · x + shift, for x (L, b, H) and (H,) each, without that array."""


def refuse_steps_if(bidirectional: bool) -> None:
    """Raises UserError: a layer that looks ahead has no step."""
    if bidirectional:
        raise UserError("a bidirectional network cannot run step by step. Type --set bidirectional=false.")


def ssm_parameter(value: Array, role: Role) -> nnx.Param:
    """A parameter that knows which letter of the papers it is; the recipe's `groups` map the role to an optimizer
    group."""
    return nnx.Param(jnp.asarray(value), role=role)


def as_pair(z: Array | np.ndarray) -> Array:
    """A complex array as a float32 one with a last axis (re, im), because optimizers see real numbers only."""
    return jnp.stack([jnp.asarray(z.real, jnp.float32), jnp.asarray(z.imag, jnp.float32)], axis=-1)


def as_complex(pair: nnx.Param) -> Array:
    """The complex array that a parameter made by `as_pair` holds."""
    return jax.lax.complex(pair[..., 0], pair[..., 1])


def gelu(x: Array, conventions: Conventions) -> Array:
    return jax.nn.gelu(x, approximate=conventions.gelu == "tanh")


def dropout_masks(key: Array | None, rate: float, shape: tuple[int, ...], dtype: DTypeLike) -> list[Array] | None:
    """The factors of features, 0 or 1/(1 − rate), for each block of `shape` (blocks, masks, b, H).

    None where nothing is dropped, as in evaluation, which has no key.
    """
    if key is None or rate == 0.0:
        return None

    def draw(key: Array) -> list[Array]:
        # One row for all: as many axes, the same numbers cost the compiler half a second; a draw for each mask, one.
        kept = jax.random.bernoulli(key, 1.0 - rate, (math.prod(shape),))
        return list(kept.astype(dtype).reshape(shape) / (1.0 - rate))

    return computed_once(draw, key, shape, dtype)


def dropout(x: Array, masks: Array | None, number: int) -> Array:
    """Features of (L, b, H) dropped by one of the block's masks (masks, b, H), the same at all steps."""
    return x if masks is None else x * masks[number]


class Dense(nnx.Module):
    """x W + b on the last axis, as a product of two-dimensional tokens: XLA's gradient of W is far faster so
    (docs/references.md, "Two-dimensional tokens")."""

    def __init__(self, inputs: int, outputs: int, conventions: Conventions, *, rngs: nnx.Rngs):
        shape, key = (inputs, outputs), rngs.params()
        if conventions.initializer == "flax":
            self.kernel = nnx.Param(jax.nn.initializers.lecun_normal()(key, shape))
            self.bias = nnx.Param(jnp.zeros(outputs))
        else:
            bound = inputs**-0.5
            self.kernel = nnx.Param(jax.random.uniform(key, shape, minval=-bound, maxval=bound))
            self.bias = nnx.Param(jax.random.uniform(rngs.params(), (outputs,), minval=-bound, maxval=bound))

    def __call__(self, x: Array) -> Array:
        y = x.reshape(-1, x.shape[-1]) @ self.kernel[...] + self.bias[...]
        return y.reshape(*x.shape[:-1], -1)


class BatchNorm(nnx.Module):
    """Over batch and length, ε = 1e-5. Own code because torch keeps the unbiased running variance and flax the biased
    one."""

    def __init__(self, features: int, decay: float, unbiased: bool):
        self.scale = nnx.Param(jnp.ones(features))
        self.bias = nnx.Param(jnp.zeros(features))
        self.mean = nnx.BatchStat(jnp.zeros(features))
        self.var = nnx.BatchStat(jnp.ones(features))
        self.decay = decay
        self.unbiased = unbiased

    def __call__(self, x: Array, train: bool) -> Array:
        tokens = x.reshape(-1, x.shape[-1])
        if train:
            mean = tokens.mean(0)
            var = jnp.maximum((tokens * tokens).mean(0) - mean * mean, 0.0)
            n = tokens.shape[0]
            kept_var = var * (n / (n - 1)) if self.unbiased else var
            self.mean[...] = self.decay * self.mean[...] + (1 - self.decay) * mean
            self.var[...] = self.decay * self.var[...] + (1 - self.decay) * kept_var
        else:
            mean, var = self.mean[...], self.var[...]
        scale, shift = self.scale_and_shift(mean, var)
        return (tokens * scale + shift).reshape(x.shape)

    def scale_and_shift(self, mean: Array | None = None, var: Array | None = None) -> tuple[Array, Array]:
        """The affine map, each (H,), that normalizes by these moments; by the running ones as in evaluation."""
        mean, var = self.mean[...] if mean is None else mean, self.var[...] if var is None else var
        scale = self.scale[...] * jax.lax.rsqrt(var + 1e-5)
        return scale, self.bias[...] - mean * scale


class LayerNorm(nnx.Module):
    """Over the features of each step; a wrapper that takes `train` as BatchNorm does."""

    def __init__(self, features: int, epsilon: float, *, rngs: nnx.Rngs):
        self.norm = nnx.LayerNorm(features, epsilon=epsilon, rngs=rngs)

    def __call__(self, x: Array, train: bool) -> Array:
        return self.norm(x)


def make_norm(recipe: Recipe, conventions: Conventions, *, rngs: nnx.Rngs) -> BatchNorm | LayerNorm:
    if recipe.norm == "batch":
        return BatchNorm(recipe.d_model, recipe.norm_decay, conventions.unbiased_running_variance)
    return LayerNorm(recipe.d_model, conventions.layer_norm_epsilon, rngs=rngs)


class Gate(nnx.Module):
    """The nonlinearity of the S5 layer (lindermanlab/S5 s5/layers.py); LRU uses `full_glu`."""

    masks: ClassVar[int] = 2

    def __init__(self, kind: GateKind, features: int, conventions: Conventions, *, rngs: nnx.Rngs):
        self.kind = kind
        self.conventions = conventions
        if kind == "full_glu":
            self.value = Dense(features, features, conventions, rngs=rngs)
        if kind != "gelu":
            self.gate = Dense(features, features, conventions, rngs=rngs)

    def __call__(self, x: Array, masks: Array | None) -> Array:
        activated = dropout(gelu(x, self.conventions), masks, 0)
        match self.kind:
            case "full_glu":
                gated = self.value(activated) * jax.nn.sigmoid(self.gate(activated))
            case "half_glu1":
                gated = activated * jax.nn.sigmoid(self.gate(activated))
            case "half_glu2":
                gated = x * jax.nn.sigmoid(self.gate(activated))
            case "gelu":
                return activated
        return dropout(gated, masks, 1)


class GLUOutput(nnx.Module):
    """The output side of the S4 block: drop → GELU → drop → Linear(2H) and GLU → drop (state-spaces/s4
    modules/s4block.py)."""

    masks: ClassVar[int] = 3

    def __init__(self, features: int, conventions: Conventions, *, rngs: nnx.Rngs):
        self.conventions = conventions
        self.linear = Dense(features, 2 * features, conventions, rngs=rngs)

    def __call__(self, x: Array, masks: Array | None) -> Array:
        x = dropout(gelu(dropout(x, masks, 0), self.conventions), masks, 1)
        value, gate = jnp.split(self.linear(x), 2, axis=-1)
        return dropout(value * jax.nn.sigmoid(gate), masks, 2)


class Block(nnx.Module):
    """norm → sequence layer → gate → + skip, or with the norm last."""

    def __init__(
        self,
        recipe: Recipe,
        layer: SequenceLayer,
        gate: Gate | GLUOutput,
        conventions: Conventions,
        *,
        rngs: nnx.Rngs,
    ):
        self.norm = make_norm(recipe, conventions, rngs=rngs)
        self.layer = layer
        self.gate = gate
        self.prenorm = recipe.prenorm
        self.mask_before_layer = conventions.mask_before_layer

    def __call__(self, x: Array, mask: Array | None, train: bool, masks: Array | None) -> Array:
        """x (L, b, H); `mask` (L, b, 1) is zero on padding, `masks` (n, b, H) are the dropout's."""
        x = x + self.gate(self._sequence(x, mask, train), masks)
        return x if self.prenorm else self.norm(x, train)

    def _sequence(self, x: Array, mask: Array | None, train: bool) -> Array:
        hidden = mask if self.mask_before_layer else None
        fixed = self.prenorm and not train and hidden is None
        # In training, where the map depends on x, folding it makes a step 5–15 % slower (docs/references.md,
        # "BatchNorm folded in evaluation").
        if fixed and isinstance(self.norm, BatchNorm) and isinstance(self.layer, FoldingLayer):
            return self.layer.folded(x, *self.norm.scale_and_shift())
        if self.prenorm:
            x = self.norm(x, train)
        return self.layer(x if hidden is None else x * hidden)

    def initial_state(self, batch: int) -> Any:
        if not isinstance(self.layer, RecurrentLayer):
            raise UserError(f"{type(self.layer).__name__} has no step, so it cannot run step by step.")
        return self.layer.initial_state(batch)

    def step(self, state: Any, x_t: Array) -> tuple[Any, Array]:
        """The block in evaluation on one time step (b, H)."""
        assert isinstance(self.layer, RecurrentLayer)
        state, y_t = self.layer.step(state, self.norm(x_t, False) if self.prenorm else x_t)
        x_t = x_t + self.gate(y_t, None)
        return state, x_t if self.prenorm else self.norm(x_t, False)

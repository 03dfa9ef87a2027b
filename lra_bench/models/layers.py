"""The parts of a network around a sequence layer: norms, gates and residual blocks.

Activations are time-major, (L, b, H). A recurrence then reads contiguous memory, and `reshape(-1, H)`, which makes the
two-dimensional tokens of matrix products, costs nothing.
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

from lra_bench.errors import UserError
from lra_bench.machine.products import product, tokens
from lra_bench.models.dropout import dropout, dropout_each_step
from lra_bench.models.scale_norm import ScaleNorm
from lra_bench.models.shapes import AnyFeatures, DenseInput, DenseOutput, DropoutMasks, Mask, PerFeature
from lra_bench.spec import GateKind, Recipe, Role
from lra_bench.ssm.shapes import Features, FeaturesAt


@dataclass(frozen=True)
class Conventions:
    """The choices that papers leave open and their reference codes make. There is one value per family of codes."""

    initializer: Literal["flax", "torch"]
    """The initializer of dense layers: LeCun normal with zero bias, or uniform within ±1/√inputs."""
    gelu: Literal["tanh", "exact"]
    """The formula of GELU: the approximation with tanh, or the exact one."""
    token_bias: bool
    """Whether tokens are one-hot vectors through a dense layer with bias, instead of rows of a table."""
    unbiased_running_variance: bool
    """Whether BatchNorm keeps the unbiased variance of a batch."""
    layer_norm_epsilon: float
    """The ε that LayerNorm adds to the variance."""
    final_norm: bool
    """Whether there is one more norm after the last prenorm block."""
    mask_before_layer: bool
    """Whether padded positions are set to zero before each sequence layer."""
    output_dropout: Literal["none", "tied", "each_step"]
    """Whether the output of the sequence layer has a dropout before those of the gate, and whether its mask is the same
    at all steps or another one at each step."""


FLAX = Conventions("flax", "tanh", True, False, 1e-6, False, False, "none")
"""The conventions of lindermanlab/S5 and NicolasZucchet/minimal-LRU."""

TORCH = Conventions("torch", "exact", False, True, 1e-5, True, True, "each_step")
"""The conventions of state-spaces/s4 @ e757cef5.

There `tie_dropout` does not reach FFTConv. It does in v4.0.0 (`tied`), and v3.0.0 has no dropout there (`none`).
"""


@dataclass(frozen=True)
class DataShape:
    """The facts about the data that a network depends on."""

    length: int
    """The length L of a padded document."""
    classes: int
    documents: Literal[1, 2]
    """The number of documents in an example."""
    variable_length: bool
    """Whether true lengths differ."""
    channels: Literal[1, 3] = 1
    """The numbers at each position: 3 for images in color."""


@runtime_checkable
class SequenceLayer(Protocol):
    """A layer from (L, b, H) to (L, b, H). Its state space parameters are `ssm_parameter`s, so each has a role."""

    def __call__(self, u: Features, /) -> Features:
        """Apply the layer."""


@runtime_checkable
class RecurrentLayer(SequenceLayer, Protocol):
    """A layer whose causal form also runs step by step. From `initial_state`, `step` gives the same y_t as a call."""

    def initial_state(self, batch: int, /) -> Any:
        """The state of `batch` documents before the first step. Raises UserError through `refuse_steps_if`."""

    def step(self, state: Any, u_t: FeaturesAt, /) -> tuple[Any, FeaturesAt]:
        """The next state and y_t (b, H) from u_t (b, H)."""


@runtime_checkable
class FoldingLayer(SequenceLayer, Protocol):
    """A layer that can fold an affine map of its input into its own weights."""

    def folded(self, x: Features, scale: PerFeature, shift: PerFeature, /) -> Features:
        """Apply the layer to scale · x + shift, for x (L, b, H) and (H,) each, without that array in memory."""


def refuse_steps_if(bidirectional: bool) -> None:
    """Check that a layer can run step by step. Raises UserError for a bidirectional one, which reads the future."""
    if bidirectional:
        raise UserError("a bidirectional network cannot run step by step. Type --set bidirectional=false.")


def ssm_parameter(value: Array, role: Role) -> nnx.Param:
    """Make a parameter with a role: its letter in the papers. The recipe's `groups` map roles to optimizer groups."""
    return nnx.Param(jnp.asarray(value), role=role)


def as_pair(z: Array | np.ndarray) -> Array:
    """Convert a complex array to a float32 one with a last axis (re, im), because optimizers take real numbers only."""
    return jnp.stack([jnp.asarray(z.real, jnp.float32), jnp.asarray(z.imag, jnp.float32)], axis=-1)


def as_complex(pair: nnx.Param) -> Array:
    """Convert a parameter made by `as_pair` back to a complex array."""
    return jax.lax.complex(pair[..., 0], pair[..., 1])


def gelu(x: AnyFeatures, conventions: Conventions) -> AnyFeatures:
    """Apply GELU by the formula of the conventions."""
    return jax.nn.gelu(x, approximate=conventions.gelu == "tanh")


def wide(x: AnyFeatures) -> AnyFeatures:
    """The same numbers in float32, where activations are stored in 16 bits."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class Dense(nnx.Module):
    """A dense layer x W + b on the last axis.

    On one device it is computed on two-dimensional tokens, because XLA's gradient of W is then far faster
    (docs/references.md, "Two-dimensional tokens").
    """

    def __init__(
        self, inputs: int, outputs: int, conventions: Conventions, bias_role: Role | None = None, *, rngs: nnx.Rngs
    ):
        shape, key = (inputs, outputs), rngs.params()
        if conventions.initializer == "flax":
            self.kernel = nnx.Param(jax.nn.initializers.lecun_normal()(key, shape))
            bias = jnp.zeros(outputs)
        else:
            bound = inputs**-0.5
            self.kernel = nnx.Param(jax.random.uniform(key, shape, minval=-bound, maxval=bound))
            bias = jax.random.uniform(rngs.params(), (outputs,), minval=-bound, maxval=bound)
        self.bias = nnx.Param(bias, role=bias_role)

    def __call__(self, x: DenseInput) -> DenseOutput:
        """Apply the layer to (…, inputs); returns (…, outputs) in the same dtype."""
        y = product(tokens(x), self.kernel[...]) + self.bias[...]
        return y.astype(x.dtype).reshape(*x.shape[:-1], -1)


EPSILON = 1e-5
"""The ε that BatchNorm adds to the variance and ScaleNorm to the mean square."""


class BatchNorm(nnx.Module):
    """Batch normalization over batch and length, with ε = 1e-5.

    It is code of our own because torch keeps the unbiased running variance and flax the biased one.
    """

    def __init__(self, features: int, decay: float, unbiased: bool):
        self.scale = nnx.Param(jnp.ones(features), role="norm")
        self.bias = nnx.Param(jnp.zeros(features), role="norm")
        self.mean = nnx.BatchStat(jnp.zeros(features))
        self.var = nnx.BatchStat(jnp.ones(features))
        self.decay = decay
        self.unbiased = unbiased

    def __call__(self, x: AnyFeatures, train: bool) -> AnyFeatures:
        """Normalize (L, b, H) or, at one step, (b, H). Training uses batch moments, evaluation running ones."""
        y = wide(tokens(x))
        if train:
            # On several devices too, these are the means over the whole batch: a program is of all devices together.
            axes = tuple(range(y.ndim - 1))
            mean = y.mean(axes)
            # Both moments come from one pass over memory. Rounding can make this difference negative.
            var = jnp.maximum((y * y).mean(axes) - mean * mean, 0.0)
            self.keep(mean, var, math.prod(y.shape[:-1]))
        else:
            mean, var = self.mean[...], self.var[...]
        scale, shift = self.scale_and_shift(mean, var)
        return (y * scale + shift).astype(x.dtype).reshape(x.shape)

    def keep(self, mean: PerFeature, var: PerFeature, tokens: int) -> None:
        """Update the running moments by those of a batch of so many tokens."""
        kept_var = var * (tokens / (tokens - 1)) if self.unbiased else var
        self.mean[...] = self.decay * self.mean[...] + (1 - self.decay) * mean
        self.var[...] = self.decay * self.var[...] + (1 - self.decay) * kept_var

    def scale_and_shift(self, mean: Array | None = None, var: Array | None = None) -> tuple[Array, Array]:
        """The scale and the shift, each (H,), that normalize by these moments; None means the running ones."""
        mean, var = self.mean[...] if mean is None else mean, self.var[...] if var is None else var
        scale = self.scale[...] * jax.lax.rsqrt(var + EPSILON)
        return scale, self.bias[...] - mean * scale


class LayerNorm(nnx.Module):
    """Layer normalization over the features of each step. It takes `train` as BatchNorm does."""

    def __init__(self, features: int, epsilon: float, *, rngs: nnx.Rngs):
        role = {"role": "norm"}
        self.norm = nnx.LayerNorm(features, epsilon=epsilon, scale_metadata=role, bias_metadata=role, rngs=rngs)

    def __call__(self, x: AnyFeatures, train: bool) -> AnyFeatures:
        """Normalize (L, b, H), or (b, H) at one step, in the same way in training and evaluation."""
        del train
        return self.norm(x).astype(x.dtype)


def make_norm(recipe: Recipe, conventions: Conventions, *, rngs: nnx.Rngs) -> BatchNorm | LayerNorm | ScaleNorm:
    """Make the norm that the recipe names."""
    if recipe.norm == "batch":
        return BatchNorm(recipe.d_model, recipe.norm_decay, conventions.unbiased_running_variance)
    if recipe.norm == "scale":
        return ScaleNorm(EPSILON)
    return LayerNorm(recipe.d_model, conventions.layer_norm_epsilon, rngs=rngs)


class Gate(nnx.Module):
    """The nonlinearity of the S5 block (lindermanlab/S5 s5/layers.py); the LRU uses `full_glu`."""

    masks: ClassVar[int] = 2
    """The number of dropout masks that a call takes."""
    each_step: ClassVar[None] = None
    """It drops nothing that is drawn at each step."""

    def __init__(self, kind: GateKind, features: int, conventions: Conventions, *, rngs: nnx.Rngs):
        self.kind = kind
        self.conventions = conventions
        if kind == "full_glu":
            self.value = Dense(features, features, conventions, "bias", rngs=rngs)
        if kind != "gelu":
            self.gate = Dense(features, features, conventions, "bias", rngs=rngs)

    def __call__(self, x: AnyFeatures, masks: DropoutMasks | None, key: Array | None = None) -> AnyFeatures:
        """Apply the gate to (L, b, H), or (b, H) at one step.

        `masks` (2, b, H) are the dropout's. `key` is not used.
        """
        del key
        activated = dropout(gelu(wide(x), self.conventions), masks, 0).astype(x.dtype)
        match self.kind:
            case "full_glu":
                value = self.value(activated)
            case "half_glu1":
                value = activated
            case "half_glu2":
                value = x
            case "gelu":
                return activated
        gated = wide(value) * jax.nn.sigmoid(wide(self.gate(activated)))
        return dropout(gated, masks, 1).astype(x.dtype)


class GLUOutput(nnx.Module):
    """The nonlinearity of the S4 block: GELU → dropout → Linear(2H) and GLU → dropout.

    The masks of both dropouts are the same at all steps. With `each_step`, the first one drops that share of the
    numbers instead, and draws at each step. The source is state-spaces/s4 modules/s4block.py.
    """

    masks: int = 2
    """The number of dropout masks that a call takes."""
    each_step: float | None = None
    """The share that the first dropout drops at each step; None means that it takes a mask."""

    def __init__(self, features: int, conventions: Conventions, each_step: float | None = None, *, rngs: nnx.Rngs):
        self.conventions = conventions
        if each_step is not None:
            self.masks, self.each_step = 1, each_step
        self.linear = Dense(features, 2 * features, conventions, "bias", rngs=rngs)

    def __call__(self, x: AnyFeatures, masks: DropoutMasks | None, key: Array | None = None) -> AnyFeatures:
        """Apply the gate to (L, b, H), or (b, H) at one step.

        `masks` (n, b, H) are the dropout's that are the same at all steps, and `key` draws those of each step.
        """
        activated = gelu(wide(x), self.conventions)
        if self.each_step is None:
            activated = dropout(activated, masks, 0)
        else:
            # A dropout of the layer's output draws from the key itself.
            own_key = None if key is None else jax.random.fold_in(key, 1)
            activated = dropout_each_step(activated, self.each_step, own_key)
        value, gate = jnp.split(wide(self.linear(activated.astype(x.dtype))), 2, axis=-1)
        return dropout(value * jax.nn.sigmoid(gate), masks, self.masks - 1).astype(x.dtype)


class Block(nnx.Module):
    """A block: norm → sequence layer (→ dropout) → gate → + its input, or with the norm last. The recipe's `residual`
    decides whether the input is added."""

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
        self.prenorm, self.residual = recipe.prenorm, recipe.residual
        self.mask_before_layer = conventions.mask_before_layer
        self.output_dropout, self.dropout = conventions.output_dropout, recipe.dropout

    @property
    def masks(self) -> int:
        """The number of dropout masks that a call takes."""
        return self.gate.masks + (self.output_dropout == "tied")

    @property
    def draws_each_step(self) -> bool:
        """Whether a call draws other masks at each step, by its key."""
        return self.output_dropout == "each_step" or bool(self.gate.each_step)

    def __call__(
        self, x: Features, mask: Mask | None, train: bool, masks: DropoutMasks | None, key: Array | None = None
    ) -> Features:
        """Apply the block to (L, b, H).

        `mask` (L, b, 1) is zero on padding. `masks` (n, b, H) are the dropout's that are the same at all steps, and
        `key` draws those of each step.
        """
        y = self._sequence(x, mask, train)
        if self.output_dropout == "tied" and masks is not None:
            y, masks = dropout(y, masks, 0), masks[1:]
        elif self.output_dropout == "each_step":
            y = dropout_each_step(y, self.dropout, key)
        y = self.gate(y, masks, key)
        x = x + y if self.residual else y
        return x if self.prenorm else self.norm(x, train)

    def _sequence(self, x: Array, mask: Array | None, train: bool) -> Array:
        hidden = mask if self.mask_before_layer else None
        fixed = self.prenorm and not train and hidden is None
        # BatchNorm is an affine map in evaluation, so the layer can fold it into its weights. In training the map
        # depends on x, and folding it makes a step 5–15 % slower (docs/references.md, "BatchNorm folded in
        # evaluation").
        if fixed and isinstance(self.norm, BatchNorm) and isinstance(self.layer, FoldingLayer):
            return self.layer.folded(x, *self.norm.scale_and_shift())
        if self.prenorm:
            x = self.norm(x, train)
        return self.layer(x if hidden is None else x * hidden)

    def initial_state(self, batch: int) -> Any:
        """The layer's state before the first step. Raises UserError where the layer has no step."""
        if not isinstance(self.layer, RecurrentLayer):
            raise UserError(f"{type(self.layer).__name__} has no step, so it cannot run step by step.")
        return self.layer.initial_state(batch)

    def step(self, state: Any, x_t: FeaturesAt) -> tuple[Any, FeaturesAt]:
        """Apply the block, as in evaluation, to one step (b, H): the layer's next state and the output (b, H)."""
        assert isinstance(self.layer, RecurrentLayer)
        state, y_t = self.layer.step(state, self.norm(x_t, False) if self.prenorm else x_t)
        y_t = self.gate(y_t, None)
        x_t = x_t + y_t if self.residual else y_t
        return state, x_t if self.prenorm else self.norm(x_t, False)

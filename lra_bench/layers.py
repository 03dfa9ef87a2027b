"""The classifier around a sequence layer: encoder, residual blocks, pooling, heads.

Activations are time-major, (L, b, H): a recurrence then reads contiguous memory, and `reshape(-1, H)` to the
two-dimensional tokens that matrix products want costs nothing. Inputs arrive as prepared data has them, (b, L) or (b,
2, L) of uint8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from lra_bench import UserError
from lra_bench.spec import Recipe, Role


@dataclass(frozen=True)
class Conventions:
    """What the papers leave open and the reference codes decide; one value per family of codes."""

    initialiser: Literal["flax", "torch"]
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
    """A parameter that knows which letter of the papers it is; the recipe's `groups` map the role to an optimiser
    group."""
    return nnx.Param(jnp.asarray(value), role=role)


def gelu(x: Array, conventions: Conventions) -> Array:
    return jax.nn.gelu(x, approximate=conventions.gelu == "tanh")


def dropout_masks(key: Array | None, rate: float, shape: tuple[int, ...], dtype: DTypeLike) -> Array | None:
    """What features are multiplied by, 0 or 1/(1 − rate); None where nothing is dropped, as in evaluation, which has no
    key. Drawn at once for a whole network: a draw for each mask takes the compiler a second longer."""
    if key is None or rate == 0.0:
        return None
    return jax.random.bernoulli(key, 1.0 - rate, shape).astype(dtype) / (1.0 - rate)


def dropout(x: Array, masks: Array | None, number: int) -> Array:
    """Features of (L, b, H) dropped by one of the block's masks (masks, b, H), the same at all steps."""
    return x if masks is None else x * masks[number]


class Dense(nnx.Module):
    """x W + b on the last axis, as a product of two-dimensional tokens: XLA's gradient of W is far faster so
    (performance.md §6)."""

    def __init__(self, inputs: int, outputs: int, conventions: Conventions, *, rngs: nnx.Rngs):
        shape, key = (inputs, outputs), rngs.params()
        if conventions.initialiser == "flax":
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
        """The affine map, each (H,), that normalises by these moments; by the running ones as in evaluation."""
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


GateKind = Literal["full_glu", "half_glu1", "half_glu2", "gelu"]


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
        # In training, where the map depends on x, folding it makes a step 5–15 % slower (performance.md §6).
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


PIXEL_SCALES: dict[str, tuple[float, float]] = {
    "unit": (0.0, 255.0),
    "signed": (127.5, 127.5),
    "standard": (122.6, 61.0),
}
"""(mean, deviation) of the uint8 scale: S4 Pathfinder; S5 Pathfinder; CIFAR-10 in grey (data.md §2)."""


class InputEncoder(nnx.Module):
    """uint8 tokens or pixels (L, b) → features (L, b, H)."""

    def __init__(self, recipe: Recipe, conventions: Conventions, *, rngs: nnx.Rngs):
        self.pixels = recipe.pixels
        self.token_bias = conventions.token_bias and recipe.pixels is None
        if recipe.pixels is not None or self.token_bias:
            self.dense = Dense(recipe.embedding or 1, recipe.d_model, conventions, rngs=rngs)
        else:
            assert recipe.embedding is not None
            self.table = nnx.Param(jax.random.normal(rngs.params(), (recipe.embedding, recipe.d_model)))

    def __call__(self, inputs: Array) -> Array:
        if self.pixels is not None:
            mean, deviation = PIXEL_SCALES[self.pixels]
            return self.dense(((inputs.astype(self.dense.kernel.dtype) - mean) / deviation)[..., None])
        table = self.dense.kernel[...] + self.dense.bias[...] if self.token_bias else self.table[...]
        return table[inputs.astype(jnp.int32)]


def pool(x: Array, lengths: Array | None, how: str) -> Array:
    """(L, b, H) → (b, H); `lengths` (b,) restricts the mean, or picks the last step, to true positions."""
    if how == "last":
        return x[-1] if lengths is None else x[lengths - 1, jnp.arange(x.shape[1])]
    if lengths is None:
        return x.mean(0)
    # Not an einsum: as a batched product of matrix and vector this sum takes a quarter of an evaluation.
    mask = (jnp.arange(x.shape[0])[:, None, None] < lengths[None, :, None]).astype(x.dtype)
    return (x * mask).sum(0) / lengths[:, None].astype(x.dtype)


class PairHead(nnx.Module):
    """Retrieval: [a, b, a − b, a·b] → Dense(H) → GELU → Dense(classes)."""

    def __init__(self, features: int, classes: int, conventions: Conventions, *, rngs: nnx.Rngs):
        self.hidden = Dense(4 * features, features, conventions, rngs=rngs)
        self.output = Dense(features, classes, conventions, rngs=rngs)
        self.conventions = conventions

    def __call__(self, pooled: Array) -> Array:
        a, b = jnp.split(pooled, 2, axis=0)
        return self.output(gelu(self.hidden(jnp.concatenate([a, b, a - b, a * b], axis=-1)), self.conventions))


def as_one_batch(inputs: Array, lengths: Array) -> tuple[Array, Array]:
    """Pairs of documents (b, 2, L) and (b, 2) as 2b documents: the first of every pair, then the second."""
    return jnp.concatenate([inputs[:, 0], inputs[:, 1]]), jnp.concatenate([lengths[:, 0], lengths[:, 1]])


class Reading(NamedTuple):
    """A network half-way through its sequences: the state of each block, and what pooling has seen of the b
    documents."""

    blocks: list[Any]
    total: Array
    steps: Array


class Classifier(nnx.Module):
    """The whole network: inputs (b, L) or (b, 2, L) uint8 and lengths (b,) or (b, 2) → logits (b, classes)."""

    def __init__(
        self, recipe: Recipe, shape: DataShape, blocks: list[Block], conventions: Conventions, *, rngs: nnx.Rngs
    ):
        if recipe.pooling == "cls":
            raise UserError("pooling must be mean or last, got 'cls': only the transformer has a class token.")
        self.encoder = InputEncoder(recipe, conventions, rngs=rngs)
        self.blocks = nnx.List(blocks)
        has_final_norm = conventions.final_norm and recipe.prenorm
        self.final_norm = make_norm(recipe, conventions, rngs=rngs) if has_final_norm else None
        if shape.documents == 2:
            self.head: PairHead | Dense = PairHead(recipe.d_model, shape.classes, conventions, rngs=rngs)
        else:
            self.head = Dense(recipe.d_model, shape.classes, conventions, rngs=rngs)
        self.pooling, self.dropout = recipe.pooling, recipe.dropout
        self.ignores_padding = conventions.mask_before_layer or not recipe.bidirectional
        """In evaluation. In training BatchNorm's statistics see padding in either case."""
        self.features = recipe.d_model
        self.shape = shape

    def __call__(self, inputs: Array, lengths: Array, *, train: bool, key: Array | None) -> Array:
        if self.shape.documents == 2:
            inputs, lengths = as_one_batch(inputs, lengths)
        return self.classify(self.encoder(inputs.T), lengths, train=train, key=key)

    def classify(self, x: Array, lengths: Array, *, train: bool, key: Array | None) -> Array:
        """Encoded inputs (L, b, H) → logits. Two documents: the first of every pair, then the second."""
        true_lengths = lengths if self.shape.variable_length else None
        mask = None
        if true_lengths is not None:
            mask = (jnp.arange(x.shape[0])[:, None, None] < true_lengths[None, :, None]).astype(x.dtype)
        shape = len(self.blocks), max(block.gate.masks for block in self.blocks), *x.shape[1:]
        masks = dropout_masks(key, self.dropout, shape, x.dtype)
        for i, block in enumerate(self.blocks):
            x = block(x, mask, train, None if masks is None else masks[i])
        if self.final_norm is not None:
            x = self.final_norm(x, train)
        return self.head(pool(x, true_lengths, self.pooling))

    def initial_state(self, batch: int) -> Reading:
        """Of `batch` documents before their first step. Raises UserError where a layer has no causal form."""
        zero = jnp.zeros((batch, self.features))
        return Reading([block.initial_state(batch) for block in self.blocks], zero, jnp.zeros((), jnp.int32))

    def step(self, state: Reading, inputs_t: Array) -> tuple[Reading, Array]:
        """One input (b,) of each document → logits of what was read so far, as evaluation would give them."""
        x_t, blocks = self.encoder(inputs_t), []
        for block, block_state in zip(self.blocks, state.blocks, strict=True):
            block_state, x_t = block.step(block_state, x_t)
            blocks.append(block_state)
        if self.final_norm is not None:
            x_t = self.final_norm(x_t, False)
        state = Reading(blocks, state.total + x_t, state.steps + 1)
        return state, self.head(x_t if self.pooling == "last" else state.total / state.steps)


def count_parameters(module: nnx.Module) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))

"""The second half of an S5 block as two GPU kernels: skip of the layer, GELU, dropout, gate, residual, moments.

With y = C x of the state space, u = scale · x + shift its input, a dropout's factors m and m', and ∘ by elements,

    z = y + D ∘ u,   a = GELU(z) ∘ m,   out = x + v ∘ σ(a W + w) ∘ m',

where v is a, z, or a V + v₀ by the kind of the gate (`models/layers.py`, `Gate`, the plain twin). XLA makes of this two
products and six passes over tokens × features, and as many more for BatchNorm's moments of `out`. Here a program has
`ROWS` tokens with all their features, so one kernel reads x and y and writes `out` and its moments. The gradient's
kernel computes a and the gate again. It writes the arguments of the weights' gradients, which are products by XLA.

Products take their inputs as TF32, or in bfloat16 where that is what the arrays are in; all else is in float32.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from lra_bench.kernels import triton
from lra_bench.kernels.triton import Shape, Work, load, program_id, store

ROWS = 64
"""The tokens in a program."""

WIDEST = 256
"""The most features. A program keeps all features of its tokens in registers."""

_SLOPE, _CUBE = math.sqrt(2.0 / math.pi), 0.044715  # of GELU's approximation with tanh


class GateParameters(NamedTuple):
    """The parameters of one block from the state space's output on; (H,) each, but (H, H) for `gate` and `value`."""

    skip: Array  # D ∘ scale
    shift: Array  # D ∘ shift
    gate: Array
    gate_bias: Array
    value: Array | None
    value_bias: Array | None


class GateGradients(NamedTuple):
    """What the kernel of the gradient computes."""

    dz: Array  # (tokens, H)
    activated: Array  # a, (tokens, H)
    d_gate: Array  # the gradient of a W + w, (tokens, H)
    d_value: Array | None  # the gradient of a V + v₀, (tokens, H)
    sums: Array  # (3 or 4, H): of dz, of x ∘ dz, of d_gate, and of d_value


class _Layout(NamedTuple):
    kind: str
    tokens: int
    H: int
    batch: int
    dropout: bool

    @property
    def columns(self) -> int:
        """The features in a block of a product."""
        return column_block(self.H)

    @property
    def blocks(self) -> int:
        return self.H // self.columns

    @property
    def programs(self) -> int:
        return -(-self.tokens // ROWS)

    @property
    def value(self) -> bool:
        return self.kind == "full_glu"


def column_block(H: int) -> int:
    """The largest of 64, 32 and 16 that divides H; 0 if none does."""
    return next((size for size in (64, 32, 16) if H % size == 0), 0)


def gate_forward(kind: str, x: Array, y: Array, parameters: GateParameters, masks: Array | None) -> tuple[Array, Array]:
    """Compute `out` and the sums (2, H) of out and out² over all tokens, from x and y (L, b, H) and masks (2, b, H)."""
    layout = _layout(kind, x, masks)
    outputs = [Shape((x.size,), x.dtype), Shape((layout.programs * 2 * layout.H,), jnp.float32)]
    arguments = [x, y, *_arguments(parameters, masks, x)]
    out, sums = _call(_forward, layout, "gate", arguments, outputs)
    return out.reshape(x.shape), sums.reshape(layout.programs, 2, layout.H).sum(0)


def gate_backward(
    kind: str, dout: Array, x: Array, y: Array, parameters: GateParameters, masks: Array | None
) -> GateGradients:
    """Compute the gradients from that of `out`, (L, b, H) as x and y."""
    layout = _layout(kind, x, masks)
    arrays, sums = (4, 4) if layout.value else (3, 3)
    outputs = [Shape((x.size,), x.dtype)] * arrays + [Shape((layout.programs * sums * layout.H,), jnp.float32)]
    arguments = [dout, x, y, *_arguments(parameters, masks, x)]
    *found, parts = _call(_backward, layout, "gate_gradient", arguments, outputs)
    dz, activated, d_gate, *d_value = (array.reshape(-1, layout.H) for array in found)
    total = parts.reshape(layout.programs, sums, layout.H).sum(0)
    return GateGradients(dz, activated, d_gate, d_value[0] if d_value else None, total)


def _layout(kind: str, x: Array, masks: Array | None) -> _Layout:
    return _Layout(kind, x.shape[0] * x.shape[1], x.shape[2], x.shape[1], masks is not None)


def _arguments(parameters: GateParameters, masks: Array | None, x: Array) -> list[Array]:
    weights = [None if w is None else w.astype(x.dtype) for w in (parameters.gate, parameters.value)]
    ordered = [
        parameters.skip, parameters.shift, weights[0], parameters.gate_bias, weights[1], parameters.value_bias, masks
    ]  # fmt: skip
    return [argument for argument in ordered if argument is not None]


def _call(kernel: Any, layout: _Layout, name: str, arguments: list[Array], outputs: list[Shape]) -> list[Array]:
    warps = 8 if layout.H <= 128 else 16
    products = (2 if kernel is _backward else 1) * (2 if layout.value else 1)
    work = Work(flops=2 * products * layout.tokens * layout.H**2)
    return triton.call(partial(kernel, layout), name, (layout.programs,), arguments, outputs, warps, work)


class _Program:
    """The tokens of a program, its parameters, and how it reads and writes blocks (ROWS, columns)."""

    def __init__(self, layout: _Layout, x: Any, y: Any, weights: list[Any]):
        self.layout, self.x, self.y = layout, x, y
        self.rows = program_id(0) * ROWS + jnp.arange(ROWS)
        self.inside = (self.rows < layout.tokens)[:, None]
        self.skip, self.shift, self.gate, self.gate_bias, *rest = weights
        self.value: Any = rest[0] if layout.value else None
        self.value_bias: Any = rest[1] if layout.value else None
        self.masks = rest[-1] if layout.dropout else None

    def of(self, block: int) -> Array:
        """The features of a block."""
        return block * self.layout.columns + jnp.arange(self.layout.columns)

    def load(self, array: Any, block: int) -> Array:
        """The program's tokens of an array (tokens, H), in float32; zero beyond the last token."""
        at = self.rows[:, None] * self.layout.H + self.of(block)[None]
        return load(array, at, jnp.broadcast_to(self.inside, at.shape)).astype(jnp.float32)

    def store(self, array: Any, block: int, value: Array) -> None:
        """Write the program's tokens of an array (tokens, H)."""
        at = self.rows[:, None] * self.layout.H + self.of(block)[None]
        store(array, at, value, jnp.broadcast_to(self.inside, at.shape))

    def store_sum(self, array: Any, number: int, count: int, block: int, value: Array) -> None:
        """Write the sum over the program's tokens as one of `count` partial sums."""
        at = (program_id(0) * count + number) * self.layout.H + self.of(block)
        store(array, at, jnp.where(self.inside, value, 0.0).sum(0))

    def per_feature(self, array: Any, block: int) -> Array:
        """A block (1, columns) of an array (H,)."""
        return load(array, self.of(block))[None]

    def mask(self, number: int, block: int) -> Array | float:
        """The factors of one of the two dropouts."""
        if self.masks is None:
            return 1.0
        document = jax.lax.rem(self.rows, jnp.full_like(self.rows, self.layout.batch))
        at = (number * self.layout.batch + document[:, None]) * self.layout.H + self.of(block)[None]
        return load(self.masks, at).astype(jnp.float32)

    def weight(self, array: Any, row_block: int, block: int) -> Array:
        """A block of a weight (H, H)."""
        return load(array, self.of(row_block)[:, None] * self.layout.H + self.of(block)[None])

    def dot(self, a: Array, weight: Array, transposed: bool = False) -> Array:
        """A product of blocks, with a float32 sum."""
        dimensions = (((1,), (1 if transposed else 0,)), ((), ()))
        return jax.lax.dot_general(a.astype(weight.dtype), weight, dimensions, preferred_element_type=jnp.float32)

    def inputs(self) -> list[tuple[Array, Array, Array]]:
        """For each block: x, z and a."""
        found = []
        for block in range(self.layout.blocks):
            x = self.load(self.x, block)
            z = self.load(self.y, block) + self.per_feature(self.skip, block) * x + self.per_feature(self.shift, block)
            found.append((x, z, 0.5 * z * (1.0 + _tanh_of(z)) * self.mask(0, block)))
        return found

    def affine(self, activated: list[Array], weight: Any, bias: Any, block: int) -> Array:
        """A block of a W + w."""
        total = jnp.zeros((ROWS, self.layout.columns), jnp.float32)
        for k, a in enumerate(activated):
            total += self.dot(a, self.weight(weight, k, block))
        return total + self.per_feature(bias, block)

    def value_of(self, z: Array, activated: list[Array], block: int) -> Array:
        """A block of v."""
        if self.layout.value:
            return self.affine(activated, self.value, self.value_bias, block)
        return activated[block] if self.layout.kind == "half_glu1" else z


def _tanh_of(z: Array) -> Array:
    return jnp.tanh(_SLOPE * (z + _CUBE * z * z * z))


def _gelu_slope(z: Array) -> Array:
    t = _tanh_of(z)
    return 0.5 * (1.0 + t) + 0.5 * z * (1.0 - t * t) * _SLOPE * (1.0 + 3.0 * _CUBE * z * z)


def _forward(layout: _Layout, x: Any, y: Any, *refs: Any) -> None:
    *weights, out, sums = refs
    program = _Program(layout, x, y, weights)
    inputs = program.inputs()
    activated = [a for _, _, a in inputs]
    for block, (x_b, z, _) in enumerate(inputs):
        gate = jax.nn.sigmoid(program.affine(activated, program.gate, program.gate_bias, block))
        result = x_b + program.value_of(z, activated, block) * gate * program.mask(1, block)
        program.store(out, block, result)
        program.store_sum(sums, 0, 2, block, result)
        program.store_sum(sums, 1, 2, block, result * result)


def _backward(layout: _Layout, dout: Any, x: Any, y: Any, *refs: Any) -> None:
    outputs = 5 if layout.value else 4
    weights, (dz, a_out, d_gate, *d_value, sums) = refs[:-outputs], refs[-outputs:]
    program, count = _Program(layout, x, y, list(weights)), outputs - 1
    inputs = program.inputs()
    activated = [a for _, _, a in inputs]
    direct = []  # the gradients of v where it is no product
    through = [jnp.zeros((ROWS, layout.columns), jnp.float32) for _ in inputs]  # the gradient of a from the products
    for block, (_, z, a) in enumerate(inputs):
        gate = jax.nn.sigmoid(program.affine(activated, program.gate, program.gate_bias, block))
        dv = program.load(dout, block) * program.mask(1, block)
        d_gate_b = dv * program.value_of(z, activated, block) * gate * (1.0 - gate)
        direct.append(dv * gate)
        program.store(a_out, block, a)
        program.store(d_gate, block, d_gate_b)
        program.store_sum(sums, 2, count, block, d_gate_b)
        for k in range(layout.blocks):
            through[k] += program.dot(d_gate_b, program.weight(program.gate, k, block), transposed=True)
        if layout.value:
            program.store(d_value[0], block, direct[block])
            program.store_sum(sums, 3, count, block, direct[block])
            for k in range(layout.blocks):
                through[k] += program.dot(direct[block], program.weight(program.value, k, block), transposed=True)
    for block, (x_b, z, _) in enumerate(inputs):
        da = through[block] + (direct[block] if layout.kind == "half_glu1" else 0.0)
        dz_b = da * program.mask(0, block) * _gelu_slope(z)
        dz_b += direct[block] if layout.kind == "half_glu2" else 0.0
        program.store(dz, block, dz_b)
        program.store_sum(sums, 0, count, block, dz_b)
        program.store_sum(sums, 1, count, block, x_b * dz_b)

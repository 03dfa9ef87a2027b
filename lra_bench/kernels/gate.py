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
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from lra_bench.kernels import triton
from lra_bench.kernels.triton import Shape, Work, load, program_id, store
from lra_bench.machine.products import product

ROWS = 64
"""The tokens in a program."""

WIDEST = 256
"""The most features. A program keeps all features of its tokens in registers."""

_SLOPE, _CUBE = math.sqrt(2.0 / math.pi), 0.044715  # of GELU's approximation with tanh


WIDEST_ACCUMULATED = 128
"""The most features with which a program also keeps the gradient of a weight in registers."""

BACKWARD_PROGRAMS = 264
"""The most programs of the gradient's kernel, each of which runs through many tokens: two on each unit of an H200."""


class GateParameters(NamedTuple):
    """The parameters of one block from the state space's output on; (H,) each, but (H, H) for `gate` and `value`."""

    skip: Array  # D ∘ scale
    shift: Array  # D ∘ shift
    gate: Array
    gate_bias: Array
    value: Array | None
    value_bias: Array | None


class OutputGradient(NamedTuple):
    """The gradient of `out` (L, b, H), beside that of its sums: of out, and twice that of out²; (H,) each."""

    dout: Array
    d_sum: Array
    d_square: Array


class GateGradients(NamedTuple):
    """The gradients of z and of x but for its way through y, (tokens, H); those of the parameters; and sums."""

    dz: Array
    dx: Array  # skip ∘ dz and the gradient of `out`, (L, b, H)
    sum_dz: Array  # (H,)
    sum_x_dz: Array  # (H,)
    gate: Array
    gate_bias: Array
    value: Array | None
    value_bias: Array | None


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

    @property
    def sums(self) -> int:
        """The sums over tokens that the gradient's kernel makes: of dz, x ∘ dz, and the gradients of the biases."""
        return 4 if self.value else 3

    @property
    def accumulates(self) -> bool:
        """Whether that kernel multiplies out the weights' gradients, which then stay in its registers."""
        return self.H <= WIDEST_ACCUMULATED and not self.value


def column_block(H: int) -> int:
    """The largest of 64, 32 and 16 that divides H; 0 if none does."""
    return next((size for size in (64, 32, 16) if H % size == 0), 0)


def gate_forward(kind: str, x: Array, y: Array, parameters: GateParameters, masks: Array | None) -> tuple[Array, Array]:
    """Compute `out` and the sums (2, H) of out and out² over all tokens, from x and y (L, b, H) and masks (2, b, H)."""
    layout = _layout(kind, x, masks)
    outputs = [Shape((x.size,), x.dtype), Shape((layout.programs * 2 * layout.H,), jnp.float32)]
    arguments = [x, y, *_arguments(parameters, masks, x)]
    out, sums = _call(_forward, layout, "gate", arguments, outputs, layout.programs)
    return out.reshape(x.shape), sums.reshape(layout.programs, 2, layout.H).sum(0)


def gate_backward(
    kind: str, gradient: OutputGradient, x: Array, y: Array, parameters: GateParameters, masks: Array | None
) -> GateGradients:
    """Compute the gradients from those of `out`, (L, b, H) as x and y, and of its moments."""
    layout = _layout(kind, x, masks)
    programs, H = min(layout.programs, BACKWARD_PROGRAMS), layout.H
    token, feature = Shape((x.size,), x.dtype), partial(Shape, dtype=jnp.float32)
    # Either the gradient of the weight, or its two factors for a product by XLA.
    rest = [feature((programs * H * H,))] if layout.accumulates else [token] * (2 + layout.value)
    outputs = [token, token, feature((programs * layout.sums * H,)), *rest]
    arguments = [*gradient, x, y, *_arguments(parameters, masks, x)]
    dz, dx, sums, *found = _call(_backward, layout, "gate_gradient", arguments, outputs, programs)
    total = sums.reshape(programs, layout.sums, H).sum(0)
    if layout.accumulates:
        weights = [found[0].reshape(programs, H, H).sum(0)]
    else:
        activated, *factors = (array.reshape(-1, H) for array in found)
        weights = [product(activated.T, factor) for factor in factors]
    value, value_bias = (weights[1], total[3]) if layout.value else (None, None)
    dz, dx = dz.reshape(-1, H), dx.reshape(x.shape)
    return GateGradients(dz, dx, total[0], total[1], weights[0], total[2], value, value_bias)


def _layout(kind: str, x: Array, masks: Array | None) -> _Layout:
    return _Layout(kind, x.shape[0] * x.shape[1], x.shape[2], x.shape[1], masks is not None)


def _arguments(parameters: GateParameters, masks: Array | None, x: Array) -> list[Array]:
    weights = [None if w is None else w.astype(x.dtype) for w in (parameters.gate, parameters.value)]
    ordered = [
        parameters.skip, parameters.shift, weights[0], parameters.gate_bias, weights[1], parameters.value_bias, masks
    ]  # fmt: skip
    return [argument for argument in ordered if argument is not None]


def _call(
    kernel: Any, layout: _Layout, name: str, arguments: list[Array], outputs: list[Shape], programs: int
) -> list[Array]:
    warps = 8 if layout.H <= 128 else 16
    products = 1 if kernel is _forward else 2 + layout.accumulates
    work = Work(flops=2 * products * (1 + layout.value) * layout.tokens * layout.H**2)
    return triton.call(partial(kernel, layout), name, (programs,), arguments, outputs, warps, work)


class _Program:
    """The tokens of a program, its parameters, and how it reads and writes blocks (ROWS, columns)."""

    def __init__(self, layout: _Layout, place: Any, x: Any, y: Any, weights: list[Any]):
        self.layout, self.x, self.y = layout, x, y
        self.rows = place * ROWS + jnp.arange(ROWS)
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

    def total(self, value: Array) -> Array:
        """The sum of a block over the program's tokens, (columns,)."""
        return jnp.where(self.inside, value, 0.0).sum(0)

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

    def dot(self, a: Array, b: Array, contracted: tuple[int, int] = (1, 0)) -> Array:
        """A product of blocks over these axes, with a float32 sum."""
        dimensions = (((contracted[0],), (contracted[1],)), ((), ()))
        dtype = self.x.dtype
        return jax.lax.dot_general(a.astype(dtype), b.astype(dtype), dimensions, preferred_element_type=jnp.float32)

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

    def output(
        self, inputs: list[tuple[Array, Array, Array]], activated: list[Array], block: int
    ) -> tuple[Array, Array, Array]:
        """A block of `out`, of the gate σ(a W + w), and of v."""
        x, z, _ = inputs[block]
        gate = jax.nn.sigmoid(self.affine(activated, self.gate, self.gate_bias, block))
        value = self.value_of(z, activated, block)
        return x + value * gate * self.mask(1, block), gate, value

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
    place = program_id(0)
    program = _Program(layout, place, x, y, weights)
    inputs = program.inputs()
    activated = [a for _, _, a in inputs]
    for block in range(layout.blocks):
        result = program.output(inputs, activated, block)[0]
        program.store(out, block, result)
        for number, value in enumerate((result, result * result)):
            store(sums, (place * 2 + number) * layout.H + program.of(block), program.total(value))


def _backward(layout: _Layout, *refs: Any) -> None:
    """A program runs through every n-th group of tokens, n the number of programs. Its sums stay in registers."""
    outputs = 3 + (1 if layout.accumulates else 2 + layout.value)
    arguments, (dz, dx, sums, *rest) = refs[:-outputs], refs[-outputs:]
    programs = sums.shape[0] // (layout.sums * layout.H)
    first, features = program_id(0), layout.columns

    def group(i: Any, carry: tuple[list[Array], list[Array]]) -> tuple[list[Array], list[Array]]:
        return _backward_group(
            layout, first + i * programs, arguments, (dz, dx), [] if layout.accumulates else rest, carry
        )

    zeros = [jnp.zeros(features, jnp.float32) for _ in range(layout.sums * layout.blocks)]
    weight = [jnp.zeros((features, features), jnp.float32) for _ in range(layout.blocks**2 * layout.accumulates)]
    totals, weight = jax.lax.fori_loop(0, -(-layout.programs // programs), group, (zeros, weight))
    block = jnp.arange(features)
    for number, total in enumerate(totals):
        sum_number, at = divmod(number, layout.blocks)
        store(sums, (first * layout.sums + sum_number) * layout.H + at * features + block, total)
    for number, part in enumerate(weight):
        row, column = divmod(number, layout.blocks)
        rows, columns = row * features + block, column * features + block
        store(rest[0], (first * layout.H + rows[:, None]) * layout.H + columns[None], part)


def _backward_group(
    layout: _Layout,
    place: Any,
    arguments: Sequence[Any],
    tokens: tuple[Any, Any],
    factors: Sequence[Any],
    carry: tuple[list[Array], list[Array]],
) -> tuple[list[Array], list[Array]]:
    """The gradients at the tokens of one place, and the sums with them added."""
    dout, d_sum, d_square, x, y, *weights = arguments
    totals, weight = list(carry[0]), list(carry[1])
    program = _Program(layout, place, x, y, weights)
    inputs = program.inputs()
    activated = [a for _, _, a in inputs]
    residual, direct = [], []  # the gradients of out and of v
    through = [jnp.zeros((ROWS, layout.columns), jnp.float32) for _ in inputs]  # the gradient of a from the products

    def add(number: int, block: int, value: Array) -> None:
        totals[number * layout.blocks + block] += program.total(value)

    for block in range(layout.blocks):
        out, gate, value = program.output(inputs, activated, block)
        d_out = program.load(dout, block) + program.per_feature(d_sum, block)
        d_out = jnp.where(program.inside, d_out + program.per_feature(d_square, block) * out, 0.0)
        residual.append(d_out)
        d_out *= program.mask(1, block)
        d_gate = d_out * value * gate * (1.0 - gate)
        direct.append(d_out * gate)
        products = [(program.gate, d_gate)] + ([(program.value, direct[block])] if layout.value else [])
        for number, (matrix, factor) in enumerate(products):
            add(2 + number, block, factor)
            for k in range(layout.blocks):
                through[k] += program.dot(factor, program.weight(matrix, k, block), (1, 1))
                if layout.accumulates:
                    weight[k * layout.blocks + block] += program.dot(activated[k], factor, (0, 0))
            if not layout.accumulates:
                program.store(factors[1 + number], block, factor)
        if not layout.accumulates:
            program.store(factors[0], block, activated[block])
    for block, (x_b, z, _) in enumerate(inputs):
        da = through[block] + (direct[block] if layout.kind == "half_glu1" else 0.0)
        dz_b = da * program.mask(0, block) * _gelu_slope(z) + (direct[block] if layout.kind == "half_glu2" else 0.0)
        program.store(tokens[0], block, dz_b)
        program.store(tokens[1], block, residual[block] + program.per_feature(program.skip, block) * dz_b)
        add(0, block, dz_b)
        add(1, block, x_b * dz_b)
    return totals, weight

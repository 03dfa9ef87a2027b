"""The second half of an S5 block as two GPU kernels: skip of the layer, GELU, dropout, gate, residual, moments.

With y = C x of the state space, u = scale · x + shift its input, a dropout's factors m and m', and ∘ by elements,

    z = y + D ∘ u,   a = GELU(z) ∘ m,   out = x + v ∘ σ(a W + w) ∘ m',

where v is a, z, or a V + v₀ by the kind of the gate (`models/layers.py`, `Gate`, the plain twin). XLA makes of this two
products and six passes over tokens × features, and as many more for BatchNorm's moments of `out`. Here a program has
all features of `ROWS` tokens, so one kernel reads x and y and writes `out` and its moments. The gradient's kernel
computes a and the gate again, and sums up the gradient of W, or leaves that product to XLA where H is large.

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
from lra_bench.kernels.gate_arrays import GateGradients, GateParameters, OutputGradient
from lra_bench.kernels.triton import Shape, Work, load, program_id, store
from lra_bench.machine.products import product

ROWS = 32
"""The tokens that a program has at a time. With 64, the kernel of the gradient would need more registers than there
are: 3 to 7 KB a thread would go through memory (ptxas for an H200)."""

WIDEST = 256
"""The most features. A program keeps the activations of its tokens in registers."""

_SLOPE, _CUBE = math.sqrt(2.0 / math.pi), 0.044715  # of GELU's approximation with tanh

WIDEST_ACCUMULATED = 128
"""The most features with which a program also keeps the gradient of a weight in registers."""

PROGRAMS = 264
"""The most programs of a kernel that keeps the gradient of a weight, each of which runs through many groups of tokens:
two to a multiprocessor of an H200."""

Rows = list[list[Array]]
"""Sums that a program keeps: for each number, or each block of a, those of all blocks of features."""


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
    def groups(self) -> int:
        """The groups of tokens."""
        return -(-self.tokens // ROWS)

    @property
    def programs(self) -> int:
        """The programs of the gradient's kernel."""
        return min(self.groups, PROGRAMS) if self.accumulates else self.groups

    @property
    def rounds(self) -> int:
        """The groups of such a program: every n-th, n the number of programs. After the last group are no tokens."""
        return -(-self.groups // self.programs)

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
    outputs = [Shape((x.size,), x.dtype), Shape((layout.groups * 2 * layout.H,), jnp.float32)]
    arguments = [x, y, *_arguments(parameters, masks, x)]
    out, sums = _call(_forward, layout, "gate", arguments, outputs, layout.groups)
    return out.reshape(x.shape), sums.reshape(layout.groups, 2, layout.H).sum(0)


def gate_backward(
    kind: str, gradient: OutputGradient, x: Array, y: Array, parameters: GateParameters, masks: Array | None
) -> GateGradients:
    """Compute the gradients from those of `out`, (L, b, H) as x and y, and of its moments."""
    layout = _layout(kind, x, masks)
    programs, H = layout.programs, layout.H
    token, feature = Shape((x.size,), x.dtype), partial(Shape, dtype=jnp.float32)
    # Either the gradient of the weight, or its two factors for a product by XLA.
    rest = [feature((programs * H * H,))] if layout.accumulates else [token] * (2 + layout.value)
    outputs = [token, token, feature((programs * layout.sums * H,)), *rest]
    arguments = [*gradient, x, y, *_arguments(parameters, masks, x)]
    dz, dx, sums, *found = _call(_backward, layout, "gate_gradient", arguments, outputs, layout.programs)
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
    products = 1 if kernel is _forward else 2 + layout.accumulates
    work = Work(flops=2 * products * (1 + layout.value) * layout.tokens * layout.H**2)
    return triton.call(partial(kernel, layout), name, (programs,), arguments, outputs, 8, work)


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

    def of(self, block: Any) -> Array:
        """The features of a block."""
        return block * self.layout.columns + jnp.arange(self.layout.columns)

    def load(self, array: Any, block: Any) -> Array:
        """The program's tokens of an array (tokens, H), in float32; zero beyond the last token."""
        at = self.rows[:, None] * self.layout.H + self.of(block)[None]
        return load(array, at, jnp.broadcast_to(self.inside, at.shape)).astype(jnp.float32)

    def store(self, array: Any, block: Any, value: Array) -> None:
        """Write the program's tokens of an array (tokens, H)."""
        at = self.rows[:, None] * self.layout.H + self.of(block)[None]
        store(array, at, value, jnp.broadcast_to(self.inside, at.shape))

    def total(self, value: Array) -> Array:
        """The sum of a block over the program's tokens, (columns,)."""
        return jnp.where(self.inside, value, 0.0).sum(0)

    def per_feature(self, array: Any, block: Any) -> Array:
        """A block (1, columns) of an array (H,)."""
        return load(array, self.of(block))[None]

    def mask(self, number: int, block: Any) -> Array | float:
        """The factors of one of the two dropouts."""
        if self.masks is None:
            return 1.0
        document = jax.lax.rem(self.rows, jnp.full_like(self.rows, self.layout.batch))
        at = (number * self.layout.batch + document[:, None]) * self.layout.H + self.of(block)[None]
        return load(self.masks, at).astype(jnp.float32)

    def weight(self, array: Any, row_block: Any, block: Any) -> Array:
        """A block of a weight (H, H)."""
        return load(array, self.of(row_block)[:, None] * self.layout.H + self.of(block)[None])

    def dot(self, a: Array, b: Array, contracted: tuple[int, int] = (1, 0)) -> Array:
        """A product of blocks over these axes, with a float32 sum."""
        dimensions = (((contracted[0],), (contracted[1],)), ((), ()))
        dtype = self.x.dtype
        return jax.lax.dot_general(a.astype(dtype), b.astype(dtype), dimensions, preferred_element_type=jnp.float32)

    def x_and_z(self, block: Any) -> tuple[Array, Array]:
        """A block of x and of z. It is read again where it is needed again, which takes fewer registers."""
        x = self.load(self.x, block)
        return x, self.load(self.y, block) + self.per_feature(self.skip, block) * x + self.per_feature(
            self.shift, block
        )

    def activated(self) -> list[Array]:
        """All blocks of a."""
        found = []
        for block in range(self.layout.blocks):
            found.append(self.activation(block, self.x_and_z(block)[1]).astype(self.x.dtype))
        return found

    def activation(self, block: Any, z: Array) -> Array:
        """A block of a."""
        return 0.5 * z * (1.0 + _tanh_of(z)) * self.mask(0, block)

    def affine(self, activated: list[Array], weight: Any, bias: Any, block: Any) -> Array:
        """A block of a W + w."""
        total = jnp.zeros((ROWS, self.layout.columns), jnp.float32)
        for k, a in enumerate(activated):
            total += self.dot(a, self.weight(weight, k, block))
        return total + self.per_feature(bias, block)

    def output(self, activated: list[Array], block: Any) -> tuple[Array, Array, Array]:
        """A block of `out`, of the gate σ(a W + w), and of v."""
        x, z = self.x_and_z(block)
        gate = jax.nn.sigmoid(self.affine(activated, self.gate, self.gate_bias, block))
        match self.layout.kind:
            case "full_glu":
                value = self.affine(activated, self.value, self.value_bias, block)
            case "half_glu1":
                value = self.activation(block, z)
            case _:
                value = z
        return x + value * gate * self.mask(1, block), gate, value


def _tanh_of(z: Array) -> Array:
    return jnp.tanh(_SLOPE * (z + _CUBE * z * z * z))


def _gelu_slope(z: Array) -> Array:
    t = _tanh_of(z)
    return 0.5 * (1.0 + t) + 0.5 * z * (1.0 - t * t) * _SLOPE * (1.0 + 3.0 * _CUBE * z * z)


def _forward(layout: _Layout, x: Any, y: Any, *refs: Any) -> None:
    *weights, out, sums = refs
    place = program_id(0)
    program = _Program(layout, place, x, y, weights)
    activated = program.activated()

    def one(block: Any, carry: None) -> None:
        result = program.output(activated, block)[0]
        program.store(out, block, result)
        for number, value in enumerate((result, result * result)):
            at = (place * 2 + number) * layout.H + program.of(block)
            store(sums, at, program.total(value))
        return carry

    jax.lax.fori_loop(0, layout.blocks, one, None)


def _backward(layout: _Layout, *refs: Any) -> None:
    outputs = 3 + (1 if layout.accumulates else 2 + layout.value)
    arguments, (dz, dx, sums, *rest) = refs[:-outputs], refs[-outputs:]
    first, size, numbers = program_id(0), layout.columns, range(layout.blocks)

    def group(i: Any, carry: tuple[Rows, Rows]) -> tuple[Rows, Rows]:
        place, factors = first + i * layout.programs, [] if layout.accumulates else rest
        return _backward_group(layout, place, arguments, (dz, dx), factors, carry)

    totals = [[jnp.zeros(size, jnp.float32) for _ in numbers] for _ in range(layout.sums)]
    weight = [[jnp.zeros((size, size), jnp.float32) for _ in numbers] for _ in numbers if layout.accumulates]
    if layout.rounds > 1:
        totals, weight = jax.lax.fori_loop(0, layout.rounds, group, (totals, weight))
    else:
        totals, weight = group(0, (totals, weight))
    features = jnp.arange(size)
    for number, row in enumerate(totals):
        for block, total in enumerate(row):
            store(sums, (first * layout.sums + number) * layout.H + block * size + features, total)
    for k, row in enumerate(weight):
        for block, part in enumerate(row):
            at = (first * layout.H + k * size + features[:, None]) * layout.H + block * size + features[None]
            store(rest[0], at, part)


def _backward_group(
    layout: _Layout,
    place: Any,
    arguments: Sequence[Any],
    tokens: tuple[Any, Any],
    factors: Sequence[Any],
    carry: tuple[Rows, Rows],
) -> tuple[Rows, Rows]:
    """The gradients at one group of tokens, and the sums with them added.

    Blocks are a loop of the kernel. Unrolled, the loads of all blocks would be moved to the front, and 1 to 3 KB a
    thread of registers to memory. What the second loop needs of the first one goes through the outputs.
    """
    dout, d_sum, d_square, x, y, *weights = arguments
    dz, dx = tokens
    program = _Program(layout, place, x, y, weights)
    activated, numbers = program.activated(), range(layout.blocks)

    def first(block: Any, carry: tuple[Rows, Rows, list[Array]]) -> tuple[Rows, Rows, list[Array]]:
        totals, weight, through = [list(row) for row in carry[0]], [list(row) for row in carry[1]], list(carry[2])
        out, gate, value = program.output(activated, block)
        d_out = program.load(dout, block) + program.per_feature(d_sum, block)
        d_out = jnp.where(program.inside, d_out + program.per_feature(d_square, block) * out, 0.0)
        program.store(dx, block, d_out)
        d_out *= program.mask(1, block)
        d_value = d_out * gate
        program.store(dz, block, d_value)
        products = [(program.gate, d_out * value * gate * (1.0 - gate))]
        products += [(program.value, d_value)] if layout.value else []
        for number, (matrix, factor) in enumerate(products):
            add_at(totals, 2 + number, block, program.total(factor))
            for k in numbers:
                through[k] += program.dot(factor, program.weight(matrix, k, block), (1, 1))
                if layout.accumulates:
                    add_at(weight, k, block, program.dot(activated[k], factor, (0, 0)))
            if not layout.accumulates:
                program.store(factors[1 + number], block, factor)
        if not layout.accumulates:
            program.store(factors[0], block, program.activation(block, program.x_and_z(block)[1]))
        return totals, weight, through

    def second(block: Any, totals: Rows) -> Rows:
        totals = [list(row) for row in totals]
        x_b, z = program.x_and_z(block)
        d_value = program.load(dz, block)
        da = sum((jnp.where(block == k, through[k], 0.0) for k in numbers), jnp.zeros_like(z))
        da += d_value if layout.kind == "half_glu1" else 0.0
        dz_b = da * program.mask(0, block) * _gelu_slope(z) + (d_value if layout.kind == "half_glu2" else 0.0)
        d_out = program.load(dx, block)
        program.store(dz, block, dz_b)
        program.store(dx, block, d_out + program.per_feature(program.skip, block) * dz_b)
        add_at(totals, 0, block, program.total(dz_b))
        add_at(totals, 1, block, program.total(x_b * dz_b))
        return totals

    zeros = [jnp.zeros((ROWS, layout.columns), jnp.float32) for _ in numbers]  # the gradient of a
    totals, weight, through = jax.lax.fori_loop(0, layout.blocks, first, (*carry, zeros))
    triton.wait_for_stores()
    totals = jax.lax.fori_loop(0, layout.blocks, second, totals)
    triton.wait_for_stores()
    return totals, weight


def add_at(sums: Rows, number: int, block: Any, value: Array) -> None:
    """Add a value to one of the sums at this block of features, which is a number of the running kernel."""
    for place, total in enumerate(sums[number]):
        sums[number][place] = total + jnp.where(block == place, value, 0.0)

"""The selective recurrence of S6 and B²S6 as two GPU kernels: a loop over all steps for a tile of features and states.

A program has `FEATURES` features of one block of one row of the batch, with all their states.

1. The kernel of states runs through the steps. It writes y and each state at the start of a piece.
2. The kernel of the gradient takes the pieces from the last one. Within a piece it first computes its states again, and
   writes them to a place of its own that every piece uses. Then it runs through the piece the other way. Gradients of B
   and C are sums over a block's features, so each program writes its part of them.

The mathematics and the plain twin are in `ssm/selective.py`. Arrays are those of its `Constants` and `Steps`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from lra_bench.kernels import triton
from lra_bench.kernels.triton import Shape, Work, load, program_id, store, wait_for_stores
from lra_bench.machine.complex_parts import Parts, conjugate, exponential, plus, times

FEATURES = 8
"""The features in a program: with 16 states, four numbers for each lane of a warp."""


class Arguments(NamedTuple):
    """A, the bias of B (G, N, p); dt, u (L, b, G, p); B, C (L, b, G, N)."""

    A: Parts
    bias: Parts
    dt: Array
    u: Array
    B: Parts
    C: Array


class Layout(NamedTuple):
    """The sizes of a scan, the same for all programs."""

    L: int
    batch: int
    G: int
    N: int
    p: int
    parts: int
    biased: bool
    reverse: bool
    piece: int

    @property
    def tiles(self) -> int:
        """The tiles of features in a block. The last one may reach beyond it."""
        return -(-self.p // FEATURES)

    @property
    def pieces(self) -> int:
        """The pieces of the sequence. The last one may reach beyond it."""
        return -(-self.L // self.piece)

    @property
    def rows(self) -> int:
        """The states in a tile of one feature, a power of two."""
        return 1 << (self.N - 1).bit_length()

    @property
    def constant_parts(self) -> int:
        """The arrays of A and of the bias."""
        return self.parts * (1 + self.biased)


def largest_array(u: Array, C: Array, piece: int) -> int:
    """The numbers in the largest array of the kernels that grows with L, for u (L, b, H) and C (L, b, G, N)."""
    (L, batch, H), (G, N) = u.shape, C.shape[-2:]
    tiles = -(-H // (G * FEATURES))
    return max(u.size, L * batch * G * tiles * N, -(-L // piece) * batch * H * N)


def loop_states(arguments: Arguments, reverse: bool, piece: int) -> tuple[Array, Parts]:
    """Compute y (L, b, G, p), and the state at the start of each piece, (pieces, b, G, N, p) for each part."""
    layout = _layout(arguments, reverse, piece)
    kept = (layout.pieces, layout.batch, layout.G, layout.N, layout.p)
    outputs = [arguments.u.shape, *[kept] * layout.parts]
    y, *states = _call(_states, layout, "selective_states", _flat(arguments), outputs, 0)
    return y, tuple(states)


def loop_gradient(arguments: Arguments, kept: Parts, dy: Array, reverse: bool, piece: int) -> Arguments:
    """Compute the gradients of all arguments from the states of `loop_states` and the gradient of y."""
    layout = _layout(arguments, reverse, piece)
    L, batch, G, N, p, parts = layout[:6]
    vectors = (L, batch, G, layout.tiles, N)
    sums = [(batch, G, N, p)] * layout.constant_parts
    place = [(batch, G, layout.tiles, piece, layout.rows, FEATURES)] * parts
    outputs = [*sums, dy.shape, dy.shape, *[vectors] * (parts + 1), *place]
    # The inputs are read once for each direction, and the states of every piece are written and read.
    again = 4 * (L * batch * G * (2 * p + (parts + 1) * N) + 2 * parts * L * batch * G * N * p)
    found = _call(_gradient, layout, "selective_gradient", (*_flat(arguments), *kept, dy), outputs, again)
    totals = [each.sum(0) for each in found[: layout.constant_parts]]
    dt, u, *of_vectors = found[layout.constant_parts : layout.constant_parts + 3 + parts]
    *B, C = (each.sum(3) for each in of_vectors)
    return Arguments(tuple(totals[:parts]), tuple(totals[parts:]), dt, u, tuple(B), C)


def _layout(arguments: Arguments, reverse: bool, piece: int) -> Layout:
    L, batch, G, p = arguments.u.shape
    sizes = L, batch, G, arguments.C.shape[-1], p, len(arguments.A)
    return Layout(*sizes, bool(arguments.bias), reverse, piece)


def _flat(arguments: Arguments) -> tuple[Array, ...]:
    return (*arguments.A, *arguments.bias, arguments.dt, arguments.u, *arguments.B, arguments.C)


def _call(
    kernel: Callable[..., None],
    layout: Layout,
    name: str,
    arguments: tuple[Array, ...],
    shapes: list[tuple[int, ...]],
    again: int,
) -> list[Array]:
    flat = [Shape((math.prod(shape),), jnp.float32) for shape in shapes]
    grid = layout.batch, layout.G * layout.tiles
    found = triton.call(partial(kernel, layout), name, grid, arguments, flat, 1, Work(bytes_again=again))
    return [array.reshape(shape) for array, shape in zip(found, shapes, strict=True)]


class _Program:
    """The place of a program, its constants, and how it reads and writes."""

    def __init__(self, layout: Layout, refs: tuple[Any, ...]):
        self.layout, self.row, self.tile = layout, program_id(0), program_id(1)
        self.block = self.tile // layout.tiles
        feature = self.tile % layout.tiles * FEATURES + jnp.arange(FEATURES)
        n = jnp.arange(layout.rows)
        self.n, self.has_state = n, n < layout.N
        self.feature, self.has_feature = self.block * layout.p + feature, feature < layout.p
        self.both = self.has_state[:, None] & self.has_feature[None, :]
        self.place = (self.block * layout.N + n[:, None]) * layout.p + feature[None, :]
        parts, constants = layout.parts, layout.constant_parts
        self.A = self.constants(refs[:parts])
        self.bias = self.constants(refs[parts:constants])
        self.dt, self.u = refs[constants : constants + 2]
        self.B, self.C = refs[constants + 2 : constants + 2 + parts], refs[constants + 2 + parts]

    def constants(self, refs: tuple[Any, ...]) -> Parts:
        """The tiles (N, features) of arrays (G, N, p)."""
        return tuple(load(ref, self.place, self.both) for ref in refs)

    def time(self, step: Any) -> Any:
        """The time of a step, counted in the direction of the recurrence."""
        return self.layout.L - 1 - step if self.layout.reverse else step

    def at_features(self, t: Any) -> tuple[Any, Any]:
        """Indices and mask of the tile's features at time t in arrays (L, b, G, p)."""
        here = (t * self.layout.batch + self.row) * self.layout.G * self.layout.p + self.feature
        return here, self.has_feature & (t >= 0) & (t < self.layout.L)

    def at_states(self, t: Any) -> tuple[Any, Any]:
        """Indices and mask of the states at time t in arrays (L, b, G, N)."""
        here = ((t * self.layout.batch + self.row) * self.layout.G + self.block) * self.layout.N + self.n
        return here, self.has_state & (t >= 0) & (t < self.layout.L)

    def of_program(self, t: Any) -> tuple[Any, Any]:
        """Indices and mask of the states at time t in arrays (L, b, G, tiles, N)."""
        _, mask = self.at_states(t)
        programs = self.layout.G * self.layout.tiles
        return ((t * self.layout.batch + self.row) * programs + self.tile) * self.layout.N + self.n, mask

    def kept(self, piece: Any) -> Any:
        """Indices of the tile in arrays (pieces, b, G, N, p)."""
        return (piece * self.layout.batch + self.row) * self.layout.G * self.layout.N * self.layout.p + self.place

    def step(self, t: Any) -> tuple[Array, Array, Parts, Parts, Array]:
        """dt, u, the decay, B with its bias, and C at time t. Beyond the sequence dt and u are zero."""
        dt, u = (load(ref, *self.at_features(t)) for ref in (self.dt, self.u))
        *B, C = (load(ref, *self.at_states(t)) for ref in (*self.B, self.C))
        decay = exponential(tuple(dt[None, :] * part for part in self.A))
        vector = tuple(part[:, None] + jnp.zeros_like(decay[0]) for part in B)
        return dt, u, decay, plus(vector, self.bias) if self.bias else vector, C

    def rest(self) -> Parts:
        """Zeros for each state of the tile."""
        return tuple(jnp.zeros_like(part) for part in self.A)


def _states(layout: Layout, *refs: Any) -> None:
    program = _Program(layout, refs)
    y, *kept = refs[-1 - layout.parts :]

    def piece(number: Any, x: Parts) -> Parts:
        for ref, part in zip(kept, x, strict=True):
            store(ref, program.kept(number), part, program.both)

        def step(i: Any, x: Parts) -> Parts:
            t = program.time(number * layout.piece + i)
            dt, u, decay, vector, C = program.step(t)
            x = plus(times(decay, x), tuple((dt * u)[None, :] * part for part in vector))
            here, mask = program.at_features(t)
            store(y, here, jnp.sum(C[:, None] * x[0], axis=0), mask)
            return x

        return lax.fori_loop(0, layout.piece, step, x)

    lax.fori_loop(0, layout.pieces, piece, program.rest())


def _gradient(layout: Layout, *refs: Any) -> None:
    program, parts, constants = _Program(layout, refs), layout.parts, layout.constant_parts
    inputs = constants + 3 + parts
    kept, dy = refs[inputs : inputs + parts], refs[inputs + parts]
    outputs = refs[inputs + parts + 1 :]
    sums, (of_dt, of_u), of_vectors = outputs[:constants], outputs[constants : constants + 2], outputs[constants + 2 :]
    of_vectors, states = of_vectors[: parts + 1], of_vectors[parts + 1 :]
    first = (program.row * layout.G * layout.tiles + program.tile) * layout.piece
    tile = program.n[:, None] * FEATURES + jnp.arange(FEATURES)[None, :]

    def place(i: Any) -> Any:
        return (first + i) * layout.rows * FEATURES + tile

    def later(start: Any, i: Any, x: Parts) -> Parts:
        dt, u, decay, vector, _ = program.step(program.time(start + i))
        arrived = times(decay, x)
        for ref, part in zip(states, arrived, strict=True):
            store(ref, place(i), part)
        return plus(arrived, tuple((dt * u)[None, :] * part for part in vector))

    def earlier(start: Any, count: Any, carry: tuple[Parts, Parts]) -> tuple[Parts, Parts]:
        (g, totals), i = carry, layout.piece - 1 - count
        t = program.time(start + i)
        dt, u, decay, vector, C = program.step(t)
        here, mask = program.at_features(t)
        dy_t = load(dy, here, mask)
        arrived = tuple(load(ref, place(i)) for ref in states)
        drive = (dt * u)[None, :]
        g = (g[0] + C[:, None] * dy_t[None, :], *g[1:])
        q = times(g, conjugate(arrived))
        of_drive = sum(jnp.sum(a * b, axis=0) for a, b in zip(vector, g, strict=True))
        step_size = sum(jnp.sum(a * b, axis=0) for a, b in zip(program.A, q, strict=True))
        store(of_dt, here, step_size + u * of_drive, mask)
        store(of_u, here, dt * of_drive, mask)
        of_C = jnp.sum(dy_t[None, :] * (arrived[0] + drive * vector[0]), axis=1)
        here, mask = program.of_program(t)
        for ref, part in zip(of_vectors, (*(jnp.sum(drive * part, axis=1) for part in g), of_C), strict=True):
            store(ref, here, part, mask)
        new = (*(dt[None, :] * part for part in q), *(drive * part for part in g[: len(program.bias)]))
        return times(conjugate(decay), g), plus(totals, new)

    def piece(count: Any, carry: tuple[Parts, Parts]) -> tuple[Parts, Parts]:
        number = layout.pieces - 1 - count
        x = tuple(load(ref, program.kept(number), program.both) for ref in kept)
        lax.fori_loop(0, layout.piece, partial(later, number * layout.piece), x)
        wait_for_stores()
        carry = lax.fori_loop(0, layout.piece, partial(earlier, number * layout.piece), carry)
        wait_for_stores()
        return carry

    zero = program.rest()
    _, totals = lax.fori_loop(0, layout.pieces, piece, (zero, (*zero, *(zero if layout.biased else ()))))
    for ref, part in zip(sums, totals, strict=True):
        store(ref, program.row * layout.G * layout.N * layout.p + program.place, part, program.both)

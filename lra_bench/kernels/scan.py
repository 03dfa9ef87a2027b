"""The recurrence x_t = λ x_{t−1} + b_t + d as two GPU kernels: a loop over the steps of a chunk for every state.

A program has `LANES` states of the batch, one to a lane, and one chunk of T steps. Both directions run in it.

1. The kernel of ends computes the last state of each chunk, in each direction, as if the chunk started from zero. It
   reads each input once: the end of the reverse direction is Σ_s λˢ b_s, whose powers are made on the way.
2. The kernel of states first makes the state that arrives at its chunk from the ends of the chunks before,
   X_c = λ^T X_{c−1} + e_c, and then runs through its steps. It reads each input once for each direction.
3. The gradient is the same recurrence with λ* in the opposite directions (`ssm/scan.py`). Its second kernel also adds
   the gradients of both directions, and sums up those of λ and d.

States are carried in float32, whatever the inputs are stored in. The plain twins are `ssm/scan_sequential.py` and
`ssm/scan_chunked.py`. Arrays are (L, batch, 2P), packed `[Re | Im]`; for both directions (L, batch, 4P), forward first.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from lra_bench.kernels import triton
from lra_bench.kernels.triton import Shape, Work, load, program_id, store

LANES = 64
"""The states in a program: two warps."""

SHORTEST_CHUNK = 128
"""The least length T of a chunk. On an H200, 128 steps take 0.8 of the time of 64 and 0.9 of that of 256."""

AHEAD = 8
"""The steps whose inputs are loaded before the first of them is used, so that the loads run side by side."""

Complex = tuple[Array, Array]
"""The real and the imaginary part of one number for each lane, (LANES,) each."""


Source = tuple[int, bool]
"""A direction to run in: the place of its inputs in a row, and whether it runs in reverse."""


def state_sources(both: bool) -> tuple[Source, ...]:
    """The directions of the states. Both read the same inputs."""
    return ((0, False), (0, True))[: 1 + both]


def gradient_sources(both: bool, P: int) -> tuple[Source, ...]:
    """The directions of the gradient. That of the forward states, which stand first, runs in reverse."""
    return ((0, True), (2 * P, False))[: 1 + both]


class Modes(NamedTuple):
    """The eigenvalues, and the constant that is added at every step; (P,) each."""

    real: Array
    imag: Array
    power_real: Array  # of λ^T, T the length of a chunk
    power_imag: Array
    drive_real: Array
    drive_imag: Array


class Layout(NamedTuple):
    """The sizes of a scan, the same for all programs."""

    L: int
    batch: int
    P: int
    both: bool

    @property
    def T(self) -> int:
        """The length of a chunk."""
        return chunk_length(self.L)

    @property
    def chunks(self) -> int:
        """The number of chunks. The last one may reach beyond the sequence."""
        return -(-self.L // self.T)

    @property
    def width(self) -> int:
        """The length of a row of states: those of one direction or both."""
        return 2 * self.P * (1 + self.both)


def chunk_length(L: int) -> int:
    """The length T of a chunk: a power of two of about 2 √L, so that neither the loop over the steps of a chunk nor
    that over the chunks before it is much longer than the other."""
    longest = max(2 * AHEAD, 1 << (L - 1).bit_length())  # two groups at least, which both directions meet between
    return min(longest, max(SHORTEST_CHUNK, 2 << (L.bit_length() // 2)))


def loop_states(modes: Modes, b: Array, both: bool, ends: Array | None = None) -> Array:
    """Compute the states from b (L, batch, 2P), in the forward direction or in both. They are stored in b's dtype.

    ends: those of all chunks, where they are known (`kernels/projection.py`).
    """
    layout = Layout(b.shape[0], b.shape[1], b.shape[2] // 2, both)
    ends = _ends(layout, modes, b, state_sources(both)) if ends is None else ends
    output = Shape((b.size * (1 + both),), b.dtype)
    (x,) = _call(_states, layout, "scan_states", (*modes, b, ends), [output], b.nbytes * both)
    return x.reshape(*b.shape[:2], -1)


def loop_gradient(
    modes: Modes, x: Array, dx: Array, both: bool, ends: Array | None = None
) -> tuple[Array, Array, Array]:
    """Compute gradients from those of the states: of λ (2, P), of the drive (2, P), and of b (L, batch, 2P).

    `modes` are those of λ* and no drive, x the states as `loop_states` gave them.
    """
    P = x.shape[2] // (4 if both else 2)
    layout = Layout(x.shape[0], x.shape[1], P, both)
    ends = _ends(layout, modes, dx, gradient_sources(both, P)) if ends is None else ends
    outputs = [
        Shape((x.shape[0] * x.shape[1] * 2 * P,), dx.dtype),
        Shape((layout.chunks * 4 * layout.batch * P,), jnp.float32),
    ]
    # Of both directions, each adds to half of db.
    db, sums = _call(_gradient, layout, "scan_gradient", (*modes, dx, x, ends), outputs, dx.nbytes // 2 * both)
    total = sums.reshape(layout.chunks, 2, 2, layout.batch, P).sum((0, 3))
    return total[0], total[1], db.reshape(*x.shape[:2], -1)


def _ends(layout: Layout, modes: Modes, b: Array, sources: tuple[Source, ...]) -> Array:
    """The ends of all chunks, (chunks, batch, 2P) for each of the sources, flat."""
    output = Shape((layout.chunks * layout.batch * layout.width,), jnp.float32)
    kernel = partial(_ends_kernel, sources=sources, width=b.shape[-1])
    return _call(kernel, layout, "scan_ends", (*modes, b), [output])[0]


def _call(
    kernel: Any, layout: Layout, name: str, arguments: tuple[Array, ...], outputs: list[Shape], again: int = 0
) -> list[Array]:
    grid = layout.chunks, -(-layout.batch * layout.P // LANES)
    return triton.call(partial(kernel, layout), name, grid, arguments, outputs, 2, Work(bytes_again=again))


class _Program:
    """The place of a program, and how it reads and writes packed rows."""

    def __init__(self, layout: Layout):
        self.layout, self.chunk = layout, program_id(0)
        lane = program_id(1) * LANES + jnp.arange(LANES)
        self.inside = lane < layout.batch * layout.P
        self.row, self.state = (f(lane, jnp.full_like(lane, layout.P)) for f in (lax.div, lax.rem))

    def times(self, group: Any, reverse: bool) -> list[Any]:
        """The times of a group of steps of the chunk, counted in the direction of the recurrence."""
        T, first = self.layout.T, group * AHEAD
        return [self.chunk * T + (T - 1 - first - i if reverse else first + i) for i in range(AHEAD)]

    def real(self, t: Any) -> Array:
        """Whether time t is in the sequence, for lanes that have a state."""
        return self.inside & (t >= 0) & (t < self.layout.L)

    def mode(self, real: Any, imag: Any) -> Complex:
        """The lanes' numbers of two arrays (P,)."""
        return load(real, self.state), load(imag, self.state)

    def load(self, array: Any, t: Any, width: int, offset: int, mask: Array) -> Complex:
        """The packed numbers at `offset` of the rows of time t, in float32; zero where the mask is false."""
        first = (t * self.layout.batch + self.row) * width + offset + self.state
        real, imag = (load(array, first + part * self.layout.P, mask) for part in range(2))
        return real.astype(jnp.float32), imag.astype(jnp.float32)

    def store(self, array: Any, t: Any, width: int, offset: int, x: Complex, mask: Array) -> None:
        """Write packed numbers at `offset` of the rows of time t."""
        first = (t * self.layout.batch + self.row) * width + offset + self.state
        for part in range(2):
            store(array, first + part * self.layout.P, x[part], mask)


def multiplied(a: Complex, x: Complex) -> Complex:
    """The product of complex numbers."""
    return a[0] * x[0] - a[1] * x[1], a[0] * x[1] + a[1] * x[0]


def plus(x: Complex, y: Complex) -> Complex:
    """The sum of complex numbers."""
    return x[0] + y[0], x[1] + y[1]


def _constant(real: float) -> Complex:
    return jnp.full(LANES, real, jnp.float32), jnp.zeros(LANES, jnp.float32)


def _driven(program: _Program, b: Any, t: Any, width: int, offset: int, drive: Complex) -> Complex:
    """The input b_t + d, and zero outside of the sequence."""
    real = program.real(t)
    b_t = plus(program.load(b, t, width, offset, real), drive)
    return jnp.where(real, b_t[0], 0.0), jnp.where(real, b_t[1], 0.0)


def _ends_kernel(layout: Layout, *refs: Any, sources: tuple[Source, ...], width: int) -> None:
    *modes, b, out = refs
    program = _Program(layout)
    Lambda, drive = program.mode(*modes[:2]), program.mode(*modes[4:])

    def group(g: Any, carry: tuple[Complex, Complex, Complex]) -> tuple[Complex, Complex, Complex]:
        end, reverse_end, power = carry
        times = program.times(g, False)
        offsets = sorted({offset for offset, _ in sources})
        loaded = {offset: [_driven(program, b, t, width, offset, drive) for t in times] for offset in offsets}
        for offset, reverse in sources:
            for b_t in loaded[offset]:
                if reverse:
                    reverse_end, power = plus(reverse_end, multiplied(power, b_t)), multiplied(Lambda, power)
                else:
                    end = plus(multiplied(Lambda, end), b_t)
        return end, reverse_end, power

    start = _constant(0.0), _constant(0.0), _constant(1.0)
    end, reverse_end, _ = lax.fori_loop(0, layout.T // AHEAD, group, start)
    for number, (_, reverse) in enumerate(sources):
        found = reverse_end if reverse else end
        program.store(out, program.chunk, layout.width, 2 * layout.P * number, found, program.inside)


def _arriving(program: _Program, ends: Any, Lambda_T: Complex, number: int, reverse: bool) -> Complex:
    """The state that arrives at the program's chunk, X_c = λ^T X_{c−1} + e_c over the chunks before it."""
    layout, offset = program.layout, 2 * program.layout.P * number

    def add(i: Any, X: Complex) -> Complex:
        chunk = layout.chunks - 1 - i if reverse else i
        return plus(multiplied(Lambda_T, X), program.load(ends, chunk, layout.width, offset, program.inside))

    before = layout.chunks - 1 - program.chunk if reverse else program.chunk
    return lax.fori_loop(0, before, add, _constant(0.0))


def _states(layout: Layout, *refs: Any) -> None:
    *modes, b, ends, out = refs
    program = _Program(layout)
    Lambda, Lambda_T, drive = (program.mode(*modes[i : i + 2]) for i in (0, 2, 4))
    directions = [False, True][: 1 + layout.both]

    def group(g: Any, x: list[Complex]) -> list[Complex]:
        times = [program.times(g, reverse) for reverse in directions]
        loaded = [[_driven(program, b, t, 2 * layout.P, 0, drive) for t in ts] for ts in times]
        x = list(x)
        for i in range(AHEAD):
            for number, ts in enumerate(times):
                x[number] = plus(multiplied(Lambda, x[number]), loaded[number][i])
                offset = 2 * layout.P * number
                program.store(out, ts[i], layout.width, offset, x[number], program.real(ts[i]))
        return x

    arriving = [_arriving(program, ends, Lambda_T, number, reverse) for number, reverse in enumerate(directions)]
    lax.fori_loop(0, layout.T // AHEAD, group, arriving)


def _gradient(layout: Layout, *refs: Any) -> None:
    *modes, dx, x, ends, db, sums = refs
    program = _Program(layout)
    Lambda, Lambda_T = program.mode(*modes[:2]), program.mode(*modes[2:4])
    directions, width = [True, False][: 1 + layout.both], layout.width

    def group(
        add: bool, g: Any, carry: tuple[list[Complex], Complex, Complex]
    ) -> tuple[list[Complex], Complex, Complex]:
        running, d_Lambda, d_drive = list(carry[0]), *carry[1:]
        loaded = []
        for number, reverse in enumerate(directions):
            offset, times = 2 * layout.P * number, program.times(g, reverse)
            # The state before, in the direction of the states. There is none before the first.
            before = [t - 1 if reverse else t + 1 for t in times]
            dxs = [program.load(dx, t, width, offset, program.real(t)) for t in times]
            xs = [program.load(x, t, width, offset, program.real(t)) for t in before]
            loaded.append(list(zip(times, dxs, xs, strict=True)))
        for i in range(AHEAD):
            for number in range(len(directions)):
                t, dx_t, x_t = loaded[number][i]
                real = program.real(t)
                running[number] = g_t = plus(multiplied(Lambda, running[number]), dx_t)
                d_Lambda = plus(d_Lambda, (g_t[0] * x_t[0] + g_t[1] * x_t[1], g_t[1] * x_t[0] - g_t[0] * x_t[1]))
                d_drive = plus(d_drive, (jnp.where(real, g_t[0], 0.0), jnp.where(real, g_t[1], 0.0)))
                total = plus(g_t, program.load(db, t, 2 * layout.P, 0, real)) if add else g_t
                program.store(db, t, 2 * layout.P, 0, total, real)
        return running, d_Lambda, d_drive

    arriving = [_arriving(program, ends, Lambda_T, number, reverse) for number, reverse in enumerate(directions)]
    groups = layout.T // AHEAD
    # Of two directions, each writes in its first half what the other one adds to in its second.
    half = groups // 2 if layout.both else groups
    carry = lax.fori_loop(0, half, partial(group, False), (arriving, _constant(0.0), _constant(0.0)))
    if layout.both:
        carry = lax.fori_loop(half, groups, partial(group, True), carry)
    for number, part in enumerate((*carry[1], *carry[2])):
        first = (program.chunk * 4 + number) * layout.batch * layout.P
        store(sums, first + program.row * layout.P + program.state, part, program.inside)

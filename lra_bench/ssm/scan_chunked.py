"""The recurrence in chunks, for accelerators: a few large kernels per level instead of one launch per step.

Inside a chunk, x_t = λ^t Σ_{s ≤ t} λ^{−s} b_s: scale, add up, scale back. The sum is a product with a triangle of ones,
the same for every state, so tensor cores can do it. The states at the ends of the chunks follow the same recurrence
with λ^T, which is solved in the same way, on a sequence T times shorter.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from lra_bench.ssm.scan_sequential import Pair

CHUNK = 16
"""T. The triangle costs 2T flops per real number, a level about five kernels, and 16 is the depth of one tensor core
product. With exponents counted from the middle of the chunk, λ^±8 stays in float32's range down to |λ| = 1.7e-4."""


class Powers(NamedTuple):
    """Powers of λ for one level, (count, P) parts in the dtype of the states; `to_the_T` stays in float64."""

    centred: Pair  # λ^(k − T // 2) at index k = 0 … 2 (T // 2) + 1
    to_the_T: Pair
    first: Pair
    fast: Array  # (P,): forgets within two steps


def chunked_states(Lambda_bar: Pair, b: Array, reverse: bool) -> Array:
    """The same states as `sequential_states`, from log_T L levels of parallel work.

    Powers are taken in float64 whatever the dtype: an error of one rounding in λ is one of 10⁴ roundings in λ^10⁴.
    """
    with jax.enable_x64(True):
        precise = tuple(lax.convert_element_type(part, np.float64) for part in Lambda_bar)
    return _level(precise, b, reverse)


def rotate(factor: Sequence[Array], x: Array) -> Array:
    """Complex product of `factor`, real and imaginary part that broadcast to (..., P), and packed x (..., 2P)."""
    real, imag = factor
    x_real, x_imag = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([real * x_real - imag * x_imag, real * x_imag + imag * x_real], axis=-1)


def _level(Lambda_bar: Pair, b: Array, reverse: bool) -> Array:
    L, batch, width = b.shape
    T = min(CHUNK, L)
    n_chunks, middle = -(-L // T), T // 2
    powers = _powers(Lambda_bar, middle, b.dtype)
    steps = np.arange(T)[::-1] if reverse else np.arange(T)
    forth = [part[steps][:, None] for part in powers.centred]
    back = [part[2 * middle - steps][:, None] for part in powers.centred]

    # Zeros past the end change no state before it, and start the reversed recurrence with zeros.
    padded = jnp.pad(b, ((0, n_chunks * T - L), (0, 0), (0, 0))).reshape(n_chunks, T, batch, width)
    ones = np.triu(np.ones((T, T), b.dtype)) if reverse else np.tril(np.ones((T, T), b.dtype))
    sums = jnp.einsum("st,ctbp->csbp", ones, rotate(back, padded), precision=lax.Precision.HIGHEST)
    if n_chunks > 1:
        last = 0 if reverse else T - 1
        ends = rotate([part[T - 1] for part in powers.centred], sums[:, last])
        arriving = _shifted(_level(powers.to_the_T, ends, reverse), reverse)
        sums += rotate([part[2 * middle + 1] for part in powers.centred], arriving)[:, None]
    x = rotate(forth, sums).reshape(n_chunks * T, batch, width)[:L]
    two_terms = b + rotate(powers.first, _shifted(b, reverse))
    return jnp.where(jnp.concatenate([powers.fast, powers.fast]), two_terms, x)


def _powers(Lambda_bar: Pair, middle: int, dtype: np.dtype) -> Powers:
    """Where |λ| is so small that λ^−middle would leave `dtype`'s range, λ² is below its precision."""
    smallest = float(jnp.finfo(dtype).tiny) ** (1.6 / CHUNK)
    with jax.enable_x64(True):
        real, imag = Lambda_bar
        square = real * real + imag * imag
        fast = square < smallest**2
        real, imag, square = jnp.where(fast, 1.0, real), jnp.where(fast, 0.0, imag), jnp.where(fast, 1.0, square)
        one = jnp.ones_like(real), jnp.zeros_like(imag)
        up = _ladder(one, (real, imag), middle + 1)
        down = _ladder(one, (real / square, -imag / square), middle)
        centred = [*down[:0:-1], *up]
        to_the_T = _product(up[middle], up[middle])
        narrow = tuple(lax.convert_element_type(jnp.stack(part), dtype) for part in zip(*centred, strict=True))
        first = tuple(lax.convert_element_type(part, dtype) for part in Lambda_bar)
    return Powers(narrow, to_the_T, first, fast)


def _ladder(one: Pair, factor: Pair, count: int) -> list[Pair]:
    return list(itertools.accumulate([factor] * count, _product, initial=one))


def _product(a: Pair, b: Pair) -> Pair:
    return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


def _shifted(x: Array, reverse: bool) -> Array:
    """x_{t−1} at each t (x_{t+1} with `reverse`), zero at the start."""
    zero = jnp.zeros_like(x[:1])
    return jnp.concatenate([x[1:], zero]) if reverse else jnp.concatenate([zero, x[:-1]])

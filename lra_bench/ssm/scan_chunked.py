"""The recurrence in chunks, for accelerators: a few large kernels per level instead of one launch per step.

Inside a chunk, x_t = λ^t Σ_{s ≤ t} λ^{−s} b_s: scale, add up, scale back. The sum is a product with a triangle of ones,
the same for every state, so tensor cores can do it. The states at the ends of the chunks follow the same recurrence
with λ^T, which is solved in the same way, on a sequence T times shorter.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from lra_bench.ssm.scan_sequential import Pair

CHUNK = 16
"""T. The triangle costs 2T flops per real number, a level about five kernels, and 16 is the depth of one tensor core
product. With exponents counted from the middle of the chunk, λ^±8 stays in float32's range down to |λ| = 1.7e-4."""


Polar = tuple[Array, Array]
"""log |λ| and arg λ in float64 whatever the dtype of the states: one rounding in λ is 10⁴ roundings in λ^10⁴."""


class Powers(NamedTuple):
    """What one level needs of λ, in the dtype of the states: parts (count, P), or (P,) for a single power."""

    centered: Pair  # λ^(k − T // 2) at index k = 0 … 2 (T // 2) + 1
    first: Pair
    fast: Array  # forgets within two steps


@partial(jax.jit, static_argnames="reverse")  # traced once for all layers of a model
def chunked_states(Lambda_bar: Pair, b: Array, reverse: bool) -> Array:
    """The same states as `sequential_states`, from log_T L levels of parallel work."""
    return _level(_polar(Lambda_bar), b, reverse)


def powers_of(Lambda_bar: Pair, exponents: Sequence[int]) -> Pair:
    """λ^k for exponents k ≥ 0, parts (count, P) in Λ̄'s dtype."""
    return _raised(_polar(Lambda_bar), exponents, Lambda_bar[0].dtype)


def rotate(factor: Sequence[Array], x: Array) -> Array:
    """Complex product of `factor`, real and imaginary part that broadcast to (..., P), and packed x (..., 2P)."""
    real, imag = factor
    x_real, x_imag = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([real * x_real - imag * x_imag, real * x_imag + imag * x_real], axis=-1)


def _level(Lambda_bar: Polar, b: Array, reverse: bool) -> Array:
    L, batch, width = b.shape
    T = min(CHUNK, L)
    n_chunks, middle = -(-L // T), T // 2
    powers = _powers(Lambda_bar, middle, b.dtype)
    steps = np.arange(T)[::-1] if reverse else np.arange(T)
    forth = [part[steps][:, None] for part in powers.centered]
    back = [part[2 * middle - steps][:, None] for part in powers.centered]

    # Zeros past the end change no state before it, and start the reversed recurrence with zeros.
    padded = jnp.pad(b, ((0, n_chunks * T - L), (0, 0), (0, 0))).reshape(n_chunks, T, batch, width)
    ones = np.triu(np.ones((T, T), b.dtype)) if reverse else np.tril(np.ones((T, T), b.dtype))
    sums = jnp.einsum("st,ctbp->csbp", ones, rotate(back, padded), precision=lax.Precision.HIGHEST)
    if n_chunks > 1:
        last = 0 if reverse else T - 1
        ends = rotate([part[T - 1] for part in powers.centered], sums[:, last])
        with jax.enable_x64(True):
            to_the_T = Lambda_bar[0] * T, Lambda_bar[1] * T
        arriving = _shifted(_level(to_the_T, ends, reverse), reverse)
        sums += rotate([part[2 * middle + 1] for part in powers.centered], arriving)[:, None]
    x = rotate(forth, sums).reshape(n_chunks * T, batch, width)[:L]
    two_terms = b + rotate(powers.first, _shifted(b, reverse))
    return jnp.where(jnp.concatenate([powers.fast, powers.fast]), two_terms, x)


def _polar(Lambda_bar: Pair) -> Polar:
    with jax.enable_x64(True):
        real, imag = (lax.convert_element_type(part, np.float64) for part in Lambda_bar)
        return jnp.log(jnp.hypot(real, imag)), jnp.arctan2(imag, real)


def _powers(Lambda_bar: Polar, middle: int, dtype: np.dtype) -> Powers:
    """Where |λ| is so small that λ^−middle would leave `dtype`'s range, λ² is below its precision."""
    with jax.enable_x64(True):
        fast = Lambda_bar[0] < float(np.log(np.finfo(dtype).tiny)) * 1.6 / CHUNK
        slow = jnp.where(fast, 0, Lambda_bar[0]), Lambda_bar[1]
    real, imag = _raised(Lambda_bar, [1], dtype)
    return Powers(_raised(slow, range(-middle, middle + 2), dtype), (real[0], imag[0]), fast)


def _raised(Lambda_bar: Polar, exponents: Sequence[int], dtype: np.dtype) -> Pair:
    with jax.enable_x64(True):
        k = np.array(exponents, np.float64)[:, None]
        # 0^0 = 1: the logarithm of zero is minus infinity
        magnitude = jnp.exp(k * jnp.maximum(Lambda_bar[0], -1e300))
        parts = magnitude * jnp.cos(k * Lambda_bar[1]), magnitude * jnp.sin(k * Lambda_bar[1])
        return lax.convert_element_type(parts[0], dtype), lax.convert_element_type(parts[1], dtype)


def _shifted(x: Array, reverse: bool) -> Array:
    """x_{t−1} at each t (x_{t+1} with `reverse`), zero at the start."""
    zero = jnp.zeros_like(x[:1])
    return jnp.concatenate([x[1:], zero]) if reverse else jnp.concatenate([zero, x[:-1]])

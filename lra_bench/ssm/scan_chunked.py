"""The recurrence in chunks, for accelerators: a few large kernels per level instead of one launch per step.

Let a chunk have the steps t = 0 … T−1, and let x_{−1} be the last state of the chunk before it. From the recurrence
x_t = λ x_{t−1} + b_t of one state follows, for any m,

    x_t = λ^{t−m} · (Σ_{s ≤ t} λ^{m−s} b_s + λ^{m+1} x_{−1}).

1. The inputs are multiplied by λ^{m−s}, added up, and multiplied by λ^{t−m}. The sum over s is a matrix product with a
   triangle of ones, which is the same for every state, so tensor cores can compute it.
2. The exponents are centered: m = T // 2, so that they lie between −m and m + 1. With m = 0 they would go down to
   −(T−1), where λ^{−s} leaves the range of float32 for much slower modes.
3. Let e_c be the last state of chunk c if it started from zero. The true last states follow the same recurrence with
   λ^T: X_c = λ^T X_{c−1} + e_c. It is solved in the same way, on a sequence T times shorter: log_T L levels in all.
4. The powers are computed in float64 from log |λ| and arg λ. Over the levels they reach λ^L, and the relative error of
   λ^k is k times that of λ: in float32 the phase would be lost.
5. A mode is fast if its |λ| is so small that λ^{−m} might leave the dtype's range. There λ² is below the dtype's
   precision, so the states are x_t = b_t + λ b_{t−1}.

With `reverse`, the steps of a chunk are counted from its end, and all else is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from lra_bench.ssm.scan_sequential import Parts
from lra_bench.ssm.shapes import Pair, States

CHUNK = 16
"""The length T of a chunk. The triangle costs 2T flops per real number, a level about five kernels, and 16 is the depth
of one tensor core product. With centered exponents, λ^±8 stays in float32's range for every mode that is not fast,
|λ| ≥ 1.6e-4."""

Polar = tuple[Array, Array]
"""The logarithm log |λ| and the phase arg λ, in float64 whatever the dtype of the states: one rounding in λ is 10⁴
roundings in λ^10⁴."""


class Powers(NamedTuple):
    """The powers of λ that one level uses, in the dtype of the states: (count, P), or (P,) for a single power."""

    centered: Parts  # λ^(k − T // 2) at index k = 0 … 2 (T // 2) + 1
    first: Pair  # λ
    fast: Array  # (P,), whether the state depends on the last two inputs only


@partial(jax.jit, static_argnames="reverse")  # traced once for all layers of a model
def chunked_states(Lambda_bar: Pair, b: States, reverse: bool) -> States:
    """Compute the same result as `sequential_states`, in log_T L levels of parallel work."""
    return _level(_polar(Lambda_bar), b, reverse)


def powers_of(Lambda_bar: Pair, exponents: Sequence[int]) -> Parts:
    """The powers λ^k for exponents k ≥ 0: real and imaginary parts, each (count, P), in Λ̄'s dtype."""
    return _raised(_polar(Lambda_bar), exponents, Lambda_bar[0].dtype)


def rotate(factor: Sequence[Array], x: Array) -> Array:
    """Multiply packed x (..., 2P) by the complex `factor`, whose two parts broadcast to (..., P)."""
    real, imag = factor
    x_real, x_imag = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([real * x_real - imag * x_imag, real * x_imag + imag * x_real], axis=-1)


def _level(Lambda_bar: Polar, b: Array, reverse: bool) -> Array:
    """Solve x_t = λ x_{t−1} + b_t for b (L, batch, 2P): within chunks by products, across chunks by the next level."""
    L, batch, width = b.shape
    T = min(CHUNK, L)
    n_chunks, middle = -(-L // T), T // 2
    powers = _powers(Lambda_bar, middle, b.dtype)
    # forth[t] is λ^(t − m) and back[t] is λ^(m − t), with t counted in the direction of the recurrence.
    steps = np.arange(T)[::-1] if reverse else np.arange(T)
    forth = [part[steps][:, None] for part in powers.centered]
    back = [part[2 * middle - steps][:, None] for part in powers.centered]

    # The length is padded with zeros to whole chunks. They change no state before them, and the reversed recurrence
    # starts on them with zero states.
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
    """The powers for exponents from −middle to middle + 1. Those of fast modes are replaced by powers of 1."""
    with jax.enable_x64(True):
        # With 2 instead of 1.6, λ^−8 would just stay in range. So a factor of 4e7 is left for the inputs in float32.
        fast = Lambda_bar[0] < float(np.log(np.finfo(dtype).tiny)) * 1.6 / CHUNK
        slow = jnp.where(fast, 0, Lambda_bar[0]), Lambda_bar[1]
    real, imag = _raised(Lambda_bar, [1], dtype)
    return Powers(_raised(slow, range(-middle, middle + 2), dtype), (real[0], imag[0]), fast)


def _raised(Lambda_bar: Polar, exponents: Sequence[int], dtype: np.dtype) -> Parts:
    with jax.enable_x64(True):
        k = np.array(exponents, np.float64)[:, None]
        # The logarithm of zero is minus infinity, and 0 · ∞ is not a number; with a finite bound, 0^0 = 1.
        magnitude = jnp.exp(k * jnp.maximum(Lambda_bar[0], -1e300))
        parts = magnitude * jnp.cos(k * Lambda_bar[1]), magnitude * jnp.sin(k * Lambda_bar[1])
        return lax.convert_element_type(parts[0], dtype), lax.convert_element_type(parts[1], dtype)


def _shifted(x: Array, reverse: bool) -> Array:
    """The array of x_{t−1} at each t (x_{t+1} with `reverse`), with zero at the start."""
    zero = jnp.zeros_like(x[:1])
    return jnp.concatenate([x[1:], zero]) if reverse else jnp.concatenate([zero, x[:-1]])

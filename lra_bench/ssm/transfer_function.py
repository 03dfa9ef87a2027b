"""Convolution kernels of rational transfer functions (RTF), whose cost does not depend on the number n of states.

    H(z) = h_0 + (b_1 z⁻¹ + … + b_n z⁻ⁿ) / (1 + a_1 z⁻¹ + … + a_n z⁻ⁿ)

The source is arXiv 2405.06147. Both polynomials are evaluated at the N-th roots of unity by one transform each, and the
inverse transform of their ratio is the kernel. That is the infinite impulse response folded modulo N, k[j] = h[j] +
h[j + N] + …, so b belongs to the length at which it was trained, and no a is unstable within it.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from lra_bench.ssm.convolution import convolve
from lra_bench.ssm.shapes import Coefficients, Denominators, FeedThrough, Kernel, Kernels, Numerators


def rational_kernel(a: Denominators, b: Numerators, h_0: FeedThrough, L: int) -> Kernels:
    """The kernels (c, H, L), folded modulo L, or L + 1 where L is odd, since the transforms are of an even length.

    a: (c, S, n), where S divides H, and feature h has row h // (H / S). b: (c, H, n). h_0: (c, H). n must be less than
    L.
    """
    N, n = L + L % 2, a.shape[-1]
    one = jnp.pad(a, ((0, 0), (0, 0), (1, N - n - 1))).at[..., 0].set(1.0)
    denominator = per_feature(jnp.fft.rfft(one), b.shape[1])
    numerator = jnp.fft.rfft(jnp.pad(b, ((0, 0), (0, 0), (1, N - n - 1))))
    return jnp.fft.irfft(numerator / denominator, N)[..., :L].at[..., 0].add(h_0)


def per_feature(x: Array, H: int) -> Array:
    """Repeat the S rows of (c, S, …) to (c, H, …). With S = 1 they stay and broadcast."""
    return x if x.shape[1] == 1 else jnp.repeat(x, H // x.shape[1], axis=1)


def unfolded_numerator(a: Coefficients, k: Kernel) -> Coefficients:
    """The numerator (H, n) with which the recurrence of a (H, n) has the folded kernel k (H, L) at the lags from 1 on.

    The reference solves c (I − A^L) = b for it, where A is the companion matrix. The same numbers are the first n terms
    of the product of the denominator and the kernel, without its lag 0.
    """
    n = a.shape[-1]
    one = jnp.concatenate([jnp.ones_like(a[:, :1]), a[:, : n - 1]], axis=-1)
    return convolve(k[:, None, 1 : n + 1], one)[:, 0]

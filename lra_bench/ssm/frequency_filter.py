"""The Sobolev filter of S4D-FT: a weight for each frequency of a two-sided convolution kernel.

The source is arXiv 2410.02035 and its code: the output's spectrum over exactly n = 2L points is multiplied by
(1 + j/n)^s at frequency j = 0 … L, where s is β in the paper. The factor is 1 at frequency 0 and 1.5^s at Nyquist.

The weight is applied to the kernel here instead. Both are the same: y = k * u is a circular convolution over 2L points,
so a factor of its spectrum may as well be the kernel's. The outputs then need no transform of one certain length, and
any form of `convolve` computes them.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from lra_bench.ssm.shapes import FeatureExponents, Kernels


def filtered(kernels: Kernels, s: FeatureExponents) -> Kernels:
    """Weight the frequencies of the kernels (2, H, L) of past and strict future by exponents s (H,); returns (2, H, L).

    Lag j ≥ 0 stands at index j of 2L, and lag −1−j at index 2L−1−j. The lag −L, which meets no input, takes part: the
    filter spreads it over the others. The factor is real and even, so that a filtered kernel is never causal.
    """
    L = kernels.shape[-1]
    both = jnp.concatenate([kernels[0], kernels[1][:, ::-1]], axis=-1)
    weights = jnp.exp(s[:, None] * np.log1p(np.arange(L + 1) / (2 * L)).astype(s.dtype))
    weighted = jnp.fft.irfft(jnp.fft.rfft(both) * weights, 2 * L)
    return jnp.stack([weighted[:, :L], weighted[:, L:][:, ::-1]])

"""Convolution kernels of HOPE-SSM, whose parameters are the Markov parameters h_0 … h_{n-1} of a Hankel operator.

    K̂(z) = Σ_m h_m w(z)^-(m+1)   where   w(z) = ((1 + dt) z + dt - 1) / ((dt - 1) z + dt + 1)

The source is arXiv 2405.13975 and its code (`models/s4/HOPE_SSM.py`). w maps the unit circle onto itself, so 1/w is an
all-pass filter with one state, and K̂ is a polynomial in it.

1. With z = exp(2πij/L), c = dt cos(πj/L) and s = sin(πj/L), 1/w is (c - is)² / (c² + s²). No angle is computed.
2. The values of 1/w at j and L - j are conjugate. So two polynomials with real coefficients, Re h and Im h, at half of
   the points give K̂ at all of them.
3. With m = T i + t and T ≈ √n, the sums over t are one real matrix product with a table of T powers of 1/w. Horner's
   rule in w^-T sums over i. No array of n numbers for each point is in memory.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from lra_bench.ssm.shapes import CircularKernel, DirectedStepSizes, MarkovParameters, Spectra

_PRECISION = lax.Precision.HIGHEST  # TF32 would leave three digits


def circular_kernel(h: MarkovParameters, dt: DirectedStepSizes, L: int) -> CircularKernel:
    """The real kernel (H, 2L) of a circular convolution over a sequence of L steps and its reversal.

    h is (2, S, n), where S divides H and feature f has row f mod S. dt is (2, H), or (1, H) for both directions.

    The code lays K̂ of the past at L nodes over the frequencies 0 … L-1 of 2L, and K̂ of the future over the others in
    reverse order, then takes the real part of the output. A real input has conjugate numbers at the frequencies j and
    2L - j, so only the mean of one value and the conjugate of the other has an effect: the spectrum of this kernel.
    """
    past, future = transfer_functions(h, dt, L)
    mirrored = future.conj()
    lower = jnp.concatenate([past, mirrored[:, -1:]], axis=-1)
    upper = jnp.concatenate([past[:, :1], mirrored], axis=-1)
    return jnp.fft.irfft(0.5 * (lower + upper), 2 * L)


def transfer_functions(h: MarkovParameters, dt: DirectedStepSizes, L: int) -> Spectra:
    """K̂ (c, H, L) at the L-th roots of unity, of h (c, S, n) and dt (c, H) or (1, H) as in `circular_kernel`."""
    re, im = _polynomials(jnp.stack([h.real, h.imag]), dt, L)
    mirrored = lax.complex(re.real + im.imag, im.real - re.imag)[..., 1 : (L + 1) // 2]
    values = lax.complex(re.real - im.imag, re.imag + im.real)
    return jnp.concatenate([values, mirrored[..., ::-1]], axis=-1)


@partial(jax.checkpoint, static_argnums=(2,))
def _polynomials(h: Array, dt: Array, L: int) -> Array:
    """Σ_m h_m w^-(m+1) (k, c, H, J) at the first J = L/2 + 1 nodes, of real h (k, c, S, n).

    Its tables are made again in the backward pass: they are as large as several activations.
    """
    (k, c, S, n), (d, H) = h.shape, dt.shape
    T = 1 << ((n - 1).bit_length() + 1) // 2
    rows = -(-n // T)
    powers = _powers(_inverse_nodes(dt, L), T)
    h = jnp.pad(h, ((0, 0),) * 3 + ((0, rows * T - n),)).reshape(k, d, c // d, S, rows, T)
    h = jnp.tile(h.transpose(1, 3, 2, 0, 4, 5), (1, H // S, 1, 1, 1, 1)).reshape(d, H, -1, T)
    re, im = (jnp.matmul(h, part, precision=_PRECISION) for part in (powers.real, powers.imag))
    sums = lax.complex(re, im).reshape(d, H, c // d, k, rows, -1)
    ratio = powers[:, :, None, None, -1]
    total = sums[..., -1, :]
    for i in reversed(range(rows - 1)):
        total = total * ratio + sums[..., i, :]
    return total.transpose(3, 0, 2, 1, 4).reshape(k, c, H, -1)


def _inverse_nodes(dt: Array, L: int) -> Array:
    """The values of 1/w, complex (…, J), at the roots of unity exp(2πij/L) for j = 0 … L/2, of dt (…)."""
    half_angles = np.pi * np.arange(L // 2 + 1) / L
    cosine, s = (np.asarray(f(half_angles), dt.dtype) for f in (np.cos, np.sin))
    c = dt[..., None] * cosine
    squared = c * c + s * s
    return lax.complex((c * c - s * s) / squared, -2.0 * c * s / squared)


def _powers(x: Array, n: int) -> Array:
    """The powers x, x², … xⁿ of complex x (…, J), as (…, n, J), where n is a power of two."""
    table = x[..., None, :]
    while table.shape[-2] < n:
        table = jnp.concatenate([table, table * table[..., -1:, :]], axis=-2)
    return table

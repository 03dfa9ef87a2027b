"""Convolution kernels of HOPE-SSM, whose parameters are the Markov parameters h_0 … h_{n-1} of a Hankel operator.

    K̂(z) = Σ_m h_m w(z)^-(m+1)   where   w(z) = ((1 + dt) z + dt - 1) / ((dt - 1) z + dt + 1)

The source is arXiv 2405.13975 and its code (`models/s4/HOPE_SSM.py`). w maps the unit circle onto itself, so 1/w is an
all-pass filter with one state, and K̂ is a polynomial in it.

1. With z = exp(2πij/L), c = dt cos(πj/L) and s = sin(πj/L), 1/w is (c - is)² / (c² + s²). No angle is computed.
2. The values of 1/w at j and L - j are conjugate. So two polynomials with real coefficients, Re h and Im h, at half of
   the points give K̂ at all of them.
3. With m = T i + t, the sums over t are one real matrix product with a table of T powers of 1/w, and Horner's rule in
   w^-T sums over i. T is such that the table and the sums are equally large, so no array of n numbers for each point is
   in memory. The gradient runs the other way: its products with w^-Ti are multiplied by the table, which is made again.
4. The derivative of the angle of 1/w with respect to log dt is the imaginary part of 1/w with the other sign.
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
    (c, S, _), (d, H) = h.shape, dt.shape
    rows = jnp.stack([h.real, h.imag], axis=2).reshape(d, c // d, S, 2, -1).swapaxes(1, 2)
    values = _polynomials(jnp.tile(rows, (1, H // S, 1, 1, 1)).reshape(d, H, 2 * c // d, -1), dt, L)
    values = values.reshape(d, H, c // d, 2, 2, -1).swapaxes(1, 2).reshape(c, H, 2, 2, -1)
    (re_re, re_im), (im_re, im_im) = (tuple(values[:, :, k, part] for part in (0, 1)) for k in (0, 1))
    mirrored = lax.complex(re_re + im_im, im_re - re_im)[..., 1 : (L + 1) // 2]
    return jnp.concatenate([lax.complex(re_re - im_im, re_im + im_re), mirrored[..., ::-1]], axis=-1)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _polynomials(h: Array, dt: Array, L: int) -> Array:
    """Σ_m h_m w^-(m+1), as pairs (d, H, g, 2, J), at the first J = L/2 + 1 nodes, of real h (d, H, g, n)."""
    return _forward(h, dt, L)[0]


def _table(x: Array, T: int) -> Array:
    """The powers 1, x, … x^(T-1) of complex x (d, H, J), as pairs (d, H, T, 2, J), T a power of two.

    Each is one of about √T fine powers times one of as many coarse ones.
    """
    fine = 1 << (T.bit_length() - 1) // 2
    low, high = (_ladder(ratio, count) for ratio, count in ((x, fine), (_power(x, fine), T // fine)))
    powers = (high[:, :, :, None] * low[:, :, None]).reshape(*x.shape[:2], T, -1)
    return jnp.stack([powers.real, powers.imag], axis=-2)


def _ladder(x: Array, n: int) -> Array:
    """The powers 1, x, … x^(n-1) of x (d, H, J), as (d, H, n, J)."""
    powers = [jnp.ones_like(x), x]
    while len(powers) < n:
        powers.append(powers[len(powers) // 2] * powers[(len(powers) + 1) // 2])
    return jnp.stack(powers[:n], axis=-2)


def _power(x: Array, exponent: int) -> Array:
    """The power of x by squaring, for an exponent that is a power of two."""
    return x if exponent == 1 else _power(x * x, exponent // 2)


def _split(g: int, n: int) -> tuple[int, int]:
    """The counts T and I of t and i in m = T i + t, T a power of two near √(g n)."""
    T = 1 << ((g * n - 1).bit_length() + 1) // 2
    return T, -(-n // T)


def _forward(h: Array, dt: Array, L: int) -> tuple[Array, tuple[Array, Array]]:
    (d, H, g, n), x = h.shape, _inverse_nodes(dt, L)
    T, rows = _split(g, n)
    padded = jnp.pad(h, ((0, 0),) * 3 + ((0, rows * T - n),)).reshape(d, H, -1, T)
    table = lax.optimization_barrier(_table(x, T)).reshape(d, H, T, -1)
    sums = jnp.matmul(padded, table, precision=_PRECISION).reshape(d, H, g, rows, 2, -1)
    terms, ratio = lax.complex(sums[..., 0, :], sums[..., 1, :]), _power(x, T)[:, :, None]
    total = terms[..., -1, :]
    for i in reversed(range(rows - 1)):
        total = total * ratio + terms[..., i, :]
    total = total * x[:, :, None]
    return jnp.stack([total.real, total.imag], axis=-2), (h, dt)


def _backward(L: int, residuals: tuple[Array, Array], G: Array) -> tuple[Array, Array]:
    h, dt = residuals
    (d, H, g, n), x = h.shape, _inverse_nodes(dt, L)
    T, rows = _split(g, n)
    table = lax.optimization_barrier(_table(x, T)).reshape(d, H, T, -1)
    # Of a term h_m z the loss has the slope Re(conj(G) z), and its slope in log dt is (m + 1) h_m Im x Im(conj(G) z).
    product, ratio = lax.complex(G[..., 0, :], -G[..., 1, :]) * x[:, :, None], _power(x, T)[:, :, None]
    products = [product]
    for _ in range(rows - 1):
        products.append(products[-1] * ratio)
    weights = jnp.stack(products, axis=-2)  # (d, H, g, I, J)
    re, im, turn = weights.real, weights.imag, x.imag[:, :, None, None]
    both = jnp.stack([re, -im, im * turn, re * turn], axis=2).reshape(d, H, 2, 2, g * rows, -1).swapaxes(3, 4)
    slopes = jnp.einsum("dhrj,dhtj->dhrt", both.reshape(d, H, 2 * g * rows, -1), table, precision=_PRECISION)
    slopes = slopes.reshape(d, H, 2, g, rows * T)[..., :n]
    d_log_dt = (slopes[:, :, 1] * h * jnp.arange(1, n + 1, dtype=h.dtype)).sum((2, 3))
    return slopes[:, :, 0], d_log_dt / dt


_polynomials.defvjp(_forward, _backward)


def _inverse_nodes(dt: Array, L: int) -> Array:
    """The values of 1/w, complex (…, J), at the roots of unity exp(2πij/L) for j = 0 … L/2, of dt (…)."""
    half_angles = np.pi * np.arange(L // 2 + 1) / L
    cosine, s = (np.asarray(f(half_angles), dt.dtype) for f in (np.cos, np.sin))
    c = dt[..., None] * cosine
    squared = c * c + s * s
    return lax.complex((c * c - s * s) / squared, -2.0 * c * s / squared)

"""Long convolutions by FFT: causal, and S4's bidirectional form, whose second kernel sees only the strict future.

    y_t = Σ_{j≥0} k[j] u_{t-j} + Σ_{j≥0} k'[j] u_{t+1+j}   (state-spaces/s4 `src/models/sequence/kernels/fftconv.py`)

There are two exact forms. Each takes one transform for both directions. The form `real` is a real FFT of n ≥ 2L - 1
points, padded so that nothing wraps around. The form `right_angle` is a complex FFT of only n ≥ L points:

1. Input and kernel are multiplied by w_t = exp(iπt/2n), and the result is divided by it. Since w_s w_j = w_{s+j}, this
   changes nothing where s + j < n. Where s + j ≥ n, the product wraps around to t = s + j - n, and is i = w_n times
   too large.
2. So the real part is the causal convolution, and the imaginary part is what wrapped around. It is dropped.
3. The future's kernel k'[j] stands at index n-1-j, so that the products that are wanted are those that wrap around. It
   enters times -i: they become real, and all others imaginary.

The name is right-angle circular convolution (McEliece, Krishna); the source is Nussbaumer 1982, *Fast Fourier Transform
and Convolution Algorithms*.

`convolve_circular` lets all products wrap around: a real FFT of exactly L points.

Arrays are (H, b, L): features lead, time is contiguous.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from scipy.fft import next_fast_len

from lra_bench.machine.mesh import for_each_document
from lra_bench.ssm.shapes import ChannelMajor, Features, Kernel

Form = Literal["real", "right_angle"]
"""The form of the transform of a linear convolution. The results are the same up to rounding."""

_Transform = Literal["real", "right_angle", "circular"]

_Residuals = tuple[tuple[Array, ...], Array, Array]
"""The kernels, and the spectra of input and kernel."""


def convolve(u: ChannelMajor, k: Kernel, k_future: Kernel | None = None, form: Form = "right_angle") -> ChannelMajor:
    """Convolve u (H, b, L) with k (H, L) and, over the strict future, with k_future (H, L); returns (H, b, L).

    It is computed in float32 or float64 and returned in u's dtype. It is differentiable in reverse mode only. The
    right-angle form is the faster one on a CPU at every length of the tasks, with a gradient and without
    (`benchmarks/kernels.py`). On a GPU the forms move the same bytes: in a training step of S4D on ListOps, compiled
    for an H200, all transforms are 6.8 GB of 33 GB in either.
    """
    dtype = jnp.promote_types(u.dtype, jnp.float32)
    kernels = (k.astype(dtype),) if k_future is None else (k.astype(dtype), k_future.astype(dtype))
    return _convolve(u.astype(dtype), kernels, form).astype(u.dtype)


def convolve_circular(u: ChannelMajor, k: Kernel) -> ChannelMajor:
    """Convolve u (H, b, L) with k (H, L) modulo L: y_t = Σ_j k[j] u_{(t-j) mod L}. Returns (H, b, L).

    Dtypes and gradients are those of `convolve`.
    """
    dtype = jnp.promote_types(u.dtype, jnp.float32)
    return _convolve(u.astype(dtype), (k.astype(dtype),), "circular").astype(u.dtype)


@jax.custom_vjp
def channel_major(x: Features) -> ChannelMajor:
    """Reverse the three axes: (L, b, H) → (H, b, L), or back.

    On a CPU, where no gradient is taken, a loop does it in blocks of the leading axis. XLA would fuse a plain
    transposition with the arithmetic beside it, and read memory with large strides. In training the loop is slower, so
    the gradient's rule uses the plain transposition both ways.
    """
    block = math.gcd(len(x), 64)
    if jax.default_backend() != "cpu" or block < 8:
        return _reversed_axes(x)
    blocks = lax.map(_reversed_axes, x.reshape(-1, block, *x.shape[1:]))
    return blocks.transpose(1, 2, 0, 3).reshape(x.shape[::-1])


def _reversed_axes(x: Array) -> Array:
    return x.transpose(2, 1, 0)


channel_major.defvjp(lambda x: (_reversed_axes(x), None), lambda _, dy: (_reversed_axes(dy),))


def convolve_direct(u: np.ndarray, k: np.ndarray, k_future: np.ndarray | None = None) -> np.ndarray:
    """Compute `convolve` by its definition in numpy, in O(L²) operations. It is the oracle."""
    L = u.shape[-1]
    y = np.zeros(u.shape)
    for t in range(L):
        y[..., t] = np.einsum("hj,hbj->hb", k[:, : t + 1], u[..., t::-1])
        if k_future is not None:
            y[..., t] += np.einsum("hj,hbj->hb", k_future[:, : L - 1 - t], u[..., t + 1 :])
    return y


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve(u: Array, kernels: tuple[Array, ...], form: _Transform) -> Array:
    return _forward(u, kernels, form)[0]


def _forward(u: Array, kernels: tuple[Array, ...], form: _Transform) -> tuple[Array, _Residuals]:
    n = _points(u.shape[-1], form)
    U, K = _spectra(u, n, form), _kernel_spectrum(kernels, n, form)
    return _inverses(U * K[:, None], n, form)[..., : u.shape[-1]].real, (kernels, U, K)


def _backward(form: _Transform, residuals: _Residuals, dy: Array) -> tuple[Array, tuple[Array, ...]]:
    """The gradients of input and kernels. Both are correlations: the same transforms with conjugate spectra."""
    kernels, U, K = residuals
    L = dy.shape[-1]
    n = _points(L, form)
    D = _spectra(dy, n, form)
    du = _inverses(D * K.conj()[:, None], n, form)[..., :L].real
    correlation = _inverse((D * U.conj()).sum(1), n, form)
    dk = correlation[..., :L].real
    if len(kernels) == 1:
        return du, (dk,)
    # Index n-1-j held k'[j] times -i, so its gradient is the real part of i times the number there.
    future = correlation[..., ::-1]
    dk_future = (-future.imag if form == "right_angle" else future)[..., : L - 1]
    return du, (dk, jnp.pad(dk_future, ((0, 0), (0, 1))))


_convolve.defvjp(_forward, _backward)


def _points(L: int, form: _Transform) -> int:
    """The number n of points of the transform: L, or at least L, or 2L − 1, rounded up to a product of small primes."""
    if form == "circular":
        return L
    return next_fast_len(L) if form == "right_angle" else next_fast_len(2 * L - 1, real=True)


def _turn(n: int, dtype: jnp.dtype) -> Array:
    """The factors w_t = exp(iπt/2n) for t < n, computed in float64 on the host."""
    return jnp.asarray(np.exp(0.5j * np.pi * np.arange(n) / n), jnp.result_type(dtype, jnp.complex64))


def _spectrum(x: Array, n: int, form: _Transform) -> Array:
    if form == "right_angle":
        return jnp.fft.fft(x * _turn(n, x.real.dtype)[: x.shape[-1]], n)
    return jnp.fft.rfft(x, n)


def _inverse(X: Array, n: int, form: _Transform) -> Array:
    if form == "right_angle":
        return jnp.fft.ifft(X) * _turn(n, X.real.dtype).conj()
    return jnp.fft.irfft(X, n)


def _spectra(x: Array, n: int, form: _Transform) -> Array:
    return for_each_document(partial(_spectrum, n=n, form=form), x)


def _inverses(X: Array, n: int, form: _Transform) -> Array:
    return for_each_document(partial(_inverse, n=n, form=form), X)


def _kernel_spectrum(kernels: tuple[Array, ...], n: int, form: _Transform) -> Array:
    """The spectrum (H, …) of the two-sided kernel, with lag j ≥ 0 at index j and lag -1-j at index n-1-j.

    The last number of the future's kernel, at lag -L, meets no input and is left out.
    """
    past = kernels[0]
    L = past.shape[-1]
    if len(kernels) == 1:
        return _spectrum(past, n, form)
    past = jnp.pad(past, ((0, 0), (0, n - L)))
    future = jnp.pad(kernels[1][..., : L - 1], ((0, 0), (0, n - L + 1)))[..., ::-1]
    return _spectrum(lax.complex(past, -future) if form == "right_angle" else past + future, n, form)

"""Real and complex arrays alike, as tuples of one or two real arrays, in operations that also GPU kernels have.

Cosine and sine are sums and products here, which a CPU computes for many numbers at once. XLA calls the C library for
each number there, which takes several times as long.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
from jax import Array

Parts = tuple[Array, ...]
"""A real array, or the real and the imaginary part of a complex one."""

PI_HIGH, PI_LOW = 3.140625, math.pi - 3.140625
"""π as a number of 11 bits, whose product with a small whole number is exact in float32, and the rest."""

COSINE = [(-1) ** n / math.factorial(2 * n) for n in range(8)]
SINE = [(-1) ** n / math.factorial(2 * n + 1) for n in range(8)]
"""The coefficients of the series in r² of cos r and sin r / r. On |r| ≤ π/2 they end below the precision of float32."""


def times(a: Parts, x: Parts) -> Parts:
    """The product of arrays that are both real or both complex."""
    if len(a) == 1:
        return (a[0] * x[0],)
    return a[0] * x[0] - a[1] * x[1], a[0] * x[1] + a[1] * x[0]


def plus(x: Parts, y: Parts) -> Parts:
    """The sum of arrays that are both real or both complex."""
    return tuple(a + b for a, b in zip(x, y, strict=True))


def conjugate(x: Parts) -> Parts:
    """The complex conjugate."""
    return (x[0], *(-part for part in x[1:]))


def exponential(x: Parts) -> Parts:
    """The exponential of an array."""
    size = jnp.exp(x[0])
    return (size,) if len(x) == 1 else tuple(size * part for part in cos_sin(x[1]))


def cos_sin(angle: Array) -> tuple[Array, Array]:
    """The cosine and the sine of angles in radians, |angle| < 10⁴, with an error of about 1e-7.

    In float64 they are jnp.cos and jnp.sin.
    """
    if angle.dtype == jnp.float64:
        return jnp.cos(angle), jnp.sin(angle)
    turns = jnp.floor(angle * (1 / math.pi) + 0.5)
    r = angle - turns * PI_HIGH - turns * PI_LOW
    odd = turns - 2 * jnp.floor(turns * 0.5)
    sign = 1 - 2 * odd
    return sign * _series(COSINE, r * r), sign * r * _series(SINE, r * r)


def _series(coefficients: list[float], x: Array) -> Array:
    total = jnp.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = total * x + coefficient
    return total

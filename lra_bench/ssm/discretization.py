"""Discretization of x' = Λx + Bu, with diagonal Λ, to x[k] = Λ̄ x[k-1] + B̄ u[k] with step size dt.

These are pure JAX functions. Complex numbers enter and leave as pairs of real arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lra_bench.spec import Discretization

Number = jax.Array | np.ndarray | np.floating | float
"""An array or a scalar of real numbers."""


class Discrete(NamedTuple):
    """A discretized system: Λ̄, and the factor in B̄ = factor · B, each with the shape of Λ broadcast with that of dt."""

    Lambda_bar_re: jax.Array
    Lambda_bar_im: jax.Array
    factor_re: jax.Array
    factor_im: jax.Array


SERIES_RADIUS = 0.25
"""The |Λ dt| below which the functions are summed as series."""

SERIES_TERMS = 11
"""The number of terms of the series. The first one left out is 0.25¹¹ / 13! = 4e-17."""


def zoh(Lambda_re: Number, Lambda_im: Number, dt: Number) -> Discrete:
    """Discretize by zero-order hold: Λ̄ = exp(Λ dt), B̄ = Λ⁻¹ (Λ̄ - 1) B (S5, equation 6; S4D, section 3.1).

    The arguments broadcast against each other. Their dtype may be any floating one that has a complex one. Values and
    derivatives keep full relative accuracy down to Λ dt = 0, where the factor is dt.
    """
    z = _times_dt(Lambda_re, Lambda_im, dt)
    return _parts(*_exp_and_phi(z), dt)


def bilinear(Lambda_re: Number, Lambda_im: Number, dt: Number) -> Discrete:
    """Discretize by the trapezoidal rule: Λ̄ = (1 + Λ dt/2) / (1 - Λ dt/2), B̄ = dt / (1 - Λ dt/2) B (S4, equation 3).

    The arguments are those of `zoh`.
    """
    half = 0.5 * _times_dt(Lambda_re, Lambda_im, dt)
    return _parts((1.0 + half) / (1.0 - half), 1.0 / (1.0 - half), dt)


DISCRETIZATIONS: dict[Discretization, Callable[[Number, Number, Number], Discrete]] = {
    "zoh": zoh,
    "bilinear": bilinear,
}
"""The rules by the name that a recipe gives them."""


def _times_dt(Lambda_re: Number, Lambda_im: Number, dt: Number) -> jax.Array:
    return jax.lax.complex(*jnp.broadcast_arrays(Lambda_re * dt, Lambda_im * dt))


def _exp_and_phis(z: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The functions exp(z), φ₁ = (exp(z) - 1) / z and φ₂ = (φ₁ - 1) / z, each to full relative accuracy.

    Near 0, φ₂ is summed as a series and φ₁ follows from it. Elsewhere φ₁ is the quotient and φ₂ follows from it.
    """
    x, y = z.real, z.imag
    small = jnp.square(x) + jnp.square(y) < SERIES_RADIUS**2
    near, divisor = jnp.where(small, z, 0.0), jnp.where(small, 1.0, z)
    series = jnp.full_like(near, 1.0 / math.factorial(SERIES_TERMS + 1))
    for k in range(SERIES_TERMS, 1, -1):
        series = near * series + 1.0 / math.factorial(k)
    # exp(z) - 1 in parts: the real part, expm1(x) cos y - (1 - cos y), loses no digits for small x and y.
    growth, half_sine, half_cosine = jnp.exp(x), jnp.sin(0.5 * y), jnp.cos(0.5 * y)
    dip, sine = 2.0 * jnp.square(half_sine), 2.0 * half_sine * half_cosine
    rise = jax.lax.complex(jnp.expm1(x) * (1.0 - dip) - dip, growth * sine)
    # The division comes last, and divides by 1 near 0: XLA computes anything cheaper than a division again in every
    # kernel that uses it.
    phi1 = jnp.where(small, 1.0 + near * series, rise) / divisor
    phi2 = jnp.where(small, series, phi1 - 1.0) / divisor
    return jax.lax.complex(growth * (1.0 - dip), growth * sine), phi1, phi2


@jax.custom_jvp
def _exp_and_phi(z: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The functions exp(z) and φ₁(z), with the derivative φ₁' = φ₁ - φ₂.

    Automatic differentiation would subtract nearly equal numbers of size 1/z.
    """
    exponential, phi1, _ = _exp_and_phis(z)
    return exponential, phi1


@_exp_and_phi.defjvp
def _exp_and_phi_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[Any, Any]:
    exponential, phi1, phi2 = _exp_and_phis(*primals)
    return (exponential, phi1), (exponential * tangents[0], (phi1 - phi2) * tangents[0])


def _parts(Lambda_bar: jax.Array, unit_factor: jax.Array, dt: Number) -> Discrete:
    factor_re, factor_im = jnp.multiply(dt, unit_factor.real), jnp.multiply(dt, unit_factor.imag)
    return Discrete(Lambda_bar.real, Lambda_bar.imag, factor_re, factor_im)

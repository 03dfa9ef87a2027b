"""From x' = Λx + Bu to x[k] = Λ̄ x[k-1] + B̄ u[k] at steps of Δ, for a diagonal Λ. Pure JAX functions on real pairs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lra_bench.spec import Discretization


class Discrete(NamedTuple):
    """Λ̄ and the factor that takes B to B̄ = factor · B, as real and imaginary parts of the inputs' broadcast shape."""

    Lambda_bar_re: jax.Array
    Lambda_bar_im: jax.Array
    factor_re: jax.Array
    factor_im: jax.Array


SERIES_RADIUS = 0.25
SERIES_TERMS = 11  # the first term left out is 0.25¹¹ / 13! = 4e-17


def zoh(Lambda_re: jax.Array, Lambda_im: jax.Array, dt: jax.Array) -> Discrete:
    """Zero-order hold: Λ̄ = exp(ΛΔ), B̄ = Λ⁻¹ (Λ̄ - 1) B (S5, equation 6; S4D, section 3.1).

    Lambda_re, Lambda_im, step broadcast against each other; any floating dtype that has a complex one.
    Values and derivatives keep full relative accuracy down to ΛΔ = 0, where the factor is Δ.
    """
    z = _times_dt(Lambda_re, Lambda_im, dt)
    return _parts(*_exp_and_phi(z), dt)


def bilinear(Lambda_re: jax.Array, Lambda_im: jax.Array, dt: jax.Array) -> Discrete:
    """Trapezoidal rule: Λ̄ = (1 + ΛΔ/2) / (1 - ΛΔ/2), B̄ = Δ / (1 - ΛΔ/2) B (S4, equation 3). Arguments as in `zoh`."""
    half = 0.5 * _times_dt(Lambda_re, Lambda_im, dt)
    return _parts((1.0 + half) / (1.0 - half), 1.0 / (1.0 - half), dt)


DISCRETIZATIONS: dict[Discretization, Callable[[jax.Array, jax.Array, jax.Array], Discrete]] = {
    "zoh": zoh,
    "bilinear": bilinear,
}


def _times_dt(Lambda_re: jax.Array, Lambda_im: jax.Array, dt: jax.Array) -> jax.Array:
    return jax.lax.complex(*jnp.broadcast_arrays(Lambda_re * dt, Lambda_im * dt))


def _exp_and_phis(z: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """exp(z), φ₁ = (exp(z) - 1) / z and φ₂ = (φ₁ - 1) / z, each to full relative accuracy.

    Near 0, φ₂ is summed as a series and gives φ₁; farther off, φ₁ is the quotient and gives φ₂.
    """
    x, y = z.real, z.imag
    small = jnp.square(x) + jnp.square(y) < SERIES_RADIUS**2
    near, divisor = jnp.where(small, z, 0.0), jnp.where(small, 1.0, z)
    series = jnp.full_like(near, 1.0 / math.factorial(SERIES_TERMS + 1))
    for k in range(SERIES_TERMS, 1, -1):
        series = near * series + 1.0 / math.factorial(k)
    growth, half_sine, half_cosine = jnp.exp(x), jnp.sin(0.5 * y), jnp.cos(0.5 * y)
    dip, sine = 2.0 * jnp.square(half_sine), 2.0 * half_sine * half_cosine
    rise = jax.lax.complex(jnp.expm1(x) * (1.0 - dip) - dip, growth * sine)
    # Divided last, and near 0 by 1: XLA repeats what costs less than a division in every kernel that uses it.
    phi1 = jnp.where(small, 1.0 + near * series, rise) / divisor
    phi2 = jnp.where(small, series, phi1 - 1.0) / divisor
    return jax.lax.complex(growth * (1.0 - dip), growth * sine), phi1, phi2


@jax.custom_jvp
def _exp_and_phi(z: jax.Array) -> tuple[jax.Array, jax.Array]:
    """exp(z) and φ₁(z). Autodiff would take differences of nearly equal numbers of size 1/z; φ₁' is φ₁ - φ₂."""
    exponential, phi1, _ = _exp_and_phis(z)
    return exponential, phi1


@_exp_and_phi.defjvp
def _exp_and_phi_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[Any, Any]:
    exponential, phi1, phi2 = _exp_and_phis(*primals)
    return (exponential, phi1), (exponential * tangents[0], (phi1 - phi2) * tangents[0])


def _parts(Lambda_bar: jax.Array, unit_factor: jax.Array, dt: jax.Array) -> Discrete:
    return Discrete(Lambda_bar.real, Lambda_bar.imag, dt * unit_factor.real, dt * unit_factor.imag)

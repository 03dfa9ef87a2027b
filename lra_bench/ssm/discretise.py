"""From x' = Λx + Bu to x[k] = Λ̄ x[k-1] + B̄ u[k] at steps of Δ, for a diagonal Λ. Pure JAX functions on real pairs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

Discretisation = Literal["zoh", "bilinear"]


class Discrete(NamedTuple):
    """Λ̄ and the factor that takes B to B̄ = factor · B, as real and imaginary parts of the inputs' broadcast shape."""

    Lambda_bar_re: jax.Array
    Lambda_bar_im: jax.Array
    factor_re: jax.Array
    factor_im: jax.Array


SERIES_RADIUS = 0.25
SERIES_TERMS = 12  # the first term left out is 0.25¹² / 13! = 1e-17


def zoh(Lambda_re: jax.Array, Lambda_im: jax.Array, step: jax.Array) -> Discrete:
    """Zero-order hold: Λ̄ = exp(ΛΔ), B̄ = Λ⁻¹ (Λ̄ - 1) B (S5, equation 6; S4D, section 3.1).

    Lambda_re, Lambda_im, step broadcast against each other; any floating dtype that has a complex one.
    Values and derivatives keep full relative accuracy down to ΛΔ = 0, where the factor is Δ.
    """
    z = _times_step(Lambda_re, Lambda_im, step)
    return _parts(jnp.exp(z), _phi(z), step)


def bilinear(Lambda_re: jax.Array, Lambda_im: jax.Array, step: jax.Array) -> Discrete:
    """Trapezoidal rule: Λ̄ = (1 + ΛΔ/2) / (1 - ΛΔ/2), B̄ = Δ / (1 - ΛΔ/2) B (S4, equation 3). Arguments as in `zoh`."""
    half = 0.5 * _times_step(Lambda_re, Lambda_im, step)
    return _parts((1.0 + half) / (1.0 - half), 1.0 / (1.0 - half), step)


DISCRETISATIONS: dict[Discretisation, Callable[[jax.Array, jax.Array, jax.Array], Discrete]] = {
    "zoh": zoh,
    "bilinear": bilinear,
}


def _times_step(Lambda_re: jax.Array, Lambda_im: jax.Array, step: jax.Array) -> jax.Array:
    return jax.lax.complex(*jnp.broadcast_arrays(Lambda_re * step, Lambda_im * step))


def _phi(z: jax.Array) -> jax.Array:
    """(exp(z) - 1) / z.

    The quotient loses nothing near 0 with expm1, but its derivative is a difference of two nearly equal numbers of
    size 1/z; there the series is used. Each branch sees a safe argument, so neither sends a nan into the gradient.
    """
    small = jnp.square(z.real) + jnp.square(z.imag) < SERIES_RADIUS**2
    near = jnp.where(small, z, 0.0)
    series = jnp.ones_like(near)
    for k in range(SERIES_TERMS, 1, -1):
        series = 1.0 + near / k * series
    far = jnp.where(small, 1.0, z)
    return jnp.where(small, series, jnp.expm1(far) / far)


def _parts(Lambda_bar: jax.Array, unit_factor: jax.Array, step: jax.Array) -> Discrete:
    return Discrete(Lambda_bar.real, Lambda_bar.imag, step * unit_factor.real, step * unit_factor.imag)

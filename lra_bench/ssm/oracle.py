"""The slow, plain forms of the recurrences, to which tests compare the fast ones.

They use complex arithmetic, one step at a time, and JAX's own differentiation.
"""

from __future__ import annotations

from typing import Literal

import jax.numpy as jnp
from jax import Array, lax


def diagonal_ssm_oracle(
    Lambda_bar: tuple[Array, Array], B: Array, C: Array, C_reverse: Array | None, u: Array
) -> Array:
    """Compute `scan.diagonal_ssm` as the papers write it: complex x_t = Λ̄ x_{t−1} + B̄ u_t, y_t = Re(C x_t).

    The arguments are those of `scan.diagonal_ssm`.
    """
    P = Lambda_bar[0].shape[0]
    Lambda = lax.complex(*Lambda_bar)
    B_bar = lax.complex(B[:, :P], B[:, P:])

    def output(C: Array, reverse: bool) -> Array:
        C_tilde = lax.complex(C[:P], -C[P:])

        def body(x: Array, u_t: Array) -> tuple[Array, Array]:
            x = Lambda * x + u_t @ B_bar
            return x, (x @ C_tilde).real

        return lax.scan(body, jnp.zeros((u.shape[1], P), Lambda.dtype), u, reverse=reverse)[1]

    y = output(C, reverse=False)
    return y if C_reverse is None else y + output(C_reverse, reverse=True)


def oscillator_oracle(
    discretization: Literal["im", "imex"],
    A: Array,
    dt: Array,
    B: Array,
    C: Array,
    C_reverse: Array | None,
    u: Array,
) -> Array:
    """Compute the LinOSS layer without its skip as the paper writes it: x_t = M x_{t−1} + F_t, y_t = Re(C x_t[1]).

    A, dt: real (P,). B: complex (P, H). C, C_reverse: complex (H, P). u: (L, b, H). Returns (L, b, H).
    """
    if discretization == "im":
        S = 1 / (1 + dt**2 * A)
        M = jnp.stack([jnp.stack([1 - dt**2 * A * S, -dt * A * S]), jnp.stack([dt * S, S])])
        F = dt * M[:, 0]
    else:
        M = jnp.stack([jnp.stack([jnp.ones_like(A), -dt * A]), jnp.stack([dt, 1 - dt**2 * A])])
        F = jnp.stack([dt, dt**2])

    def output(C: Array, reverse: bool) -> Array:
        def body(x: Array, u_t: Array) -> tuple[Array, Array]:
            x = jnp.einsum("ijp,bjp->bip", M, x) + F * (u_t @ B.T)[:, None]
            return x, (x[:, 1] @ C.T).real

        return lax.scan(body, jnp.zeros((u.shape[1], 2, len(A)), B.dtype), u, reverse=reverse)[1]

    y = output(C, reverse=False)
    return y if C_reverse is None else y + output(C_reverse, reverse=True)

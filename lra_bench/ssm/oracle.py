"""The slow, plain form of the recurrence, to which tests compare the fast ones.

It uses complex arithmetic, one step at a time, and JAX's own differentiation.
"""

from __future__ import annotations

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

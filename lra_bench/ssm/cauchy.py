"""S4's convolution kernel: diagonal plus rank one (DPLR), bilinear, by the truncated generating function.

K̂(ω) = Σ_{l<L} K[l] ωˡ = C (I - Āᴸ ωᴸ) (I - Ā ω)⁻¹ B̄ at the L-th roots of unity, where the first bracket folds into
C̃ = C (I - Āᴸ), the stored parameter (`dplr.fold`). With z = 2 (1 - ω)/(1 + ω), a = ΔΛ and Woodbury's identity

    K̂ = 2/(1 + ω) · (r_BC - r_PC r_BQ / (1 + r_PQ)),   r_v = Δ Σ_n v_n / (z - a_n) + conjugate partners,   Q = conj(P).

Each r is a Cauchy sum, an (H, N, L) array in the reference codes. At roots of unity it is a Fourier transform instead,

    1/(z - a) = 1/(2 - a) · (1 + 4 ω/(2 - a) · Σ_{l<L} āˡ ωˡ / (1 - āᴸ)),   ā = (2 + a)/(2 - a),

so that all of them come from one Vandermonde product (`vandermonde`) and one real FFT, and nothing of size N·L is kept.
At even L the node ω = -1 is a pole of z; K̂ there is the limit Δ Re Σ_n B_n C̃_n.

Sources: Gu, Goel, Ré 2022 (S4, section 3 and appendix C.3); state-spaces/s4 `src/models/sequence/kernels/ssm.py`.
The sums as Fourier transforms are this project's; `cauchy_direct` is the published form and the oracle.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from lra_bench.ssm.vandermonde import bilinear_pole, vandermonde


def dplr_kernel(Lambda: Array, P: Array, B: Array, C_tilde: Array, dt: Array, L: int) -> Array:
    """K[l] = C Āˡ B̄ for the state matrix diag(Λ) - P Pᴴ on conjugate pairs of which one each is given, real (c, H, L).

    Λ, P, B complex (H, N) or (N,); C̃ complex (c, H, N), folded for this L; step Δ real (H,).
    """
    H, N = C_tilde.shape[1:]
    Lambda, P, B = (jnp.broadcast_to(x, (H, N)) for x in (Lambda, P, B))
    a = dt[:, None] * Lambda
    pole = bilinear_pole(Lambda, dt)
    v = _numerators(P, B, C_tilde) * (dt[:, None] / (2.0 - a))
    periodic = vandermonde(v * (4.0 / ((2.0 - a) * pole.one_minus_power(L))), pole, L)
    sums = jnp.fft.rfft(periodic)
    r = 2.0 * v.real.sum(-1)[..., None] + _roots_of_unity(L, sums.dtype) * sums
    return _woodbury(r, dt[:, None] * (B * C_tilde).real.sum(-1, keepdims=True), L)


def cauchy_direct(Lambda: Array, P: Array, B: Array, C_tilde: Array, dt: Array, L: int) -> Array:
    """`dplr_kernel` by Cauchy sums over every node and mode in complex arithmetic: memory O(H N L)."""
    omega = _roots_of_unity(L, C_tilde.dtype)
    a, z = (dt[:, None] * Lambda)[..., None], 2.0 * (1.0 - omega)
    v = dt[:, None] * _numerators(P, B, C_tilde)
    # Both sides are multiplied by 1 + ω, so that the node -1 stays finite; `_woodbury` does not read it.
    pairs = [1.0 / (z - (1.0 + omega) * pole) for pole in (a, a.conj())]
    r = jnp.einsum("chn,hnl->chl", v, pairs[0]) + jnp.einsum("chn,hnl->chl", v.conj(), pairs[1])
    return _woodbury((1.0 + omega) * r, dt[:, None] * (B * C_tilde).real.sum(-1, keepdims=True), L)


def _numerators(P: Array, B: Array, C_tilde: Array) -> Array:
    """B·C̃ of every kernel, B·Q, P·C̃ of every kernel, P·Q: (2c + 2, H, N)."""
    rows = jnp.concatenate([C_tilde, jnp.broadcast_to(P.conj(), C_tilde[:1].shape)])
    return jnp.concatenate([B * rows, P * rows])


def _woodbury(r: Array, limit: Array, L: int) -> Array:
    """The kernels (c, H, L) from the sums r (2c + 2, H, L // 2 + 1) and K̂(-1), `limit` (c, H, 1)."""
    r_B, r_P = r.reshape(2, -1, *r.shape[1:])
    factor = 1.0 + _roots_of_unity(L, r.dtype)
    if L % 2 == 0:
        factor = factor.at[-1].set(1.0)  # any finite number: the limit replaces this node
    K_hat = 2.0 / factor * (r_B[:-1] - r_P[:-1] * r_B[-1] / (1.0 + r_P[-1]))
    if L % 2 == 0:
        K_hat = jnp.concatenate([K_hat[..., :-1], limit.astype(K_hat.dtype)], axis=-1)
    return jnp.fft.irfft(K_hat, n=L)


def _roots_of_unity(L: int, dtype: DTypeLike) -> Array:
    """exp(-2πi j/L), j ≤ L/2, in float64 on the host: powers taken in complex64 are wrong by 1e-4 at L = 16,384."""
    return jnp.asarray(np.exp(-2j * np.pi * np.arange(L // 2 + 1) / L), dtype)

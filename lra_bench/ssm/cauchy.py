"""S4's convolution kernel: diagonal plus rank one (DPLR), bilinear, by the truncated generating function.

1. The generating function of the kernel is evaluated at the L-th roots of unity ω, and an inverse FFT gives the kernel:

       K̂(ω) = Σ_{l<L} K[l] ωˡ = C (I - Āᴸ ωᴸ) (I - Ā ω)⁻¹ B̄ = C̃ (I - Ā ω)⁻¹ B̄,   C̃ = C (I - Āᴸ).

   The last form holds since ωᴸ = 1. C̃ is the stored parameter (`dplr.fold`).
2. The matrix is a diagonal minus P Pᴴ, so Woodbury's identity reduces its inverse to four sums over the modes. With
   z = 2 (1 - ω)/(1 + ω), a = dt Λ and Q = conj(P),

       K̂ = 2/(1 + ω) · (r_BC - r_PC r_BQ / (1 + r_PQ)),   r_v = dt Σ_n v_n / (z - a_n) + conjugate partners.

3. Each r is a Cauchy sum, which the reference codes compute from an (H, N, L) array. At roots of unity each term is a
   geometric series, and its sum over l is a Fourier transform:

       1/(z - a) = 1/(2 - a) · (1 + 4 ω/(2 - a) · Σ_{l<L} āˡ ωˡ / (1 - āᴸ)),   ā = (2 + a)/(2 - a).

   So all sums come from one Vandermonde product (`vandermonde`) and one real FFT, and no array of size N·L is kept.
4. At even L, z has a pole at ω = -1. There K̂ is the limit dt Re Σ_n B_n C̃_n.

Sources: Gu, Goel, Ré 2022 (S4, section 3 and appendix C.3); state-spaces/s4 `src/models/sequence/kernels/ssm.py`.
Step 3 is this project's own. `cauchy_direct` is the published form. It is the oracle, and it serves modes that hardly
decay.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import DTypeLike

from lra_bench.ssm.shapes import Kernels, ModeWeights, SharedModes, StepSizes
from lra_bench.ssm.vandermonde import bilinear_pole, vandermonde


def dplr_kernel(
    Lambda: SharedModes, P: SharedModes, B: SharedModes, C_tilde: ModeWeights, dt: StepSizes, L: int
) -> Kernels:
    """Compute the kernel K[l] = C Āˡ B̄, real (c, H, L), of the state matrix diag(Λ) - P Pᴴ.

    Λ, P and B are complex (H, N) or (N,), C̃ is complex (c, H, N) and folded for this L, dt is real (H,). All of them
    hold one mode of each conjugate pair.
    """
    H, N = C_tilde.shape[1:]
    Lambda, P, B = (jnp.broadcast_to(x, (H, N)) for x in (Lambda, P, B))
    a = dt[:, None] * Lambda
    pole = bilinear_pole(Lambda, dt)
    v = _numerators(P, B, C_tilde) * (dt[:, None] / (2.0 - a))
    # `periodic` is the series over l of step 3; the terms v/(2 - a) are added after the FFT.
    periodic = vandermonde(v * (4.0 / ((2.0 - a) * pole.one_minus_power(L))), pole, L)
    sums = jnp.fft.rfft(periodic)
    r = 2.0 * v.real.sum(-1)[..., None] + _roots_of_unity(L, sums.dtype) * sums
    return _woodbury(r, dt[:, None] * (B * C_tilde).real.sum(-1, keepdims=True), L)


def cauchy_direct(
    Lambda: SharedModes, P: SharedModes, B: SharedModes, C_tilde: ModeWeights, dt: StepSizes, L: int
) -> Kernels:
    """Compute `dplr_kernel` by Cauchy sums in complex arithmetic, one mode after the other: time O(H N L).

    It is the oracle of `dplr_kernel`, and its replacement for modes that hardly decay, as FouT's. There 1/(1 - āᴸ) is
    large, and the Fourier transform's rounding beside it is 1e-3 of the kernel in float32.
    """
    omega = _roots_of_unity(L, C_tilde.dtype)
    a, z = (dt[:, None] * Lambda)[..., None], 2.0 * (1.0 - omega)
    v = dt[:, None] * _numerators(P, B, C_tilde)
    # Both sides are multiplied by 1 + ω, so that the node -1 stays finite; `_woodbury` does not read it.

    @jax.checkpoint
    def add(r: Array, mode: tuple[Array, Array]) -> tuple[Array, None]:
        v, a = mode
        return r + v / (z - (1.0 + omega) * a) + v.conj() / (z - (1.0 + omega) * a.conj()), None

    zero = jnp.zeros((*v.shape[:2], len(omega)), omega.dtype)
    r, _ = lax.scan(add, zero, (jnp.moveaxis(v, -1, 0)[..., None], jnp.moveaxis(a, -2, 0)))
    return _woodbury((1.0 + omega) * r, dt[:, None] * (B * C_tilde).real.sum(-1, keepdims=True), L)


def _numerators(P: Array, B: Array, C_tilde: Array) -> Array:
    """The numerators v of all sums: B·C̃ of every kernel, B·Q, P·C̃ of every kernel, P·Q; (2c + 2, H, N)."""
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
    """The roots exp(-2πi j/L) for j ≤ L/2, (L // 2 + 1,).

    They are computed in float64 on the host: powers taken in complex64 are wrong by 1e-4 at L = 16,384.
    """
    return jnp.asarray(np.exp(-2j * np.pi * np.arange(L // 2 + 1) / L), dtype)

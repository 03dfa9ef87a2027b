"""Convolution kernels of the multi-dimensional damped moving average (MEGA), which is a real diagonal state space.

Feature h has n averages with weights p and decays q, and its output is a weighted sum of them:

    x_t = q x_{t-1} + p β u_t,   y_t = n^{-½} Σ_j γ_j x_t,   p = σ(δ),   q = 1 - σ(δ) σ(α)
    k_l = n^{-½} Σ_j p_j β_j γ_j q_j^l

The sources are Ma et al. 2023 (arXiv 2209.10655) and facebookresearch/mega @ aeaa4b4
fairseq/modules/exponential_moving_average.py. A convolution by FFT moves H numbers for each token, where a scan would
move 2 n H for both directions, 32 H in all recipes; and only a kernel can be truncated as the published one is.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array, lax

from lra_bench.ssm.shapes import Averages, Kernels
from lra_bench.ssm.vandermonde import Pole, vandermonde


def damped_kernels(delta: Averages, alpha: Averages, beta: Averages, gamma: Averages, L: int) -> Kernels:
    """Compute the kernels (c, H, L) of parameters (c, H, n). They are differentiable in reverse mode only."""
    c, H, n = delta.shape
    p = jax.nn.sigmoid(delta)
    log_q = jnp.log1p(-p * jax.nn.sigmoid(alpha))  # q itself would round near 1, where it decays slowly
    weights = 0.5 * n**-0.5 * p * beta * gamma
    pole = Pole(_complex(log_q.reshape(c * H, n)), jnp.ones((c * H, n), log_q.dtype))
    return vandermonde(_complex(weights.reshape(1, c * H, n)), pole, L).reshape(c, H, L)


def _complex(x: Array) -> Array:
    return lax.complex(x, jnp.zeros_like(x))

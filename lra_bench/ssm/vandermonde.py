"""Convolution kernels of diagonal state spaces (S4D, S4-PTD): K[l] = 2 Re Σ_n W_n Ā_nˡ with W = C B̄.

The direct form is a product with an (H, N, L) Vandermonde matrix. Here no array of size N·L is in memory, forward or
backward:

1. With l = T i + j, 0 ≤ j < T and T ≈ 2√L, the power splits: Ā^l = Ā^{Ti} Ā^j.
2. Two tables of powers are made for each feature: `low`, the T powers Ā^j, and `high`, the L/T powers 2 W Ā^{Ti}.
3. Re(a b) = Re a · Re b - Im a · Im b. So with rows [Re, Im] in `low` and [Re, -Im] in `high`, the sum over n is one
   real matrix product of the tables, (L/T, 2N) by (2N, T), and its entry (i, j) is K[T i + j].
4. Each table is made in the same way, as products of about √T fine powers and as many coarse ones. So all powers come
   from four exponentials per mode and about L^¼ multiplications each. The phase of Ā^l then has the relative rounding
   error of log Ā, about ε |Im λ / Re λ| by the time a mode has decayed, whatever L is.
5. The gradient runs the other way: dK is multiplied by `low`, which sums over j, and Horner's rule in Ā^T sums over i.

`vandermonde_direct` is the direct form, the oracle of the tests and of `benchmarks/kernels.py`.

Sources: Gu, Gupta, Goel, Ré 2022 (S4D, section 3 and appendix A); state-spaces/s4 `models/s4/s4d.py`, `kernels/ssm.py`.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from lra_bench.machine.platform import target_platform
from lra_bench.spec import Discretization
from lra_bench.ssm.discretization import DISCRETIZATIONS
from lra_bench.ssm.shapes import Kernels, Modes, ModeWeights, SharedModes, StepSizes

_PRECISION = lax.Precision.HIGHEST  # TF32 would leave three digits


class Pole(NamedTuple):
    """The eigenvalues Ā = sign · exp(log).

    The logarithm is that of Ā or of -Ā, whichever is nearer to 1, so that it and its rounding error are small.
    """

    log: Array  # complex (H, N)
    sign: Array  # real (H, N), +1 or -1; no gradient flows through it

    def power(self, exponent: int) -> Array:
        """Compute Ā^exponent, complex (H, N)."""
        power = jnp.exp(exponent * self.log)
        return power * self.sign if exponent % 2 else power

    def one_minus_power(self, exponent: int) -> Array:
        """Compute 1 - Ā^exponent, complex (H, N), without cancellation where that power is near 1."""
        near = -jnp.expm1(exponent * self.log)
        return jnp.where(self.sign < 0, 2 - near, near) if exponent % 2 else near


def zoh_pole(Lambda: SharedModes, dt: StepSizes) -> Pole:
    """The eigenvalues Ā = exp(dt Λ) for Λ complex (H, N) or (N,) and dt real (H,)."""
    log = dt[:, None] * Lambda
    return Pole(log, jnp.ones_like(log.real))


def bilinear_pole(Lambda: SharedModes, dt: StepSizes) -> Pole:
    """The eigenvalues Ā = (1 + dt Λ/2) / (1 - dt Λ/2) for Λ complex (H, N) or (N,) and dt real (H,).

    Modes with |dt Λ| > 2 have an Ā near -1, where log Ā is about iπ and would lose the small phase that matters; that
    is why `Pole` has a sign. Ā = 0, the value at real dt Λ = -2, becomes 1e-15, with finite derivatives.
    """
    x, y = 0.5 * dt[:, None] * Lambda.real, 0.5 * dt[:, None] * Lambda.imag
    denominator = (1.0 - x) ** 2 + y * y
    squared = ((1.0 + x) ** 2 + y * y) / denominator
    slow = squared > 0.25
    near_one = jnp.log1p(jnp.where(slow, 4.0 * x / denominator, 0.0))
    decay = 0.5 * jnp.where(slow, near_one, jnp.log(jnp.maximum(squared, 1e-30)))
    cosine = jnp.where(squared > 1e-30, 1.0 - x * x - y * y, 1.0)
    sign = lax.stop_gradient(jnp.where(cosine < 0, -1.0, 1.0).astype(x.dtype))
    return Pole(lax.complex(decay, jnp.arctan2(2.0 * y * sign, cosine * sign)), sign)


def diagonal_kernel(
    Lambda: SharedModes, B: SharedModes, C: ModeWeights, dt: StepSizes, L: int, discretization: Discretization
) -> Kernels:
    """Compute K[c, h, l] = 2 Re Σ_n C B̄ Ā^l, real (c, H, L), with B̄ and Ā by the named rule.

    Λ and B are complex (H, N) or (N,), C is complex (c, H, N), dt is real (H,). The factor 2 stands for the conjugate
    partners. S4-PTD, whose states have none, keeps it, as its code does.
    """
    H, N = C.shape[1:]
    Lambda, B = jnp.broadcast_to(Lambda, (H, N)), jnp.broadcast_to(B, (H, N))
    discrete = DISCRETIZATIONS[discretization](Lambda.real, Lambda.imag, dt[:, None])
    pole = {"zoh": zoh_pole, "bilinear": bilinear_pole}[discretization](Lambda, dt)
    return vandermonde(C * (B * lax.complex(discrete.factor_re, discrete.factor_im)), pole, L)


def vandermonde_direct(W: ModeWeights, A_bar: Modes, L: int) -> Kernels:
    """Compute 2 Re Σ_n W[c, h, n] Ā[h, n]^l, real (c, H, L), with the whole (H, N, L) matrix in memory.

    It is the oracle of `vandermonde`.
    """
    powers = jnp.exp(jnp.log(A_bar)[..., None] * jnp.arange(L))
    return 2.0 * jnp.einsum("chn,hnl->chl", W, powers).real


_Sums = tuple[Array, Array, Array, Array]
"""Real and imaginary parts of Horner's two sums: the plain one and the one weighted by l."""


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def vandermonde(W: ModeWeights, pole: Pole, L: int) -> Kernels:
    """Compute 2 Re Σ_n W[c, h, n] Ā[h, n]^l for l < L, real (c, H, L), from W complex (c, H, N) and Ā (H, N).

    It is differentiable in reverse mode only.
    """
    return _forward(W, pole, L)[0]


def _shape(L: int) -> tuple[int, int]:
    """The counts (T, I) of j and i in l = T i + j, with T I ≥ L."""
    T = 2 << ((L - 1).bit_length() // 2)
    rows = -(-L // T)
    return T, _rungs(rows) * -(-rows // _rungs(rows))


def _rungs(n: int) -> int:
    """A power of two near √n."""
    return 1 << ((n - 1).bit_length() // 2)


def _ladder(ratio: Array, n: int) -> Array:
    """The powers 1, ratio, … ratio^(n − 1) as real pairs (n, 2, …, N), for `ratio` complex (…, N)."""

    def climb(rung: Array, _: None) -> tuple[Array, Array]:
        re, im = rung
        return jnp.stack([re * ratio.real - im * ratio.imag, re * ratio.imag + im * ratio.real]), rung

    return lax.scan(
        climb, jnp.stack([jnp.ones_like(ratio.real), jnp.zeros_like(ratio.imag)]), None, n, unroll=_unrolled()
    )[1]


def _unrolled() -> bool:
    """Whether short loops over small arrays are unrolled. On a GPU each of their steps would be two or more kernels.

    With loops, they were 2.3 ms of the 11.2 that a step of S4D on ListOps takes on an H200 (predicted).
    """
    return target_platform() == "gpu"


def _tables(W: Array, pole: Pole, T: int, rows: int) -> tuple[Array, Array]:
    """The two tables of step 2: `low`, real (H, T, 2N), and `high`, real (H, c · rows, 2N).

    Each power is one of about √T fine powers times one of as many coarse ones. All of those come from one loop: XLA
    keeps the result of a loop, but would compute exponentials again at every use.
    """
    c, H, N = W.shape
    fine, fine_rows = _rungs(T), _rungs(rows)
    counts = (fine, T // fine, fine_rows, rows // fine_rows)
    steps = jnp.stack([pole.power(exponent) for exponent in (1, fine, T, T * fine_rows)])
    rungs = _ladder(steps, max(counts))  # (n, 2, 4, H, N)

    def products(first: int) -> tuple[Array, Array]:
        low, high = (rungs[: counts[k], :, k].transpose(1, 2, 0, 3) for k in (first, first + 1))
        (a, b), (x, y) = low[:, :, None], high[:, :, :, None]
        return (a * x - b * y).reshape(H, -1, N), (a * y + b * x).reshape(H, -1, N)

    re, im = (power[:, None] for power in products(2))
    W_re, W_im = (2.0 * part.transpose(1, 0, 2)[:, :, None] for part in (W.real, W.imag))
    high = jnp.concatenate([re * W_re - im * W_im, -(re * W_im + im * W_re)], axis=-1)
    return jnp.concatenate(products(0), axis=-1), high.reshape(H, c * rows, 2 * N)


def _forward(W: Array, pole: Pole, L: int) -> tuple[Array, tuple[Array, Pole, Array]]:
    c, H, _ = W.shape
    T, rows = _shape(L)
    low, high = lax.optimization_barrier(_tables(W, pole, T, rows))
    K = jnp.einsum("hrn,htn->hrt", high, low, precision=_PRECISION).reshape(H, c, rows * T)
    return K.transpose(1, 0, 2)[..., :L], (W, pole, low)


def _backward(L: int, residuals: tuple[Array, Pole, Array], G: Array) -> tuple[Array, Pole]:
    """The gradients of W and log Ā, summed over j by a product with `low` and then over i by Horner's rule in Ā^T.

    The derivative of Ā^l with respect to log Ā has a factor l = T i + j, so there are two sums over j: a plain one for
    W, and one weighted by j for log Ā, to which T i times the plain one is added.
    """
    W, pole, low = residuals
    c, H, N = W.shape
    T, rows = _shape(L)
    G = jnp.pad(2.0 * G, ((0, 0), (0, 0), (0, rows * T - L))).reshape(c, H, rows, T).transpose(1, 2, 0, 3)
    G = lax.optimization_barrier(jnp.stack([G, G * jnp.arange(T)], axis=2))  # (H, rows, 2, c, T)
    sums = jnp.matmul(G.reshape(H, -1, T), low, precision=_PRECISION).reshape(H, rows, 2, c, 2 * N)
    ratio = pole.power(T)

    def horner(above: _Sums, x: tuple[Array, Array]) -> tuple[_Sums, None]:
        re, im, slope_re, slope_im = above
        (plain, weighted), first_l = x
        weighted = weighted + first_l * plain
        return (
            re * ratio.real - im * ratio.imag + plain[..., :N],
            re * ratio.imag + im * ratio.real + plain[..., N:],
            slope_re * ratio.real - slope_im * ratio.imag + weighted[..., :N],
            slope_re * ratio.imag + slope_im * ratio.real + weighted[..., N:],
        ), None

    zero = jnp.zeros((c, H, N), G.dtype)
    first_ls = T * jnp.arange(rows, dtype=G.dtype)
    terms = sums.transpose(1, 2, 3, 0, 4), first_ls
    total, _ = lax.scan(horner, (zero, zero, zero, zero), terms, reverse=True, unroll=_unrolled())
    d_W, slope = lax.complex(total[0], total[1]), lax.complex(total[2], total[3])
    return d_W, Pole((W * slope).sum(0), jnp.zeros_like(pole.sign))


vandermonde.defvjp(_forward, _backward)

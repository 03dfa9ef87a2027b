"""The gain over frequency of a layer's own parameters, in float64 numpy.

A layer is a linear system with H inputs and H outputs. Its gain at θ is √(Σ |G_oh(θ)|² / H), where G_oh is the response
of output o to exp(iθt) at input h: the root mean square of the outputs where all inputs have size one and independent
phases. Sums run over the length L of the data, so growing modes have a gain too.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lra_bench.ssm.hippo import Complex, Real

CHUNK = 1 << 22
"""The most exponentials in memory at once."""


class LayerGain(NamedTuple):
    """The gain of one layer of a trained network, and that of the same layer before training."""

    omega: Real  # (F,), ascending, in continuous time: the angle per step is ω dt
    gain: Real  # (F,)
    initial: Real  # (F,)
    last: float  # the largest frequency of an eigenvalue
    moved: float  # ‖Λ dt − (Λ dt)₀‖ / ‖(Λ dt)₀‖, where angles differ by at most half a turn


def gain_of_kernels(kernels: Real, theta: Real) -> Real:
    """The gain (F,) of convolutions by kernels (c, H, L), each of its own feature, at angles θ (H, F) per step.

    The first kernel begins at lag 0, and a second one reads the strict future.
    """
    c, H, L = kernels.shape
    total = np.zeros(theta.shape[1])
    step = max(1, CHUNK // L)
    for h in range(H):
        for start in range(0, theta.shape[1], step):
            part = theta[h, start : start + step]
            waves = np.exp(-1j * np.outer(np.arange(L), part))
            G = kernels[0, h] @ waves
            if c == 2:
                G = G + (kernels[1, h] @ waves.conj()) * np.exp(1j * part)
            total[start : start + step] += np.abs(G) ** 2
    return np.sqrt(total / H)


def gain_of_modes(
    Lambda_bar: Complex, B: Complex, C: Complex, C_reverse: Complex | None, D: Real, L: int, theta: Real
) -> Real:
    """The gain (F,) of x_t = Λ̄ x_{t−1} + B u_t, y_t = Re(C x_t) + D u_t at angles θ (F,) per step.

    Λ̄ (P,), B (P, H), C (H, P), D (H,). C_reverse (H, P) reads the same recurrence run backward.
    """
    forward = _sums(Lambda_bar, theta, L)
    columns, rows, factors = [C / 2, C.conj() / 2], [B, B.conj()], [forward, _sums(Lambda_bar.conj(), theta, L)]
    if C_reverse is not None:
        columns += [C_reverse / 2, C_reverse.conj() / 2]
        rows += [B, B.conj()]
        factors += [_sums(Lambda_bar, -theta, L), _sums(Lambda_bar.conj(), -theta, L)]
    columns.append(np.diag(D).astype(complex))
    rows.append(np.eye(len(D), dtype=complex))
    factors.append(np.ones((len(theta), len(D)), complex))
    out, into, g = np.concatenate(columns, axis=1), np.concatenate(rows), np.concatenate(factors, axis=1)
    # ‖out diag(g) into‖² for every θ, from two Gram matrices, without G itself.
    gram = (out.conj().T @ out) * (into @ into.conj().T).T
    power = np.einsum("fk,kj,fj->f", g.conj(), gram, g, optimize=True).real
    return np.sqrt(np.maximum(power, 0.0) / len(D))


def _sums(Lambda_bar: Complex, theta: Real, L: int) -> Complex:
    """The sums over l < L of (Λ̄ exp(−iθ))ˡ: (F, P)."""
    z = Lambda_bar * np.exp(-1j * theta)[:, None]
    away = np.abs(1 - z) > 1e-12
    with np.errstate(over="ignore", invalid="ignore"):
        return np.where(away, (1 - z**L) / np.where(away, 1 - z, 1.0), L)

"""Transfer functions of state spaces over frequency, and how far those of initializations are from HiPPO's.

The gain at ω is the norm of the states that cos(ωt) of size one drives, which is |C (iω − A)⁻¹ B| for the worst C of
unit norm. Without its rank-one part, HiPPO's transfer function G becomes that of S4D with half of HiPPO's B, and then
G_HiPPO = (1 + Φ) G_S4D with Φ(s) = ∏ (s − k + 1) / (s + k): S4D has a spike wherever Φ is near −1, at its eigenvalues.

All of it is float64 numpy. Source: Yu et al. 2024 (arXiv 2310.01698), sections 2 and 3; the closed form is our own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import expm

from lra_bench.ssm.hippo import Complex, Real, clip_imaginary, diagonal, legs, normal_part
from lra_bench.ssm.ptd import ptd

Matrix = NDArray[np.float64] | NDArray[np.complex128]

POINTS = 240
"""The number of frequencies beside the spikes."""

RANDOM_SEEDS = range(5)
"""The seeds of the random perturbations that an optimized one is compared with."""


class StateSpace(NamedTuple):
    """The system x' = A x + B u. Its states are Re x where A is complex."""

    A: Matrix  # (n, n)
    B: Matrix  # (n, m)


class Initialization(NamedTuple):
    """What a model's layer starts from."""

    title: str
    space: StateSpace
    hippo: StateSpace | None  # HiPPO with the same law of B; None where the states are not HiPPO's


class Spectrum(NamedTuple):
    """What is known of an initialization."""

    title: str
    drawn: bool  # whether B is drawn, so that gains are root mean squares
    gain: Real  # (F,), at the frequencies asked for
    discrete_gain: float  # at the last spike, discretized by zero-order hold
    distance: float | None  # the largest ‖x(iω) − x_HiPPO(iω)‖, as a share of the largest ‖x_HiPPO(iω)‖
    kappa: float  # cond₂(V), A = V Λ V⁻¹
    relative_size: float | None  # ‖A − A_HiPPO‖₂ / ‖A_HiPPO‖₂
    growth: float  # the largest Re λ


class Perturbation(NamedTuple):
    """How good a perturbed HiPPO matrix A + E is, as `Spectrum` says it."""

    gamma: float
    seed: int | None  # that of a random E; None for the optimized one
    kappa: float
    relative_size: float
    growth: float
    distance: float


def spikes(n: int) -> Real:
    """The positive frequencies of the eigenvalues of HiPPO-LegS's normal part, ascending: where S4D has its spikes."""
    omega = normal_part(n).Lambda.imag
    return omega[omega > 0]


def frequencies(n: int) -> Real:
    """The frequencies at which initializations are compared: from 0.1 to four times the last spike.

    1 and all spikes are among them.
    """
    exact = spikes(n)
    return np.unique(np.concatenate([np.geomspace(0.1, 4 * max(exact, default=1.0), POINTS), [1.0], exact]))


def response(space: StateSpace, omega: Real) -> Complex:
    """The states (iω − A)⁻¹ B for every ω: (F, n, m)."""

    def at(omega: Real) -> Complex:
        return np.linalg.solve(1j * omega[:, None, None] * np.eye(len(space.A)) - space.A, space.B.astype(complex))

    return _of_real_parts(space, at, omega)


def discrete_response(space: StateSpace, omega: Real, dt: float) -> Complex:
    """The states of the system discretized by zero-order hold with step dt, for every ω in continuous time: (F, n, m).

    The response is periodic in ω: beyond π/dt it repeats that of lower frequencies.
    """
    n, m = space.B.shape
    both = np.zeros((n + m, n + m), space.A.dtype)
    both[:n, :n], both[:n, n:] = space.A, space.B
    A_bar, B_bar = np.split(expm(both * dt)[:n], [n], axis=1)

    def at(omega: Real) -> Complex:
        z = np.exp(1j * omega * dt)
        return np.linalg.solve(z[:, None, None] * np.eye(n) - A_bar, B_bar.astype(complex))

    return _of_real_parts(space, at, omega)


def _of_real_parts(space: StateSpace, at: Callable[[Real], Complex], omega: Real) -> Complex:
    """The response of Re x for real u, from that of x."""
    return at(omega) if np.isrealobj(space.A) else (at(omega) + at(-omega).conj()) / 2


def gain(states: Complex) -> Real:
    """The norm of states (F, n, m) at every frequency: (F,).

    For one input it is |G| for the worst C of unit norm, for m drawn ones √m times the root mean square over draws.
    """
    return np.linalg.norm(states, axis=(1, 2))


def initializations(n: int, frequency_scale: float, gamma: float | None = None) -> list[Initialization]:
    """The initializations of the models with n states each.

    S5 draws B, so its B here is 1/√n times the identity: the gain is then the root mean square over draws of unit mean
    norm. S4D's recipes have B = 1 for each mode, and `init=legs` HiPPO's. S4D-FT's states are those of its own pairs of
    modes. The factor 2 of S4-PTD's kernel is left to C, and what
    the published code replaces by −0.0001 is zero here. Raises as `ptd`.
    """
    A, B = legs(n)
    part, solved, half = normal_part(n), ptd(n, gamma), n // 2
    normal, column, drawn = A + np.outer(B, B) / 2, B[:, None], np.eye(n) / math.sqrt(n)
    clipped = 2 * (part.V[:, :half] @ clip_imaginary(part.B_tilde[:half])).real
    ones = 2 * (part.V[:, :half] @ np.ones(half)).real
    kept = np.where(solved.Lambda.imag < 0, solved.Lambda, solved.Lambda.real)
    code = (solved.V * kept) @ solved.Vinv
    target, drawn_target = StateSpace(A, column), StateSpace(A, drawn)
    return [
        Initialization("HiPPO-LegS", target, target),
        Initialization("S4, B clipped", StateSpace(A, clipped[:, None]), target),
        Initialization("S4D", StateSpace(normal, ones[:, None]), None),
        Initialization("S4D, init=legs", StateSpace(normal, column), target),
        Initialization("S4D, init=legs, B/2", StateSpace(normal, column / 2), target),
        Initialization("S4-PTD", StateSpace(A + solved.E, column), target),
        Initialization("S4-PTD, published code", StateSpace(code, column.astype(complex)), target),
        Initialization("HiPPO-LegS, B drawn", drawn_target, drawn_target),
        Initialization("S5", StateSpace(normal, drawn), drawn_target),
        Initialization("S5-PTD", StateSpace(A + solved.E, drawn), drawn_target),
        Initialization(f"S4D-FT, α = {frequency_scale:g}", _real_pairs(n, frequency_scale), None),
    ]


def _real_pairs(n: int, frequency_scale: float) -> StateSpace:
    """S4D-FT's modes, each with its conjugate, in a real basis that a unitary map makes of them."""
    Lambda = diagonal("lin", n, clipped=False).Lambda
    A, B = np.zeros((n, n)), np.zeros((n, 1))
    for k, (real, imag) in enumerate(zip(Lambda.real, frequency_scale * Lambda.imag, strict=True)):
        A[2 * k : 2 * k + 2, 2 * k : 2 * k + 2] = [[real, imag], [-imag, real]]
        B[2 * k] = math.sqrt(2)
    return StateSpace(A, B)


def spectrum_of(found: Initialization, omega: Real, dt: float) -> Spectrum:
    """Collect what is known of an initialization, with its gain at these frequencies."""
    space, target = found.space, found.hippo
    eigenvalues, V = np.linalg.eig(space.A)
    states = response(space, omega)
    A, last = legs(len(space.A)).A, spikes(len(space.A))[-1:]
    size = None if target is None else float(np.linalg.norm(space.A - A, 2) / np.linalg.norm(A, 2))
    return Spectrum(
        found.title,
        space.B.shape[1] > 1,
        gain(states),
        float(gain(discrete_response(space, last, dt))[0]),
        None if target is None else distance(states, response(target, omega)),
        float(np.linalg.cond(V)),
        size,
        float(eigenvalues.real.max()),
    )


def distance(states: Complex, target: Complex) -> float:
    """The largest error over frequencies, for the worst unit C, as a share of the largest gain of the target."""
    return float(gain(states - target).max() / gain(target).max())


def perturbations(n: int, gammas: list[float]) -> Iterator[Perturbation]:
    """For each price γ, the optimized perturbation of HiPPO-LegS, then random normal ones with the same ‖E‖₂.

    Raises as `ptd`.
    """
    A, B = legs(n)
    omega = frequencies(n)
    target = response(StateSpace(A, B[:, None]), omega)

    def rated(gamma: float, seed: int | None, E: Real) -> Perturbation:
        eigenvalues, V = np.linalg.eig(A + E)
        size = float(np.linalg.norm(E, 2) / np.linalg.norm(A, 2))
        far = distance(response(StateSpace(A + E, B[:, None]), omega), target)
        return Perturbation(gamma, seed, float(np.linalg.cond(V)), size, float(eigenvalues.real.max()), far)

    for gamma in gammas:
        best = ptd(n, gamma).E
        yield rated(gamma, None, best)
        for seed in RANDOM_SEEDS:
            drawn = np.random.default_rng(seed).standard_normal((n, n))
            yield rated(gamma, seed, drawn * (np.linalg.norm(best, 2) / np.linalg.norm(drawn, 2)))

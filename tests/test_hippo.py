"""HiPPO-LegS and its normal part: against the reference's numbers, and the identities that hold them to the theory."""

from pathlib import Path

import numpy as np
import pytest

from lra_bench.ssm import hippo

GOLDEN = Path(__file__).parent / "golden"
SIZES = [1, 2, 3, 4, 8, 16, 32, 64, 128]


@pytest.fixture(scope="module")
def reference():
    with np.load(GOLDEN / "hippo_legs.npz") as arrays:
        return dict(arrays)


@pytest.mark.parametrize("N", SIZES)
def test_normal_part_rebuilds_hippo(N):
    A, B = hippo.legs(N)
    Lambda, V, P_tilde, B_tilde = hippo.normal_part(N)
    assert np.array_equal(A, np.tril(A))
    assert np.array_equal(np.diag(A), -np.arange(1.0, N + 1))
    S = A + np.outer(B, B) / 2
    np.testing.assert_allclose(S + S.T, -np.eye(N), atol=1e-12 * N)
    np.testing.assert_allclose(V.conj().T @ V, np.eye(N), atol=1e-12)
    np.testing.assert_allclose((V * Lambda) @ V.conj().T, S, atol=1e-12 * N)
    rebuilt = V @ (np.diag(Lambda) - np.outer(P_tilde, P_tilde.conj())) @ V.conj().T
    np.testing.assert_allclose(rebuilt, A, atol=1e-9 * N)
    np.testing.assert_allclose(V @ B_tilde, B, atol=1e-12 * N)


@pytest.mark.parametrize("N", SIZES)
def test_pairs_are_exact_and_the_kept_half_comes_first(N):
    Lambda, V, _, _ = hippo.normal_part(N)
    assert np.all(np.diff(Lambda.imag) > 0)
    assert np.array_equal(Lambda.real, np.full(N, -0.5))
    assert np.array_equal(Lambda[::-1], Lambda.conj())
    assert np.array_equal(V[:, ::-1], V.conj())
    assert np.all(Lambda.imag[: N // 2] < 0)
    assert np.all(V[0].imag == 0)
    assert np.all(V[0].real > 0)


@pytest.mark.parametrize("N", [2, 4, 8, 16, 32, 64])
def test_agrees_with_the_reference_up_to_the_eigenvectors_phases(N, reference):
    A, B = hippo.legs(N)
    part = hippo.normal_part(N)
    scale = np.abs(reference[f"A_{N}"]).max()
    np.testing.assert_allclose(A, reference[f"A_{N}"], rtol=1e-14)
    np.testing.assert_allclose(B, reference[f"B_{N}"], rtol=1e-14)
    np.testing.assert_allclose(part.Lambda, reference[f"Lambda_{N}"], atol=1e-13 * scale)
    # Projectors v vᴴ and the products P̃ conj(B̃), column by column, do not see the phase.
    theirs = reference[f"V_{N}"]
    for mode in range(N):
        ours, other = part.V[:, mode], theirs[:, mode]
        np.testing.assert_allclose(np.outer(ours, ours.conj()), np.outer(other, other.conj()), atol=1e-11)
    np.testing.assert_allclose(
        part.P_tilde * part.B_tilde.conj(),
        reference[f"Ptilde_{N}"] * reference[f"Btilde_{N}"].conj(),
        atol=1e-12 * scale,
    )


def test_largest_frequency_is_the_one_the_robustness_experiment_aims_at():
    assert hippo.normal_part(32).Lambda.imag.max() == pytest.approx(325.43, abs=0.01)


def resolvent(s, A, B):
    """(sI - A)⁻¹ B for every s: (len(s), N)."""
    return np.linalg.solve(s[:, None, None] * np.eye(len(A)) - A, B[None, :, None])[..., 0]


@pytest.mark.parametrize("N", [8, 16, 32, 64])
def test_transfer_functions_obey_the_closed_form(N):
    """G_HiPPO = (1 + Φ) G_S4D with half of B, Φ(s) = ∏ (s-k+1)/(s+k): guards A, P, B and the half."""
    A, B = hippo.legs(N)
    part = hippo.normal_part(N)
    omega = np.concatenate([-np.geomspace(1e-3, 4 * N**2, 40), np.geomspace(1e-3, 4 * N**2, 40), part.Lambda.imag])
    s = 1j * omega
    k = np.arange(1, N + 1)
    Phi = np.prod((s[:, None] - k + 1) / (s[:, None] + k), axis=1)
    x_hippo = resolvent(s, A, B)
    x_diagonal = (part.B_tilde / 2 / (s[:, None] - part.Lambda)) @ part.V.T
    size = np.linalg.norm(x_diagonal, axis=1)
    assert np.max(np.linalg.norm(x_hippo - (1 + Phi)[:, None] * x_diagonal, axis=1) / size) < 1e-10
    np.testing.assert_allclose(x_hippo @ B, 1 - Phi, atol=1e-10)
    np.testing.assert_allclose(np.abs(Phi), np.abs(omega) / np.hypot(omega, N), rtol=1e-10)
    np.testing.assert_allclose(np.linalg.norm(x_hippo, axis=1) ** 2, 1 - np.abs(Phi) ** 2, rtol=1e-10)


@pytest.mark.parametrize("N", [8, 16, 32, 64])
@pytest.mark.parametrize("name", ["legs", "inv", "lin"])
def test_diagonal_initializations_match_the_reference(name, N):
    with np.load(GOLDEN / "s4_init_tables.npz") as tables:
        Lambda, B = tables[f"A_diag-{name}_{N}"], tables[f"B_diag-{name}_{N}"]
    ours = hippo.diagonal(name, N, clipped=True)
    order = np.argsort(ours.Lambda.imag)
    theirs = np.argsort(Lambda.imag)
    np.testing.assert_allclose(ours.Lambda[order], Lambda[theirs], rtol=2e-6)
    # LAPACK leaves the sign of each eigenvector free, so B is compared by its square. The table was computed in
    # float32, with errors that grow with |B| before the clipping, up to 0.64 N.
    np.testing.assert_allclose(ours.B[order] ** 2, B[theirs] ** 2, atol=1e-6 * N)
    assert np.all(np.abs(ours.B.imag) <= hippo.B_CLIP)


def test_diag_legs_has_the_eigenvalues_of_legs_and_ones_for_B():
    ours, legs = (hippo.diagonal(name, 64, clipped=False) for name in ("diag-legs", "legs"))
    np.testing.assert_array_equal(ours.Lambda, legs.Lambda)
    np.testing.assert_array_equal(ours.B, np.ones(32))
    assert np.abs(legs.B).max() > 10


@pytest.mark.parametrize("N", [4, 16, 64])
def test_fout_is_rotations_less_a_rank_one_part(N):
    """On the basis of √2 cos, √2 sin: the reference's matrix, from its definition (state-spaces/s4 `hippo.py`)."""
    Lambda, P, B = hippo.low_rank("fout", N)
    n = np.arange(N // 2)
    expected_B = np.zeros(N)
    expected_B[0::2] = np.where(n == 0, 1.0, 2**0.5)
    A = -np.outer(expected_B, expected_B)
    A[2 * n, 2 * n + 1] -= np.pi * n
    A[2 * n + 1, 2 * n] += np.pi * n
    V = np.zeros((N, N // 2), complex)
    V[2 * n, n], V[2 * n + 1, n] = 0.5**0.5, 1j * 0.5**0.5
    V = V[:, ::-1]
    pairs = np.concatenate([V, V.conj()], axis=1)
    Q = np.concatenate([P, P.conj()])
    rebuilt = pairs @ (np.diag(np.concatenate([Lambda, Lambda.conj()])) - np.outer(Q, Q.conj())) @ pairs.conj().T
    np.testing.assert_allclose(rebuilt, A, atol=1e-12 * N)
    np.testing.assert_allclose(pairs @ np.concatenate([B, B.conj()]), expected_B, atol=1e-12)
    np.testing.assert_array_equal(hippo.low_rank("legs", N).Lambda, hippo.normal_part(N).Lambda[: N // 2])


def test_real_initialization_decays_at_every_whole_rate():
    Lambda, B = hippo.diagonal("real", 8, clipped=True)
    assert np.array_equal(Lambda, [-1, -2, -3, -4])
    assert np.array_equal(B, np.ones(4))


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="even"):
        hippo.diagonal("lin", 7, clipped=True)
    with pytest.raises(ValueError, match="at least one"):
        hippo.legs(0)

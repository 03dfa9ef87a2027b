"""PTD: identities of the decomposition, sizes and conditions reached, transfer functions without spikes, the cache."""

import logging
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from lra_bench.data.manifest import load_manifest
from lra_bench.errors import UserError, WorkError
from lra_bench.registry import recipe_module
from lra_bench.runs.run import make_run
from lra_bench.ssm import hippo, ptd
from lra_bench.ssm.discretization import zoh
from lra_bench.training import train

# (n, γ, cond₂(V), ‖E‖₂/‖A‖₂) reached by another implementation of the same objective (docs/references.md,
# "PTD: solved by L-BFGS"). Its row for 128 states, 8.94 and 3.1 % at γ = 0.01, was cut short: from three starts ours
# goes on to 10.8 and 2.5 % there, and meets the row's numbers at γ = 0.006, the default.
SOLVED = [
    (8, 0.3, 3.68, 0.090),
    (8, 1.0, 5.71, 0.050),
    (8, 3.0, 8.98, 0.027),
    (16, 0.1, 4.39, 0.074),
    (16, 0.3, 6.50, 0.045),
    (16, 0.6, 8.54, 0.032),
    (16, 3.0, 17.2, 0.013),
    (32, 0.05, 6.01, 0.050),
    (32, 0.1, 7.72, 0.037),
    (32, 0.2, 10.1, 0.026),
    (32, 1.0, 19.9, 0.012),
    (64, 0.02, 7.73, 0.037),
]
SLOWLY_SOLVED = [(64, 0.05, 10.8, 0.025), (64, 0.1, 14.1, 0.018), (128, 0.006, 8.94, 0.031)]


def check_solution(n, gamma, kappa, size):
    A = hippo.legs(n).A
    result = ptd.ptd(n, gamma)
    assert result.kappa == pytest.approx(kappa, rel=0.05)
    assert result.relative_size == pytest.approx(size, rel=0.05)
    rebuilt = (result.V * result.Lambda) @ result.Vinv
    assert np.linalg.norm(rebuilt - (A + result.E), 2) <= 1e-13 * np.linalg.norm(A, 2)
    np.testing.assert_allclose(result.V @ result.Vinv, np.eye(n), atol=1e-12)
    assert result.Lambda.real.max() < -0.4
    check_pairs(result)


def check_pairs(result):
    n = len(result.Lambda)
    half = int(np.sum(result.Lambda.imag < 0))
    assert np.all(np.diff(result.Lambda.imag) >= 0)
    outer = np.r_[0:half, n - half : n]
    assert np.array_equal(result.Lambda[outer][::-1], result.Lambda[outer].conj())
    assert np.array_equal(result.V[:, outer][:, ::-1], result.V[:, outer].conj())
    assert np.array_equal(result.Vinv[outer][::-1], result.Vinv[outer].conj())
    real = slice(half, n - half)
    assert not any(np.any(part.imag) for part in (result.Lambda[real], result.V[:, real], result.Vinv[real]))
    assert np.all(np.diff(result.Lambda[real].real) > 0)
    np.testing.assert_allclose(np.linalg.norm(result.V, axis=0), 1, rtol=1e-13)
    first = result.V[np.argmax(np.abs(result.V) > hippo.NO_ENTRY, axis=0), np.arange(n)]
    assert np.all(first.imag == 0)
    assert np.all(first.real > 0)


@pytest.mark.parametrize(("n", "gamma", "kappa", "size"), SOLVED)
def test_solutions_have_the_expected_size_and_condition(n, gamma, kappa, size):
    check_solution(n, gamma, kappa, size)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "gamma", "kappa", "size"), SLOWLY_SOLVED)
def test_large_solutions_have_the_expected_size_and_condition(n, gamma, kappa, size):
    check_solution(n, gamma, kappa, size)


@pytest.mark.parametrize(("n", "gamma"), [(4, 1e-3), (4, 100.0), (5, 0.3), (8, 1e-3), (8, 1e4), (16, 30.0), (32, 1e4)])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_mode_decays_whatever_the_price(n, gamma, seed):
    result = ptd.decompose(ptd.solve(n, gamma, seed))
    assert result.Lambda.real.max() < -0.4
    check_pairs(result)


@pytest.mark.parametrize("n", [1, 2])
def test_up_to_two_states_nothing_is_perturbed(n):
    result = ptd.ptd(n)
    assert not np.any(result.E)
    assert result.relative_size == 0
    np.testing.assert_allclose(np.sort(result.Lambda.real), -np.arange(n, 0, -1.0), rtol=1e-15)
    np.testing.assert_allclose((result.V * result.Lambda) @ result.Vinv, hippo.legs(n).A, atol=1e-15)
    assert result.kappa == pytest.approx(2 + np.sqrt(3) if n == 2 else 1)
    check_pairs(result)


def test_the_optimized_perturbation_beats_random_ones_of_its_size():
    best = ptd.ptd(16)
    A = hippo.legs(16).A
    for seed in range(5):
        noise = np.random.default_rng(seed).standard_normal((16, 16))
        _, V = np.linalg.eig(A + noise * np.linalg.norm(best.E, 2) / np.linalg.norm(noise, 2))
        assert np.linalg.cond(V) > 3 * best.kappa


@pytest.mark.parametrize("n", [2, 5, 8, 16])
@pytest.mark.parametrize("rho", [0.0, 1.0])
def test_gradient_matches_finite_differences(n, rho):
    """Along random directions, at a random E that lifts some modes, not all, over the margin, so that they pay."""
    A = hippo.legs(n).A
    random = np.random.default_rng(n)
    E = random.standard_normal((n, n))
    E = 0.1 * np.linalg.norm(A, 2) / np.linalg.norm(E, 2) * E + np.eye(n)
    paying = np.linalg.eigvals(A + E).real > -ptd.MARGIN
    assert np.any(paying)
    assert not np.all(paying)
    _, gradient = ptd.objective(E, A, 0.3, rho)
    h = 1e-4
    for _ in range(3):
        way = random.standard_normal((n, n))
        way /= np.linalg.norm(way)
        values = [ptd.objective(E + k * h * way, A, 0.3, rho)[0] for k in (-2, -1, 1, 2)]
        slope = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * h)
        assert abs(np.sum(gradient * way) - slope) < 1e-9 * np.linalg.norm(gradient)


def state_response(omega, Lambda, V, b):
    """(iω - V Λ V⁻¹)⁻¹ B with b = V⁻¹B, for every ω: (len(omega), n). Its norm is |G| for the worst unit C."""
    return (b / (1j * omega[:, None] - Lambda)) @ V.T


def hippo_response(omega, n):
    A, B = hippo.legs(n)
    return np.linalg.solve(1j * omega[:, None, None] * np.eye(n) - A, B[None, :, None])[..., 0]


def frequencies(n):
    """A grid over all modes, and the modes of the normal part themselves: S4D's spikes are narrower than any grid."""
    return np.concatenate([np.geomspace(1e-3, n**2, 300), hippo.normal_part(n).Lambda.imag])


@pytest.mark.parametrize(("n", "gammas"), [(8, (0.3, 3.0, 30.0)), (16, (0.3, 10.0, 30.0)), (32, (0.1, 1.0, 10.0))])
def test_a_dearer_perturbation_is_smaller_and_nearer_to_hippo(n, gammas):
    """In steps of γ wide enough to outweigh the choice between local minima, which moves the largest error."""
    omega = frequencies(n)
    target, B = hippo_response(omega, n), hippo.legs(n).B
    results = [ptd.ptd(n, gamma) for gamma in gammas]
    errors = [np.linalg.norm(state_response(omega, r.Lambda, r.V, r.Vinv @ B) - target, axis=1).max() for r in results]
    assert np.all(np.diff(errors) < 0)
    assert np.all(np.diff([r.relative_size for r in results]) < 0)
    assert np.all(np.diff([r.kappa for r in results]) > 0)


@pytest.mark.parametrize("n", [16, 32, 64])
def test_no_spikes_where_the_diagonal_model_has_them(n):
    omega = frequencies(n)
    B = hippo.legs(n).B
    target = np.linalg.norm(hippo_response(omega, n), axis=1)
    perturbed, part = ptd.ptd(n), hippo.normal_part(n)
    ptd_size = np.linalg.norm(state_response(omega, perturbed.Lambda, perturbed.V, perturbed.Vinv @ B), axis=1)
    s4d_size = np.linalg.norm(state_response(omega, part.Lambda, part.V, part.B_tilde / 2), axis=1)
    assert ptd_size.max() <= 3 * target.max()
    assert s4d_size.max() >= 5 * target.max()
    assert s4d_size.max() == pytest.approx(2 * n / np.pi, rel=0.1)
    spike = np.argmax(s4d_size)
    assert omega[spike] in part.Lambda.imag
    assert ptd_size[spike] <= 3 * target[spike]


def test_state_gain_at_the_frequency_of_the_robustness_experiment():
    """32 states discretized with Δ = 0.01, driven at 325.43: HiPPO 0.0984, S4D 12.5 with half of B, PTD as HiPPO."""
    part, B = hippo.normal_part(32), hippo.legs(32).B
    omega, step = part.Lambda.imag.max(), 0.01

    def gain(Lambda, V, b):
        with jax.enable_x64(True):
            bar_re, bar_im, factor_re, factor_im = map(np.asarray, zoh(Lambda.real, Lambda.imag, np.float64(step)))
        forced = (factor_re + 1j * factor_im) * b
        return np.linalg.norm(V @ (forced / (np.exp(1j * omega * step) - bar_re - 1j * bar_im)))

    assert gain(part.Lambda, part.V, part.B_tilde / 2) == pytest.approx(12.5, rel=0.01)
    perturbed = ptd.ptd(32)
    assert gain(perturbed.Lambda, perturbed.V, perturbed.Vinv @ B) == pytest.approx(0.0984, rel=0.05)


def test_default_prices():
    assert [ptd.default_gamma(n) for n in ptd.DEFAULT_GAMMA] == pytest.approx(list(ptd.DEFAULT_GAMMA.values()))
    assert ptd.default_gamma(3) == pytest.approx(0.3)
    assert ptd.default_gamma(64) < ptd.default_gamma(48) < ptd.default_gamma(32)
    assert ptd.default_gamma(512) == pytest.approx(ptd.DEFAULT_GAMMA[128])


@pytest.mark.parametrize(
    ("n", "gamma", "message"),
    [
        (0, None, "at least one state"),
        (8, 0.0, "positive and finite, got 0.0 for n=8"),
        (8, -1.0, "positive"),
        (8, float("nan"), "positive"),
        (8, float("inf"), "finite"),
    ],
)
def test_illegal_arguments_are_the_users_mistake(n, gamma, message):
    with pytest.raises(UserError, match=message):
        ptd.ptd(n, gamma)


def test_a_growing_mode_is_refused():
    with pytest.raises(WorkError, match=r"growing mode, real part 1"):
        ptd.decompose(2 * np.eye(4))


def test_same_seed_same_bits_and_results_cannot_be_written_to():
    assert np.array_equal(ptd.solve(8, 0.3), ptd.solve(8, 0.3))
    assert not np.array_equal(ptd.solve(8, 0.3), ptd.solve(8, 0.3, seed=1))
    result = ptd.ptd(8)
    assert ptd.ptd(8) is result
    with pytest.raises(ValueError, match="read-only"):
        result.V[0, 0] = 0


@pytest.fixture
def solves(monkeypatch):
    """Counts the calls of the solver."""
    calls = []
    original = ptd.solve

    def counted(n, gamma):
        calls.append((n, gamma))
        return original(n, gamma)

    monkeypatch.setattr(ptd, "solve", counted)
    return calls


def test_solved_once_then_read(solves):
    first = ptd.cached_perturbation(8, 0.3)
    path = ptd.cache_file(8, 0.3)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert np.array_equal(ptd.cached_perturbation(8, 0.3), first)
    assert solves == [(8, 0.3)]
    ptd.cached_perturbation(8, 0.31)
    assert solves == [(8, 0.3), (8, 0.31)]


def flip_a_byte(path, E):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "truncated": lambda path, E: path.write_bytes(path.read_bytes()[:100]),
    "empty": lambda path, E: path.write_bytes(b""),
    "text": lambda path, E: path.write_text("not an archive"),
    "flipped bit": flip_a_byte,
    "another price": lambda path, E: np.savez(path, E=E, n=8, gamma=0.5),
    "another size": lambda path, E: np.savez(path, E=E[:4, :4], n=8, gamma=0.3),
    "single precision": lambda path, E: np.savez(path, E=E.astype(np.float32), n=8, gamma=0.3),
    "not a number": lambda path, E: np.savez(path, E=np.where(E.max() == E, np.nan, E), n=8, gamma=0.3),
    "growing": lambda path, E: np.savez(path, E=100 * np.eye(8), n=8, gamma=0.3),
    "objects": lambda path, E: np.savez(path, E=np.array([{}]), n=8, gamma=0.3),
    "missing key": lambda path, E: np.savez(path, E=E),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_solved_anew_and_repaired(damage, solves, caplog):
    E = ptd.cached_perturbation(8, 0.3)
    DAMAGES[damage](ptd.cache_file(8, 0.3), E)
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(ptd.cached_perturbation(8, 0.3), E)
    assert "solving it anew" in caplog.text
    assert len(solves) == 2
    assert np.array_equal(ptd.cached_perturbation(8, 0.3), E)
    assert len(solves) == 2


def test_a_cache_that_cannot_be_written_does_not_stop_the_run(tmp_path, monkeypatch, caplog):
    blocked = tmp_path / "a-file"
    blocked.write_text("")
    monkeypatch.setenv("LRA_BENCH_HOME", str(blocked))
    assert ptd.cached_perturbation(8, 0.3).shape == (8, 8)
    assert "cannot keep" in caplog.text


PROBLEMS = sorted(
    {
        recipe_module(model).Config(**recipe.layer).problem
        for model in ("s5_ptd", "s4_ptd")
        for recipe in recipe_module(model).RECIPES.values()
    },
    key=str,
)


def test_every_recipes_perturbation_is_shipped(monkeypatch):
    monkeypatch.setattr(ptd, "solve", lambda *_: pytest.fail("it must not be solved for"))
    assert len(PROBLEMS) == 5
    for problem in PROBLEMS:
        assert ptd.solved_here(*problem) is None
        if problem[0] > 2:
            ptd.ptd(*problem)
    for n in ptd.DEFAULT_GAMMA:
        assert ptd.solved_here(n) is None


@pytest.mark.parametrize("n", [8, 16, 32])
def test_a_shipped_perturbation_is_as_good_as_what_the_solver_finds(n):
    """Its entries are not compared: another version of LAPACK leads the search to another point of the same value."""
    gamma, A = ptd.DEFAULT_GAMMA[n], hippo.legs(n).A
    shipped, solved = ptd.shipped(n, gamma), ptd.solve(n, gamma)
    values = [ptd.objective(E, A, gamma, ptd.PENALTIES[-1])[0] for E in (shipped, solved)]
    assert values[0] == pytest.approx(values[1], rel=1e-4)
    ours, theirs = ptd.decompose(shipped), ptd.decompose(solved)
    assert ours.kappa == pytest.approx(theirs.kappa, rel=0.01)
    assert ours.relative_size == pytest.approx(theirs.relative_size, rel=0.01)


FLOAT32_VALUES = """
import hashlib
import numpy as np
from lra_bench.ssm import ptd
solved = ptd.ptd(32)
parts = [np.asarray(x, np.complex64) + 0 for x in (solved.Lambda, solved.V, solved.Vinv)]
print(hashlib.sha256(b"".join((x + 0).tobytes() for x in parts)).hexdigest(), ptd.solved_here(32, 0.11))
"""


def test_other_kernels_of_openblas_start_a_run_from_the_same_float32_values():
    """The solver's own digits differ between them, and so does the name of what is solved for here."""
    printed = []
    for core in ("Prescott", "Haswell"):
        environment = {**os.environ, "OPENBLAS_CORETYPE": core, "LRA_BENCH_HOME": f"/nowhere/{core}"}
        done = subprocess.run(
            [sys.executable, "-c", FLOAT32_VALUES], env=environment, capture_output=True, text=True, check=True
        )
        printed.append(done.stdout.split())
    assert printed[0][0] == printed[1][0]


def test_a_perturbation_that_is_solved_for_here_names_the_run(data, monkeypatch, tmp_path):
    """Another solution is another run, which this machine's solver does not begin under the first one's name."""
    info = load_manifest(data).data_info
    changes = {"n_layers": 1, "d_model": 8, "d_state": 12, "blocks": 1, "gamma": 0.25}
    run = make_run(info, "s5_ptd", 0, changes, "float32")
    found = ptd.solved_here(12, 0.25)
    assert run.overrides["perturbation"] == run.recipe.layer["perturbation"] == found
    assert f"--set perturbation={found}" in run.command
    assert make_run(info, "s5_ptd", 0, run.overrides, "float32") == run
    shipped = make_run(info, "s5_ptd", 0, {"d_state": 16, "blocks": 1, "gamma": 0.3}, "float32")
    assert shipped.recipe.layer["perturbation"] is None

    solve = ptd.solve
    monkeypatch.setattr(ptd, "solve", lambda n, gamma: solve(n, gamma) * (1 + 1e-12))
    monkeypatch.setattr(ptd, "cached_perturbation", ptd.solve)
    ptd._in_process.cache_clear()
    other = make_run(info, "s5_ptd", 0, changes, "float32")
    assert other.name != run.name
    with pytest.raises(UserError, match=f"starts from the perturbation {found}, and this machine's solver finds"):
        train.refuse_other_perturbation(run)
    train.refuse_other_perturbation(other)
    ptd._in_process.cache_clear()

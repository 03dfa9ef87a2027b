"""Transfer functions: the closed forms of HiPPO and S4D, what PTD does to them, and gains of layers against sums."""

import json
from pathlib import Path

import numpy as np
import pytest

from lra_bench.commands.spectrum import spectrum as spectrum_command
from lra_bench.errors import UserError
from lra_bench.ssm import hippo, spectrum
from lra_bench.ssm.gain import gain_of_kernels, gain_of_modes
from lra_bench.ssm.spectrum import StateSpace


def by_title(n, gamma=None):
    return {found.title: found for found in spectrum.initializations(n, 3.0, gamma)}


@pytest.mark.parametrize("n", [8, 16, 32, 64])
def test_hippo_is_s4d_with_half_of_B_times_one_plus_phi(n):
    found, omega = by_title(n), spectrum.frequencies(n)
    k = np.arange(1, n + 1)
    s = 1j * omega[:, None]
    Phi = np.prod((s - k + 1) / (s + k), axis=1)
    x_hippo, x_diagonal = (
        spectrum.response(found[name].space, omega) for name in ("HiPPO-LegS", "S4D, init=legs, B/2")
    )
    error = spectrum.gain(x_hippo - (1 + Phi)[:, None, None] * x_diagonal)
    assert np.max(error / spectrum.gain(x_diagonal)) < 1e-10
    np.testing.assert_allclose(spectrum.gain(x_hippo), n / np.hypot(omega, n), rtol=1e-10)
    assert np.isin(spectrum.spikes(n), omega).all()
    assert spectrum.gain(x_diagonal).max() == pytest.approx(2 * n / np.pi, rel=0.06)
    worst = omega[spectrum.gain(x_diagonal).argmax()]
    assert worst == spectrum.spikes(n)[-1] == pytest.approx(n**2 / np.pi - 0.5, rel=0.01)


@pytest.fixture(scope="module")
def of_32():
    """The frequencies, and the spectrum of each initialization by its title."""
    omega = np.union1d(np.geomspace(0.1, 1300, 30), spectrum.spikes(32))
    return omega, {title: spectrum.spectrum_of(found, omega, 0.01) for title, found in by_title(32).items()}


def test_state_gains_at_the_frequency_of_the_robustness_experiment(of_32):
    """32 states discretized with Δ = 0.01, driven at 325.43 (docs/references.md).

    PTD's 0.0994 there is of another E. The shipped one gives 0.1010, and a smaller one of ours, below, comes to it.
    """
    assert spectrum.spikes(32)[-1] == pytest.approx(325.43, abs=0.01)
    gains = {title: found.discrete_gain for title, found in of_32[1].items()}
    assert gains["HiPPO-LegS"] == pytest.approx(0.0984, rel=0.01)
    assert gains["S4D, init=legs"] == pytest.approx(25.0, rel=0.01)
    assert gains["S4D, init=legs, B/2"] == pytest.approx(12.5, rel=0.01)
    assert gains["S4-PTD"] == pytest.approx(0.1010, rel=0.01)
    smaller = by_title(32, 0.5)["S4-PTD"].space
    last = spectrum.spikes(32)[-1:]
    assert spectrum.gain(spectrum.discrete_response(smaller, last, 0.01))[0] == pytest.approx(0.0994, rel=0.01)


def test_what_perturbing_first_is_for(of_32):
    """Without it, S4D and S5 have a spike where HiPPO has no gain, and HiPPO itself has no usable eigenvectors."""
    omega, of_32 = of_32
    at = {title: found.gain[omega == spectrum.spikes(32)[-1]][0] for title, found in of_32.items()}
    assert at["S4D, init=legs"] > 400 * at["HiPPO-LegS"]
    assert at["S5"] > 100 * at["HiPPO-LegS, B drawn"]
    assert at["S4-PTD"] == pytest.approx(at["HiPPO-LegS"], rel=0.03)
    assert at["S5-PTD"] == pytest.approx(at["HiPPO-LegS, B drawn"], rel=0.03)
    assert of_32["S4D, init=legs"].distance > 20 > 1 > of_32["S4-PTD"].distance > 0 == of_32["HiPPO-LegS"].distance
    assert of_32["HiPPO-LegS"].kappa > 1e15
    assert of_32["S4D, init=legs"].kappa == pytest.approx(1, abs=1e-6)
    assert of_32["S4-PTD"].kappa < 8
    assert of_32["S4D, init=legs"].relative_size > 0.7 > 0.04 > of_32["S4-PTD"].relative_size
    assert all(found.growth < 0 for found in of_32.values())


def test_discretized_with_a_small_step_it_is_the_continuous_system():
    space, omega = by_title(8)["S4-PTD"].space, np.array([0.5, 3.0, 20.0])
    np.testing.assert_allclose(
        spectrum.discrete_response(space, omega, 1e-5), spectrum.response(space, omega), rtol=2e-3
    )


def test_a_complex_system_is_judged_by_the_real_part_of_its_states():
    """A and its complex diagonal form, with the states turned back by V, respond alike; half of the modes is half."""
    A, B = hippo.legs(4)
    turned = StateSpace(A.astype(complex), B[:, None].astype(complex))
    omega = np.array([0.3, 2.0])
    np.testing.assert_allclose(
        spectrum.response(turned, omega), spectrum.response(StateSpace(A, B[:, None]), omega), rtol=1e-12
    )
    one_mode = StateSpace(np.array([[-0.5 + 3j]]), np.array([[1.0 + 0j]]))
    expected = ((1 / (2j + 0.5 - 3j)) + (1 / (2j + 0.5 + 3j))) / 2
    assert spectrum.response(one_mode, np.array([2.0]))[0, 0, 0] == pytest.approx(expected)


def test_a_random_perturbation_of_the_same_norm_is_worse():
    rows = list(spectrum.perturbations(16, [0.3, 1.0]))
    assert len(rows) == 2 * (1 + len(spectrum.RANDOM_SEEDS))
    for gamma in (0.3, 1.0):
        best, *drawn = [row for row in rows if row.gamma == gamma]
        assert best.seed is None
        assert all(row.relative_size == pytest.approx(best.relative_size) for row in drawn)
        assert all(row.kappa > 2 * best.kappa and row.distance > best.distance for row in drawn)
        assert best.growth < -0.4 < max(row.growth for row in drawn)
    assert rows[0].kappa < rows[len(rows) // 2].kappa


def direct_gain(impulse, theta):
    """The gain from responses (T, H, H) to impulses at the middle step."""
    lags = np.arange(len(impulse)) - len(impulse) // 2
    G = np.einsum("toh,ft->foh", impulse, np.exp(-1j * theta[:, None] * lags))
    return np.sqrt((np.abs(G) ** 2).sum((1, 2)) / impulse.shape[1])


@pytest.mark.parametrize("both", [False, True])
def test_gain_of_modes_is_that_of_the_impulse_response(both):
    random = np.random.default_rng(0)
    L, H, P = 12, 3, 4

    def drawn(*shape):
        return random.standard_normal(shape) + 1j * random.standard_normal(shape)

    Lambda_bar = np.exp(1j * random.uniform(0, 3, P)) * np.array([0.5, 0.99, 1.0, 1.02])
    B, C, C_reverse, D = drawn(P, H), drawn(H, P), drawn(H, P), random.standard_normal(H)
    theta = np.concatenate([np.linspace(0, np.pi, 7), np.angle(Lambda_bar)])
    impulse = np.zeros((2 * L, H, H))
    for lag in range(L):
        impulse[L + lag] += ((C * Lambda_bar**lag) @ B).real
        if both:
            impulse[L - lag] += ((C_reverse * Lambda_bar**lag) @ B).real
    impulse[L] += np.diag(D)
    found = gain_of_modes(Lambda_bar, B, C, C_reverse if both else None, D, L, theta)
    np.testing.assert_allclose(found, direct_gain(impulse, theta), rtol=1e-10)


def test_gain_of_kernels_is_that_of_the_impulse_response():
    kernels = np.random.default_rng(1).standard_normal((2, 3, 10))
    theta = np.linspace(0, np.pi, 5)
    impulse = np.zeros((22, 3, 3))
    for h in range(3):
        impulse[11:21, h, h] = kernels[0, h]
        impulse[1:11, h, h] = kernels[1, h, ::-1]
    found = gain_of_kernels(kernels, np.tile(theta, (3, 1)))
    np.testing.assert_allclose(found, direct_gain(impulse, theta), rtol=1e-12)


def shown(capsys, **options):
    """What the command prints as JSON."""
    spectrum_command(as_json=True, **{"runs": None, "n": None, "gamma": None, "dt": None, **options})
    return json.loads(capsys.readouterr().out)


def test_the_command_shows_initializations_and_draws_them(capsys, tmp_path):
    picture = tmp_path / "gain.svg"
    found = shown(capsys, n=8, frequency_scale=5.0, plot=picture)
    assert len(found["frequencies"]) == len(found["initializations"][0]["gain"])
    assert [one["title"] for one in found["initializations"]][-1] == "S4D-FT, α = 5"
    assert "S4-PTD, published code" in picture.read_text()
    spectrum_command(runs=None, n=8)
    printed = capsys.readouterr().out
    assert "Initializations with 8 states" in printed
    assert all(one["title"] in printed for one in found["initializations"][:-1])


def test_the_command_shows_prices_of_perturbations_and_draws_them(capsys, tmp_path):
    picture = tmp_path / "prices.png"
    found = shown(capsys, n=8, gamma=[1.0, 0.3, 1.0], frequency_scale=None, plot=picture)["perturbations"]
    assert [one["gamma"] for one in found if one["seed"] is None] == [0.3, 1.0]
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 7}, "--n must be an even number from 2 to 128, got 7"),
        ({"n": 256}, "got 256"),
        ({"dt": 0.0}, "--dt must be positive"),
        ({"gamma": [-1.0]}, "must be positive and finite"),
        ({"gamma": [1.0], "dt": 0.1}, "--dt have no effect with --gamma"),
        ({"runs": ["x"], "n": 8}, "--n go with initializations"),
        ({"plot": Path("a.pdf")}, "--plot writes .svg or .png"),
    ],
)
def test_what_cannot_be_shown_is_the_users_mistake(options, message):
    with pytest.raises(UserError, match=message):
        spectrum_command(**{"runs": None, **options})

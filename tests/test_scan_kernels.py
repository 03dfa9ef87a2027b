"""The GPU kernels of the recurrence, in Pallas' interpreter, against a float64 loop and their plain twins."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lra_bench.kernels import scan as kernels
from lra_bench.kernels.triton import Interpreter
from lra_bench.machine.products import product
from lra_bench.ssm import scan


@pytest.fixture(autouse=True)
def _interpreted(monkeypatch):
    monkeypatch.setattr(Interpreter, "on", True)
    # Shorter chunks and fewer steps side by side, which the interpreter compiles in a third of the time.
    monkeypatch.setattr(kernels, "SHORTEST_CHUNK", 16)
    monkeypatch.setattr(kernels, "AHEAD", 2)


def distance(found, expected):
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def packed(z):
    return np.concatenate([z.real, z.imag], -1)


def unpacked(x):
    real, imag = np.split(np.asarray(x, np.float64), 2, -1)
    return real + 1j * imag


def pair(z):
    return jnp.asarray(z.real, jnp.float32), jnp.asarray(z.imag, jnp.float32)


def looped(eigenvalues, b, reverse):
    """The states of x_t = λ x_{t−1} + b_t, or of x_t = λ x_{t+1} + b_t, step by step in complex128."""
    x, found = np.zeros(b.shape[1:], complex), np.zeros_like(b)
    for t in range(len(b))[:: -1 if reverse else 1]:
        x = eigenvalues * x + b[t]
        found[t] = x
    return found


def expected_states(eigenvalues, b, both):
    return [looped(eigenvalues, b, reverse) for reverse in (False, True)[: 1 + both]]


def expected_gradients(eigenvalues, states, dx, both):
    """The gradients of λ, the drive and b by their definition: g_t = dx_t + λ* g_{t+1}, dλ = Σ g_t x_{t−1}*."""
    d_eigenvalues, db = 0.0, 0.0
    for direction in range(1 + both):
        x, P = states[direction], len(eigenvalues)
        g = looped(eigenvalues.conj(), unpacked(dx[..., 2 * P * direction : 2 * P * (direction + 1)]), not direction)
        earlier, later = (x[1:], g[:-1]) if direction else (x[:-1], g[1:])
        d_eigenvalues = d_eigenvalues + (later * earlier.conj()).sum((0, 1))
        db = db + g
    return d_eigenvalues, packed(db).sum((0, 1)), packed(db)


def system(L, batch, P, seed=0):
    """Eigenvalues with memories of 7 to 400 steps, inputs and a drive. All are float32 numbers."""
    rng = np.random.default_rng(seed)
    eigenvalues = np.exp((-0.5 + 1j * np.arange(P)) * np.exp(rng.uniform(-6, -2, P)))
    eigenvalues = eigenvalues.astype(np.complex64).astype(complex)
    b, drive = (rng.standard_normal(shape).astype(np.float32) for shape in ((L, batch, 2 * P), (2 * P,)))
    return eigenvalues, b, drive


# 78 and 15 lanes of 64; chunks of 16 steps, which fill 64 steps but not 75.
@pytest.mark.parametrize(
    ("L", "batch", "P", "both"), [(75, 3, 26, False), (64, 5, 3, False), (75, 5, 3, True), (64, 3, 26, True)]
)
def test_states_and_gradients_are_those_of_a_loop_in_float64(L, batch, P, both):
    eigenvalues, b, drive = system(L, batch, P)
    states = expected_states(eigenvalues, b[..., :P] + 1j * b[..., P:] + unpacked(drive), both)
    wanted = np.concatenate([packed(x) for x in states], -1)
    dx = np.random.default_rng(1).standard_normal(wanted.shape).astype(np.float32)

    def states_of(Lambda_bar, b, drive):
        return scan.loop_recurrence(Lambda_bar, b, drive, both)

    found, pullback = jax.vjp(states_of, pair(eigenvalues), jnp.asarray(b), jnp.asarray(drive))
    assert distance(found, wanted) < 3e-6
    (real, imag), db, d_drive = pullback(jnp.asarray(dx))
    wanted_eigenvalues, wanted_drive, wanted_db = expected_gradients(eigenvalues, states, dx, both)
    assert distance(jnp.concatenate([real, imag]), packed(wanted_eigenvalues)) < 3e-6
    assert distance(d_drive, wanted_drive) < 3e-6
    assert distance(db, wanted_db) < 3e-6


def test_chunks_of_the_usual_length_give_the_same_states(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(Interpreter, "on", True)
    eigenvalues, b, drive = system(300, 2, 5)
    states = expected_states(eigenvalues, b[..., :5] + 1j * b[..., 5:] + unpacked(drive), True)
    found = scan.loop_states(pair(eigenvalues), jnp.asarray(b), jnp.asarray(drive), True)
    assert kernels.chunk_length(300) == kernels.SHORTEST_CHUNK == 128
    assert distance(found, np.concatenate([packed(x) for x in states], -1)) < 3e-6


def test_states_in_16_bits_are_rounded_once_and_carried_in_float32():
    """A mode that forgets in 2000 steps, driven by ones. Its sum grows to 280, where bfloat16 has steps of 2."""
    real, L = 1 - 1 / 2000, 300
    Lambda_bar = jnp.full(1, real, jnp.float32), jnp.zeros(1)
    ones = jnp.tile(jnp.array([1.0, 0.0]), (L, 1, 1))
    exact = (1 - real ** np.arange(1, L + 1)) / (1 - real)
    found = scan.loop_states(Lambda_bar, ones.astype(jnp.bfloat16), jnp.zeros(2), False)
    assert found.dtype == jnp.bfloat16
    errors = np.abs(np.asarray(found[:, 0, 0], np.float64) / exact - 1)
    assert errors.max() < 2.0**-8  # half a step of bfloat16
    carried, x = [], jnp.zeros((), jnp.bfloat16)
    for _ in range(L):
        x = jnp.bfloat16(real) * x + jnp.bfloat16(1)
        carried.append(float(x))
    assert distance(carried, exact) > 10 * distance(found[:, 0, 0], exact)


def test_gradients_of_states_in_16_bits_are_those_of_the_rounded_states():
    eigenvalues, b, _ = system(75, 3, 5)
    rounded = jnp.asarray(b, jnp.bfloat16)
    states = scan.loop_states(pair(eigenvalues), rounded, jnp.zeros(10), True)
    dx = jnp.asarray(np.random.default_rng(1).standard_normal(states.shape), jnp.bfloat16)
    (real, imag), d_drive, db = scan.loop_gradient(pair(eigenvalues), states, dx, True)
    found_states = [unpacked(half) for half in np.split(np.asarray(states, np.float64), 2, -1)]
    wanted = expected_gradients(eigenvalues, found_states, np.asarray(dx, np.float64), True)
    assert real.dtype == imag.dtype == d_drive.dtype == jnp.float32
    assert distance(jnp.concatenate([real, imag]), packed(wanted[0])) < 3e-6
    assert distance(d_drive, wanted[1]) < 3e-6
    assert db.dtype == jnp.bfloat16
    # The two directions are added up in memory, so db is rounded twice.
    assert distance(db, wanted[2]) < 2.0**-8


@pytest.fixture
def chunks_of_64(monkeypatch):
    """The kernel of products has 64 steps in a program."""
    monkeypatch.setattr(kernels, "SHORTEST_CHUNK", 64)


@pytest.mark.slow
@pytest.mark.usefixtures("chunks_of_64")
@pytest.mark.parametrize(("P", "both"), [(5, True), (24, False)])
def test_products_with_the_ends_of_chunks_are_a_product_and_a_scan(P, both):
    L, batch, H = 150, 2, 48
    eigenvalues, _, drive = system(L, batch, P)
    Lambda_bar, rng = pair(eigenvalues), np.random.default_rng(2)
    u, dy = (jnp.asarray(rng.standard_normal((L, batch, H)), jnp.float32) for _ in range(2))
    B, C = (jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in ((H, 2 * P), (2 * P * (1 + both), H)))

    def tokens_times(x, weight):
        return product(x.reshape(-1, H), weight).reshape(L, batch, -1)

    with jax.default_matmul_precision("highest"):
        states = scan.loop_states(Lambda_bar, tokens_times(u, B), jnp.asarray(drive), both)
        assert distance(scan.driven_states(Lambda_bar, u, B, jnp.asarray(drive), both), states) < 3e-6
        wanted = scan.loop_gradient(Lambda_bar, states, tokens_times(dy, C.T), both)
        found = scan.driven_gradient(Lambda_bar, states, dy, C, both)
    for value, plain in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert distance(value, plain) < 3e-6


@pytest.mark.usefixtures("chunks_of_64")
def test_products_in_16_bits_store_16_bits_and_sum_up_the_ends_in_float32():
    L, batch, H, P = 150, 2, 16, 5
    eigenvalues, _, drive = system(L, batch, P)
    rng = np.random.default_rng(2)
    u, B = (jnp.asarray(rng.standard_normal(shape), jnp.bfloat16) for shape in ((L, batch, H), (H, 2 * P)))
    driven = np.asarray(u, np.float64) @ np.asarray(B, np.float64) + drive
    states = expected_states(eigenvalues, unpacked(driven), True)
    found = scan.driven_states(pair(eigenvalues), u, B.astype(jnp.float32), jnp.asarray(drive), True)
    assert found.dtype == jnp.bfloat16
    assert distance(found, np.concatenate([packed(x) for x in states], -1)) < 2.0**-8


def test_a_chunk_is_a_power_of_two_of_about_twice_the_root_and_not_longer_than_needed(monkeypatch):
    monkeypatch.undo()
    for L in (1, 2, 7, 8, 9, 63, 64, 65, 127, 128, 129, 1000, 1024, 2048, 4095, 4096, 16384, 100_000, 1 << 20):
        T = kernels.chunk_length(L)
        assert T & (T - 1) == 0
        assert T % kernels.AHEAD == 0
        assert 2 * max(L, kernels.AHEAD) >= T >= 2 * kernels.AHEAD
        if T > kernels.SHORTEST_CHUNK:
            assert L**0.5 <= T <= 4 * L**0.5
    assert kernels.chunk_length(1 << 14) == 256

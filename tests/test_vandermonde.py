from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lra_bench.ssm import hippo
from lra_bench.ssm.vandermonde import (
    bilinear_pole,
    diagonal_kernel,
    vandermonde,
    vandermonde_direct,
    zoh_pole,
)

RULES = ("zoh", "bilinear")
PARAMETERS = ("Lambda", "B", "C", "dt")
kernel = jax.jit(diagonal_kernel, static_argnames=("L", "discretization"))
GOLDEN = Path(__file__).parent / "golden"
LONG = 16_384


def draw(c: int, H: int, N: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Λ in the left half plane, some modes fast enough that bilinear Ā falls near -1."""
    random = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return random.normal(size=shape) + 1j * random.normal(size=shape)

    Lambda = -random.uniform(0.1, 1.0, (H, N)) + 1j * random.uniform(-40, 40, (H, N))
    return {"Lambda": Lambda, "B": normal(H, N), "C": normal(c, H, N), "dt": np.geomspace(0.02, 0.2, H)}


def dense(Lambda, B, C, dt, L: int, rule: str) -> np.ndarray:
    """The definition in numpy complex128, one power after another."""
    a = np.asarray(dt, np.float64)[:, None] * np.asarray(Lambda, np.complex128)
    A_bar = np.exp(a) if rule == "zoh" else (1 + a / 2) / (1 - a / 2)
    factor = np.expm1(a) / Lambda if rule == "zoh" else dt[:, None] / (1 - a / 2)
    x, K = np.asarray(B, np.complex128) * factor, np.empty((*C.shape[:2], L))
    for k in range(L):
        K[..., k] = 2 * np.einsum("chn,hn->ch", np.asarray(C, np.complex128), x).real
        x = A_bar * x
    return K


def relative(K: np.ndarray, exact: np.ndarray) -> float:
    return float((np.abs(K - exact).max(-1) / np.abs(exact).max(-1)).max())


@pytest.mark.parametrize("file", ["legs_zoh", "diag-lin_zoh", "diag-inv_bilinear"])
def test_reference_kernels(file):
    golden = np.load(GOLDEN / f"s4d_{file}_N16_L64_H4.npz")
    rule = file.split("_")[1]
    A, B, C, dt = (golden[k] for k in ("A", "B", "C", "dt"))
    with jax.enable_x64(True):
        K = kernel(A.astype(complex), B.astype(complex), C[None].astype(complex), dt.astype(float), 64, rule)
        assert relative(K[0], golden["K_naive64"]) < 1e-12
    K = kernel(A, B, C[None], dt, 64, rule)[0]
    assert relative(K, golden["K_naive64"]) < 1e-5
    assert np.abs(K - golden["K_ref"]).max() < 1e-5 * np.abs(golden["K_ref"]).max()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("L", [1, 2, 17, 1000])
def test_equals_the_dense_form(L, rule):
    p = draw(2, 3, 4)
    with jax.enable_x64(True):
        K = np.asarray(kernel(*(p[k] for k in PARAMETERS), L, rule))
    assert K.shape == (2, 3, L)
    assert relative(K, dense(**p, L=L, rule=rule)) < 1e-11


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("init", ["legs", "inv", "lin", "real"])
def test_float32_at_length_16384(init, rule):
    step = np.float32([1e-4, 1e-3, 1e-2, 1e-1])
    random = np.random.default_rng(0)
    Lambda, B = (x.astype(np.complex64) for x in hippo.diagonal(init, 64, clipped=True))
    C = (random.normal(size=(2, 4, 32)) + 1j * random.normal(size=(2, 4, 32))).astype(np.complex64)
    assert relative(kernel(Lambda, B, C, step, LONG, rule), dense(Lambda, B, C, step, LONG, rule)) < 3e-5


@pytest.mark.parametrize("rule", RULES)
def test_gradients_against_finite_differences(rule):
    """In float64, along a random direction of each parameter, the real and imaginary parts of Λ, B, C moving apart."""
    random, L, h = np.random.default_rng(1), 37, 1e-6
    p = draw(2, 3, 2)
    weight = random.normal(size=(2, 3, L))

    def loss(p):
        return jnp.sum(weight * kernel(*(p[k] for k in PARAMETERS), L, rule))

    with jax.enable_x64(True):
        loss = jax.jit(loss)
        gradient = {k: np.asarray(v) for k, v in jax.jit(jax.grad(loss))(p).items()}
        for name in PARAMETERS:
            direction = random.normal(size=p[name].shape) * (0.01 if name == "dt" else 1.0)
            if name != "dt":
                direction = direction + 1j * random.normal(size=p[name].shape)
            ahead, behind = (float(loss({**p, name: p[name] + t * direction})) for t in (h, -h))
            # JAX's cotangent of a complex number is that of its conjugate's pairing: Re Σ g dz.
            slope = (gradient[name] * direction).real.sum()
            assert slope == pytest.approx((ahead - behind) / (2 * h), rel=1e-6), name


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
def test_float32_gradients_at_length_16384(rule):
    Lambda, B = (x.astype(np.complex64) for x in hippo.diagonal("lin", 64, clipped=True))
    random = np.random.default_rng(0)
    C = (random.normal(size=(1, 3, 32)) + 1j * random.normal(size=(1, 3, 32))).astype(np.complex64)
    parameters = (Lambda, B, C, np.float32([1e-3, 1e-2, 1e-1]))
    weight = random.normal(size=(1, 3, LONG)).astype(np.float32)
    gradient = jax.jit(jax.grad(lambda p, w: jnp.sum(w * kernel(*p, LONG, rule))))
    single = gradient(parameters, weight)
    with jax.enable_x64(True):
        wide = tuple(x.astype(complex if x.dtype.kind == "c" else float) for x in parameters)
        for a, b in zip(single, gradient(wide, weight.astype(float)), strict=True):
            assert np.linalg.norm(np.asarray(a) - np.asarray(b)) < 1e-4 * np.linalg.norm(b)


def test_a_mode_that_dies_in_one_step():
    """Bilinear at ΔΛ = -2: Ā = 0. Its kernel is one tap long, and every derivative is finite."""
    p = (np.complex64([[-20.0]]), np.ones((1, 1), np.complex64), np.ones((1, 1, 1), np.complex64), np.float32([0.1]))
    np.testing.assert_allclose(kernel(*p, 8, "bilinear")[0, 0], [0.1] + 7 * [0.0], atol=1e-7)
    gradient = jax.grad(lambda p: kernel(*p, 8, "bilinear").sum())(p)
    assert all(np.isfinite(g).all() for g in gradient)


def test_bilinear_poles_are_stable_and_accurate_near_minus_one():
    Lambda, step = jnp.asarray([-0.5 + 0j, -0.5 - 19j, -0.5 - 1300j, -1e-3 - 5e4j]), jnp.asarray([1e-4, 0.1])
    pole = bilinear_pole(Lambda, step)
    a = np.asarray(step, float)[:, None] * np.asarray(Lambda, complex)
    exact = (1 + a / 2) / (1 - a / 2)
    assert (np.abs(exact) < 1).all()
    assert (pole.log.real <= 0).all()
    for exponent in (1, 2, 7, 100):
        np.testing.assert_allclose(pole.power(exponent), exact**exponent, atol=1e-5)
    # |log| stays below π/2: nothing is lost to a phase of nearly π.
    assert np.abs(pole.log.imag).max() <= np.pi / 2 + 1e-6
    np.testing.assert_allclose(pole.one_minus_power(2), 1 - exact**2, rtol=1e-4)
    np.testing.assert_allclose(pole.one_minus_power(3), 1 - exact**3, rtol=1e-4)


def test_direct_form_agrees():
    with jax.enable_x64(True):
        p = {k: jnp.asarray(v) for k, v in draw(2, 4, 8).items()}
        pole = zoh_pole(p["Lambda"], p["dt"])
        direct = vandermonde_direct(p["C"], jnp.exp(pole.log), 100)
        assert np.abs(vandermonde(p["C"], pole, 100) - direct).max() < 1e-11 * np.abs(direct).max()


def test_no_array_of_size_HNL_in_either_direction():
    H, N, L = 64, 32, 4096
    C = jnp.ones((2, H, N), jnp.complex64)
    Lambda, step = -0.5 + 1j * jnp.arange(N, dtype=jnp.float32), jnp.full(H, 0.01)

    def loss(Lambda, C, step):
        return jnp.sum(diagonal_kernel(Lambda, jnp.ones(N, jnp.complex64), C, step, L, "zoh") ** 2)

    compiled = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2))).lower(Lambda, C, step).compile()
    whole = 8 * H * N * L
    assert compiled.memory_analysis().temp_size_in_bytes < whole / 4


def test_unrolled_loops_give_the_same_gradient(monkeypatch):
    """The form for GPUs, where each step of a loop is a kernel."""
    p = draw(2, 3, 4)

    def gradient():
        values = [jnp.asarray(p[name]) for name in PARAMETERS]
        return jax.jit(jax.grad(lambda *x: jnp.sin(diagonal_kernel(*x, 300, "bilinear")).sum(), (0, 1, 2, 3)))(*values)

    with jax.enable_x64(True):
        looped = gradient()
        monkeypatch.setattr("lra_bench.ssm.vandermonde._unrolled", lambda: True)
        for a, b in zip(looped, gradient(), strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-10)

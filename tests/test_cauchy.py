from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lra_bench.ssm import dplr, hippo
from lra_bench.ssm.cauchy import cauchy_direct, dplr_kernel

GOLDEN = Path(__file__).parent / "golden"
jitted = jax.jit(dplr_kernel, static_argnames="L")
NAMES = ("Lambda", "P", "B", "C_tilde", "dt")


def legs(N: int, c: int, step: np.ndarray) -> tuple[np.ndarray, ...]:
    """HiPPO-LegS's pairs with random C: (Λ, P, B, C, Δ)."""
    random = np.random.default_rng(0)
    part, half = hippo.normal_part(N), N // 2
    C = random.normal(size=(c, len(step), half)) + 1j * random.normal(size=(c, len(step), half))
    return part.Lambda[:half], part.P_tilde[:half], part.B_tilde[:half], C, step


def wide(parameters) -> tuple[np.ndarray, ...]:
    return tuple(np.asarray(x, complex if x.dtype.kind == "c" else float) for x in parameters)


@partial(jax.jit, static_argnames="L")
def fold(parameters, L):
    return dplr.fold(dplr.discretize(*parameters), L)


def folded(parameters: tuple[np.ndarray, ...], L: int) -> tuple[np.ndarray, ...]:
    with jax.enable_x64(True):
        return (*parameters[:3], np.asarray(fold(wide(parameters), L)), parameters[4])


def exact_kernel(parameters: tuple[np.ndarray, ...], L: int) -> np.ndarray:
    """From the dense matrices in float64, one product after another."""
    with jax.enable_x64(True):
        return np.asarray(dplr.dense_kernel(jax.jit(dplr.discretize)(*wide(parameters)), L))


def in64(function, parameters, L):
    with jax.enable_x64(True):
        return np.asarray(jax.jit(partial(function, L=L))(*parameters))


def double(golden, *names: str) -> list[np.ndarray]:
    return [golden[k].astype(np.complex128 if golden[k].dtype.kind == "c" else float) for k in names]


def relative(K: np.ndarray, exact: np.ndarray) -> float:
    return float(np.abs(K - exact).max() / np.abs(exact).max())


def test_reference_kernel():
    golden = np.load(GOLDEN / "s4_legs_N16_L64_H4.npz")
    Lambda, P, B, C, step = double(golden, "A", "P", "B", "C", "dt")
    parameters = (Lambda, P, B, C[None], step)
    exact = golden["K_naive64"][None]
    assert relative(exact_kernel(parameters, 64), exact) < 1e-13
    np.testing.assert_allclose(folded(parameters, 64)[3][0], golden["C_tilde"], atol=2e-5)
    for kernel in (dplr_kernel, cauchy_direct):
        assert relative(in64(kernel, folded(parameters, 64), 64), exact) < 1e-12
    single = jitted(*(golden[k] for k in ("A", "P", "B")), golden["C_tilde"][None], golden["dt"], 64)
    assert relative(single, golden["K_ref"][None]) < 1e-5


def test_reference_recurrence_and_convolution():
    golden = np.load(GOLDEN / "s4_legs_N16_L64_H4.npz")
    Lambda, P, B, C, step, u = double(golden, "A", "P", "B", "C", "dt", "u")
    with jax.enable_x64(True):
        system = dplr.discretize(*map(jnp.asarray, (Lambda, P, B, C[None], step)))
        first = jnp.zeros((len(u), *system.B_bar.shape))
        y = jax.lax.scan(lambda x, u_t: dplr.advance(system, x, u_t), first, jnp.moveaxis(u, -1, 0))[1]
        y = np.moveaxis(np.asarray(y), 0, -1)
    assert relative(y, golden["y_conv64"]) < 1e-12
    assert relative(y, golden["y_step_ref"]) < 1e-5


@pytest.mark.parametrize("step", ["0.001", "0.01", "0.1"])
def test_annotated_s4(step):
    """srush/annotated-s4 keeps all 16 states and an unconstrained C*; the real part of its kernel is one of pairs."""
    golden = np.load(GOLDEN / "annotated_s4_N16_L64.npz")
    Lambda, P, B, C = double(golden, "Lambda", "P", "B", f"C_{step}")
    phase = np.concatenate([np.ones(8), P[7::-1].conj() / P[8:]])  # of each eigenvector, so that partners are conjugate
    P, B, C = P * phase, B * phase, C.conj() * phase.conj()
    np.testing.assert_allclose(B[8:], B[7::-1].conj(), atol=1e-5)
    pairs = 0.5 * (C + C[::-1].conj())[:8]
    K = in64(dplr_kernel, (Lambda[:8], P[:8], B[:8], pairs[None, None], np.array([float(step)])), 64)
    assert relative(K[0, 0], golden[f"K_kernel_DPLR_{step}"]) < 5e-6


@pytest.mark.parametrize("L", [1, 2, 63, 1000])
def test_equals_the_dense_form(L):
    parameters = legs(16, 2, np.array([0.001, 0.02, 0.3]))
    exact = exact_kernel(parameters, L)
    for kernel in (dplr_kernel, cauchy_direct):
        assert relative(in64(kernel, folded(parameters, L), L), exact) < 1e-11


def test_node_minus_one_is_the_limit():
    """Even L: the alternating sum of K is Δ Re Σ B C̃, and neighbors of that node are continuous with it."""
    parameters = folded(legs(8, 1, np.array([0.05])), 64)
    K = in64(dplr_kernel, parameters, 64)
    limit = 0.05 * (parameters[2] * parameters[3][0, 0]).real.sum()
    assert (K[0, 0] * (-1.0) ** np.arange(64)).sum() == pytest.approx(limit, rel=1e-10)
    assert limit != 0


def test_length_doubling():
    """C̃ for 2L made from the stored C̃ for L; and C comes back from either."""
    Lambda, P, B, C, step = legs(16, 1, np.array([0.01, 0.1]))
    with jax.enable_x64(True):
        system = dplr.discretize(*map(jnp.asarray, (Lambda, P, B, C, step)))
        stored = system._replace(C=dplr.output_row(dplr.fold(system, 100)))
        np.testing.assert_allclose(dplr.double(stored, 100), dplr.fold(system, 200), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(dplr.unfold(stored, 100), C, rtol=1e-8)


@pytest.mark.parametrize("L", [1024, 16_384])
def test_float32_within_1e4_of_the_dense_oracle(L):
    """The oracle starts from the same float32 numbers, so that only the kernel's own error is measured."""
    step = np.geomspace(1e-4, 1e-1, 7).astype(np.float32)
    Lambda, P, B, C, _ = (x.astype(np.complex64) for x in legs(64, 1, step))
    C_tilde = folded((Lambda, P, B, C, step), L)[3].astype(np.complex64)
    with jax.enable_x64(True):
        stored = dplr.discretize(*map(jnp.asarray, wide((Lambda, P, B, C_tilde, step))))
        system = stored._replace(C=dplr.output_row(dplr.unfold(stored, L)))
        exact = np.asarray(dplr.dense_kernel(system, L))
    error = np.abs(jitted(Lambda, P, B, C_tilde, step, L) - exact).max(-1) / np.abs(exact).max(-1)
    assert error.max() < 1e-4


@pytest.mark.parametrize("L", [16, pytest.param(21, marks=pytest.mark.slow)])
def test_gradients_against_finite_differences(L):
    """In float64, along a random direction of each parameter, real and imaginary parts apart."""
    random, h = np.random.default_rng(1), 1e-6
    p = dict(zip(NAMES, folded(legs(8, 2, np.array([0.02, 0.3])), L), strict=True))
    weight = random.normal(size=(2, 2, L))

    def loss(p):
        return jnp.sum(weight * dplr_kernel(**p, L=L))

    with jax.enable_x64(True):
        loss = jax.jit(loss)
        gradient = {k: np.asarray(v) for k, v in jax.jit(jax.grad(loss))(p).items()}
        for name in NAMES:
            direction = random.normal(size=p[name].shape) * (0.01 if name == "dt" else 1.0)
            if name != "dt":
                direction = direction + 1j * random.normal(size=p[name].shape)
            ahead, behind = (float(loss({**p, name: p[name] + t * direction})) for t in (h, -h))
            slope = (gradient[name] * direction).real.sum()
            assert slope == pytest.approx((ahead - behind) / (2 * h), rel=1e-6), name


@pytest.mark.slow
def test_no_array_of_size_HNL_in_either_direction():
    """So many modes that it would dwarf the (2c + 2, H, L) arrays that there are."""
    H, N, L = 64, 128, 4096
    p = [jnp.asarray(x.astype(np.complex64)) for x in legs(2 * N, 2, np.full(H, 0.01))[:4]]

    def loss(Lambda, P, B, C, step):
        return jnp.sum(dplr_kernel(Lambda, P, B, C, step, L) ** 2)

    arguments = (*p, jnp.full(H, 0.01, jnp.float32))
    compiled = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3, 4))).lower(*arguments).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 8 * H * N * L / 4

"""Discretization against the reference's float64 numbers, and accurate in float32 where the plain formula is not."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy.special import factorial

from lra_bench.ssm.discretization import DISCRETIZATIONS, SERIES_RADIUS, bilinear, zoh

GOLDEN = Path(__file__).parent / "golden"


def complex_of(discrete):
    Lambda_bar_re, Lambda_bar_im, factor_re, factor_im = (np.asarray(part) for part in discrete)
    return Lambda_bar_re + 1j * Lambda_bar_im, factor_re + 1j * factor_im


@pytest.mark.parametrize(("name", "case"), [("zoh", "conj_uni_zoh"), ("bilinear", "conj_bi_bilinear")])
def test_reference_numbers_in_float64(name, case):
    golden = np.load(GOLDEN / f"s5_ssm_{case}_lecun_normal.npz")
    with jax.enable_x64(True):
        Lambda_re, Lambda_im, log_dt = (
            jnp.asarray(golden[f"param_{key}"], jnp.float64) for key in ("Lambda_re", "Lambda_im", "log_step")
        )
        Lambda_bar, factor = complex_of(DISCRETIZATIONS[name](Lambda_re, Lambda_im, jnp.exp(log_dt[:, 0])))
    B = golden["param_B"].astype(np.float64) @ np.array([1.0, 1j])
    np.testing.assert_allclose(Lambda_bar, golden["Lambda_bar64"], rtol=1e-13)
    np.testing.assert_allclose(factor[:, None] * B, golden["B_bar64"], rtol=1e-12)


def grid(dtype):
    """Λ of shape (36, 1), from undamped to fast, and Δ of shape (5,): |ΛΔ| runs from 0 to hundreds."""
    decay = np.array([0.0, 1e-8, 1e-4, 0.5, 2.0, 60.0])
    omega = np.array([0.0, 1e-6, 1e-2, 1.0, 20.0, 325.0])
    Lambda = np.stack(np.meshgrid(-decay, omega), -1).reshape(-1, 1, 2).astype(dtype)
    return Lambda[..., 0], Lambda[..., 1], np.array([1e-4, 1e-3, 0.01, 0.1, 1.0], dtype)


def reference(name, Lambda_re, Lambda_im, step):
    """In long double, from formulas without cancellation."""
    x, y = np.longdouble(Lambda_re) * step, np.longdouble(Lambda_im) * step
    z = x + 1j * y
    if name == "bilinear":
        return (1 + z / 2) / (1 - z / 2), step / (1 - z / 2)
    rise = np.expm1(x) * np.cos(y) - 2 * np.sin(y / 2) ** 2 + 1j * np.exp(x) * np.sin(y)
    return np.exp(x) * (np.cos(y) + 1j * np.sin(y)), step * np.where(z == 0, 1, rise / np.where(z == 0, 1, z))


def worst(ours, theirs):
    return float(np.max(np.abs(ours - theirs) / np.abs(theirs)))


@pytest.mark.parametrize("name", DISCRETIZATIONS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-6), (np.float64, 2e-15)])
def test_accurate_at_every_size(name, dtype, tolerance):
    inputs = grid(dtype)
    with jax.enable_x64(dtype is np.float64):
        Lambda_bar, factor = complex_of(jax.jit(DISCRETIZATIONS[name])(*inputs))
    assert factor.shape == (36, 5)
    assert factor.real.dtype == dtype
    # The product ΛΔ is rounded before it is used: an error of |ΛΔ| ulps that no formula behind it can undo.
    ulps = 1 + np.abs(inputs[0] + 1j * inputs[1]) * inputs[2]
    true_bar, true_factor = reference(name, *(part.astype(np.longdouble) for part in inputs))
    assert np.all(np.abs(Lambda_bar - true_bar) <= tolerance * ulps * np.abs(true_bar))
    assert np.all(np.abs(factor - true_factor) <= tolerance * ulps * np.abs(true_factor))


def test_the_plain_formula_would_fail_the_float32_bound():
    """The case of the field's codes: Λ = -1e-4, Δ = 1e-3 costs (exp(ΛΔ) - 1)/Λ a fifth of its value; ours 1e-7."""
    Lambda, step = np.float32(-1e-4), np.float32(1e-3)
    true = reference("zoh", np.longdouble(Lambda), np.longdouble(0), np.longdouble(step))[1]
    plain = (jnp.exp(Lambda * step) - 1) / Lambda
    assert worst(np.asarray(plain), true) > 0.1
    assert worst(complex_of(zoh(Lambda, np.float32(0), step))[1], true) < 2e-7


def true_derivatives(name, Lambda, step):
    """d/dΛ and d/dΔ of Λ̄ and of the factor: (2, 2, ...)."""
    z = Lambda * step
    if name == "bilinear":
        square = 1 / (1 - z / 2) ** 2
        return np.array([[step * square, step**2 / 2 * square], [Lambda * square, square]])
    k = np.arange(1, 30)[:, None, None]
    series = np.sum(k * np.where(np.abs(z) < 1, z, 0) ** (k - 1) / factorial(k + 1), axis=0)
    far = np.where(np.abs(z) < 1, 1, z)
    slope = np.where(np.abs(z) < 1, series, (np.exp(far) * (far - 1) + 1) / far**2)
    return np.array([[step * np.exp(z), step**2 * slope], [Lambda * np.exp(z), np.exp(z)]])


@pytest.mark.parametrize("name", DISCRETIZATIONS)
def test_float32_derivatives_are_right_from_zero_to_fast_modes(name):
    inputs = grid(np.float32)
    rule = DISCRETIZATIONS[name]
    one, zero = np.float32(1), np.float32(0)
    tangents = [(one, zero, zero), (zero, zero, one)]
    ours = []
    for tangent in tangents:
        directions = tuple(np.full_like(part, t) for part, t in zip(inputs, tangent, strict=True))
        ours.append(complex_of(jax.jvp(rule, inputs, directions)[1]))
    Lambda_re, Lambda_im, step = (part.astype(np.longdouble) for part in inputs)
    true = true_derivatives(name, Lambda_re + 1j * Lambda_im, step)
    size = np.abs(true)
    # d factor / dΔ = φ(ΛΔ) + ΛΔ φ'(ΛΔ): the sum is exp(ΛΔ), but rounding acts on the terms.
    size[1, 1] = np.maximum(size[1, 1], np.abs(reference(name, Lambda_re, Lambda_im, step)[1]) / step)
    ulps = 1 + np.hypot(Lambda_re, Lambda_im) * step
    assert np.all(np.abs(np.array(ours) - true) <= 1e-6 * ulps * size)


@pytest.mark.parametrize("name", DISCRETIZATIONS)
def test_reverse_mode_is_finite_everywhere(name):
    def total(*inputs):
        return sum(jnp.sum(part) for part in DISCRETIZATIONS[name](*inputs))

    Lambda_re, Lambda_im, step = grid(np.float32)
    tiny = np.array([[1e-30], [1e-20], [1e-42], [0.0]], np.float32)
    for inputs in ((Lambda_re, Lambda_im, step), (-tiny, tiny, step), (-tiny, 0 * tiny, 0 * step)):
        gradients = jax.jit(jax.grad(total, argnums=(0, 1, 2)))(*inputs)
        assert all(np.all(np.isfinite(part)) for part in gradients)


@pytest.mark.parametrize("name", DISCRETIZATIONS)
def test_float64_derivatives_match_finite_differences_across_the_series_border(name):
    radius = np.array([0.0, 0.5 * SERIES_RADIUS, SERIES_RADIUS * (1 - 1e-4), SERIES_RADIUS * (1 + 1e-4), 3.0])
    with jax.enable_x64(True):
        point = tuple(jnp.asarray(part) for part in (-radius * 0.6, radius * 0.8, np.ones(5)))
        check_grads(jax.jit(DISCRETIZATIONS[name]), point, order=1, modes=("fwd", "rev"), rtol=1e-7, atol=1e-7)


def test_bilinear_keeps_stable_modes_stable():
    Lambda_re, Lambda_im, step = grid(np.float64)
    with jax.enable_x64(True):
        Lambda_bar, _ = complex_of(bilinear(Lambda_re, Lambda_im, step))
    damped = np.broadcast_to(Lambda_re * step < -1e-10, Lambda_bar.shape)
    assert np.all(np.abs(Lambda_bar[damped]) < 1)


@pytest.mark.parametrize("name", DISCRETIZATIONS)
def test_both_rules_solve_the_differential_equation(name):
    """x' = Λx + u for constant u: zero-order hold is exact, the trapezoidal rule is off by Δ²."""
    Lambda = -0.5 + 3.0j

    def final_state(steps):
        with jax.enable_x64(True):
            Lambda_bar, factor = complex_of(DISCRETIZATIONS[name](Lambda.real, Lambda.imag, jnp.asarray(2.0 / steps)))
        x = 0j
        for _ in range(steps):
            x = Lambda_bar * x + factor
        return x

    exact = np.expm1(2.0 * Lambda) / Lambda
    errors = [abs(final_state(steps) - exact) for steps in (50, 100)]
    if name == "zoh":
        assert max(errors) < 1e-13
    else:
        assert errors[0] / errors[1] == pytest.approx(4, rel=0.05)

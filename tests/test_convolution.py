from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lra_bench.ssm.convolution import channel_major, convolve, convolve_direct

H, B = 2, 3
FORMS = ("real", "right_angle")


def draw(L: int, directions: int, seed: int = 0) -> tuple[np.ndarray, list[np.ndarray]]:
    random = np.random.default_rng(seed)
    return random.normal(size=(H, B, L)), [random.normal(size=(H, L)) for _ in range(directions)]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("L", [1, 2, 7, 64, 97])
def test_equals_the_definition(L, directions, form):
    u, kernels = draw(L, directions)
    with jax.enable_x64(True):
        y = jax.jit(partial(convolve, form=form))(u, *kernels)
        assert np.abs(y - convolve_direct(u, *kernels)).max() < 1e-12 * L


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("L", [1, 5, 32])
def test_derivatives_are_the_adjoint(L, directions, form):
    """⟨g, J dx⟩ = ⟨Jᵀ g, dx⟩ for random g and dx: the map is bilinear, so J dx is the definition itself."""
    u, kernels = draw(L, directions)
    du, d_kernels = draw(L, directions, seed=1)
    g, _ = draw(L, 0, seed=2)
    with jax.enable_x64(True):
        _, vjp = jax.vjp(lambda u, *k: convolve(u, *k, form=form), jnp.asarray(u), *map(jnp.asarray, kernels))
        grad_u, *grad_kernels = (np.asarray(x) for x in vjp(jnp.asarray(g)))
    forward = (g * (convolve_direct(du, *kernels) + convolve_direct(u, *d_kernels))).sum()
    pairs = zip(grad_kernels, d_kernels, strict=True)
    assert (grad_u * du).sum() + sum((a * b).sum() for a, b in pairs) == pytest.approx(forward, rel=1e-11)


def test_future_kernel_sees_only_the_strict_future():
    """state-spaces/s4 applies the first tap of the second kernel to u[t+1], not to u[t]."""
    L = 6
    u = jnp.arange(1.0, L + 1).reshape(1, 1, L)
    first_tap = jnp.zeros((1, L)).at[0, 0].set(1.0)
    y = convolve(u, jnp.zeros((1, L)), first_tap)
    np.testing.assert_allclose(y[0, 0], [2, 3, 4, 5, 6, 0], atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_float32_is_accurate_at_length_16384(form):
    u, kernels = draw(16_384, 2)
    kernels = [k * np.exp(-np.arange(16_384) / 2000) for k in kernels]
    y = convolve(jnp.float32(u), *map(jnp.float32, kernels), form=form)
    assert y.dtype == jnp.float32
    with jax.enable_x64(True):
        exact = np.asarray(convolve(jnp.asarray(u), *map(jnp.asarray, kernels), form="real"))
    assert np.abs(np.asarray(y) - exact).max() < 2e-6 * np.abs(exact).max()


def test_bfloat16_enters_and_leaves_as_bfloat16():
    u, kernels = draw(16, 1)
    y = convolve(jnp.asarray(u, jnp.bfloat16), jnp.float32(kernels[0]))
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y.astype(jnp.float32), convolve_direct(u, kernels[0]), atol=0.1)


@pytest.mark.parametrize("shape", [(2, 3, 4), (128, 2, 8), (40, 3, 64)])
def test_channel_major_is_a_transposition(shape):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    y, vjp = jax.vjp(channel_major, jnp.asarray(x))
    np.testing.assert_array_equal(y, x.transpose(2, 1, 0))
    np.testing.assert_array_equal(channel_major(jnp.asarray(x)), x.transpose(2, 1, 0))
    np.testing.assert_array_equal(vjp(y)[0], x)

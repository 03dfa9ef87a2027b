"""S4D-FT: its filter against a direct Fourier transform in float64, and what it is without one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lra_bench.errors import UserError
from lra_bench.models.layers import as_complex
from lra_bench.models.s4d_ft import S4DFTLayer
from lra_bench.recipes.s4d_ft import RECIPES, Config
from lra_bench.spec import validated
from lra_bench.ssm import hippo
from lra_bench.ssm.convolution import convolve
from lra_bench.ssm.frequency_filter import filtered
from lra_bench.ssm.vandermonde import diagonal_kernel

H, N = 6, 8


def layer_of(**changes):
    recipe = RECIPES["listops"].model_copy(update={"d_model": H})
    config = validated(Config, {**recipe.layer, "d_state": 2 * N, **changes})
    return S4DFTLayer(recipe, config, rngs=nnx.Rngs(0))


def kernel_of(layer, L):
    return jax.jit(layer.kernel, static_argnums=0)(L)


def direct(u, kernels, s):
    """The published output for u (b, H, L): a circular convolution over exactly 2L points, weighted by frequency."""
    L = u.shape[-1]
    n = 2 * L
    index = np.arange(n)
    turns = np.exp(-2j * np.pi * np.outer(index, index) / n)
    two_sided = np.concatenate([kernels[0], kernels[1][:, ::-1]], axis=-1)
    padded = np.concatenate([u, np.zeros_like(u)], axis=-1)
    nu = np.minimum(index, n - index) / n
    spectrum = (padded @ turns) * (two_sided @ turns) * (1 + nu) ** s[:, None]
    return (spectrum @ turns.conj() / n).real[..., :L]


@pytest.mark.parametrize("L", [1, 2, 7, 16, 45])
def test_filter_equals_a_direct_transform_of_the_output(L):
    rng = np.random.default_rng(L)
    u, kernels, s = rng.normal(size=(3, H, L)), rng.normal(size=(2, H, L)), np.linspace(-2, 3, H)
    with jax.enable_x64(True):
        past, future = filtered(jnp.asarray(kernels), jnp.asarray(s))
        y = convolve(jnp.asarray(u.swapaxes(0, 1)), past, future).swapaxes(0, 1)
    np.testing.assert_allclose(y, direct(u, kernels, s), rtol=1e-10, atol=1e-10)


def test_factor_is_one_at_frequency_zero_and_grows_to_nyquist():
    L, s = 16, np.array([0.0, 1.0, -0.5, 2.0])
    delta = np.zeros((2, len(s), L))
    delta[0, :, 0] = 1.0
    with jax.enable_x64(True):
        past, future = filtered(jnp.asarray(delta), jnp.asarray(s))
    response = np.fft.rfft(np.concatenate([past, np.asarray(future)[:, ::-1]], axis=-1))
    np.testing.assert_allclose(response[:, 0], 1.0, rtol=1e-12)
    np.testing.assert_allclose(response[:, -1], 1.5**s, rtol=1e-12)
    np.testing.assert_allclose(response, (1 + np.arange(L + 1) / (2 * L)) ** s[:, None], rtol=1e-12, atol=1e-12)


def test_without_filter_and_scale_it_is_s4d_lin_with_b_one():
    layer = layer_of(frequency_scale=1.0)
    Lambda = hippo.diagonal("lin", 2 * N, clipped=False).Lambda
    Lambda = jnp.asarray(Lambda - 1e-4j * (Lambda.imag == 0))[None]  # the code keeps −Im Λ at 1e-4 or more
    plain = jax.jit(lambda: diagonal_kernel(Lambda, jnp.ones((1, 1)), as_complex(layer.C), layer.dt(), 64, "zoh"))()
    np.testing.assert_allclose(kernel_of(layer, 64), plain, rtol=2e-4, atol=2e-5)


def test_scale_multiplies_the_frequencies_alone():
    one, three = layer_of(frequency_scale=1.0).Lambda(), layer_of(frequency_scale=3.0).Lambda()
    np.testing.assert_allclose(three.real, one.real)
    np.testing.assert_allclose(three.imag[:, 1:], 3 * one.imag[:, 1:], rtol=1e-6)


def test_gradient_of_the_exponent_is_that_of_finite_differences():
    rng = np.random.default_rng(0)
    kernels, s, weights = rng.normal(size=(2, H, 16)), rng.normal(size=H), rng.normal(size=(2, H, 16))
    with jax.enable_x64(True):

        def loss(s):
            return jnp.sum(jnp.sin(filtered(jnp.asarray(kernels), s)) * weights)

        gradient = jax.grad(loss)(jnp.asarray(s))
        steps = 1e-6 * np.eye(H)
        slopes = [(loss(jnp.asarray(s + step)) - loss(jnp.asarray(s - step))) / 2e-6 for step in steps]
    np.testing.assert_allclose(gradient, slopes, rtol=1e-7, atol=1e-8)


def test_kernel_in_float32_at_the_length_of_pathx():
    L, layer = 16_384, layer_of()
    layer.s[...] = jnp.linspace(-1, 1, H)
    with jax.enable_x64(True):
        C, Lambda, dt = (np.asarray(x).astype(complex) for x in (as_complex(layer.C), layer.Lambda(), layer.dt()))
        powers = np.exp(dt[:, None, None] * Lambda[..., None] * np.arange(L))
        exact = 2 * np.einsum("chn,hn,hnl->chl", C, np.expm1(dt[:, None] * Lambda) / Lambda, powers).real
        exact = np.asarray(filtered(jnp.asarray(exact), jnp.asarray(layer.s[...], jnp.float64)))
    error = np.abs(np.asarray(kernel_of(layer, L)) - exact).max() / np.abs(exact).max()
    assert error < 1e-4


def test_causal_form_is_refused():
    recipe = RECIPES["listops"].model_copy(update={"bidirectional": False})
    with pytest.raises(UserError, match="reads the future"):
        S4DFTLayer(recipe, validated(Config, recipe.layer), rngs=nnx.Rngs(0))

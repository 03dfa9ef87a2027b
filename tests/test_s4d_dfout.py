"""S4D-DFouT: where its poles start, and its kernels against the equations in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lra_bench.models.layers import as_complex
from lra_bench.models.s4d_dfout import S4DDFouTLayer, frequencies
from lra_bench.recipes.s4d_dfout import RECIPES, Config
from lra_bench.spec import validated
from lra_bench.ssm.vandermonde import diagonal_kernel
from tests.s4_layers import in_float64, relative

H, N = 4, 8


def layer_of(**changes):
    recipe = RECIPES["listops"].model_copy(update={"d_model": H})
    return S4DDFouTLayer(recipe, validated(Config, {**recipe.layer, "d_state": N, **changes}), rngs=nnx.Rngs(0))


def exact_kernel(layer, L):
    """The convolution of zero-order hold with poles exp(−ξ a − iΩ), from the layer's parameters, in float64."""
    a, omega, xi = (np.float64(x[...]) for x in (layer.A_real, layer.A_imag, layer.inv_dt))
    B, C = (np.asarray(as_complex(x)).astype(complex) for x in (layer.B, layer.C))
    copies = H // len(omega)
    xi = np.exp(xi)[:, None]
    log = -xi * np.tile(np.exp(a), (copies, 1)) - 1j * np.tile(omega, (copies, 1))
    B_bar = xi * np.expm1(log) / log * np.tile(B, (copies, 1))
    return 2 * np.einsum("chn,hnl->chl", C * B_bar, np.exp(log[..., None] * np.arange(L))).real


def test_features_together_have_every_frequency_of_a_finer_grid_once():
    omega = frequencies(N, H)
    assert omega.shape == (H, N // 2 + 1)
    np.testing.assert_allclose(omega[0, [0, -1]], [0, np.pi])
    np.testing.assert_allclose(np.sort(omega[:, :-1].ravel()), 2 * np.pi * np.arange(N * H // 2) / (N * H))


def test_without_decay_a_feature_can_have_any_kernel_of_length_N():
    """The powers of its poles and their conjugates are a Fourier basis."""
    powers = np.exp(1j * frequencies(N, H)[..., None] * np.arange(N))
    basis = np.concatenate([powers.real, powers.imag], axis=1)
    assert (np.linalg.matrix_rank(basis) == N).all()


def test_xi_scales_the_decay_and_leaves_the_frequencies():
    layer = layer_of(dt_min=1e-2, dt_max=1e-1)
    log, xi = np.asarray(layer.Lambda()), np.asarray(layer.xi())
    np.testing.assert_allclose(-log.real, np.broadcast_to(0.5 * xi[:, None], log.shape), rtol=1e-6)
    assert 0.99e-2 < xi.min() < xi.max() < 1.01e-1
    layer.inv_dt[...] = jnp.log(2 * xi)
    twice = np.asarray(layer.Lambda())
    np.testing.assert_allclose(twice.real, 2 * log.real, rtol=1e-6)
    np.testing.assert_array_equal(twice.imag, log.imag)


def test_starts_as_s4d_with_its_frequencies_over_the_step_size():
    with jax.enable_x64(True):
        layer = in_float64(layer_of())

        @jax.jit
        def both():
            Lambda = jax.lax.complex(jnp.full_like(layer.A_imag[...], -0.5), -layer.A_imag[...] / layer.xi()[:, None])
            s4d = diagonal_kernel(Lambda, jnp.ones(1, complex), as_complex(layer.C), layer.xi(), 20, "zoh")
            return layer.kernel(20), s4d

        np.testing.assert_allclose(*both(), rtol=1e-6, atol=1e-8)  # ln 1/2 was rounded to float32


@pytest.mark.parametrize("S", [2, H])
def test_kernel_in_float32_at_the_length_of_pathx(S):
    L, layer = 16_384, layer_of(dt_min=1e-4, n_ssm=S)
    layer.B[...] = jnp.linspace(0.5, 1.5, layer.B.size).reshape(layer.B.shape)
    kernel = jax.jit(layer.kernel, static_argnums=0)(L)
    assert relative(kernel, exact_kernel(layer, L)) < 1e-5


def test_gradients_are_those_of_finite_differences():
    weights = np.random.default_rng(0).normal(size=(2, H, 24))
    with jax.enable_x64(True):
        graph, params = nnx.split(in_float64(layer_of()))
        leaves, tree = jax.tree.flatten(params)
        direction = [np.random.default_rng(1).normal(size=leaf.shape) for leaf in leaves]

        @jax.jit
        def loss(t):
            moved = [leaf + t[i] * way for i, (leaf, way) in enumerate(zip(leaves, direction, strict=True))]
            return jnp.sum(jnp.sin(nnx.merge(graph, tree.unflatten(moved)).kernel(24)) * weights)

        gradient = jax.jit(jax.grad(loss))(jnp.zeros(len(leaves)))
        steps = 1e-6 * np.eye(len(leaves))
        slopes = [(loss(step) - loss(-step)) / 2e-6 for step in steps]
    np.testing.assert_allclose(gradient, slopes, rtol=1e-6, atol=1e-7)

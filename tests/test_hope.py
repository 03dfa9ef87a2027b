"""HOPE-SSM: its circular convolution against the equations of its code in float64, in both of its forms."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lra_bench.errors import UserError
from lra_bench.models.hope import block, network
from lra_bench.models.layers import DataShape, as_complex
from lra_bench.models.long_convolution import dt_of
from lra_bench.recipes.hope import RECIPES, Config
from lra_bench.spec import validated
from lra_bench.ssm.convolution import convolve_circular
from lra_bench.ssm.hankel import circular_kernel, transfer_functions

H, L = 4, 9

quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
"""Nearly all the time here is compilation."""


def parameters(n=5, S=2, directions=2, seed=0):
    rng = np.random.default_rng(seed)
    h = rng.normal(size=(2, S, n)) + 1j * rng.normal(size=(2, S, n))
    return h, np.exp(rng.uniform(-6, 2, (directions, H)))


def spectra(h, dt, L):
    """K̂ (2, H, L) as the code computes it: warped nodes, their angles, and a sum over all parameters at each."""
    z = np.exp(2j * np.pi * np.arange(L) / L)
    features = dt.shape[-1]
    dt = np.broadcast_to(dt, (2, features))[..., None]
    angles = np.angle(((1 + dt) * z + dt - 1) / ((dt - 1) * z + dt + 1))
    turns = np.exp(-1j * angles[..., None] * np.arange(1, h.shape[-1] + 1))
    return np.einsum("chn,chln->chl", np.tile(h, (1, features // h.shape[1], 1)), turns)


def convolved(v, h, dt):
    """The code's output for v (b, H, 2L): the spectra side by side, the second reversed, and a real part."""
    past, future = spectra(h, dt, v.shape[-1] // 2)
    return np.fft.ifft(np.fft.fft(v) * np.concatenate([past, future[:, ::-1]], axis=-1)).real


@pytest.mark.parametrize(("L", "n", "S", "directions"), [(1, 1, 1, 2), (7, 16, 1, 1), (16, 5, 2, 2)])
def test_kernel_gives_the_codes_output(L, n, S, directions):
    h, dt = parameters(n, S, directions)
    v = np.random.default_rng(L).normal(size=(H, 3, 2 * L))
    with jax.enable_x64(True):
        K, y = quick_jit(
            lambda v, h, dt: (transfer_functions(h, dt, L), convolve_circular(v, circular_kernel(h, dt, L)))
        )(v, h, dt)
    np.testing.assert_allclose(K, spectra(h, dt, L), atol=1e-9)
    np.testing.assert_allclose(y.swapaxes(0, 1), convolved(v.swapaxes(0, 1), h, dt), rtol=1e-9, atol=1e-9)


def test_spectrum_is_a_cascade_of_all_pass_filters():
    """1/w = (z⁻¹ − a) / (1 − a z⁻¹) with a = (1 − dt)/(1 + dt): |K̂| of one parameter is flat, and dt = 1 is a delay."""
    one = np.zeros((2, 1, 6), complex)
    one[:, :, 5] = 1
    with jax.enable_x64(True):
        K = quick_jit(transfer_functions, static_argnums=2)(one, np.array([[0.01, 0.3, 1.0, 7.0]]), 16)
    np.testing.assert_allclose(np.abs(K), 1, rtol=1e-12)
    np.testing.assert_allclose(K[0, 2], np.exp(-12j * np.pi * np.arange(16) / 16), atol=1e-12)


def test_kernel_in_float32_at_the_length_of_pathx():
    L, (h, dt) = 16_384, parameters(128, 1)
    h, dt = h.astype(np.complex64), dt[:, :1].astype(np.float32)
    K = np.asarray(quick_jit(transfer_functions, static_argnums=2)(h, dt, L))
    exact = spectra(h.astype(complex), dt.astype(float), L)
    assert (np.abs(K - exact).max(-1) < 1e-4 * np.abs(exact).max(-1)).all()


def test_gradients_are_those_of_finite_differences():
    rng = np.random.default_rng(1)
    h, dt = parameters()
    arguments = (h.real, h.imag, np.log(dt), rng.normal(size=(H, 2, 2 * L)))
    weights = rng.normal(size=(H, 2, 2 * L))
    with jax.enable_x64(True):

        def loss(re, im, log_dt, v):
            k = circular_kernel(jax.lax.complex(re, im), jnp.exp(log_dt), L)
            return jnp.sum(jnp.sin(convolve_circular(v, k)) * weights)

        gradients, loss = quick_jit(jax.grad(loss, (0, 1, 2, 3)))(*arguments), quick_jit(loss)
        for _ in range(4):
            directions = [rng.normal(size=x.shape) for x in arguments]
            up, down = ([x + e * v for x, v in zip(arguments, directions, strict=True)] for e in (1e-6, -1e-6))
            along = sum(np.sum(g * v) for g, v in zip(gradients, directions, strict=True))
            np.testing.assert_allclose(along, (loss(*up) - loss(*down)) / 2e-6, rtol=1e-6)


def made(task, **changes):
    """A small recipe of a task, and the settings of its layer."""
    recipe = RECIPES[task].model_copy(update={"d_model": H, "n_layers": 1})
    return recipe, validated(Config, {**recipe.layer, "d_state": 10, "n_ssm": 2, **changes})


def evaluated(task, u):
    """The output of a task's layer at u, its output without D by the equations, and D."""
    recipe, config = made(task)

    @quick_jit
    def run(u):
        layer = block(recipe, config, rngs=nnx.Rngs(0)).layer
        return layer(u), as_complex(layer.h), dt_of(layer.inv_dt[...], config), layer.D[...]

    y, h, dt, D = map(np.asarray, run(u))
    v = u if task == "image" else np.concatenate([u, u[::-1]])
    return y, convolved(v.transpose(1, 2, 0), h.astype(complex), dt.astype(float)).transpose(2, 0, 1), D


def test_layer_sees_a_sequence_and_its_reversal():
    u = np.random.default_rng(0).normal(size=(2 * L, 2, H)).astype(np.float32)
    y, expected, D = evaluated("image", u)
    np.testing.assert_allclose(y, expected + D[0] * u, rtol=1e-4, atol=1e-5)


def test_paired_layer_joins_them_itself():
    u = np.random.default_rng(0).normal(size=(L, 2, H)).astype(np.float32)
    y, expected, D = evaluated("listops", u)
    expected = np.concatenate([expected[:L] + D[0] * u, expected[L:][::-1] + D[1] * u], axis=-1)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


def test_network_pools_over_a_sequence_and_its_reversal():
    """The mean is over the true steps of both, 2L in all, and padding stays padding in both."""
    recipe, config = made("image")
    lengths = np.array([6, L])
    x = np.random.default_rng(0).normal(size=(L, 2, H)).astype(np.float32)
    mask = (np.arange(L)[:, None] < lengths).astype(np.float32)[..., None]
    x_both, mask_both = (np.concatenate([each, each[::-1]]) for each in (x, mask))

    @quick_jit
    def both_ways(x, x_both, mask_both):
        model = network(recipe, config, DataShape(L, 10, 1, True), rngs=nnx.Rngs(0))
        pooled = (model.blocks[0](x_both, mask_both, False, None) * mask_both).sum(0) / (2 * lengths[:, None])
        return model.classify(x, jnp.asarray(lengths), train=False, key=None), model.head(pooled)

    np.testing.assert_allclose(*both_ways(x, x_both, mask_both), rtol=1e-4, atol=1e-5)


def test_frozen_step_sizes_are_kept_but_not_trained():
    shape = DataShape(L, 10, 1, False)
    for task, trained in (("listops", False), ("pathx", False), ("image", True)):
        recipe, config = made(task)
        model = nnx.eval_shape(lambda r=recipe, c=config: network(r, c, shape, rngs=nnx.Rngs(0)))
        assert isinstance(model.blocks[0].layer.inv_dt, nnx.Param if trained else nnx.BatchStat)


def test_settings_that_do_not_fit_are_refused():
    recipe, config = made("image", n_ssm=3)
    with pytest.raises(UserError, match="n_ssm must divide"):
        block(recipe, config, rngs=nnx.Rngs(0))
    with pytest.raises(UserError, match="real_transform"):
        made("image", real_transform="best")

"""RTF: its kernels against the recurrence of its coefficients in float64, folded modulo the length."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.signal import lfilter

from lra_bench.errors import UserError
from lra_bench.models.layers import DataShape
from lra_bench.models.rtf import RTFLayer, block, network
from lra_bench.recipes.rtf import RECIPES, Config
from lra_bench.spec import validated
from lra_bench.ssm.transfer_function import rational_kernel

H = 4


def coefficients(n, S, radius, channels=2, seed=0):
    """Random numerators, and denominators with poles all over a circle: a (c, S, n), b (c, H, n), h_0 (c, H)."""
    rng = np.random.default_rng(seed)
    phases = (np.arange(n // 2) + rng.uniform(0.2, 0.8, (channels, S, n // 2))) * 2 * np.pi / n
    poles = radius * np.exp(1j * np.concatenate([phases, -phases], axis=-1))
    a = np.array([[np.poly(row)[1:].real for row in rows] for rows in poles])
    return a, rng.normal(size=(channels, H, n)), rng.normal(size=(channels, H))


def folded(a, b, h_0, L, turns):
    """The impulse response of the recurrence, over so many times the length, folded to it."""
    impulse = np.zeros(L * turns)
    impulse[0] = 1
    k = np.zeros((len(b), H, L))
    for c in range(len(b)):
        for h in range(H):
            denominator = np.concatenate([[1], a[c, h * len(a[c]) // H]])
            k[c, h] = lfilter(np.concatenate([[0], b[c, h]]), denominator, impulse).reshape(turns, L).sum(0)
    k[..., 0] += h_0
    return k


@pytest.mark.parametrize(("L", "n", "S"), [(2, 1, 1), (7, 6, 4), (16, 4, 2), (45, 8, 1)])
def test_kernel_is_the_folded_impulse_response(L, n, S):
    a, b, h_0 = coefficients(n + n % 2, S, 0.8)
    a, b = a[..., :n] * (n % 2 == 0), b[..., :n]  # a single state is tested without a pole
    N = L + L % 2
    with jax.enable_x64(True):
        kernels = rational_kernel(*map(jnp.asarray, (a, b, h_0)), L)
    np.testing.assert_allclose(kernels, folded(a, b, h_0, N, 200)[..., :L], rtol=1e-9, atol=1e-9)


def test_kernel_in_float32_at_the_length_of_pathx():
    L, (a, b, h_0) = 16_384, coefficients(8, H, 0.999)
    a, b, h_0 = (x.astype(np.float32) for x in (a, b, h_0))
    exact = folded(*(x.astype(np.float64) for x in (a, b, h_0)), L, 3)
    error = np.abs(np.asarray(jax.jit(rational_kernel, static_argnums=3)(a, b, h_0, L)) - exact)
    assert (error.max(-1) < 1e-4 * np.abs(exact).max(-1)).all()


def test_gradients_are_those_of_finite_differences():
    rng = np.random.default_rng(1)
    arguments, weights = coefficients(4, 2, 0.9), rng.normal(size=(2, H, 24))
    with jax.enable_x64(True):

        @jax.jit
        def loss(*arguments):
            return jnp.sum(jnp.sin(0.1 * rational_kernel(*arguments, 24)) * weights)

        gradients = jax.grad(loss, (0, 1, 2))(*map(jnp.asarray, arguments))
        for _ in range(4):
            directions = [rng.normal(size=x.shape) for x in arguments]
            up, down = ([x + e * v for x, v in zip(arguments, directions, strict=True)] for e in (1e-6, -1e-6))
            along = sum(np.sum(g * v) for g, v in zip(gradients, directions, strict=True))
            np.testing.assert_allclose(along, (loss(*up) - loss(*down)) / 2e-6, rtol=1e-6)


def layer_of(bidirectional=False, L=24, **changes):
    """A layer with random poles that decay slowly enough to be folded."""
    recipe = RECIPES["listops"].model_copy(update={"d_model": H, "bidirectional": bidirectional})
    config = validated(Config, {**recipe.layer, "d_state": 4, "num_a": 2, **changes})
    layer = RTFLayer(recipe, config, L, rngs=nnx.Rngs(0))
    a, b, _ = coefficients(4, 2, 0.95, 2 if bidirectional else 1)
    layer.a[...], layer.b[...] = jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32)
    layer.eval()
    return layer


def test_recurrence_has_the_folded_kernel():
    """At every lag up to the length: also at 0, where the folded response adds to h_0."""
    layer = layer_of()
    impulse = jnp.zeros((24, 1, H)).at[0].set(1.0)
    y = jax.jit(lambda u: jax.lax.scan(layer.step, layer.initial_state(1), u)[1])(impulse)
    np.testing.assert_allclose(y[:, 0].T, layer.kernel()[0], rtol=1e-3, atol=1e-3)


def test_both_directions_are_convolved():
    layer = layer_of(bidirectional=True)
    u = np.random.default_rng(0).normal(size=(24, 1, H))
    past, future = np.asarray(layer.kernel(), np.float64)
    two_sided = np.concatenate([future[:, ::-1], past], axis=-1)  # lag j at index L + j
    expected = [sum(two_sided[:, 24 + t - s] * u[s, 0] for s in range(24)) for t in range(24)]
    np.testing.assert_allclose(jax.jit(layer)(jnp.asarray(u, jnp.float32))[:, 0], expected, rtol=1e-3, atol=1e-3)


def test_what_follows_gelu_is_dropped_at_each_step_at_the_rate_of_the_layer():
    """With an identity for the value and an open gate, the block's output tells which numbers were dropped."""
    recipe = RECIPES["image"].model_copy(update={"d_model": H, "prenorm": True, "residual": False, "dropout": 0.0})
    config = validated(Config, {**recipe.layer, "d_state": 4, "layer_dropout": 0.5})
    made = block(recipe, config, 24, rngs=nnx.Rngs(0))
    made.gate.linear.kernel[...] = jnp.concatenate([jnp.eye(H), jnp.zeros((H, H))], axis=1)
    made.gate.linear.bias[...] = jnp.concatenate([jnp.zeros(H), jnp.full(H, 50.0)])
    x = jnp.asarray(np.random.default_rng(0).normal(size=(24, 8, H)), jnp.float32)
    assert made.draws_each_step
    dropped = np.asarray(made(x, None, True, None, jax.random.key(0)) / made(x, None, True, None))
    np.testing.assert_allclose(dropped, 2.0 * np.round(dropped / 2), atol=1e-4)
    kept = np.round(dropped / 2)
    assert 0.4 < kept.mean() < 0.6
    assert not (kept == kept[:1]).all()


def test_a_network_draws_the_dropout_after_gelu():
    recipe = RECIPES["image"].model_copy(update={"d_model": H, "n_layers": 1, "dropout": 0.0})
    inputs, lengths = jnp.full((2, 24), 200, jnp.uint8), jnp.full(2, 24, jnp.int32)
    for rate in (0.0, 0.5):
        config = validated(Config, {**recipe.layer, "d_state": 4, "layer_dropout": rate})
        made = network(recipe, config, DataShape(24, 3, 1, False), rngs=nnx.Rngs(0))
        plain, *drawn = (
            np.asarray(made(inputs, lengths, train=True, key=key))
            for key in (None, jax.random.key(0), jax.random.key(1))
        )
        assert [np.array_equal(plain, logits) for logits in drawn] == [rate == 0.0] * 2
        assert np.array_equal(*drawn) == (rate == 0.0)


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="num_a must divide"):
        layer_of(num_a=3)
    with pytest.raises(UserError, match="d_state must be less than the length 4"):
        layer_of(L=4)

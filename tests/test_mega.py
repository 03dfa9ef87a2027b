"""MEGA: its moving average, its attention and a whole block against their equations in float64, and what is refused."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lra_bench.errors import UserError
from lra_bench.models import chunk_attention
from lra_bench.models.chunk_attention import attend_in_chunks, laplace
from lra_bench.models.classifier import count_parameters
from lra_bench.models.layers import DataShape
from lra_bench.models.mega import MegaBlock, MovingAverage
from lra_bench.models.network import build
from lra_bench.recipes import mega, mega_chunk, steps_per_epoch
from lra_bench.registry import task_module, task_names
from lra_bench.spec import validated
from lra_bench.ssm.ema import damped_kernels
from tests.test_recipes import abstract

H, N = 3, 4
SMALL = {"hidden_dim": 5, "z_dim": 4, "ema_dim": N, "truncation": 6, "chunk_size": None, "attention": "softmax"}


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def silu(x):
    return x * sigmoid(x)


def averages(channels=2, slow=0.0, seed=0):
    """δ, α, β and γ of random averages (c, H, n), of which a negative `slow` makes long memories."""
    rng = np.random.default_rng(seed)
    delta, alpha, beta, gamma = rng.normal(size=(4, channels, H, N))
    return delta + slow, alpha, beta, gamma


def recurrence(u, parameters, lags=None):
    """The moving average y (L, H) of u (L, H) by its definition, for δ, α, β and γ (H, n); cut off after so many
    lags."""
    delta, alpha, beta, gamma = parameters
    p = sigmoid(delta)
    q = 1.0 - p * sigmoid(alpha)
    y = np.zeros(u.shape)
    for t in range(len(u)):
        x = np.zeros(p.shape)
        for s in range(0 if lags is None else max(0, t - lags + 1), t + 1):
            x = q * x + p * beta * u[s][:, None]
        y[t] = (gamma * x).sum(-1) / math.sqrt(N)
    return y


def test_kernel_is_the_impulse_response_of_the_recurrence():
    parameters, impulse = averages(), np.zeros((12, H))
    impulse[0] = 1.0
    with jax.enable_x64(True):
        kernels = damped_kernels(*map(jnp.asarray, parameters), 12)
    for c in range(2):
        expected = recurrence(impulse, [x[c] for x in parameters])
        np.testing.assert_allclose(kernels[c].T, expected, rtol=1e-10, atol=1e-12)


def test_kernel_in_float32_at_the_length_of_pathx():
    L, parameters = 16_384, [x.astype(np.float32) for x in averages(slow=-7.0)]
    delta, alpha, beta, gamma = (x.astype(np.float64) for x in parameters)
    p = sigmoid(delta)
    powers = np.exp(np.log1p(-p * sigmoid(alpha))[..., None] * np.arange(L))
    exact = np.einsum("chn,chnl->chl", p * beta * gamma, powers) / math.sqrt(N)
    error = np.abs(np.asarray(jax.jit(damped_kernels, static_argnums=4)(*parameters, L)) - exact)
    assert (error.max(-1) < 1e-4 * np.abs(exact).max(-1)).all()


def assert_gradients_are_finite_differences(loss, arguments, seed=0):
    """`loss` is a function of float64 arrays. Both are compared along random directions."""
    rng = np.random.default_rng(seed)
    gradients = jax.grad(loss, tuple(range(len(arguments))))(*map(jnp.asarray, arguments))
    for _ in range(3):
        directions = [rng.normal(size=x.shape) for x in arguments]
        up, down = ([x + e * v for x, v in zip(arguments, directions, strict=True)] for e in (1e-6, -1e-6))
        along = sum(np.sum(g * v) for g, v in zip(gradients, directions, strict=True))
        np.testing.assert_allclose(along, (loss(*up) - loss(*down)) / 2e-6, rtol=1e-6)


def test_gradients_of_the_kernel_are_those_of_finite_differences():
    weights = np.random.default_rng(1).normal(size=(2, H, 20))
    with jax.enable_x64(True):
        loss = jax.jit(lambda *x: jnp.sum(jnp.sin(damped_kernels(*x, 20)) * weights))
        assert_gradients_are_finite_differences(loss, averages())


def config_of(**changes):
    return validated(mega.Config, {**SMALL, **changes})


@pytest.mark.parametrize("truncation", [5, 30])
def test_moving_average_looks_both_ways_and_meets_now_twice(truncation):
    """Padding counts as zeros, and what lies further away than the truncation is not seen."""
    layer, L = MovingAverage(H, config_of(truncation=truncation), rngs=nnx.Rngs(0)), 12
    u = np.random.default_rng(0).normal(size=(L, 2, H)).astype(np.float32)
    real = np.arange(L)[:, None] < np.array([L, 7])
    y = layer(jnp.asarray(u), jnp.asarray(real))
    parameters = [np.asarray(x[...], np.float64) for x in (layer.delta, layer.alpha, layer.beta, layer.gamma)]
    for b in range(2):
        masked = u[:, b] * real[:, b : b + 1]
        past = recurrence(masked, [x[0] for x in parameters], truncation)
        future = recurrence(masked[::-1], [x[1] for x in parameters], truncation)[::-1]
        expected = silu(past + future + np.asarray(layer.omega[...]) * u[:, b])
        np.testing.assert_allclose(y[real[:, b], b], expected[real[:, b]], rtol=1e-4, atol=1e-5)


def attention(q, k, v, bias, real, function, size):
    """Attention by its definition for one document, q and k (L, z), v (L, V), in chunks of so many positions."""
    y, C = np.zeros(v.shape), (len(bias) + 1) // 2
    for t in np.flatnonzero(real):
        seen = [s for s in np.flatnonzero(real) if s // size == t // size]
        lags = np.array([bias[s - t + C - 1] for s in seen])
        scores = k[seen] @ q[t]
        if function == "softmax":
            weights = np.exp(scores / math.sqrt(q.shape[1]) + lags)
            weights /= weights.sum()
        else:
            scores = (scores / len(seen) + lags - math.sqrt(0.5)) / (math.sqrt(0.25 / math.pi) * math.sqrt(2))
            weights = np.array([0.5 * (1 + math.erf(s)) for s in scores])
        y[t] = weights @ v[seen]
    return y


@pytest.mark.parametrize("function", ["softmax", "laplace"])
@pytest.mark.parametrize(("C", "L"), [(4, 12), (4, 10), (16, 11), (11, 11)])
def test_attention_equals_its_definition(C, L, function, monkeypatch):
    """Chunks that divide the length, that do not, one that is longer than the length, and full attention; the queries
    in groups that do not divide a chunk."""
    monkeypatch.setattr(chunk_attention, "QUERIES_AT_ONCE", 3)
    rng = np.random.default_rng(L)
    q, k, v, bias = (rng.normal(size=shape) for shape in ((L, 2, 3), (L, 2, 3), (L, 2, 5), (2 * C - 1,)))
    for real in (None, np.arange(L)[:, None] < np.array([L, 6])):
        with jax.enable_x64(True):
            masked = None if real is None else jnp.asarray(real)
            y = attend_in_chunks(*map(jnp.asarray, (q, k, v, bias)), masked, function)
        for b in range(2):
            own = np.ones(L, bool) if real is None else real[:, b]
            expected = attention(q[:, b], k[:, b], v[:, b], bias, own, function, min(C, L))
            np.testing.assert_allclose(y[own, b], expected[own], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("function", ["softmax", "laplace"])
def test_gradients_of_attention_are_those_of_finite_differences(function, monkeypatch):
    """Through queries in groups, masked keys, and a chunk of padding alone."""
    monkeypatch.setattr(chunk_attention, "QUERIES_AT_ONCE", 3)
    rng = np.random.default_rng(0)
    arguments = [rng.normal(size=shape) for shape in ((10, 2, 3), (10, 2, 3), (10, 2, 2), (9,))]
    real = np.arange(10)[:, None] < np.array([10, 4])
    weights = rng.normal(size=(10, 2, 2)) * real[..., None]
    with jax.enable_x64(True):
        loss = jax.jit(lambda *x: jnp.sum(attend_in_chunks(*x, jnp.asarray(real), function) * weights))
        assert_gradients_are_finite_differences(loss, arguments)


def test_laplace_function_is_the_published_one():
    """√½ and √(1/4π) are where it and the square of a ReLU meet at √2: value ½ and slope √2 at √½."""
    with jax.enable_x64(True):
        value, slope = jax.value_and_grad(laplace)(jnp.asarray(math.sqrt(0.5)))
    assert float(value) == pytest.approx(0.5, abs=1e-12)
    assert float(slope) == pytest.approx(math.sqrt(2.0), rel=1e-12)


def block_of(recipe, **changes):
    config = config_of(**changes)
    recipe = recipe.model_copy(update={"d_model": H, "dropout": 0.0})
    return MegaBlock(recipe, config, 10, rngs=nnx.Rngs(0))


def normed(x, norm):
    if norm == "scale":
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5)
    if norm == "batch":  # in evaluation, with its first statistics
        return x / math.sqrt(1 + 1e-5)
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


def block_by_its_equations(block, x, real, norm):
    """A block for one document x (L, H), in numpy."""
    leaves = nnx.to_flat_state(nnx.state(block))
    p = {".".join(map(str, path)): np.asarray(leaf[...], np.float64) for path, leaf in leaves}
    config, prenorm = block.config, block.prenorm

    def dense(name, y):
        return y @ p[f"{name}.kernel"] + p[f"{name}.bias"]

    y = normed(x, norm) if prenorm else x
    v = silu(dense("value", y))
    masked, averages = y * real[:, None], [p[f"average.{name}"] for name in ("delta", "alpha", "beta", "gamma")]
    past = recurrence(masked, [each[0] for each in averages], config.truncation)
    future = recurrence(masked[::-1], [each[1] for each in averages], config.truncation)[::-1]
    m = silu(past + future + p["average.omega"] * y)
    z, V = config.z_dim, config.hidden_dim
    u, zr, hx = np.split(dense("gates", m), [H, H + z + V], axis=-1)
    zeta, r = np.split(silu(zr), [z], axis=-1)
    q, k = (zeta * p["gamma"][i] + p["beta"][i] for i in range(2))
    seen = attention(q, k, v, p["bias"], real, config.attention, min(config.chunk_size or len(x), len(x)))
    h = silu(hx + dense("output", seen * r))
    y = x + sigmoid(u) * (h - x)
    y = y if prenorm else normed(y, norm)
    y = y + dense("back", silu(dense("hidden", normed(y, norm) if prenorm else y)))
    return y if prenorm else normed(y, norm)


@pytest.mark.parametrize(("task", "chunk_size"), [("listops", None), ("text", 4), ("image", None), ("pathfinder", 4)])
def test_block_equals_its_equations(task, chunk_size):
    recipe = mega.RECIPES[task]
    block = block_of(recipe, chunk_size=chunk_size, attention=recipe.layer["attention"])
    # Weights large enough that every part of the block matters.
    large = nnx.state(block, lambda path, _: path[-1] in ("kernel", "gamma", "bias"))
    nnx.update(block, jax.tree.map(lambda x: 10 * x, large))
    x = np.random.default_rng(0).normal(size=(10, 2, H)).astype(np.float32)
    real = np.ones((10, 2), bool) if recipe.pixels else np.arange(10)[:, None] < np.array([10, 7])
    y = jax.jit(lambda x: block(x, None if recipe.pixels else jnp.asarray(real), False, None))(x)
    for b in range(2):
        expected = block_by_its_equations(block, x[:, b].astype(np.float64), real[:, b], recipe.norm)
        np.testing.assert_allclose(y[real[:, b], b], expected[real[:, b]], rtol=1e-3, atol=1e-4)


BACKBONES = (0.59, 0.92, 1.39, 2.78, 1.35, 0.37)
"""The millions of parameters of MEGA's blocks for the six tasks, from the shapes of its code."""


def test_blocks_have_the_parameters_of_the_code():
    for task, millions in zip(task_names(), BACKBONES, strict=True):
        blocks = abstract("mega", task).blocks
        assert round(len(blocks) * count_parameters(blocks[0]) / 1e6, 2) == pytest.approx(millions, abs=0.011)
        recipe = mega_chunk.RECIPES[task]
        fewer = 2 * (task_module(task).TASK.length - recipe.layer["chunk_size"])
        assert count_parameters(blocks[0]) - count_parameters(abstract("mega_chunk", task).blocks[0]) == fewer


def test_schedules_count_the_steps_of_the_code():
    steps = (90_000, 25_000, 91_960, 180_000, 250_000, 125_000)
    for task, count in zip(task_names(), steps, strict=True):
        recipe = mega.RECIPES[task]
        assert recipe.epochs * steps_per_epoch(task, recipe.batch_size) == pytest.approx(count)
        assert recipe == mega_chunk.RECIPES[task].model_copy(
            update={"layer": recipe.layer, "published": recipe.published}
        )


@pytest.mark.parametrize(("setting", "value"), [("bidirectional", False), ("pooling", "last")])
def test_settings_it_has_no_form_of_are_refused(setting, value):
    recipe = mega.RECIPES["listops"].model_copy(update={setting: value})
    with pytest.raises(UserError, match=setting):
        nnx.eval_shape(lambda: build("mega", recipe, DataShape(12, 3, 1, True), rngs=nnx.Rngs(0)))

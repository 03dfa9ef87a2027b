"""MEGA: its moving average, its attention and a whole block against their equations in float64, and what is refused."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lra_bench.errors import UserError
from lra_bench.models import chunk_attention
from lra_bench.models.chunk_attention import attend_in_chunks, laplace
from lra_bench.models.layers import DataShape
from lra_bench.models.mega import MegaBlock
from lra_bench.models.mega import network as mega_network
from lra_bench.models.network import build
from lra_bench.recipes import mega, mega_chunk, steps_per_epoch
from lra_bench.registry import task_module, task_names
from lra_bench.spec import validated
from lra_bench.ssm.ema import damped_kernels
from tests.test_recipes import COUNTS

quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

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


def test_kernel_in_float32_at_the_length_of_pathx():
    L, parameters = 16_384, [x.astype(np.float32) for x in averages(slow=-7.0)]
    delta, alpha, beta, gamma = (x.astype(np.float64) for x in parameters)
    p = sigmoid(delta)
    powers = np.exp(np.log1p(-p * sigmoid(alpha))[..., None] * np.arange(L))
    exact = np.einsum("chn,chnl->chl", p * beta * gamma, powers) / math.sqrt(N)
    error = np.abs(np.asarray(jax.jit(damped_kernels, static_argnums=4)(*parameters, L)) - exact)
    assert (error.max(-1) < 1e-4 * np.abs(exact).max(-1)).all()


def value_of(function, weights, arguments):
    """The function's value at float64 arrays; its sum with these weights has the gradient of finite differences."""

    @quick_jit
    def weighted(arguments):
        def loss(arguments):
            y = function(*arguments)
            return jnp.sum(y * weights), y

        return jax.value_and_grad(loss, has_aux=True)(arguments)

    rng = np.random.default_rng(0)
    (_, y), gradients = weighted([jnp.asarray(x) for x in arguments])
    for _ in range(3):
        directions = [rng.normal(size=x.shape) for x in arguments]
        up, down = ([x + e * v for x, v in zip(arguments, directions, strict=True)] for e in (1e-6, -1e-6))
        along = sum(np.sum(g * v) for g, v in zip(gradients, directions, strict=True))
        np.testing.assert_allclose(along, (weighted(up)[0][0] - weighted(down)[0][0]) / 2e-6, rtol=1e-6)
    return np.asarray(y)


def test_kernel_is_the_impulse_response_of_the_recurrence():
    """And its gradient is that of finite differences."""
    parameters, impulse = averages(), np.zeros((20, H))
    impulse[0] = 1.0
    with jax.enable_x64(True):
        weights = np.random.default_rng(1).normal(size=(2, H, 20))
        kernels = value_of(lambda *x: damped_kernels(*x, 20), weights, parameters)
    for c in range(2):
        expected = recurrence(impulse, [x[c] for x in parameters])
        np.testing.assert_allclose(kernels[c].T, expected, rtol=1e-10, atol=1e-12)


def config_of(**changes):
    return validated(mega.Config, {**SMALL, **changes})


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
@pytest.mark.parametrize(("C", "L"), [(4, 10), (16, 11)])
def test_attention_equals_its_definition(C, L, function, monkeypatch):
    """Chunks that do not divide the length, and one that is longer; the queries in groups that do not divide a chunk.

    The gradient is that of finite differences, also beside a chunk of padding alone.
    """
    monkeypatch.setattr(chunk_attention, "QUERIES_AT_ONCE", 3)
    rng = np.random.default_rng(L)
    q, k, v, bias = (rng.normal(size=shape) for shape in ((L, 2, 3), (L, 2, 3), (L, 2, 5), (2 * C - 1,)))
    for real in (None, np.arange(L)[:, None] < np.array([L, 4])):
        own = np.ones((L, 2), bool) if real is None else real
        with jax.enable_x64(True):
            masked = None if real is None else jnp.asarray(real)
            weights = rng.normal(size=v.shape) * own[..., None]
            y = value_of(lambda *x, m=masked: attend_in_chunks(*x, m, function), weights, (q, k, v, bias))
        for b in range(2):
            expected = attention(q[:, b], k[:, b], v[:, b], bias, own[:, b], function, min(C, L))
            np.testing.assert_allclose(y[own[:, b], b], expected[own[:, b]], rtol=1e-9, atol=1e-9)


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


@pytest.mark.parametrize(("task", "chunk_size"), [("listops", None), ("text", 4), ("pathfinder", 4)])
def test_block_equals_its_equations(task, chunk_size):
    """Every norm, both functions, full attention and chunks, and averages that are truncated or not."""
    recipe = mega.RECIPES[task]
    truncation = 30 if chunk_size is None else 6
    block = block_of(recipe, chunk_size=chunk_size, attention=recipe.layer["attention"], truncation=truncation)
    # Weights large enough that every part of the block matters.
    large = nnx.state(block, lambda path, _: path[-1] in ("kernel", "gamma", "bias"))
    nnx.update(block, jax.tree.map(lambda x: 10 * x, large))
    x = np.random.default_rng(0).normal(size=(10, 2, H)).astype(np.float32)
    real = np.ones((10, 2), bool) if recipe.pixels else np.arange(10)[:, None] < np.array([10, 7])
    y = quick_jit(lambda x: block(x, None if recipe.pixels else jnp.asarray(real), False, None))(x)
    for b in range(2):
        expected = block_by_its_equations(block, x[:, b].astype(np.float64), real[:, b], recipe.norm)
        np.testing.assert_allclose(y[real[:, b], b], expected[real[:, b]], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("task", ["retrieval", "image"])
def test_network_equals_its_equations(task):
    """Around its block: the embedding of tokens or pixels, the last norm where norms come first, pooling, the head."""
    pairs, recipe = task == "retrieval", mega.RECIPES[task]
    config = config_of(attention=recipe.layer["attention"])
    small = recipe.model_copy(update={"n_layers": 1, "d_model": H, "dropout": 0.0})
    network = mega_network(small, config, DataShape(10, 3, 2 if pairs else 1, pairs), rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, 98 if pairs else 256, (2, 2, 10) if pairs else (2, 10)).astype(np.uint8)
    lengths = np.array([[10, 7], [4, 10]]) if pairs else np.array([10, 10])
    logits = quick_jit(lambda: network(jnp.asarray(inputs), jnp.asarray(lengths), train=False, key=None))()

    def value(variable):
        return np.asarray(variable[...], np.float64)

    def features(document, length):
        real, embedding = np.arange(10) < length, network.embedding
        if pairs:
            x = value(embedding.table)[document]
        else:
            x = ((document - 122.6) / 61.0)[:, None] * value(embedding.scale) + value(embedding.shift)
        y = block_by_its_equations(network.blocks[0], x, real, recipe.norm)
        return (normed(y, recipe.norm) if recipe.prenorm else y)[real].mean(0)

    for example, of_each, logit in zip(inputs.reshape(2, -1, 10), lengths.reshape(2, -1), logits, strict=True):
        pooled = np.concatenate([features(*each) for each in zip(example, of_each, strict=True)])
        hidden = pooled @ value(network.head.hidden.kernel) + value(network.head.hidden.bias)
        gelu = hidden * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2))) / 2
        np.testing.assert_allclose(logit, gelu @ value(network.head.output.kernel), rtol=1e-3, atol=1e-5)


BACKBONES = (0.59, 0.92, 1.39, 2.78, 1.35, 0.37)
"""The millions of parameters of MEGA's blocks for the six tasks, from the shapes of its code."""


def test_blocks_have_the_parameters_of_the_code():
    """Fewer than in COUNTS by the embedding and the head. In chunks, there are fewer lags."""
    for task, millions, count, in_chunks in zip(
        task_names(), BACKBONES, COUNTS["mega"], COUNTS["mega_chunk"], strict=True
    ):
        recipe, described = mega_chunk.RECIPES[task], task_module(task).TASK
        H, V = recipe.d_model, recipe.layer["hidden_dim"]
        outside = (recipe.embedding or 2) * H + V * (H * described.documents + 1 + described.classes)
        assert (count - outside) / 1e6 == pytest.approx(millions, abs=0.011)
        assert count - in_chunks == recipe.n_layers * 2 * (described.length - recipe.layer["chunk_size"])


def test_schedules_count_the_steps_of_the_code():
    steps = (90_000, 25_000, 91_960, 180_000, 250_000, 125_000)
    for task, count in zip(task_names(), steps, strict=True):
        recipe = mega.RECIPES[task]
        assert recipe.epochs * steps_per_epoch(task, recipe.batch_size) == pytest.approx(count)
        assert recipe == mega_chunk.RECIPES[task].model_copy(
            update={"layer": recipe.layer, "published": recipe.published}
        )


@pytest.mark.parametrize(("setting", "value"), [("bidirectional", False), ("pooling", "last"), ("pixels", "color")])
def test_settings_it_has_no_form_of_are_refused(setting, value):
    recipe = mega.RECIPES["image"].model_copy(update={setting: value})
    with pytest.raises(UserError, match=setting):
        nnx.eval_shape(lambda: build("mega", recipe, DataShape(12, 3, 1, True), rngs=nnx.Rngs(0)))

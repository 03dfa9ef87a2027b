"""Layers of the S4 family in float64, and what all of them must hold."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx


def in_float64(layer):
    """The layer with every parameter converted; under `jax.enable_x64(True)`."""
    nnx.update(layer, jax.tree.map(lambda x: x.astype(jnp.float64), nnx.state(layer)))
    return layer


def stepwise(layer, u):
    """y (L, b, H) by one step after another."""

    @jax.jit
    def run(u):
        return jax.lax.scan(layer.step, layer.initial_state(u.shape[1]), u)[1]

    return np.asarray(run(u))


def relative(actual, expected):
    return float(np.abs(np.asarray(actual) - expected).max() / np.abs(expected).max())


def draw(*shape):
    return np.random.default_rng(0).normal(size=shape)


def assert_steps_equal_the_convolution(make_layer, L=48):
    """In float64 to rounding; in float32 to 1e-5."""
    u = draw(L, 2, 4)
    layer = make_layer()
    y = np.asarray(jax.jit(layer)(jnp.float32(u)))
    assert relative(stepwise(layer, jnp.float32(u)), y) < 1e-5
    with jax.enable_x64(True):
        layer = in_float64(layer)
        exact = np.asarray(jax.jit(layer)(jnp.asarray(u)))
        assert relative(stepwise(layer, jnp.asarray(u)), exact) < 1e-10
    assert relative(y, exact) < 1e-5


def assert_sees(layer, past, future):
    """Which inputs the output at t = 8 of 16 depends on, by its gradient."""
    u = jnp.float32(draw(16, 1, 4))
    seen = np.abs(jax.jit(jax.grad(lambda u: layer(u)[8].sum()))(u)).max((1, 2)) > 1e-6
    assert seen[8]
    assert seen[:8].all() == past
    assert seen[9:].any() == seen[9:].all() == future

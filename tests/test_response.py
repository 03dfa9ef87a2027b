"""What a layer does to waves, against the layer itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lra_bench.models import response, s5
from tests.recipes import s5_config, s5_recipe
from tests.test_s4d import s4d_layer

L = 16
LAYERS = {
    "s4d": (2 * L, lambda: s4d_layer(bidirectional=True, H=2, n_ssm=2)),
    "s5": (2 * L - 1, lambda: s5.S5Layer(s5_recipe(d_model=2, bidirectional=True), s5_config(), rngs=nnx.Rngs(0))),
}
"""Layers, and the steps in which an impulse at the middle reaches as far as data of length L lets it."""


@pytest.mark.parametrize("name", LAYERS)
def test_gain_is_that_of_the_layers_own_impulse_response(name):
    """Each row of the batch has the impulse on a feature of its own."""
    steps, make = LAYERS[name]
    omega, lags = np.array([0.1, 1.0, 7.0]), np.arange(steps) - steps // 2
    u = np.zeros((steps, 2, 2))
    u[steps // 2] = np.eye(2)
    with jax.enable_x64(True):
        layer = response.in_float64(make())
        y = np.asarray(jax.jit(layer)(jnp.asarray(u)))
        dt = np.asarray(response.input_steps(layer, 2))
        waves = np.exp(-1j * omega[:, None, None] * lags[:, None] * dt)  # of the input's own time: (F, steps, H)
        G = np.einsum("tho,fth->fho", y, waves)
        expected = np.sqrt((np.abs(G) ** 2).sum((1, 2)) / 2)
        np.testing.assert_allclose(response.gain(layer, L, omega), expected, rtol=1e-8)

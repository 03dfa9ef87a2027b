"""LinOSS: both forms of the recurrence and the layer against the paper's 2×2 matrices in float64."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lra_bench.models.layers import as_complex
from lra_bench.models.linoss import LinOSSLayer
from lra_bench.recipes.linoss import RECIPES, Config
from lra_bench.spec import validated
from lra_bench.ssm.oracle import oscillator_oracle
from lra_bench.ssm.oscillators import recurrence

H, P = 3, 5


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def oscillators(dtype=np.float64, P=P):
    """Damped and undamped ones; the first has no spring, and so no diagonal form."""
    rng = np.random.default_rng(0)
    A, dt = np.linspace(0, 2, P), rng.uniform(0.05, 0.8, P)
    S = np.where(np.arange(P) % 2, 1.0, 1 / (1 + dt * dt * A))
    return tuple(jnp.asarray(x, dtype) for x in (S, S * dt * A, np.where(np.arange(P) == 2, 0.9, 1.0), dt))


def plain(system, b, reverse):
    """The recurrence by its definition, one step after another in numpy."""
    a, k, c, d = (np.asarray(x, np.float64) for x in system)
    b = np.asarray(b, np.float64)[:: -1 if reverse else 1]
    z = y = np.zeros((b.shape[1], len(a)))
    states = []
    for b_t in b:
        z, y = a * z - k * y + b_t[:, : len(a)], y
        y = c * y + d * z + b_t[:, len(a) :]
        states.append(np.concatenate([z, y], axis=-1))
    return np.stack(states)[:: -1 if reverse else 1]


def relative(a, b):
    return np.linalg.norm(np.asarray(a, np.float64) - b) / np.linalg.norm(b)


@pytest.mark.parametrize("form", ["sequential", "chunked"])
@pytest.mark.parametrize("L", [1, 17, 300])
def test_both_forms_are_the_definition_in_both_directions(float64, form, L):
    b = np.random.default_rng(L).normal(size=(L, 2, 2 * P))
    for reverse in (False, True):
        states = recurrence(oscillators(), jnp.asarray(b), reverse, form)
        assert relative(states, plain(oscillators(), b, reverse)) < 1e-12


@pytest.mark.parametrize("form", ["sequential", "chunked"])
def test_gradients_are_those_of_finite_differences(float64, form):
    rng = np.random.default_rng(1)
    b, weights = rng.normal(size=(2, 40, 2, 2 * P))

    @jax.jit
    def loss(system, b):
        states = [recurrence(system, b, reverse, form) for reverse in (False, True)]
        return sum(jnp.sum(jnp.sin(0.02 * x) * weights) for x in states)

    arguments = oscillators(), jnp.asarray(b)
    gradients = jax.grad(loss, (0, 1))(*arguments)
    for _ in range(4):
        direction = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), arguments)
        up, down = (jax.tree.map(lambda x, v, e=e: x + e * v, arguments, direction) for e in (1e-6, -1e-6))
        slope = (loss(*up) - loss(*down)) / 2e-6
        along = sum(jnp.sum(g * v) for g, v in zip(jax.tree.leaves(gradients), jax.tree.leaves(direction), strict=True))
        np.testing.assert_allclose(along, slope, rtol=1e-6)


@cache
def initial(discretization):
    """A bidirectional layer as shapes, and its initial parameters, from one compiled program."""
    recipe = RECIPES["listops"].model_copy(update={"d_model": H})
    config = validated(Config, {**recipe.layer, "d_state": 16, "discretization": discretization})

    def made():
        return LinOSSLayer(recipe, config, rngs=nnx.Rngs(0))

    return nnx.eval_shape(made), jax.jit(lambda: nnx.state(made()))()


def layer_of(discretization):
    layer, state = initial(discretization)
    return nnx.merge(nnx.graphdef(layer), state, copy=True)


def exact(layer, discretization, u):
    """The oracle's output for the layer's parameters, in float64."""
    with jax.enable_x64(True):
        a, s, D, u = (np.asarray(x[...], np.float64) for x in (layer.a, layer.s, layer.D, u))
        B, C, C_reverse = (np.asarray(as_complex(x), complex) for x in (layer.B, layer.C, layer.C_reverse))
        system = np.maximum(a, 0), 1 / (1 + np.exp(-s)), B, C, C_reverse, u
        return (
            np.asarray(jax.jit(oscillator_oracle, static_argnums=0)(discretization, *map(jnp.asarray, system))) + D * u
        )


@pytest.mark.parametrize("discretization", ["im", "imex"])
def test_layer_is_the_papers(discretization):
    layer = layer_of(discretization)
    layer.a[...] = layer.a[...].at[0].set(-0.5)  # the relu makes this one an integrator, without a diagonal form
    u = jax.random.normal(jax.random.key(1), (60, 2, H))
    assert relative(jax.jit(layer)(u), exact(layer, discretization, u)) < 1e-5


@pytest.mark.parametrize("discretization", ["im", "imex"])
def test_layer_in_float32_at_the_length_of_pathx(discretization):
    layer = layer_of(discretization)
    u = jax.random.normal(jax.random.key(1), (16_384, 1, H))
    assert relative(jax.jit(layer)(u), exact(layer, discretization, u)) < 1e-4


@pytest.mark.parametrize("form", ["sequential", "chunked"])
def test_recurrence_in_float32_at_the_length_of_pathx(form):
    system = oscillators(np.float32)
    b = np.random.default_rng(2).normal(size=(16_384, 1, 2 * P)).astype(np.float32)
    states = jax.jit(recurrence, static_argnums=(2, 3))(system, jnp.asarray(b), False, form)
    error = np.abs(states - plain(system, b, False)).max((0, 1)) / np.abs(plain(system, b, False)).max((0, 1))
    assert error.max() < 1e-4


def test_im_loses_energy_and_imex_keeps_it():
    """After a push, the amplitude over the first and the last thousand of 4,000 steps."""
    for discretization, kept in (("im", False), ("imex", True)):
        system, _ = layer_of(discretization).discretized()
        positions = np.abs(jax.jit(recurrence)(system, jnp.zeros((4_000, 1, 64)).at[0].set(1.0))[:, 0, 32:])
        share = positions[-1_000:].max(0) / positions[:1_000].max(0)
        assert (share > 0.9).all() if kept else (share < 0.1).all()

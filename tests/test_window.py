"""State spaces and attention cut to a window, against their definition, and models against themselves whole."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lra_bench.errors import UserError
from lra_bench.models.attention import attend, attend_near
from lra_bench.models.window import set_window
from lra_bench.ssm import oscillators, scan
from lra_bench.ssm.window import cut, windowed_states
from tests.test_contract import BATCH, SHAPE, abstract, every_model, examples, network, quick_jit

L = 13


def random(*shape):
    """The same numbers whichever tests ran before."""
    return np.random.default_rng(0).normal(size=shape)


def summed(step, b, window, reverse):
    """By the definition: each state from rest at the first input that it remembers. step(x, b_t) is the next state."""
    order = b[::-1] if reverse else b
    states = []
    for t in range(len(order)):
        x = np.zeros(order.shape[1:])
        for each in order[max(0, t - window + 1) : t + 1]:
            x = step(x, each)
        states.append(x)
    return np.stack(states)[:: -1 if reverse else 1]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("window", [1, 2, 5, 8, L, 100])
def test_states_remember_the_window(window, reverse):
    modes = 0.97 * np.exp(1j * np.array([0.1, 2.0, -1.0]))
    b = random(L, 2, 6)
    pair = tuple(jnp.asarray(part, jnp.float32) for part in (modes.real, modes.imag))
    found = windowed_states(pair, jnp.asarray(b, jnp.float32), window, reverse)
    expected = summed(lambda x, b_t: modes * x + b_t, b[..., :3] + 1j * b[..., 3:], window, reverse)
    np.testing.assert_allclose(found, np.concatenate([expected.real, expected.imag], axis=-1), atol=1e-5)
    if window >= L:
        np.testing.assert_allclose(found, scan.recurrence(pair, jnp.asarray(b, jnp.float32), reverse), atol=1e-5)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("window", [1, 6, 100])
def test_oscillators_remember_the_window(window, reverse):
    a, k, c, d = (np.array(each) for each in ([0.9, 1.0], [0.2, 0.0], [1.0, 0.95], [0.5, 1.0]))
    b = random(L, 2, 4)

    def step(x, b_t):
        z = a * x[..., :2] - k * x[..., 2:] + b_t[..., :2]
        return np.concatenate([z, c * x[..., 2:] + d * z + b_t[..., 2:]], axis=-1)

    coefficients = tuple(jnp.asarray(each, jnp.float32) for each in (a, k, c, d))
    found = oscillators.windowed_states(coefficients, jnp.asarray(b, jnp.float32), window, reverse)
    np.testing.assert_allclose(found, summed(step, b, window, reverse), rtol=1e-4, atol=1e-4)


def test_kernels_keep_the_taps_less_than_a_window_away():
    kernels = jnp.ones((2, 1, 5))
    assert cut(kernels, 3)[:, 0].tolist() == [[1, 1, 1, 0, 0], [1, 1, 0, 0, 0]]
    assert cut(kernels, 1)[:, 0].tolist() == [[1, 0, 0, 0, 0], [0, 0, 0, 0, 0]]
    assert cut(kernels, 5)[0].all()


@pytest.mark.parametrize("class_token", [False, True])
def test_attention_sees_the_window(class_token):
    q, k, v = jnp.asarray(random(3, L, 2, 2, 4), jnp.float32)
    real = jnp.arange(L)[:, None] < jnp.array([L, 9])
    whole = attend(q, k, v, real, 0.0, None)
    np.testing.assert_allclose(attend_near(q, k, v, real, L, class_token), whole, atol=1e-6)
    near = attend_near(q, k, v, real, 3, class_token)
    if not class_token:
        past = attend_near(q, k, v, real, L, False, causal=True)
        np.testing.assert_allclose(past, attend(q, k, v, real, 0.0, None, causal=True), atol=1e-6)
    far = jnp.abs(jnp.arange(L) - 6) >= 3
    k_far, v_far = (jnp.where(far[:, None, None, None], each + 5, each) for each in (k, v))
    changed = np.abs(np.asarray(attend_near(q, k_far, v_far, real, 3, class_token) - near)).max(axis=(1, 2, 3))
    assert changed[6] == 0
    assert changed[2] > 0, "a position that sees what was changed"
    assert (changed[0] > 0) or not class_token
    if class_token:  # the class token sees all, and is seen by nobody
        at_start = [each.at[0].add(5) for each in (k, v)]
        np.testing.assert_array_equal(attend_near(q, *at_start, real, 3, True)[1:], near[1:])
        np.testing.assert_allclose(near[0], whole[0], atol=1e-6)


@every_model
def test_a_layer_cut_to_a_window_sees_it_and_no_more(model):
    """All of the length gives what there was without. A layer that cannot be cut is refused."""
    blocks = getattr(abstract(model), "blocks", [None])
    transformer = not hasattr(blocks[0], "layer")
    if not hasattr(getattr(blocks[0], "layer", blocks[0]), "window"):
        with pytest.raises(UserError, match="cannot be cut to a window"):
            set_window(abstract(model), 4, model)
        return
    u = jnp.asarray(random(SHAPE.length, 2, 8), jnp.float32)
    t, window = 8, 4
    far = jnp.abs(jnp.arange(SHAPE.length) - t) >= window

    @quick_jit
    def outputs(u):
        built = network(model, bidirectional=True, **({"pooling": "mean"} if transformer else {}))
        # Some layers start without any memory.
        nnx.update(built, jax.tree.map(lambda x: x + 0.05, nnx.state(built, nnx.Param)))
        part = getattr(built.blocks[0], "layer", built.blocks[0])
        apply = (lambda x: part(x, None, None)) if transformer else part
        found = [apply(u)]
        for inputs, w in ((u, SHAPE.length), (u, window), (jnp.where(far[:, None, None], u[::-1], u), window)):
            set_window(built, w, model)
            found.append(apply(inputs))
        return found

    whole, all_of_it, near, changed = outputs(u)
    scale = np.abs(whole).max()
    np.testing.assert_allclose(all_of_it, whole, rtol=1e-4, atol=1e-5 * scale)
    np.testing.assert_allclose(changed[t], near[t], rtol=1e-4, atol=1e-5 * scale)
    assert np.abs(near[t] - whole[t]).max() > 1e-3 * np.abs(whole).max(), "the layer has memory beyond the window"
    assert np.abs(changed[t + 1] - near[t + 1]).max() > 1e-3 * scale, "one step further on, what was changed is seen"


def test_a_network_whose_layer_has_no_window_is_refused():
    network = SimpleNamespace(blocks=[SimpleNamespace(layer=object())])
    with pytest.raises(UserError, match="my_layer:Mine cannot be cut to a window"):
        set_window(network, 3, "my_layer:Mine")
    assert examples().inputs.shape == (BATCH, SHAPE.length)

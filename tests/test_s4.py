"""S4's layer: its recurrent form, its initialization, its length."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lra_bench.errors import UserError
from lra_bench.models import layers, s4
from lra_bench.models.diagonal import DiagonalSSM
from lra_bench.models.layers import DataShape
from lra_bench.models.long_convolution import DiagonalConvolution, LongConvolution
from lra_bench.models.network import build
from lra_bench.ssm import dplr, hippo
from tests.recipes import s5_recipe
from tests.s4_layers import assert_sees, assert_steps_equal_the_convolution, draw, in_float64, relative

GOLDEN = Path(__file__).parent / "golden"
CONFIG = {"d_state": 8, "n_ssm": 1, "dt_min": 1e-2, "dt_max": 1e-1, "dt_transform": "softplus", "init": "legs"}


def s4_layer(bidirectional=False, length=48, H=4, **changes):
    recipe = s5_recipe(d_model=H, bidirectional=bidirectional)
    return s4.S4Layer(recipe, s4.Config(**{**CONFIG, **changes}), length, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(("n_ssm", "init"), [(1, "legs"), (2, "legs"), pytest.param(1, "fout", marks=pytest.mark.slow)])
def test_steps_equal_the_convolution(n_ssm, init):
    assert_steps_equal_the_convolution(lambda: s4_layer(n_ssm=n_ssm, init=init))


@pytest.mark.parametrize(("L", "N"), [pytest.param(64, 16, marks=pytest.mark.slow), (1024, 4), (1024, 64)])
def test_fout_in_float32(L, N):
    """Nothing damps the modes. The kernel is held against the dense form of the same float32 numbers.

    At length 64 all of it is a small part of a turn, and the reference's error is 2e-4 there too.
    """
    layer = s4_layer(d_state=N, init="fout", length=L, dt_min=1e-3)
    assert layer.A_imag[0, -1] == np.float32(1e-4)
    K = np.asarray(jax.jit(layer.kernel, static_argnums=0)(L))
    with jax.enable_x64(True):
        exact = np.asarray(dplr.dense_kernel(in_float64(layer).initial_state(1).system, L))
    error = np.abs(K - exact).max(-1) / np.abs(exact).max(-1)
    assert error.max() < (5e-4 if L == 64 else 1e-4)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_directions(bidirectional):
    assert_sees(s4_layer(bidirectional, length=16), past=True, future=bidirectional)


@pytest.mark.parametrize("base", [LongConvolution, DiagonalConvolution, DiagonalSSM])
def test_a_base_without_its_own_kernel_or_system_is_no_layer(base):
    with pytest.raises(TypeError, match="abstract"):
        base()


def test_a_bidirectional_layer_has_no_step():
    with pytest.raises(UserError, match="bidirectional"):
        s4_layer(bidirectional=True).initial_state(1)


def test_starts_at_hippo_with_clipped_B_and_folded_C():
    layer = s4_layer(H=256, d_state=16, length=100)
    part = hippo.normal_part(16)
    np.testing.assert_allclose(layer.Lambda()[0], part.Lambda[:8], rtol=1e-6)
    np.testing.assert_allclose(layers.as_complex(layer.P)[0], part.P_tilde[:8], rtol=1e-6)
    B = np.asarray(layers.as_complex(layer.B)[0])
    assert np.abs(B.imag).max() == 2.0
    assert np.abs(part.B_tilde[:8].imag).max() > 2.0
    step = np.asarray(layer.dt())
    assert step.min() >= 0.999e-2
    assert step.max() <= 1.001e-1
    assert np.std(np.log(step)) == pytest.approx(np.log(10) / 12**0.5, rel=0.1)  # uniform in the logarithm
    with jax.enable_x64(True):
        layer = in_float64(layer)
        C = np.asarray(dplr.unfold(layer._dense(layers.as_complex(layer.C)), 100))
    assert np.mean(np.abs(C) ** 2) == pytest.approx(1.0, rel=0.1)
    assert abs(np.mean(C**2)) < 0.1


def test_reference_initial_tables():
    """Up to the sign of each mode, which no kernel sees."""
    tables = np.load(GOLDEN / "s4_init_tables.npz")
    for N in (8, 16, 32, 64):
        part = hippo.normal_part(N)
        B = hippo.clip_imaginary(part.B_tilde[: N // 2])
        expected = tables[f"B_legs_{N}"]
        np.testing.assert_allclose(part.Lambda[: N // 2], tables[f"A_legs_{N}"], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(B * np.sign(B.real), expected * np.sign(expected.real), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_longer_inputs_than_stored():
    """C̃ is folded on by doubling: the kernel of length 48 carried to 130 is that of the unfolded system."""
    with jax.enable_x64(True):
        layer = in_float64(s4_layer())
        system = layer.initial_state(1).system
        exact = np.asarray(dplr.dense_kernel(system, 130))
        assert relative(jax.jit(layer.kernel, static_argnums=0)(130), exact) < 1e-9
        assert relative(jax.jit(layer.kernel, static_argnums=0)(20), exact[..., :20]) < 1e-9


def test_channels_share_systems_in_turn():
    layer = s4_layer(n_ssm=2)
    layer.A_real[...] = jnp.log(jnp.asarray([[1.0] * 4, [2.0] * 4]))
    np.testing.assert_allclose(-layer.Lambda().real[:, 0], [1, 2, 1, 2], rtol=1e-6)


def test_illegal_settings_are_sentences():
    with pytest.raises(UserError, match="n_ssm"):
        s4_layer(n_ssm=3)
    with pytest.raises(ValueError, match="dt_min"):
        s4.Config(**{**CONFIG, "dt_min": 1.0})


@pytest.mark.slow
def test_network_takes_its_length_from_the_data():
    recipe = s5_recipe(bidirectional=True, n_layers=2, prenorm=False).model_copy(update={"layer": CONFIG})
    shape = DataShape(length=12, classes=3, documents=1, variable_length=True)

    @jax.jit
    def start(key):
        return nnx.split(build("s4", recipe, shape, rngs=nnx.Rngs(key)), nnx.Param, ...)

    graph, params, rest = start(jax.random.key(0))
    assert all(block.layer.length == 12 for block in nnx.merge(graph, params, rest).blocks)
    inputs = jnp.asarray(draw(3, 12) > 0, jnp.uint8)

    @jax.jit
    @jax.value_and_grad
    def loss(params):
        model = nnx.merge(graph, params, rest, copy=True)
        logits = model(inputs, jnp.asarray([12, 5, 1]), train=True, key=jax.random.key(1))
        return jnp.sum(jax.nn.log_softmax(logits)[:, 0])

    _, gradient = loss(params)
    for path, leaf in nnx.to_flat_state(gradient):
        assert np.isfinite(leaf[...]).all(), path
        assert np.abs(leaf[...]).max() > 0, path

"""S4D's layer and block against numbers the reference printed."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lra_bench.models import layers, s4d
from lra_bench.models.layers import TORCH, GLUOutput
from lra_bench.ssm import hippo
from tests.recipes import s5_recipe
from tests.s4_layers import assert_sees, assert_steps_equal_the_convolution, in_float64, relative

GOLDEN = Path(__file__).parent / "golden" / "s4_block_bidirectional_glu.npz"
CONFIG = {
    "d_state": 8,
    "n_ssm": 1,
    "dt_min": 1e-2,
    "dt_max": 1e-1,
    "dt_transform": "softplus",
    "init": "legs",
    "discretization": "zoh",
    "version": "e757cef5",
}


def s4d_layer(bidirectional=False, H=4, **changes):
    recipe = s5_recipe(d_model=H, bidirectional=bidirectional)
    return s4d.S4DLayer(recipe, s4d.Config(**{**CONFIG, **changes}), rngs=nnx.Rngs(0))


def test_reference_block():
    """state-spaces/s4's S4Block: bidirectional S4D-Lin, D, exact GELU, Linear and GLU; copies of Λ for each channel."""
    golden = dict(np.load(GOLDEN))
    layer = s4d_layer(True, d_state=16, n_ssm=4, init="lin", dt_transform="exp")
    np.testing.assert_allclose(layer.A_imag[...], golden["layer/kernel/A_imag"], rtol=1e-6)
    values = {name: golden[f"layer/kernel/{name}"] for name in ("A_real", "A_imag", "C")}
    values |= {
        "B": golden["layer/kernel/B"][0],
        "inv_dt": golden["layer/kernel/inv_dt"][:, 0],
        "D": golden["layer/D"][0],
    }
    for name, value in values.items():
        assert getattr(layer, name).shape == value.shape
        getattr(layer, name)[...] = jnp.asarray(value)
    assert relative(jax.jit(layer.kernel, static_argnums=0)(64), golden["K"]) < 1e-5
    output = GLUOutput(4, TORCH, rngs=nnx.Rngs(0))
    output.linear.kernel[...] = jnp.asarray(golden["output_linear/0/weight"].T)
    output.linear.bias[...] = jnp.asarray(golden["output_linear/0/bias"])
    y = jax.jit(lambda u: output(layer(u), None))(jnp.asarray(golden["u"].transpose(1, 0, 2)))
    assert relative(y.transpose(1, 0, 2), golden["y"]) < 1e-5


@pytest.mark.parametrize(("init", "rule"), [("legs", "zoh"), ("inv", "bilinear"), ("real", "zoh")])
def test_steps_equal_the_convolution(init, rule):
    assert_steps_equal_the_convolution(lambda: s4d_layer(init=init, discretization=rule))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_directions(bidirectional):
    assert_sees(s4d_layer(bidirectional), past=True, future=bidirectional)


def test_B_starts_full_and_C_complex_normal():
    """The code drops the theory's factor ½ in B (docs/references.md, "S4D: B without the factor one half")."""
    layer = s4d_layer(H=512, d_state=64)
    assert np.abs(layers.as_complex(layer.B)).max() > 2.0
    C = np.asarray(layers.as_complex(layer.C))
    assert np.mean(np.abs(C) ** 2) == pytest.approx(1.0, rel=0.05)
    np.testing.assert_array_equal(layers.as_complex(s4d_layer(init="lin").B), np.ones((1, 4)))


def test_version_3_starts_with_C_times_B_and_B_unclipped():
    last, v3 = (s4d_layer(H=512, d_state=64, version=version) for version in ("e757cef5", "v3.0.0"))
    B, clipped = (np.asarray(layers.as_complex(layer.B))[0] for layer in (v3, last))
    np.testing.assert_allclose(B, hippo.normal_part(64).B_tilde[:32], rtol=1e-6)
    assert np.abs(B.imag).max() > np.abs(clipped.imag).max() == 2.0
    np.testing.assert_allclose(layers.as_complex(v3.C), layers.as_complex(last.C) * B, rtol=1e-5)
    np.testing.assert_array_equal(np.asarray(s4d_layer(init="lin", version="v3.0.0").A_imag)[0, 0], 0.0)


def test_the_published_start_has_the_eigenvalues_of_legs_with_B_of_ones_and_C_normal():
    layer = s4d_layer(H=512, d_state=64, version="v3.0.0", init="diag-legs")
    np.testing.assert_allclose(layer.Lambda()[0], hippo.normal_part(64).Lambda[:32], rtol=1e-5)
    np.testing.assert_array_equal(layers.as_complex(layer.B), np.ones((1, 32)))
    assert np.mean(np.abs(layers.as_complex(layer.C)) ** 2) == pytest.approx(1.0, rel=0.05)


@pytest.mark.slow
def test_s5_with_one_feature_is_s4d():
    """Same Λ, B, C and one Δ for all states: the scan of S5 and the convolution of S4D are one map."""
    from lra_bench.ssm import discretization, scan

    with jax.enable_x64(True):
        layer = in_float64(s4d_layer(H=1))
        Lambda, B, C = layer.Lambda()[0], layer.inputs()[0], layers.as_complex(layer.C)[0, 0]
        bar = discretization.zoh(Lambda.real, Lambda.imag, layer.dt())
        B_bar = jax.lax.complex(bar.factor_re, bar.factor_im) * B
        u = jnp.asarray(np.random.default_rng(1).normal(size=(40, 2, 1)))
        y = scan.diagonal_ssm(
            (bar.Lambda_bar_re, bar.Lambda_bar_im),
            jnp.concatenate([B_bar.real, B_bar.imag])[None],
            2.0 * jnp.concatenate([C.real, -C.imag])[:, None],
            None,
            u,
        )
        assert relative(layer(u), np.asarray(y + layer.D[...] * u)) < 1e-11

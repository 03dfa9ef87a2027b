"""The LRU against numbers the reference printed, and the laws its parameters start from."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lra_bench.models import lru
from tests.recipes import s5_recipe

GOLDEN = Path(__file__).parent / "golden" / "lru_rmin0.9_rmax0.999.npz"
CONFIG = {"d_state": 16, "r_min": 0.9, "r_max": 0.999, "max_phase": 6.28, "activation": "full_glu"}


def lru_layer(bidirectional=False, H=4, **changes):
    recipe = s5_recipe(d_model=H, bidirectional=bidirectional)
    return lru.LRULayer(recipe, lru.Config(**{**CONFIG, **changes}), rngs=nnx.Rngs(0))


def golden_layer(dtype):
    arrays = dict(np.load(GOLDEN))
    layer = lru_layer()
    values = {name: arrays[f"param_{name}"] for name in ("nu_log", "theta_log", "gamma_log", "D")}
    for name in ("B", "C"):
        values[name] = np.stack([arrays[f"param_{name}_re"], arrays[f"param_{name}_im"]], axis=-1)
    for name, value in values.items():
        assert getattr(layer, name).shape == value.shape
        setattr(layer, name, nnx.Param(jnp.asarray(value, dtype)))
    return layer, arrays


def relative(actual, expected):
    return np.abs(actual - expected).max() / np.abs(expected).max()


def test_float32_equals_reference():
    layer, arrays = golden_layer(jnp.float32)
    assert relative(np.asarray(layer(jnp.asarray(arrays["u"])[:, None]))[:, 0], arrays["y_ref"]) < 1e-5


def test_float64_equals_a_plain_recurrence():
    with jax.enable_x64(True):
        layer, arrays = golden_layer(jnp.float64)
        real, imag = layer.eigenvalues()
        np.testing.assert_allclose(np.asarray(real) + 1j * np.asarray(imag), arrays["lambda64"], rtol=1e-12)
        y = layer(jnp.asarray(arrays["u"], jnp.float64)[:, None])
        assert relative(np.asarray(y)[:, 0], arrays["y_naive64"]) < 1e-12


@pytest.mark.parametrize(("r_min", "r_max"), [(0.0, 0.99), (0.5, 0.9), (0.999, 0.9999)])
def test_eigenvalues_fill_the_ring_evenly(r_min, r_max):
    """|λ|² is uniform on [r_min², r_max²], so the ring is filled evenly by area."""
    layer = lru_layer(H=1, d_state=4096, r_min=r_min, r_max=r_max, max_phase=0.314)
    modulus = np.exp(-np.exp(np.asarray(layer.nu_log[...], np.float64)))
    share = (modulus**2 - r_min**2) / (r_max**2 - r_min**2)
    assert -1e-3 <= share.min() < 0.01
    assert 0.99 < share.max() <= 1.001
    assert np.histogram(share, bins=4)[0].std() < 0.05 * 1024
    phase = np.exp(np.asarray(layer.theta_log[...]))
    assert phase.min() > 0
    assert 0.31 < phase.max() <= np.float32(0.314)


def test_gamma_normalizes_the_state():
    """e^{2γ} = 1 − |λ|², to the last digits of float32 even where 1 − |λ|² cancels."""
    layer = lru_layer(H=1, d_state=4096, r_min=0.999, r_max=0.9999)
    nu = np.exp(np.asarray(layer.nu_log[...], np.float64))
    np.testing.assert_allclose(np.exp(2 * np.asarray(layer.gamma_log[...], np.float64)), -np.expm1(-2 * nu), rtol=3e-6)


def test_B_and_C_start_with_the_papers_deviations():
    layer = lru_layer(bidirectional=True, H=100, d_state=200)
    assert np.std(np.asarray(layer.B[...])) == pytest.approx((2 * 100) ** -0.5, rel=0.02)
    for C in (layer.C[...], layer.C_reverse[...]):
        assert np.std(np.asarray(C)) == pytest.approx(200**-0.5, rel=0.02)


def test_backward_direction_is_the_forward_one_on_the_reversed_input():
    layer = lru_layer(bidirectional=True)
    u = jax.random.normal(jax.random.key(1), (20, 3, 4))
    both, D = layer(u), layer.D[...] * u
    layer.C_reverse, C_reverse = None, layer.C_reverse
    forward = layer(u)
    layer.C = C_reverse
    backward = layer(u[::-1])[::-1]
    np.testing.assert_allclose(both, forward + backward - D, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("r_min", [0.0, 0.9999])
def test_the_outer_radius_may_be_one(r_min):
    """It is minimal-LRU's default."""
    layer = lru_layer(H=1, d_state=65_536, r_min=r_min, r_max=1.0)
    for parameter in (layer.nu_log, layer.gamma_log):
        assert np.isfinite(parameter[...]).all()
    with pytest.raises(ValueError, match="r_max"):
        lru.Config(**{**CONFIG, "r_max": 1.001})


def test_ring_must_have_an_inside():
    with pytest.raises(ValueError, match="r_min must be less than r_max"):
        lru.Config(**{**CONFIG, "r_min": 0.999})

"""S5 and S5-PTD against the reference's printed numbers, and the laws their parameters start from."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lra_bench.models import s5, s5_ptd
from lra_bench.models.classifier import count_parameters
from lra_bench.models.layers import DataShape
from lra_bench.models.network import build
from lra_bench.overrides import apply_overrides
from lra_bench.registry import recipes_of
from lra_bench.ssm import hippo
from tests.recipes import s5_config, s5_recipe

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(path.stem for path in GOLDEN.glob("s5_ssm_*.npz"))


def golden_layer(name, dtype):
    """The layer with the reference's parameters, and its arrays."""
    arrays = dict(np.load(GOLDEN / f"{name}.npz"))
    _, _, symmetry, directions, rule, c_init = name.split("_", 5)
    recipe = s5_recipe(d_model=4, bidirectional=directions == "bi")
    layer = s5.S5Layer(recipe, s5_config(discretization=rule, c_init=c_init), rngs=nnx.Rngs(0))
    assert symmetry == "conj"
    values = {key: arrays[f"param_{key}"] for key in ("Lambda_re", "Lambda_im", "B", "D")}
    values["log_dt"] = arrays["param_log_step"][:, 0]
    if "param_C" in arrays:
        C = np.split(arrays["param_C"], 2 if directions == "bi" else 1, axis=1)
    else:
        C = [arrays["param_C1"], arrays["param_C2"]]
    values["C"] = C[0]
    if directions == "bi":
        values["C_reverse"] = C[1]
    for key, value in values.items():
        parameter = getattr(layer, key)
        assert parameter.shape == value.shape
        setattr(layer, key, nnx.Param(jnp.asarray(value, dtype)))
    return layer, arrays


def run(layer, u):
    return np.asarray(layer(jnp.asarray(u)[:, None]))[:, 0]


def relative(actual, expected):
    return np.abs(actual - expected).max() / np.abs(expected).max()


def test_all_golden_cases_are_here():
    assert len(CASES) == 8


@pytest.mark.parametrize("name", CASES)
def test_float32_equals_reference(name):
    layer, arrays = golden_layer(name, jnp.float32)
    assert relative(run(layer, arrays["u"]), arrays["ys"]) < 1e-5
    layer.log_dt[...] = layer.log_dt[...] + jnp.log(2.0)
    assert relative(run(layer, arrays["u"]), arrays["ys_step_rescale_2"]) < 1e-5


@pytest.mark.parametrize("name", CASES)
def test_float64_equals_reference(name):
    with jax.enable_x64(True):
        layer, arrays = golden_layer(name, jnp.float64)
        assert relative(run(layer, arrays["u"].astype(np.float64)), arrays["ys64"]) < 1e-12


def test_conjugate_symmetry_equals_the_completed_system():
    """2 Re(C x) over half the modes is Re(C x) over all of them and their conjugates."""
    with jax.enable_x64(True):
        layer, arrays = golden_layer("s5_ssm_conj_bi_zoh_lecun_normal", jnp.float64)
        u = arrays["u"].astype(np.float64)
        half = run(layer, u)
        for name in ("Lambda_re", "log_dt"):
            value = getattr(layer, name)[...]
            setattr(layer, name, nnx.Param(jnp.concatenate([value, value])))
        layer.Lambda_im = nnx.Param(jnp.concatenate([layer.Lambda_im[...], -layer.Lambda_im[...]]))
        conjugate = jnp.asarray([1.0, -1.0])
        layer.B = nnx.Param(jnp.concatenate([layer.B[...], layer.B[...] * conjugate], axis=0))
        for name in ("C", "C_reverse"):
            value = getattr(layer, name)[...]
            setattr(layer, name, nnx.Param(jnp.concatenate([value, value * conjugate], axis=1)))
        layer.conjugate_symmetry = False
        assert relative(run(layer, u), half) < 1e-12


def big_layer(module=s5, bidirectional=True, **changes):
    recipe = s5_recipe(d_model=400, bidirectional=bidirectional, d_state=64, blocks=4)
    config = s5_config(d_state=64, blocks=4, **changes)
    return module.S5Layer(recipe, config, rngs=nnx.Rngs(3))


@pytest.mark.parametrize(
    ("c_init", "deviation"), [("lecun_normal", (64 * 400) ** -0.5), ("trunc_standard_normal", 64**-0.5)]
)
def test_C_starts_with_the_references_deviation(c_init, deviation):
    """V has orthonormal columns from one half of each conjugate pair, so C₀ V keeps the variance of complex C₀, which
    is 2σ²."""
    layer = big_layer(c_init=c_init)
    for C in (layer.C[...], layer.C_reverse[...]):
        assert np.std(np.asarray(C)) == pytest.approx(deviation, rel=0.03)
    assert not np.allclose(layer.C[...], layer.C_reverse[...])


def test_complex_normal_C_has_variance_one():
    C = np.asarray(big_layer(c_init="complex_normal").C[...])
    assert np.mean(C**2) == pytest.approx(0.5, rel=0.03)


def test_B_starts_from_lecun_normal():
    """Vinv has orthonormal rows, so each complex entry of B̃ = Vinv B₀ has variance 1/P."""
    B = np.asarray(big_layer().B[...])
    assert np.mean(np.sum(B**2, axis=-1)) == pytest.approx(1 / 64, rel=0.03)


def test_steps_are_log_uniform():
    recipe = s5_recipe(d_model=2, d_state=4096, blocks=512)
    log_dt = np.asarray(s5.S5Layer(recipe, s5_config(d_state=4096, blocks=512), rngs=nnx.Rngs(0)).log_dt[...])
    assert log_dt.min() >= np.log(1e-3)
    assert log_dt.max() <= np.log(1e-1)
    assert np.histogram(log_dt, bins=4)[0].std() < 0.1 * len(log_dt) / 4


def test_eigenvalues_are_tiled_blocks_of_hippo():
    layer = big_layer()
    Lambda = np.asarray(layer.Lambda_re[...]) + 1j * np.asarray(layer.Lambda_im[...])
    expected = hippo.normal_part(16).Lambda[:8]
    np.testing.assert_allclose(Lambda, np.tile(expected, 4), rtol=1e-6)
    assert (Lambda.imag < 0).all()


def test_clipping_bounds_the_real_part():
    layer = big_layer(clip_eigs=True)
    layer.Lambda_re[...] = jnp.linspace(-1, 1, layer.Lambda_re.shape[0])
    assert float(layer.eigenvalues()[0].max()) == np.float32(-1e-4)


def ptd_layer(**changes):
    own = {"gamma": 0.3, "force_negative": False, "b_init": "lecun_normal", **changes}
    recipe = s5_recipe(d_model=6, bidirectional=True, d_state=16, blocks=2)
    return s5_ptd.S5PTDLayer(recipe, s5_ptd.Config(**s5_config().model_dump(), **own), rngs=nnx.Rngs(0))


def test_ptd_starts_from_the_perturbed_hippo_matrix():
    """B_hippo in the basis of V is Vinv B: going back with V must give HiPPO's own B, and V Λ Vinv is close to A."""
    A, B = hippo.legs(8)
    for b_init, rows in (("hippo", [*B, *B]), ("hippo_repeated", [b for b in B for _ in range(2)])):
        layer = ptd_layer(b_init=b_init)
        modes = layer.initial_modes(layer.config)
        back = modes.V @ (np.asarray(layer.B[..., 0]) + 1j * np.asarray(layer.B[..., 1]))
        np.testing.assert_allclose(back, np.asarray(rows)[:, None].repeat(6, axis=1), atol=1e-5)
    rebuilt = (modes.V * modes.Lambda) @ modes.Vinv
    for block in (rebuilt[:8, :8], rebuilt[8:, 8:]):
        assert 0 < np.linalg.norm(block - A, 2) / np.linalg.norm(A, 2) < 0.2


def test_ptd_can_be_held_to_the_left_half_plane():
    layer = ptd_layer(force_negative=True)
    layer.Lambda_re[...] = jnp.abs(layer.Lambda_re[...])
    assert float(layer.eigenvalues()[0].max()) < 0


@pytest.mark.parametrize(("model", "count"), [("s5", 188_490), ("s5_ptd", 237_834)])
def test_listops_parameter_counts_are_the_published_ones(model, count):
    recipe = recipes_of("listops")[model]
    shape = DataShape(2048, 10, 1, True)
    abstract = nnx.eval_shape(lambda: build(model, recipe, shape, rngs=nnx.Rngs(0)))
    assert count_parameters(abstract) == count


def test_recipes_pass_their_models_own_checks():
    for model, module in [("s5", s5), ("s5_ptd", s5_ptd)]:
        recipe = recipes_of("listops")[model]
        assert apply_overrides(recipe, {}, module.Config) == recipe

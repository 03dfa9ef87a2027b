"""S4-PTD's layer: what it starts from, and its recurrent form."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lra_bench.models import layers, s4_ptd
from lra_bench.ssm import hippo, ptd
from tests.recipes import s5_recipe
from tests.s4_layers import assert_sees, assert_steps_equal_the_convolution, in_float64, relative

CONFIG = {"d_state": 8, "n_ssm": 1, "dt_min": 1e-2, "dt_max": 1e-1, "dt_transform": "softplus", "gamma": 0.3}
CONFIG |= {"init": "paper"}


def ptd_layer(bidirectional=False, H=4, **changes):
    recipe = s5_recipe(d_model=H, bidirectional=bidirectional)
    return s4_ptd.S4PTDLayer(recipe, s4_ptd.Config(**{**CONFIG, **changes}), rngs=nnx.Rngs(0))


def test_steps_equal_the_convolution():
    assert_steps_equal_the_convolution(ptd_layer)


def test_directions():
    assert_sees(ptd_layer(True), past=True, future=True)


def test_starts_as_the_perturbed_hippo_system():
    """K = 2 c e^{(A+E)Δl} … B for a real row c: V and V⁻¹ cancel, so the kernel follows from the dense real matrix."""
    solved = ptd.ptd(8, 0.3)
    A, B = hippo.legs(8)
    assert (np.linalg.eigvals(A + solved.E).real < 0).all()
    with jax.enable_x64(True):
        layer = in_float64(ptd_layer(H=1))
        C = np.asarray(layers.as_complex(layer.C))[0, 0]
        c = (C / (solved.Vinv @ B)) @ solved.Vinv
        assert np.abs(c.imag).max() < 1e-5
        step = float(layer.dt()[0])
        powers = [jax.scipy.linalg.expm(jnp.asarray((A + solved.E) * step * k)) for k in range(20)]
        held = np.linalg.solve(A + solved.E, (powers[1] - np.eye(8)) @ B)
        exact = np.array([2 * c.real @ np.asarray(power) @ held for power in powers])
        assert relative(layer.kernel(20)[0, 0], exact) < 1e-5


def test_the_published_code_lets_half_of_the_modes_stand_almost_still():
    paper, code = (ptd_layer(init=init, d_state=16) for init in ("paper", "published_code"))
    ours, theirs = np.asarray(paper.Lambda()[0]), np.asarray(code.Lambda()[0])
    back = ours.imag > -1e-4
    assert 8 <= back.sum() <= 10  # half of them, and the real ones
    np.testing.assert_array_equal(theirs[~back], ours[~back])
    np.testing.assert_array_equal(theirs.real, ours.real)
    np.testing.assert_allclose(theirs[back].imag, -1e-4, rtol=1e-6)
    np.testing.assert_array_equal(paper.C[...], code.C[...])


def test_without_skip_and_residual_nothing_of_the_input_passes_by_the_states():
    """With C at zero, a block gives the same for every input, step by step too; D is no parameter."""

    @partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def outputs(x):
        recipe = s5_recipe(norm="layer", prenorm=False, residual=False)
        block = s4_ptd.block(recipe, s4_ptd.Config(**CONFIG, skip=False), rngs=nnx.Rngs(0))
        block.layer.C[...] = jnp.zeros_like(block.layer.C[...])
        same = block(x, None, False, None), block(-x, None, False, None)
        _, y_t = block.step(block.initial_state(2), x[0])
        block.residual = True
        return *same, y_t, block(x, None, False, None)

    y, other, y_t, residual = outputs(jax.random.normal(jax.random.key(0), (6, 2, 4)))
    np.testing.assert_array_equal(y, other)
    np.testing.assert_allclose(y_t, y[0], rtol=1e-5, atol=1e-6)
    assert not np.allclose(residual, y, atol=0.1)
    layer = nnx.eval_shape(lambda: ptd_layer(skip=False))
    assert "D" not in {path[-1] for path, _ in nnx.to_flat_state(nnx.state(layer, nnx.Param))}


def test_all_states_are_stored_and_there_is_no_B():
    layer = ptd_layer()
    assert layer.A_imag.shape == (1, 8)
    assert (np.asarray(layer.A_imag[...]) > 0).any()
    assert (np.asarray(layer.A_imag[...]) < 0).any()
    assert not hasattr(layer, "B")

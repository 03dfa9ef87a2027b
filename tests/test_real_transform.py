"""The functions from the trained number to −Re Λ, and the digests of runs from before there was a choice."""

from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lra_bench.errors import UserError
from lra_bench.overrides import apply_overrides
from lra_bench.recipes.s4d import Config
from lra_bench.registry import recipes_of
from lra_bench.ssm.real_transform import REAL_TRANSFORMS
from tests.test_s4d import s4d_layer

every_transform = pytest.mark.parametrize("name", get_args(Config.model_fields["real_transform"].annotation))


@every_transform
def test_weights_give_back_the_decay(name):
    decay = np.geomspace(1e-4, 1.9, 30)
    with jax.enable_x64(True):
        np.testing.assert_allclose(REAL_TRANSFORMS[name].decay(REAL_TRANSFORMS[name].weight(decay)), decay, rtol=1e-10)


@every_transform
def test_no_weight_gives_a_growing_mode(name):
    decay = np.asarray(REAL_TRANSFORMS[name].decay(jnp.linspace(-50.0, 50.0, 41)))
    assert (decay > 0).all()
    assert (decay <= REAL_TRANSFORMS[name].limit).all()


def test_best_gives_every_mode_the_same_share_of_its_weight_as_gradient_bound():
    """StableSSM's criterion: |f'(w)| / f(w)² = 2 |w|. Under exp it is 1/decay."""
    for name, expected in (("best", lambda w, _: 2 * np.abs(w)), ("exp", lambda _, decay: 1 / decay)):
        w = np.linspace(-3, 3, 12)
        with jax.enable_x64(True):
            f = REAL_TRANSFORMS[name].decay
            decay, slope = np.asarray(f(jnp.asarray(w))), np.asarray(jax.vmap(jax.grad(f))(jnp.asarray(w)))
        np.testing.assert_allclose(np.abs(slope) / decay**2, expected(w, decay), rtol=1e-12)


@every_transform
def test_s4d_starts_with_the_same_eigenvalues(name):
    np.testing.assert_allclose(s4d_layer(real_transform=name).Lambda(), s4d_layer().Lambda(), rtol=1e-6)


def test_the_default_is_exp_bit_for_bit():
    expected = np.full((1, 4), np.log(0.5), np.float32)
    np.testing.assert_array_equal(s4d_layer(init="lin").A_real[...], expected)
    np.testing.assert_array_equal(s4d_layer(init="lin").Lambda().real, -jnp.exp(expected))


def test_decays_out_of_reach_are_refused():
    with pytest.raises(UserError, match=r"below 2, and the initial Λ has 4\. Take exp or softplus"):
        s4d_layer(init="real", real_transform="best")


def test_digests_of_runs_with_exp_are_those_of_before():
    recipe = recipes_of("listops")["s4d"]
    before = {key: value for key, value in recipe.layer.items() if key not in ("real_transform", "skip")}
    assert recipe.identity()["layer"] == before
    assert "residual" not in recipe.identity()
    best = apply_overrides(recipe, {"real_transform": "best"}, Config)
    assert best.identity()["layer"] == {**before, "real_transform": "best"}

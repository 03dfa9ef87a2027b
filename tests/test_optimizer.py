"""The rates that parameters really move by: schedules step by step, groups by role, weight decay apart from Adam."""

from collections import Counter
from pathlib import Path
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lra_bench.models.layers import DataShape
from lra_bench.models.network import build
from lra_bench.spec import Group, Role
from lra_bench.training.optimizer import group_labels, make_optimizer, make_schedule, reference_schedule
from tests.recipes import s5_recipe

GOLDEN = Path(__file__).parent / "golden"

EACH_ROLE: dict[Role, Group] = {
    "eigenvalues": "ssm",
    "input": "ssm_decay",
    "output": "regular",
    "dt": "regular_no_decay",
}
"""All four groups in use; D (role skip) is not named."""

GROUP_OF_LEAF = {"Lambda_re": "ssm", "Lambda_im": "ssm", "B": "ssm_decay", "log_dt": "regular_no_decay"}


@pytest.fixture(scope="module")
def params():
    """Of a bidirectional S5 network: every role that S5 has."""
    recipe = s5_recipe(bidirectional=True)
    shape = DataShape(8, 3, 1, True)
    return jax.jit(lambda key: nnx.state(build("s5", recipe, shape, rngs=nnx.Rngs(key)), nnx.Param))(jax.random.key(0))


def leaves(params):
    return [(path[-1], np.asarray(leaf[...], np.float64)) for path, leaf in nnx.to_flat_state(params)]


def moved(params, recipe, gradient, updates=1):
    """(leaf's name, what the last of `updates` optimizer updates adds) when every gradient is `gradient`."""
    optimizer = make_optimizer(params, recipe, steps_per_epoch=10)
    state, grads = optimizer.init(params), jax.tree.map(lambda leaf: jnp.full_like(leaf, gradient), params)
    step = jax.jit(optimizer.update)
    for _ in range(updates):
        change, state = step(grads, state, params)
    return leaves(change)


def sizes(params, recipe, updates):
    """Of a scalar parameter's updates: with one and the same gradient Adam moves by exactly the rate."""
    optimizer = make_optimizer(params, recipe, steps_per_epoch=10)
    grads = jax.tree.map(jnp.ones_like, params)

    def body(state, _):
        change, state = optimizer.update(grads, state, params)
        return state, [leaf.reshape(-1)[0] for leaf in jax.tree.leaves(change)]

    _, changes = jax.lax.scan(body, optimizer.init(params), length=updates)
    return dict(zip([name for name, _ in leaves(params)], -np.stack(changes), strict=True))


@pytest.mark.parametrize(("epochs", "warmup"), [(20, 1), (40, 5), (35, 0)])
def test_every_update_has_the_rate_of_the_reference_loop(params, epochs, warmup):
    """The fixture is the multiplier S5's own loop used at each step, its lag by one and its idle last epochs
    included; here it is measured on parameters, in a group of each base rate."""
    expected = np.load(GOLDEN / "s5_lr_schedule.npz")[f"lr_n10_T{epochs}_w{warmup}"]
    assert len(expected) == 10 * epochs
    recipe = s5_recipe(
        schedule="reference", decay_epochs=float(epochs), warmup_epochs=float(warmup), weight_decay=0.0, lr=4e-3
    )
    sized = sizes(params, recipe, len(expected))
    # 2e-5: Adam's bias correction, 1 − 0.999^t, in float32.
    np.testing.assert_allclose(sized["kernel"] / 4e-3, expected, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(sized["Lambda_re"] / 1e-3, expected, rtol=2e-5, atol=1e-6)


def test_reference_schedule_starts_at_full_rate_and_idles_at_the_end():
    used = np.asarray(jax.vmap(reference_schedule(10, 20, 2))(jnp.arange(200)))
    assert used[0] == 1.0
    np.testing.assert_allclose(used[1:21], np.arange(1, 21) / 20, rtol=1e-6)
    assert used[21] < 1.0
    np.testing.assert_array_equal(used[-19:], 0.0)
    assert used[-20] > 0.0


def schedule(name, steps_per_epoch=10, **changes):
    return np.vectorize(make_schedule(s5_recipe(schedule=name, **changes), steps_per_epoch), otypes=[float])


def test_cosine_warms_up_and_ends_at_zero():
    rate = schedule("cosine", warmup_epochs=1.0, decay_epochs=5.0)
    assert (rate(0), rate(5), rate(10)) == (0.0, 0.5, 1.0)
    np.testing.assert_allclose(rate([20, 30, 50, 80]), [0.5 + 0.5 * 0.5**0.5, 0.5, 0, 0], atol=1e-6)


def test_torch_cosine_rises_again_after_its_end():
    """S4-PTD's Text trains for 125,000 steps on a cosine of 50,000."""
    rate = schedule("torch-cosine", warmup_epochs=1.0, decay_epochs=5.0)
    first, half = rate(np.arange(51)), np.arange(50, 91)
    np.testing.assert_allclose(first, schedule("cosine", warmup_epochs=1.0, decay_epochs=5.0)(np.arange(51)), atol=1e-6)
    np.testing.assert_allclose(rate(half), first[50:9:-1], atol=1e-6)
    assert (np.diff(rate(half)) > 0).all()
    assert rate(90) == pytest.approx(1.0)


@pytest.mark.parametrize(("name", "middle"), [("linear", 0.5), ("quadratic-linear", 0.25)])
def test_linear_schedules_end_at_zero(name, middle):
    rate = schedule(name, warmup_epochs=1.0, decay_epochs=5.0)
    np.testing.assert_allclose(rate([0, 5, 10, 20, 50, 60]), [0, middle, 1, 0.75, 0, 0], rtol=1e-6)


def test_clipping_is_by_the_norm_of_all_parameters(params):
    """Adam's first moment after one update is a tenth of the gradient. Small gradients stay as they are."""
    recipe = s5_recipe(clip_norm=0.5)
    optimizer = make_optimizer(params, recipe, steps_per_epoch=10)
    update, first = jax.jit(optimizer.update), optimizer.init(params)
    for size in (1e-4, 1.0):
        grads = jax.tree.map(lambda leaf, size=size: jnp.full_like(leaf, size), params)
        norm = size * sum(leaf.size for leaf in jax.tree.leaves(params)) ** 0.5
        _, state = update(grads, first, params)
        moments = [
            leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state) if ".mu" in jax.tree_util.keystr(path)
        ]
        kept = 10 * float(sum(jnp.sum(moment**2) for moment in moments)) ** 0.5
        assert kept == pytest.approx(min(norm, 0.5), rel=1e-5)


def test_rsqrt_and_constant():
    rate = schedule("rsqrt", warmup_epochs=2.0)
    np.testing.assert_allclose(rate([0, 10, 20, 80, 2000]), np.array([0, 0.5, 1, 0.5, 0.1]) / 20**0.5, rtol=1e-6)
    assert set(schedule("constant")(np.arange(50))) == {1.0}
    np.testing.assert_allclose(schedule("warmup-constant", warmup_epochs=2.0)([0, 5, 20, 900]), [0, 0.25, 1, 1])


def test_every_parameter_is_in_exactly_one_group(params):
    labels = group_labels(params, s5_recipe(groups=EACH_ROLE))
    assert jax.tree.structure(labels, is_leaf=lambda leaf: isinstance(leaf, str)) == jax.tree.structure(
        jax.tree.map(lambda _: "", params, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable)),
        is_leaf=lambda leaf: isinstance(leaf, str),
    )
    counted = Counter(jax.tree.leaves(labels))
    assert set(counted) == {*get_args(Group)} - {"frozen"}
    assert sum(counted.values()) == len(jax.tree.leaves(params))


def test_a_role_with_a_rate_of_its_own_keeps_the_decay_of_its_group(params):
    recipe = s5_recipe(groups=EACH_ROLE, role_lr={"input": 2e-2, "dt": 3e-2}, schedule="constant", weight_decay=0.05)
    for (name, value), (_, idle), (_, pushed) in zip(
        leaves(params), moved(params, recipe, 0.0), moved(params, recipe, 2.0), strict=True
    ):
        if name in ("B", "log_dt"):
            rate, decay = {"B": (2e-2, 0.05), "log_dt": (3e-2, 0.0)}[name]
            np.testing.assert_allclose(idle, -rate * decay * value, rtol=1e-5, atol=1e-12, err_msg=name)
            np.testing.assert_allclose(pushed - idle, -rate, rtol=1e-4, err_msg=name)


def test_groups_follow_roles_in_rate_and_decay(params):
    """Without a gradient only decay moves a parameter, by rate × decay × itself; with one, only the rate counts."""
    recipe = s5_recipe(groups=EACH_ROLE, schedule="constant", lr=3e-3, ssm_lr=1e-3, weight_decay=0.05)
    rates = {"regular": 3e-3, "regular_no_decay": 3e-3, "ssm": 1e-3, "ssm_decay": 1e-3}
    decays = {"regular": 0.05, "regular_no_decay": 0.0, "ssm": 0.0, "ssm_decay": 0.05}
    before = leaves(params)
    assert {name for name, _ in before} == {*GROUP_OF_LEAF, "C", "C_reverse", "D", "kernel", "bias", "scale"}
    for (name, value), (_, idle), (_, pushed) in zip(
        before, moved(params, recipe, 0.0), moved(params, recipe, 2.0), strict=True
    ):
        group = GROUP_OF_LEAF.get(name, "regular")
        np.testing.assert_allclose(idle, -rates[group] * decays[group] * value, rtol=1e-5, atol=1e-12, err_msg=name)
        np.testing.assert_allclose(pushed - idle, -rates[group], rtol=1e-4, err_msg=name)


def test_what_is_frozen_stays_and_has_no_rate(params):
    frozen = {"eigenvalues": "frozen", "input": "frozen", "dt": "frozen"}
    recipe = s5_recipe(groups=frozen, schedule="constant", weight_decay=0.05)
    for name, change in moved(params, recipe, 2.0):
        assert (change == 0).all() == (name in GROUP_OF_LEAF), name
    with pytest.raises(ValueError, match="gives a rate to dt, which groups says is frozen"):
        s5_recipe(groups=frozen, role_lr={"dt": 1e-3, "output": 1e-3})


def test_decay_does_not_enter_adams_moments(params):
    """Decoupled: after any number of updates a zero gradient still moves by rate × decay × value and no more, where
    decay added to the gradient (Adam with L2) would move by the whole rate."""
    recipe = s5_recipe(schedule="constant", lr=3e-3, weight_decay=0.05)
    (kernel,) = [value for name, value in moved(params, recipe, 0.0, updates=5) if name == "kernel"][:1]
    (value,) = [value for name, value in leaves(params) if name == "kernel"][:1]
    np.testing.assert_allclose(kernel, -3e-3 * 0.05 * value, rtol=1e-5)


def test_adam_b2_is_the_recipes(params):
    """One unit gradient, then none: the second step's size is known in closed form from both decays."""
    for b2 in (0.98, 0.999):
        recipe = s5_recipe(schedule="constant", lr=1e-2, weight_decay=0.0, adam_b2=b2)
        optimizer = make_optimizer(params, recipe, 10)
        update = jax.jit(optimizer.update)
        _, state = update(jax.tree.map(jnp.ones_like, params), optimizer.init(params), params)
        change, _ = update(jax.tree.map(jnp.zeros_like, params), state, params)
        m, v = 0.9 * 0.1 / (1 - 0.9**2), b2 * (1 - b2) / (1 - b2**2)
        (kernel,) = [value for name, value in leaves(change) if name == "kernel"][:1]
        np.testing.assert_allclose(kernel, -1e-2 * m / v**0.5, rtol=1e-4)

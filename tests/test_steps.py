"""The training step at the published size, on random examples of ListOps' shape."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lra_bench.bench.synthetic import synthetic_run, synthetic_split
from lra_bench.machine.mesh import data_mesh
from lra_bench.machine.xla import all_finite, compile_program, compiler_options
from lra_bench.training import steps
from lra_bench.training.functional import initialized
from lra_bench.training.optimizer import make_optimizer
from lra_bench.training.state import Examples, stream_key


@pytest.mark.slow
def test_full_size_listops_step_learns_its_batch():
    """Batch 50, L = 2,048, eight layers of 128 features, as published: on a CPU too, the loss of one batch falls."""
    run, shape = synthetic_run("s5", "listops", None, {}, "float32")
    assert (run.recipe.batch_size, shape.length, run.recipe.n_layers, run.recipe.d_model) == (50, 2048, 8, 128)
    mesh = data_mesh()
    network, params, stats = initialized(run, shape)
    assert network.parameters == 188_490
    optimizer = make_optimizer(params, run.recipe, 96_000 // 50)
    state = steps.initial_state(params, stats, optimizer, mesh)
    batch = Examples(*(jnp.asarray(column) for column in synthetic_split(run.recipe, shape, 50)))
    arguments, options = (state, batch, stream_key(0, 2)), compiler_options(network.batched_products, training=True)
    step, cost = compile_program(steps.train_step(network, optimizer), arguments, "float32", options)
    assert cost.flops > 0
    losses, before = [], state
    for _ in range(3):
        state = step(state, batch, stream_key(0, 2))
        losses.append(float(state.totals.loss) / 50 - sum(losses))
    assert losses[0] == pytest.approx(np.log(10), abs=1.0)
    assert losses[-1] < losses[0]
    assert (int(state.step), int(state.first_bad)) == (3, -1)
    for old, new in zip(jax.tree.leaves(before.params), jax.tree.leaves(state.params), strict=True):
        assert np.isfinite(new).all()
        assert (np.asarray(old) != np.asarray(new)).any()


@pytest.mark.slow
def test_compiled_evaluation_leaves_products_to_eigen_but_for_the_transformer():
    """What is left to YNNPACK stands in the compiled program as a fusion of that name."""
    if jax.default_backend() != "cpu":
        pytest.skip("YNNPACK is a library for CPUs")
    for model in ("s5", "transformer"):
        run, shape = synthetic_run(model, "listops", 32, {"n_layers": 1, "batch_size": 4}, "float32")
        network, params, stats = initialized(run, shape)
        batch = Examples(*(jnp.asarray(column) for column in synthetic_split(run.recipe, shape, 4)))
        ours, default = (
            compile_program(network.apply_eval, (params, stats, batch), "float32", options)[0].as_text()
            for options in (compiler_options(network.batched_products, training=False), {})
        )
        assert ("ynn_fusion" in ours) == ("ynn_fusion" in default and model == "transformer")


def test_a_large_gradient_is_finite_and_nothing_else_is_lost():
    """The square of such a gradient overflows from 1.8e19 on."""
    good = {"a": jnp.full((3, 2), 1e30), "b": jnp.zeros(4)}
    assert all_finite(good)
    for bad in (jnp.inf, -jnp.inf, jnp.nan):
        assert not all_finite({**good, "b": good["b"].at[2].set(bad)})

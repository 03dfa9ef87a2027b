"""Rematerialized blocks: the same loss, gradients and statistics, in less memory."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lra_bench.bench.synthetic import synthetic_run, synthetic_split
from lra_bench.custom_layer import CustomModel
from lra_bench.machine.mesh import data_mesh
from lra_bench.machine.xla import compile_program, compiler_options
from lra_bench.models.custom import CustomModule
from lra_bench.models.remat import rematerialized
from lra_bench.training.functional import initialized
from lra_bench.training.optimizer import make_optimizer
from lra_bench.training.state import Examples
from lra_bench.training.steps import initial_state, train_step
from tests.recipes import s5_recipe

quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
SIZES = {"n_layers": 2, "d_model": 8, "batch_size": 4, "dropout": 0.2}


def gradient(model, remat):
    """(loss, statistics after it), and its gradient, of a small network on random examples."""
    run, shape = synthetic_run(model, "listops", 24, SIZES, "float32")
    network, params, stats = initialized(run, shape, remat)
    batch = Examples(*map(jnp.asarray, synthetic_split(run.recipe, shape, 4)))

    def loss(params):
        logits, after = network.apply_train(params, stats, batch, jax.random.key(3))
        return jax.nn.logsumexp(logits, axis=-1).sum(), after

    return quick_jit(jax.value_and_grad(loss, has_aux=True))(params)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["s5", "transformer"])
def test_loss_statistics_and_gradients_are_those_of_the_plain_network(model):
    plain, again = gradient(model, remat=False), gradient(model, remat=True)
    assert jax.tree.structure(plain) == jax.tree.structure(again)
    for expected, found in zip(jax.tree.leaves(plain), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * max(1e-3, float(jnp.abs(expected).max())))
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(again[1])) > 1e-3


class Noisy(nnx.Module):
    """A layer of a user's own, with all that a layer may keep: dropout, statistics, parameters."""

    def __init__(self, features, *, rngs):
        self.mix = nnx.Linear(features, features, rngs=rngs)
        self.norm = nnx.BatchNorm(features, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, u):
        return self.dropout(self.norm(self.mix(u)))


def test_a_users_layer_draws_the_same_dropout_again_and_keeps_its_statistics():
    def block():
        model = CustomModule(CustomModel("tests.test_remat:Noisy", Noisy))
        return model.block(s5_recipe(d_model=4), model.custom.Config(), rngs=nnx.Rngs(params=0, default=1))

    x = jax.random.normal(jax.random.key(2), (6, 3, 4))

    def value(call):
        made = block()
        graph, (params, rest) = nnx.graphdef(made), nnx.state(made, nnx.Param, ...)

        def loss(params, x):
            model = nnx.merge(graph, params, rest, copy=True)
            return (call(model, x, None, True, None) ** 2).sum(), nnx.state(model, nnx.BatchStat)

        return quick_jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(params, x)

    plain, again = value(lambda model, *arguments: model(*arguments)), value(rematerialized)
    for expected, found in zip(jax.tree.leaves(plain), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    before = jax.tree.leaves(nnx.state(block(), nnx.BatchStat))
    after = jax.tree.leaves(again[0][1])
    assert all((np.asarray(a) != np.asarray(b)).any() for a, b in zip(before, after, strict=True))


@pytest.mark.slow
def test_a_step_of_many_blocks_takes_less_than_half_the_memory():
    """As compiled for this device: the compiler could merge what is computed twice, or put off what frees memory."""
    peak = {}
    for remat in (False, True):
        changes = {**SIZES, "n_layers": 6, "d_model": 32, "d_state": 32, "blocks": 1}
        run, shape = synthetic_run("s5", "listops", 1024, changes, "float32")
        network, params, stats = initialized(run, shape, remat)
        optimizer = make_optimizer(params, run.recipe, 10)
        state = initial_state(params, stats, optimizer, data_mesh())
        batch = Examples(*map(jnp.asarray, synthetic_split(run.recipe, shape, 4)))
        arguments, options = (
            (state, batch, jax.random.key(0)),
            # The memory is decided before the code is made.
            compiler_options(network.batched_products, training=True) | {"xla_backend_optimization_level": 0},
        )
        step = train_step(network, optimizer)
        program, _ = compile_program(step, arguments, "float32", options)
        peak[remat] = program.memory_analysis().temp_size_in_bytes
    assert peak[True] < 0.5 * peak[False]

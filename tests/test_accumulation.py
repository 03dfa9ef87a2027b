"""Gradient accumulation: the gradient of a batch from parts of it, with the dropout of the whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lra_bench.bench.synthetic import synthetic_run, synthetic_split
from lra_bench.errors import UserError
from lra_bench.machine.mesh import data_mesh
from lra_bench.models.dropout import kept, rows_of_batch
from lra_bench.training.functional import FunctionalNetwork, initialized
from lra_bench.training.state import Examples
from lra_bench.training.steps import accumulated_gradient, batch_gradient, refuse_parts

PLACES = np.array([3, 4, 1])


@pytest.mark.parametrize(("whole", "axis"), [((5, 2, 7), 0), ((3, 10, 4), 1)])
def test_a_part_draws_the_dropout_of_the_whole(whole, axis):
    """Of 5 examples, with 10 documents in the second case."""
    together = int(np.prod(whole[axis + 1 :]))
    rows = np.concatenate([PLACES + start for start in range(0, whole[axis], 5)])

    @jax.jit
    def drawn(key):
        expected = jnp.take(kept(key, 0.3, whole, whole[axis], together), rows, axis)
        with rows_of_batch(jnp.asarray(PLACES, jnp.int32), 5):
            return expected, kept(key, 0.3, expected.shape, len(rows), together)

    expected, found = map(np.asarray, drawn(jax.random.key(3)))
    assert 0.4 < expected.mean() < 0.95
    np.testing.assert_array_equal(found, expected)


def test_a_draw_beyond_32_bits_is_refused():
    with rows_of_batch(jnp.zeros(1, jnp.int32), 2**20), pytest.raises(UserError, match="too many numbers at once"):
        kept(jax.random.key(0), 0.1, (2**12, 1), 1, 1)


class Linear:
    """A network of one product and a dropout, as `FunctionalNetwork` calls one."""

    def apply_train(self, params, stats, batch, key):
        x = batch.inputs.astype(jnp.float32)
        return (x * kept(key, 0.3, x.shape, *x.shape)) @ params, stats


def assert_same_gradient(network, params, stats, batch):
    """From five examples at once, and two at a time: the last part has one."""
    whole, parts = (
        jax.jit(gradient, compiler_options={"xla_backend_optimization_level": 0})(
            params, stats, batch, jax.random.key(3)
        )
        for gradient in (batch_gradient(network), accumulated_gradient(network, 2, data_mesh()))
    )
    assert jax.tree.structure(whole) == jax.tree.structure(parts)
    for expected, found in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * max(1e-3, float(jnp.abs(expected).max())))


def test_uneven_parts_sum_up_to_the_batch():
    rng = np.random.default_rng(0)
    inputs, labels = rng.integers(0, 3, (5, 4), np.uint8), rng.integers(0, 3, 5, np.int32)
    batch = Examples(*map(jnp.asarray, (inputs, np.full(5, 4, np.int32), labels)))
    assert_same_gradient(Linear(), jnp.asarray(rng.normal(size=(4, 3)), jnp.float32), {}, batch)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "changes"),
    [
        ("transformer", {"attention_dropout": 0.2, "qkv_dim": 8, "mlp_dim": 8, "heads": 2}),
        ("mega_chunk", {"chunk_size": 5, "hidden_dim": 8, "z_dim": 4, "ema_dim": 2}),
        ("s4d", {"norm": "layer"}),
        ("s5", {"norm": "layer"}),
    ],
)
def test_the_gradient_from_parts_is_that_of_the_batch(model, changes):
    """Pairs of documents, with every kind of dropout."""
    settings = {"n_layers": 1, "d_model": 8, "batch_size": 5, "dropout": 0.2, **changes}
    run, shape = synthetic_run(model, "retrieval", 12, settings, "float32")
    network, params, stats = initialized(run, shape)
    refuse_parts(network, stats)
    batch = Examples(*map(jnp.asarray, synthetic_split(run.recipe, shape, 5)))
    assert_same_gradient(network, params, stats, batch)


def test_batchnorm_and_random_layers_are_refused():
    plain = FunctionalNetwork(None, None, {}, 0, False)
    refuse_parts(plain, {})
    with pytest.raises(UserError, match="--microbatch needs a network without BatchNorm, whose moments are"):
        refuse_parts(plain, {"mean": jnp.zeros(2)})
    with pytest.raises(UserError, match="without random streams"):
        refuse_parts(FunctionalNetwork(None, None, {"key": jnp.zeros(2)}, 0, False), {})

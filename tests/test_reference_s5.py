"""The re-created published S5 and our S5 are one function of the same parameters: outputs, statistics, gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks.reference_s5 import Reference, prepare
from lra_bench.bench.synthetic import synthetic_split
from lra_bench.models.layers import DataShape
from lra_bench.training.functional import initialized
from lra_bench.training.state import Examples
from tests.recipes import s5_recipe

TOLERANCE = 1e-4

SHAPES = {
    "tokens with true lengths": (DataShape(15, 10, 1, True), {"embedding": 20, "activation": "half_glu2"}),
    "pixels": (DataShape(16, 10, 1, False), {"embedding": None, "pixels": "standard", "clip_eigs": True}),
    "pairs of documents": (DataShape(9, 2, 2, True), {"embedding": 98}),
}


class Given:
    """What `initialized` reads of a run."""

    model, seed, precision = "s5", 0, "float32"

    def __init__(self, recipe):
        self.recipe = recipe


def made(name):
    shape, changes = SHAPES[name]
    recipe = s5_recipe(n_layers=2 if name == "pixels" else 1, d_model=16, bidirectional=True, **changes)
    network, params, stats = initialized(Given(recipe), shape)
    examples = Examples(*map(jnp.asarray, synthetic_split(recipe, shape, 4)))
    if shape.variable_length:
        rng = np.random.default_rng(1)
        examples = examples._replace(lengths=jnp.asarray(rng.integers(1, shape.length + 1, examples.lengths.shape)))
    return network, Reference(recipe, shape), params, stats, examples, prepare(examples, recipe)


def close(ours, theirs):
    """Relative to the largest entry of each array: a gradient of nearly nothing need not agree in its digits."""
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        np.testing.assert_allclose(a, b, atol=TOLERANCE * max(np.abs(b).max(), 1e-6), rtol=0)


@pytest.mark.parametrize(
    "name", ["tokens with true lengths", *(pytest.param(n, marks=pytest.mark.slow) for n in list(SHAPES)[1:])]
)
def test_training_outputs_statistics_and_gradients_agree(name):
    network, reference, params, stats, examples, prepared = made(name)
    key = jax.random.key(0)

    def loss(side, params, batch):
        logits, updated = side.apply_train(params, stats, batch, key)
        value = optax.softmax_cross_entropy_with_integer_labels(logits, examples.labels).mean()
        return value, (logits, updated)

    results = [
        jax.jit(jax.grad(partial(loss, side), has_aux=True))(params, batch)
        for side, batch in ((network, examples), (reference, prepared))
    ]
    close(*results)
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(results[1][0]["blocks"][0]["layer"]))


def test_evaluation_agrees():
    network, reference, params, stats, examples, prepared = made("tokens with true lengths")
    close(jax.jit(network.apply_eval)(params, stats, examples), jax.jit(reference.apply_eval)(params, stats, prepared))


def test_dropout_keeps_the_mean_and_whole_features():
    """The two draw their masks from different keys, so they are not compared with each other here."""
    shape, changes = SHAPES["pixels"]
    reference = Reference(s5_recipe(bidirectional=True, dropout=0.25, **changes), shape)
    keys = jax.random.split(jax.random.key(0), 500)
    masks = jax.vmap(lambda key: reference._dropout(jnp.ones((3, 64)), key, 0))(keys)
    assert (masks == masks[:, :1]).all()
    assert abs(float(masks.mean()) - 1.0) < 0.02


def test_what_published_s5_never_runs_is_refused():
    with pytest.raises(ValueError, match="prenorm"):
        Reference(s5_recipe(bidirectional=True, norm="layer"), SHAPES["pixels"][0])

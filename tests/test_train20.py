"""Twenty AdamW steps in float64 against those that state-spaces/s4 took from the same parameters."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from lra_bench.models.layers import DataShape
from lra_bench.models.network import build
from lra_bench.overrides import apply_overrides
from lra_bench.registry import recipe_module, recipes_of
from lra_bench.spec import Recipe
from lra_bench.training.optimizer import make_optimizer

GOLDEN = Path(__file__).parent / "golden"


def recipe_of(model, stated):
    """The model's recipe for Image at the sizes of the reference's run. Which parameter has which rate and decay is the
    product's own."""
    sizes = {key: value for key, value in stated.items() if key in Recipe.model_fields}
    for key in ("published", "notes", "layer", "groups"):
        del sizes[key]
    recipe = recipes_of("image")[model]
    layer = {{"discretisation": "discretization"}.get(key, key): value for key, value in stated["layer"].items()}
    return apply_overrides(recipe, {**sizes, **layer}, recipe_module(model).Config)


def named(params):
    return {".".join(map(str, path)): leaf for path, leaf in nnx.to_flat_state(params)}


@pytest.mark.slow
@pytest.mark.parametrize(("model", "name"), [("s4", "train20_s4_post"), ("s4d", "train20_s4d_pre")])
def test_twenty_steps_are_the_references(model, name):
    golden = dict(np.load(GOLDEN / f"{name}.npz"))
    recipe = recipe_of(model, json.loads(str(golden["recipe"])))
    inputs, labels, b = golden["inputs"], golden["labels"], recipe.batch_size
    shape = DataShape(inputs.shape[1], 10, 1, False)
    with jax.enable_x64(True):
        network = build(model, recipe, shape, rngs=nnx.Rngs(0))
        graph, params, stats, rest = nnx.split(network, nnx.Param, nnx.BatchStat, ...)
        params, stats = jax.tree.map(lambda x: x.astype(jnp.float64), (params, stats))
        assert named(params).keys() == {key.removeprefix("init/") for key in golden if key.startswith("init/")}
        for key, leaf in named(params).items():
            assert leaf.shape == golden[f"init/{key}"].shape
            leaf[...] = jnp.asarray(golden[f"init/{key}"], jnp.float64)
        optimizer = make_optimizer(params, recipe, len(labels) // b)

        def loss_of(params, stats, inputs, labels):
            model = nnx.merge(graph, params, stats, rest, copy=True)
            logits = model(inputs, jnp.full(b, shape.length), train=True, key=jax.random.key(0))
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
            return loss, nnx.state(model, nnx.BatchStat)

        @jax.jit
        def step(params, stats, optimizer_state, inputs, labels):
            (loss, stats), grads = jax.value_and_grad(loss_of, has_aux=True)(params, stats, inputs, labels)
            updates, optimizer_state = optimizer.update(grads, optimizer_state, params)
            return optax.apply_updates(params, updates), stats, optimizer_state, loss

        optimizer_state = optimizer.init(params)
        for k, expected in enumerate(golden["ref_losses"]):
            rows = np.arange(k * b, (k + 1) * b) % len(labels)
            params, stats, optimizer_state, loss = step(params, stats, optimizer_state, inputs[rows], labels[rows])
            assert float(loss) == pytest.approx(expected, abs=1e-6), k
        for key, leaf in named(params).items():
            np.testing.assert_allclose(leaf[...], golden[f"p20/{key}"], rtol=0, atol=1e-5, err_msg=key)

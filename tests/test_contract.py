"""What every model of the table must hold, on a tiny form of its published ListOps recipe. A model added to the table
is tested here without writing a test; only its golden training step must be recorded: `python -m tests.test_contract`.

That every recipe passes its model's checks and builds at full size is in test_recipes.py.
"""

import json
from functools import cache, partial
from pathlib import Path
from typing import get_args
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lra_bench.errors import UserError
from lra_bench.machine.mesh import data_mesh
from lra_bench.models.layers import DataShape, FoldingLayer, RecurrentLayer
from lra_bench.models.network import build
from lra_bench.registry import model_names
from lra_bench.runs.run import make_run
from lra_bench.spec import DataInfo, Group
from lra_bench.ssm import hippo, ptd
from lra_bench.training import steps
from lra_bench.training.functional import initialized
from lra_bench.training.optimizer import group_labels, make_optimizer
from lra_bench.training.state import Examples

GOLDEN = Path(__file__).parent / "golden" / "training_step.json"
SHAPE = DataShape(length=16, classes=10, documents=1, variable_length=True)
BATCH = 8
TINY = {"n_layers": 1, "d_model": 8, "batch_size": BATCH}
TOY = {"schedule": "constant", "lr": 1e-2, "ssm_lr": 1e-3, "dropout": 0.1}
DATA = DataInfo(
    task="listops",
    version="0",
    protocol="s4",
    source="generated",
    size="tiny",
    fingerprint="0",
    length=SHAPE.length,
    classes=SHAPE.classes,
    counts={"train": 100, "val": 10, "test": 10},
    validation_is_test=False,
)

QUICK = ("s4d", "s5", "transformer")
"""The models of the default run: a convolution, a recurrence and attention. `.ci/run` has them all."""

every_model = pytest.mark.parametrize(
    "model",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in model_names()],
    scope="module",
)
"""The scope puts the tests of a model side by side, so that one process trains it for all of them."""

quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
"""Nearly all the time here is compilation, so each test is one program, initialization included."""


@pytest.fixture(autouse=True, scope="module")
def _ptd_without_its_solver():
    """Its minimum differs in the second digit between versions of scipy and LAPACK; HiPPO's normal part is a
    perturbation too."""
    with mock.patch.object(ptd, "ptd", normal_part):
        yield


def normal_part(n, gamma):
    B = hippo.legs(n).B
    return ptd.decompose(0.5 * np.outer(B, B))


@cache
def tiny_run(model, **changes):
    return make_run(DATA, model, 0, {**TINY, **changes}, "float32")


def network(model, **changes):
    """The tiny form, in evaluation; called inside jit."""
    built = build(model, tiny_run(model, **changes).recipe, SHAPE, rngs=nnx.Rngs(0))
    built.eval()
    return built


@cache
def abstract(model):
    return nnx.eval_shape(lambda: network(model, bidirectional=True))


def is_a_stack_of_layers(model):
    return hasattr(abstract(model).blocks[0], "layer")


def has_a_causal_form(model):
    return is_a_stack_of_layers(model) and isinstance(abstract(model).blocks[0].layer, RecurrentLayer)


def step_settings(model):
    """The settings with which the model runs step by step; None where none do."""
    if has_a_causal_form(model):
        return {"bidirectional": False}
    keeps_a_cache = not is_a_stack_of_layers(model) and hasattr(abstract(model), "step")
    return {"bidirectional": False, "pooling": "mean"} if keeps_a_cache else None


@cache
def examples():
    """Tokens whose first one is the class, of different lengths."""
    rng = np.random.default_rng(0)
    inputs = rng.integers(1, 18, (BATCH, SHAPE.length)).astype(np.uint8)
    lengths = np.array([16, 16, 12, 5, 16, 9, 3, 16], np.int32)
    inputs[np.arange(SHAPE.length) >= lengths[:, None]] = 0
    return Examples(*map(jnp.asarray, (inputs, lengths, inputs[:, 0].astype(np.int32) % 10)))


@cache
def training(model):
    """The toy training run: run, states after 0, 1, … updates, and how often the step was traced."""
    run = tiny_run(model, **TOY)
    taken_apart, params, stats = initialized(run, SHAPE)
    optimizer = make_optimizer(params, run.recipe, 10)
    state = steps.initial_state(params, stats, optimizer, data_mesh())
    step, traces = steps.train_step(taken_apart, optimizer), []

    def counted(state, batch, key):
        traces.append(model)
        return step(state, batch, key)

    jitted, states = quick_jit(counted), [state]
    for _ in range(25):
        states.append(jitted(states[-1], examples(), jax.random.key(0)))
    return run, states, traces


@every_model
def test_logits_are_finite_and_padding_has_the_declared_effect(model):
    """In evaluation, tokens beyond the true length change an example's logits just where the network says so."""
    batch = examples()
    beyond = jnp.arange(SHAPE.length) >= batch.lengths[:, None]
    both = jnp.stack([batch.inputs, jnp.where(beyond, 7, batch.inputs)])

    @quick_jit
    def score(both):
        built = network(model, bidirectional=True)
        return jnp.stack([built(inputs, batch.lengths, train=False, key=None) for inputs in both])

    logits = score(both)
    assert logits.shape == (2, BATCH, SHAPE.classes)
    assert logits.dtype == jnp.float32
    assert np.isfinite(logits).all()
    changed = np.abs(np.asarray(logits[0] - logits[1])).max(axis=1) > 1e-5
    padded = np.asarray(batch.lengths) < SHAPE.length
    assert not changed[~padded].any()
    assert (changed[padded] != abstract(model).ignores_padding).all()


@every_model
def test_causal_and_bidirectional_layers_see_what_they_say(model):
    """By the gradient of y_8: all inputs up to it, and those after it just where the layer is bidirectional. A model
    without a causal form must refuse to be one."""
    if not has_a_causal_form(model):
        with pytest.raises(UserError, match="bidirectional"):
            nnx.eval_shape(lambda: network(model, bidirectional=False))
    if not is_a_stack_of_layers(model):
        return
    ways = (False, True) if has_a_causal_form(model) else (True,)

    @quick_jit
    def gradients(u):
        layers = [network(model, bidirectional=way).blocks[0].layer for way in ways]
        for layer in layers:  # some start without any memory
            nnx.update(layer, jax.tree.map(lambda x: x + 0.05, nnx.state(layer, nnx.Param)))
        return [jax.grad(lambda u, layer=layer: jnp.sum(jnp.sin(layer(u)[8])))(u) for layer in layers]

    u = jax.random.normal(jax.random.key(0), (SHAPE.length, 1, TINY["d_model"]))
    for gradient, bidirectional in zip(gradients(u), ways, strict=True):
        seen = np.abs(np.asarray(gradient)).max((1, 2)) > 1e-6 * np.abs(gradient).max()
        assert seen[:9].all()
        assert (seen[9:] == bidirectional).all()


@every_model
def test_steps_equal_the_whole_sequence(model):
    """A causal network fed one token at a time ends at the logits of evaluation, with statistics that are not the
    initial ones; a bidirectional one refuses, and so does one without a causal form."""
    if hasattr(abstract(model), "step"):
        with pytest.raises(UserError, match=r"--set bidirectional=false|has no step"):
            abstract(model).initial_state(1)
    settings = step_settings(model)
    if settings is None:
        assert not hasattr(abstract(model), "dt")
        return

    @quick_jit
    def read(inputs):
        built = network(model, **settings)
        nnx.update(built, jax.tree.map(lambda x: x + 0.3, nnx.state(built, nnx.BatchStat)))
        whole = built(inputs, jnp.full(BATCH, SHAPE.length), train=False, key=None)
        return whole, jax.lax.scan(built.step, built.initial_state(BATCH), inputs.T)[1][-1]

    whole, stepped = read(examples().inputs)
    np.testing.assert_allclose(stepped, whole, rtol=1e-4, atol=1e-5)


@every_model
def test_evaluation_may_fold_the_norm_into_the_layer(model):
    """Both ways through: `steps equal the whole sequence` has a network that folds against steps that do not."""
    if not is_a_stack_of_layers(model) or not isinstance(abstract(model).blocks[0].layer, FoldingLayer):
        return

    @quick_jit
    def both_ways(x, scale, shift):
        layer = network(model, bidirectional=True).blocks[0].layer
        return layer(x * scale + shift), layer.folded(x, scale, shift)

    x, scale, shift = (jax.random.normal(jax.random.key(n), shape) for n, shape in enumerate([(16, 3, 8), (8,), (8,)]))
    np.testing.assert_allclose(*both_ways(x, scale, shift), rtol=1e-4, atol=1e-5)


@every_model
def test_no_program_calls_lapack(model):
    """jaxlib's batched solves on a CPU wait for threads of the pool that they run in: some side by side never end."""

    @jax.jit
    def made():
        settings = step_settings(model)
        built = network(model, **(settings or {"bidirectional": True}))
        return nnx.state(built), None if settings is None else built.initial_state(1)

    assert "lapack" not in made.lower().as_text()


@every_model
def test_every_parameter_is_in_one_optimizer_group(model):
    run, (state, *_), _ = training(model)
    params = state.params
    labels = jax.tree.leaves(group_labels(params, run.recipe))
    assert len(labels) == len(jax.tree.leaves(params))
    assert set(labels) <= {*get_args(Group), *run.recipe.role_lr}
    moments = jax.eval_shape(make_optimizer(params, run.recipe, 10).init, params)
    sizes = [leaf.size for leaf in jax.tree.leaves(moments) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert sum(sizes) == 2 * sum(leaf.size for leaf in jax.tree.leaves(params))


@every_model
def test_loss_falls_and_the_step_is_compiled_once(model):
    _, states, traces = training(model)
    losses = np.diff([float(state.totals.loss) / BATCH for state in states])
    assert losses[-1] < 0.7 * losses[0]
    assert int(states[-1].first_bad) == -1
    assert traces == [model]


@every_model
def test_two_steps_move_every_parameter_that_the_loss_depends_on(model):
    """All but the rows of tokens that are not in the batch. What starts at a point without slope needs two steps."""
    _, (before, _, after, *_), _ = training(model)
    for (path, old), (_, new) in zip(*(nnx.to_flat_state(state.params) for state in (before, after)), strict=True):
        assert not np.array_equal(old[...], new[...]), ".".join(map(str, path))


def measure_step(model):
    """Loss and gradient norm of the first training step; Adam's first moment is then a tenth of the gradient."""
    _, (_, state, *_), _ = training(model)
    moments = [
        leaf[...]
        for path, leaf in jax.tree_util.tree_leaves_with_path(state.optimizer)
        if ".mu" in jax.tree_util.keystr(path)
    ]
    norm = np.sqrt(sum(float(jnp.sum(jnp.square(moment))) for moment in moments))
    return {"loss": float(state.totals.loss) / BATCH, "gradient_norm": 10 * norm}


@every_model
def test_first_training_step_is_the_golden_one(model):
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    measured = measure_step(model)
    advice = f"{model}: {measured}. If a change of these numbers is meant, type: python -m tests.test_contract"
    assert model in golden, advice
    assert measured == pytest.approx(golden[model], rel=1e-4), advice


def test_golden_steps_are_of_models_that_exist():
    assert set(json.loads(GOLDEN.read_text(encoding="utf-8"))) <= set(model_names())


if __name__ == "__main__":
    with mock.patch.object(ptd, "ptd", normal_part):
        steps_of = {name: measure_step(name) for name in model_names()}
    GOLDEN.write_text(json.dumps(steps_of, indent=1) + "\n", encoding="utf-8")
    print(GOLDEN)

"""The fused block against `layers.Block`, in Pallas' interpreter, and where it is used."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AbstractDevice, AbstractMesh, use_abstract_mesh

from lra_bench.bench.synthetic import synthetic_run
from lra_bench.kernels import scan as scan_kernels
from lra_bench.kernels import triton
from lra_bench.kernels.triton import Interpreter
from lra_bench.machine import platform
from lra_bench.models import classifier
from lra_bench.models.fused import can_fuse
from lra_bench.models.network import build
from lra_bench.registry import recipe_module, task_names
from lra_bench.ssm import scan

GPU = AbstractMesh((), (), abstract_device=AbstractDevice(device_kind="NVIDIA H200", num_cores=None, platform="gpu"))
LENGTH, BATCH = 70, 3
SMALL = {"batch_size": BATCH, "n_layers": 2, "d_model": 32, "dropout": 0.2}
S5 = SMALL | {"d_state": 16, "blocks": 2, "bidirectional": True, "activation": "half_glu2"}


def network(model, changes, length=LENGTH, task="listops"):
    """A network with BatchNorm of random scales and shifts, so that each has a gradient of its own."""
    run, shape = synthetic_run(model, task, length, changes, "float32")
    made = build(run.model, run.recipe, shape, rngs=nnx.Rngs(0))
    made.train()
    rng = np.random.default_rng(1)
    for block in made.blocks:
        norm = block.norm
        if hasattr(norm, "mean"):
            H = norm.scale[...].shape[0]
            norm.scale[...] = jnp.asarray(1 + 0.3 * rng.standard_normal(H), jnp.float32)
            norm.bias[...] = jnp.asarray(0.3 * rng.standard_normal(H), jnp.float32)
    return made


def loss_function(made):
    """The loss of a batch as a function of the parameters, and these."""
    graph, params, rest = nnx.split(made, nnx.Param, ...)
    rng = np.random.default_rng(2)
    inputs = jnp.asarray(rng.integers(0, 10, (BATCH, made.shape.length)), jnp.uint8)
    lengths = jnp.full((BATCH,), made.shape.length, jnp.int32)

    def loss(params):
        model = nnx.merge(graph, params, rest, copy=True)
        logits = model(inputs, lengths, train=True, key=jax.random.key(3))
        return (logits * jnp.arange(1, logits.shape[1] + 1)).sum(), nnx.state(model, nnx.BatchStat)

    return loss, params


def trained(made, fuse, monkeypatch):
    """The loss, the running statistics and the gradients, from fused or plain blocks."""
    monkeypatch.setattr(classifier, "can_fuse", lambda block, x: fuse)
    loss, params = loss_function(made)
    with jax.default_matmul_precision("highest"):
        return jax.jit(jax.value_and_grad(loss, has_aux=True))(params)


def errors(found, expected):
    """The relative error of each array, by its name."""
    pairs = zip(*(jax.tree_util.tree_leaves_with_path(tree) for tree in (found, expected)), strict=True)
    return {jax.tree_util.keystr(path): error(x, y) for (path, x), (_, y) in pairs}


def error(found, expected):
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    return np.linalg.norm(found - expected) / (np.linalg.norm(expected) + 1e-30)


@pytest.fixture
def interpreted(monkeypatch):
    monkeypatch.setattr(Interpreter, "on", True)
    monkeypatch.setattr(scan_kernels, "SHORTEST_CHUNK", 64)
    monkeypatch.setattr(scan_kernels, "AHEAD", 2)


CASES = {
    "s5": ("s5", S5),
    # All eigenvalues, without conjugate symmetry.
    "s5_ptd": ("s5_ptd", SMALL | {"d_state": 16, "blocks": 2, "bidirectional": False, "activation": "half_glu1"}),
    "lru": ("lru", SMALL | {"d_state": 8, "bidirectional": False}),
}


@pytest.mark.usefixtures("interpreted")
@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_fused_blocks_have_the_values_statistics_and_gradients_of_plain_ones(name, monkeypatch):
    model, changes = CASES[name]
    made = network(model, changes)
    plain, fused = (trained(made, fuse, monkeypatch) for fuse in (False, True))
    wrong = {name: e for name, e in errors(fused, plain).items() if e > 2e-5}
    assert not wrong


@pytest.mark.usefixtures("interpreted")
@pytest.mark.slow
@pytest.mark.parametrize("name", ["s5"])
def test_fused_blocks_evaluate_as_plain_ones_do(name, monkeypatch):
    model, changes = CASES[name]
    made = network(model, changes)
    rng = np.random.default_rng(4)
    for block in made.blocks:
        block.norm.mean[...] = jnp.asarray(0.3 * rng.standard_normal(made.features), jnp.float32)
        block.norm.var[...] = jnp.asarray(rng.uniform(0.5, 2.0, made.features), jnp.float32)
    x = jnp.asarray(rng.standard_normal((LENGTH, BATCH, made.features)), jnp.float32)
    lengths = jnp.asarray([LENGTH, 9, 40], jnp.int32)
    logits = []
    for fuse in (False, True):
        monkeypatch.setattr(classifier, "can_fuse", lambda block, x, fuse=fuse: fuse)
        with jax.default_matmul_precision("highest"):
            logits.append(made.classify(x, lengths, train=False, key=None))
    assert error(*logits[::-1]) < 2e-5


@pytest.mark.slow
@pytest.mark.usefixtures("interpreted")
def test_in_16_bits_fused_blocks_round_no_more_than_plain_ones(monkeypatch):
    made = network("s5", S5)
    exact = trained(made, False, monkeypatch)
    made.activations = jnp.bfloat16
    plain, fused = (errors(trained(made, fuse, monkeypatch), exact) for fuse in (False, True))
    assert not {name: (e, plain[name]) for name, e in fused.items() if e > 2 * plain[name] + 0.01}


def fusible(made, dtype=jnp.float32, length=LENGTH, precision="tensorfloat32", mesh=GPU):
    """Whether each block of a network is fused on a described GPU."""
    found = set()

    def ask():
        x = jnp.zeros((length, BATCH, made.features), dtype)
        found.update(can_fuse(block, x) for block in made.blocks)

    with use_abstract_mesh(mesh), jax.default_matmul_precision(precision):
        jax.eval_shape(ask)
    (answer,) = found
    return answer


def test_a_block_is_fused_with_tf32_or_bfloat16_on_one_gpu_only(monkeypatch):
    made = network("s5", S5)
    assert fusible(made)
    assert fusible(made, jnp.bfloat16)
    assert fusible(made, jnp.bfloat16, precision="highest")
    assert not fusible(made, precision="highest")
    assert not fusible(made, mesh=AbstractMesh((), ()))
    assert not fusible(made, length=64)
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    assert not fusible(made)


REFUSED = {
    "LayerNorm": ("s5", {"norm": "layer"}),
    "norm last": ("s5", {"prenorm": False}),
    "the gate that is none": ("s5", {"activation": "gelu"}),
    "a width that has no blocks of 16": ("s5", {"d_model": 40}),
    "a width above 256": ("s5", {"d_model": 272}),
    "a width of states that has no blocks of 16": ("s5", {"d_state": 12, "blocks": 1}),
    "another layer": ("s4d", {}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_block_that_the_kernels_do_not_compute_is_left_to_xla(name):
    model, changes = REFUSED[name]
    sizes = S5 if model == "s5" else SMALL | {"batch_size": BATCH}
    assert not fusible(network(model, sizes | changes))


def test_blocks_that_mask_or_drop_before_the_gate_are_left_to_xla():
    made = network("s5", S5)
    made.blocks[0].mask_before_layer = made.blocks[1].mask_before_layer = True
    assert not fusible(made)
    made = network("s5", S5)
    made.blocks[0].output_dropout = made.blocks[1].output_dropout = "each_step"
    assert not fusible(made)


@pytest.mark.parametrize("model", ["s5", "s5_ptd", "lru"])
def test_every_recipe_up_to_the_widest_is_fused(model):
    """The recipes are those of the tasks that have one, at their own sizes."""
    widths = []
    for task in task_names():
        if task not in recipe_module(model).RECIPES:
            continue
        run, shape = synthetic_run(model, task, None, {"n_layers": 1}, "tf32")
        found = []

        def layer(run=run, shape=shape, found=found):
            made = build(run.model, run.recipe, shape, rngs=nnx.Rngs(0))
            x = jnp.zeros((shape.length, 1, run.recipe.d_model))
            found.append(can_fuse(made.blocks[0], x))

        with use_abstract_mesh(GPU), jax.default_matmul_precision("tensorfloat32"):
            jax.eval_shape(layer)
        assert found == [run.recipe.d_model <= 256], task
        widths.append(run.recipe.d_model)
    assert min(widths) <= 256


# kernels/triton.py says what follows the dialect.
@pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated:DeprecationWarning")
@pytest.mark.slow
def test_a_fused_training_step_is_lowered_for_a_gpu_that_is_not_here():
    made = network("s5", S5)
    with use_abstract_mesh(GPU), jax.default_matmul_precision("tensorfloat32"):
        loss, params = loss_function(made)
        traced = jax.jit(jax.grad(loss, has_aux=True)).trace(params)
        names = {name for name in KERNELS if f"name={name}" in str(traced.jaxpr)}
        assert names == KERNELS
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("triton") >= len(KERNELS)


KERNELS = {"gate", "gate_gradient", "project", "scan_states", "scan_gradient", "input_gradients"}


@pytest.mark.parametrize(("capability", "usable"), [("7.5", False), ("8.0", True), ("9.0", True), ("gfx942", False)])
def test_gpus_for_which_xla_does_not_compile_them_have_no_kernels(monkeypatch, capability, usable):
    monkeypatch.setattr(platform, "target_platform", lambda: "gpu")
    monkeypatch.setattr(platform, "device_capability", lambda: capability)
    assert triton.usable(1) == usable


def test_arrays_beyond_32_bit_indices_have_no_kernels():
    with use_abstract_mesh(GPU):
        assert triton.usable(2**31 - 1)
        assert not triton.usable(2**31)
        assert scan.fastest_form(2**20, 2**12) == "chunked"
        assert scan.fastest_form(2**20, 2**10) == "loop"

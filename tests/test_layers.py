"""The S5 layer and classifier against numbers the reference printed (tests/golden), and what padding and dropout may
change."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lra_bench.models import s5 as s5_model
from lra_bench.models.classifier import pool
from lra_bench.models.dropout import dropout, dropout_masks
from lra_bench.models.layers import FLAX, TORCH, BatchNorm, DataShape, GLUOutput
from lra_bench.models.network import build
from lra_bench.overrides import apply_overrides
from lra_bench.registry import recipe_module, recipes_of
from tests.recipes import s5_config, s5_recipe

GOLDEN = Path(__file__).parent / "golden"


def load(name):
    return dict(np.load(GOLDEN / f"{name}.npz"))


def assign(parameter, value):
    parameter[...] = jnp.asarray(value, parameter[...].dtype)


def fill_block(block, arrays, prefix, suffix="params"):
    """Put the reference's flattened parameters and statistics of one layer into a block."""
    seq = block.layer
    for ours, theirs in [("Lambda_re", "Lambda_re"), ("Lambda_im", "Lambda_im"), ("B", "B"), ("D", "D")]:
        assign(getattr(seq, ours), arrays[f"{suffix}/{prefix}seq/{theirs}"])
    assign(seq.log_dt, arrays[f"{suffix}/{prefix}seq/log_step"][:, 0])
    both = f"{suffix}/{prefix}seq/C1" in arrays
    assign(seq.C, arrays[f"{suffix}/{prefix}seq/{'C1' if both else 'C'}"])
    if both:
        assign(seq.C_reverse, arrays[f"{suffix}/{prefix}seq/C2"])
    norm = block.norm if isinstance(block.norm, BatchNorm) else block.norm.norm
    assign(norm.scale, arrays[f"{suffix}/{prefix}norm/scale"])
    assign(norm.bias, arrays[f"{suffix}/{prefix}norm/bias"])
    for ours, theirs in [("value", "out1"), ("gate", "out2")]:
        if f"{suffix}/{prefix}{theirs}/kernel" in arrays:
            fill_dense(getattr(block.gate, ours), arrays, f"{suffix}/{prefix}{theirs}")
    if isinstance(block.norm, BatchNorm):
        assign(block.norm.mean, arrays[f"stats_before/{prefix}norm/mean"])
        assign(block.norm.var, arrays[f"stats_before/{prefix}norm/var"])


def fill_dense(dense, arrays, path):
    assign(dense.kernel, arrays[f"{path}/kernel"])
    assign(dense.bias, arrays[f"{path}/bias"])


def close(actual, expected, tolerance=1e-5):
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


def check_statistics(block, arrays, prefix):
    close(block.norm.mean[...], arrays[f"stats_after/{prefix}norm/mean"])
    close(block.norm.var[...], arrays[f"stats_after/{prefix}norm/var"])


@pytest.mark.parametrize(
    "name", [pytest.param("full_glu_post_ln", marks=pytest.mark.slow), "half_glu1_pre_bn", "half_glu2_pre_bn"]
)
def test_layer_equals_reference(name):
    arrays = load(f"s5_layer_{name}")
    activation, place, norm = name.rsplit("_", 2)
    recipe = s5_recipe(d_model=4, prenorm=place == "pre", norm="batch" if norm == "bn" else "layer", norm_decay=0.95)
    block = s5_model.block(recipe, s5_config(activation=activation), rngs=nnx.Rngs(0))
    fill_block(block, arrays, "")
    x = jnp.asarray(arrays["x"]).swapaxes(0, 1)
    close(block(x, None, False, None).swapaxes(0, 1), arrays["y_eval"])
    close(block(x, None, True, None).swapaxes(0, 1), arrays["y_train"])
    if norm == "bn":
        check_statistics(block, arrays, "")


@pytest.mark.parametrize(("name", "documents"), [("cls_padded_pool", 1), ("retrieval", 2)])
def test_model_equals_reference(name, documents):
    arrays = load(f"s5_model_{name}")
    classes = 7 if documents == 1 else 2
    recipe = s5_recipe(
        n_layers=2,
        d_model=4,
        embedding=5,
        bidirectional=True,
        activation="half_glu2" if documents == 1 else "half_glu1",
    )
    model = build("s5", recipe, DataShape(32, classes, documents, True), rngs=nnx.Rngs(0))
    for i, block in enumerate(model.blocks):
        fill_block(block, arrays, f"encoder/layers_{i}/")
    fill_dense(model.encoder.dense, arrays, "params/encoder/encoder")
    if documents == 1:
        fill_dense(model.head, arrays, "params/decoder")
    else:
        fill_dense(model.head.hidden, arrays, "params/decoder/layer1")
        fill_dense(model.head.output, arrays, "params/decoder/layer2")
    x = model.encoder.dense(jnp.asarray(arrays["x"]).swapaxes(0, 1))
    lengths = jnp.asarray(arrays["lengths"], jnp.int32)
    for train, expected in [(False, "logp_eval"), (True, "logp_train")]:
        close(jax.nn.log_softmax(model.classify(x, lengths, train=train, key=None)), arrays[expected])
    if documents == 1:
        for i, block in enumerate(model.blocks):
            check_statistics(block, arrays, f"encoder/layers_{i}/")


def test_tokens_enter_as_one_hot_through_a_dense_layer():
    model = build("s5", s5_recipe(embedding=6), DataShape(5, 3, 1, False), rngs=nnx.Rngs(0))
    tokens = jnp.asarray([[0, 1, 5, 2, 2]], jnp.uint8)
    expected = model.encoder.dense(jax.nn.one_hot(tokens.T, 6))
    np.testing.assert_allclose(model.encoder(tokens.T), expected, rtol=1e-6)


def test_dropout_masks_a_feature_for_all_steps():
    x = jnp.ones((9, 4, 50))
    (masks,) = dropout_masks(jax.random.key(0), 0.3, (1, 2, 4, 50), x.dtype)
    first, second = (np.asarray(dropout(x, masks, number)) for number in (0, 1))
    assert (first == first[:1]).all()
    assert (first[0] != second[0]).any()
    assert set(np.unique(first)) == {np.float32(0.0), np.float32(1 / 0.7)}
    assert 0.55 < (first[0] > 0).mean() < 0.85
    assert dropout_masks(None, 0.3, (1, 2, 4, 50), x.dtype) is None
    assert dropout_masks(jax.random.key(0), 0.0, (1, 2, 4, 50), x.dtype) is None
    assert dropout(x, None, 0) is x


def test_dropout_masks_are_those_of_a_plain_draw():
    """Drawn as one row, in a branch on a CPU: the numbers are those of JAX's generator all the same, for every key."""
    shape = (3, 2, 4, 50)
    for seed in range(3):
        key = jax.random.key(seed)
        plain = jax.random.bernoulli(key, 0.7, shape).astype(jnp.float32) / 0.7
        np.testing.assert_array_equal(
            jax.jit(dropout_masks, static_argnums=(1, 2, 3))(key, 0.3, shape, jnp.float32), plain
        )


def test_each_block_has_masks_of_its_own():
    model = build("s5", s5_recipe(dropout=0.5, n_layers=2), DataShape(5, 3, 1, False), rngs=nnx.Rngs(0))
    seen = []
    for block in model.blocks:
        block.gate = lambda y, masks, key: seen.append(np.asarray(masks)) or y
        block.gate.masks, block.gate.each_step = 2, None
    inputs = jnp.zeros((4, 5), jnp.uint8)
    model(inputs, jnp.full(4, 5), train=True, key=jax.random.key(0))
    assert len(seen) == 2
    assert (seen[0] != seen[1]).any()


def test_masked_pooling_ignores_padding():
    x = jax.random.normal(jax.random.key(0), (7, 2, 3))
    lengths = jnp.asarray([4, 7])
    changed = x.at[4:, 0].set(99.0)
    for how in ("mean", "last"):
        np.testing.assert_array_equal(pool(x, lengths, how), pool(changed, lengths, how))
    close(pool(x, lengths, "mean")[0], x[:4, 0].mean(0), 1e-6)
    np.testing.assert_array_equal(pool(x, lengths, "last")[0], x[3, 0])


def test_running_variance_is_biased_in_flax_and_unbiased_in_torch():
    x = jax.random.normal(jax.random.key(0), (3, 2, 1))
    for conventions, ddof in [(FLAX, 0), (TORCH, 1)]:
        norm = BatchNorm(1, 0.0, conventions.unbiased_running_variance)
        norm(x, True)
        close(norm.var[0], np.var(np.asarray(x), ddof=ddof), 1e-5)


def test_s4_output_is_a_glu_of_the_exact_gelu():
    gate = GLUOutput(3, TORCH, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (5, 2, 3))
    activated = np.asarray(jax.nn.gelu(x, approximate=False))
    linear = activated @ np.asarray(gate.linear.kernel[...]) + np.asarray(gate.linear.bias[...])
    close(gate(x, None), linear[..., :3] / (1 + np.exp(-linear[..., 3:])), 1e-5)


@pytest.mark.parametrize(
    ("model", "tied", "each_step"),
    [pytest.param("s4", 2, True, marks=pytest.mark.slow), ("s4d", 2, False), ("s4_ptd", 3, False)],
)
def test_s4_family_drops_as_the_version_that_each_follows(model, tied, each_step):
    """The layer is the identity, so the input of the only block's gate shows the dropout of the layer's output."""
    small = {"n_layers": 1, "d_model": 4, "d_state": 4, "n_ssm": 1, "prenorm": True, "norm": "batch"}
    recipe = apply_overrides(recipes_of("image")[model], {**small, "dropout": 0.5}, recipe_module(model).Config)
    block = build(model, recipe, DataShape(400, 10, 1, False), rngs=nnx.Rngs(0)).blocks[0]
    assert block.masks == tied
    x, seen = jnp.ones((400, 3, 4)), []
    block.layer, block.norm = (lambda x: x), (lambda x, train: x)
    gate = block.gate
    block.gate = lambda y, masks, key: seen.append(np.asarray(y)) or y
    block.gate.masks = gate.masks
    (masks,) = dropout_masks(jax.random.key(0), 0.5, (1, tied, 3, 4), x.dtype)
    block(x, None, True, masks, jax.random.key(1))
    dropped = seen[0]
    assert (dropped == dropped[:1]).all() != each_step
    assert set(np.unique(dropped)) == ({1.0} if model == "s4d" else {0.0, 2.0})
    if each_step:
        assert 0.45 < (dropped > 0).mean() < 0.55
    np.testing.assert_array_equal(block(x, None, False, None), 2 * x)

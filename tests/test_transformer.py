"""The Transformer: attention against flax's own, masks, class token, and its parameter counts."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lra_bench.errors import UserError
from lra_bench.models import attention, transformer
from lra_bench.models.classifier import count_parameters
from lra_bench.models.layers import DataShape
from lra_bench.models.network import build
from tests.recipes import s5_recipe

LAYER = {"heads": 2, "qkv_dim": 6, "mlp_dim": 10, "attention_dropout": 0.0, "positions": "sinusoidal"}


def recipe(layer=None, **changes):
    base = s5_recipe(norm="layer", bidirectional=True, pooling="cls", d_model=8)
    return base.model_copy(update={"layer": {**LAYER, **(layer or {})}, **changes})


def make(shape=None, **changes):
    shape = shape or DataShape(12, 3, 1, True)
    return build("transformer", recipe(**changes), shape, rngs=nnx.Rngs(0))


def abstract(shape=None, **changes):
    return nnx.eval_shape(lambda: make(shape, **changes))


def scorer(model, lengths):
    graph, state = nnx.split(model)
    return jax.jit(lambda inputs: nnx.merge(graph, state)(inputs, lengths, train=False, key=None))


FORMS = (attention._by_query, attention._by_group)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("length", [7, 300, 515])
def test_attention_equals_flax(length, form):
    """One group of queries, more than one with a remainder, and two that are filled up."""
    q, k, v = jax.random.normal(jax.random.key(0), (3, length, 2, 3, 4))
    lengths = jnp.asarray([length, length - 3])
    real = jnp.arange(length)[:, None] < lengths[None]
    batch_first = [x.swapaxes(0, 1) for x in (q, k, v)]
    mask = (real.T[:, None, :, None] & real.T[:, None, None, :]).repeat(3, axis=1)
    expected = nnx.dot_product_attention(*batch_first, mask=mask).swapaxes(0, 1)
    ours = jax.jit(lambda q, k, v: form(q, k, v, real, 0.0, None))(q, k, v)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_attention_has_flaxs_gradient():
    q, k, v = jax.random.normal(jax.random.key(0), (3, 5, 1, 2, 4))

    def plain(q, k, v):
        return nnx.dot_product_attention(*(x.swapaxes(0, 1) for x in (q, k, v))).swapaxes(0, 1)

    ours = jax.grad(lambda *x: jnp.sum(jnp.sin(transformer.attend(*x, None, 0.0, None))), argnums=(0, 1, 2))(q, k, v)
    theirs = jax.grad(lambda *x: jnp.sum(jnp.sin(plain(*x))), argnums=(0, 1, 2))(q, k, v)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("width", [4, 12])
@pytest.mark.parametrize("masked", [False, True])
def test_the_forms_of_attention_have_the_same_gradient(masked, width):
    """Of filled groups of queries, with documents of which one is all padding, for narrow and for wide heads."""
    q, k, v, dy = jax.random.normal(jax.random.key(0), (4, 515, 2, 1, width))
    real = jnp.arange(515)[:, None] < jnp.asarray([400, 0])[None] if masked else None
    theirs, ours = (
        jax.jit(lambda *x, form=form: jax.vjp(lambda *x: form(*x, real, 0.0, None), *x)[1](dy))(q, k, v)
        for form in FORMS
    )
    for a, b in zip(theirs, ours, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5)


def test_grouped_attention_drops_the_same_weights_in_its_gradient():
    """Attention is linear in the values, so its value at dv is its derivative along dv."""
    q, k, v, dv, dy = jax.random.normal(jax.random.key(0), (5, 300, 1, 2, 4))
    call = jax.jit(lambda v: attention._by_group(q, k, v, None, 0.4, jax.random.key(1)))
    gradient = jax.jit(lambda v: jax.vjp(call, v)[1](dy)[0])(v)
    assert float((gradient * dv).sum()) == pytest.approx(float((call(dv) * dy).sum()), rel=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_attention_in_bfloat16_rounds_factors_only(form):
    q, k, v = jax.random.normal(jax.random.key(0), (3, 300, 1, 2, 16)).astype(jnp.bfloat16)
    y = jax.jit(lambda *x: form(*x, None, 0.0, None))(q, k, v)
    exact = attention._by_query(*(x.astype(jnp.float32) for x in (q, k, v)), None, 0.0, None)
    assert y.dtype == jnp.bfloat16
    assert np.abs(y.astype(jnp.float32) - exact).max() < 2**-7 * np.abs(exact).max()


@pytest.mark.parametrize("form", FORMS)
def test_attention_dropout_is_drawn_for_each_query_and_keeps_the_mean(form):
    q, k, v = jnp.zeros((64, 1, 1, 1)), jnp.zeros((64, 1, 1, 1)), jnp.ones((64, 1, 1, 1))
    seen = np.asarray(form(q, k, v, None, 0.5, jax.random.key(0)))[:, 0, 0, 0]
    assert np.std(seen) > 0.05
    assert np.mean(seen) == pytest.approx(1.0, abs=0.1)


@pytest.mark.slow
def test_bfloat16_activations_keep_logits_and_gradients_in_float32():
    model = make(DataShape(12, 3, 1, False), n_layers=2)
    inputs, lengths = jax.random.randint(jax.random.key(0), (4, 12), 1, 5).astype(jnp.uint8), jnp.full(4, 12)
    exact = scorer(model, lengths)(inputs)
    model.activations = jnp.bfloat16
    graph, state = nnx.split(model)

    @jax.jit
    def logits_and_gradient(state):
        def call(state):
            logits = nnx.merge(graph, state)(inputs, lengths, train=False, key=None)
            return logits.sum(), logits

        return jax.grad(call, has_aux=True)(state)

    gradient, logits = logits_and_gradient(state)
    assert {x.dtype for x in jax.tree.leaves((gradient, logits))} == {jnp.dtype("float32")}
    assert 0 < np.abs(logits - exact).max() < 0.05 * np.abs(exact).max()


def test_what_is_beyond_the_true_length_changes_nothing():
    model = make()
    inputs = jax.random.randint(jax.random.key(0), (2, 12), 0, 5).astype(jnp.uint8)
    lengths = jnp.asarray([7, 12])
    garbage = inputs.at[0, 7:].set(4 - inputs[0, 7:])
    score = scorer(model, lengths)
    np.testing.assert_allclose(score(inputs), score(garbage), rtol=1e-6)
    assert not np.allclose(score(inputs.at[0, 3].set(4)), score(inputs), rtol=1e-3)


def test_black_pixels_are_not_looked_at():
    """The LRA code takes a 0 for padding, in images too: with it out of sight its embedding has no gradient but the
    residual one, which the class token does not see."""
    model = make(DataShape(6, 3, 1, False), embedding=256)
    pixels = jnp.asarray([[5, 0, 9, 0, 255, 3]], jnp.uint8)

    graph, state = nnx.split(model)

    @jax.jit
    @jax.grad
    def gradient_of(table):
        model = nnx.merge(graph, state, copy=True)
        model.table[...] = table
        return model(pixels, jnp.asarray([6]), train=False, key=None).sum()

    gradient = np.abs(np.asarray(gradient_of(model.table[...]))).sum(1)
    assert gradient[0] == 0
    assert set(np.flatnonzero(gradient)) == {3, 5, 9, 255}


def test_order_matters_through_positions_only():
    model = make(DataShape(6, 3, 1, False))
    inputs = jnp.asarray([[1, 2, 3, 4, 1, 2]], jnp.uint8)
    score = scorer(model, jnp.asarray([6]))
    assert not np.allclose(score(inputs), score(inputs[:, ::-1]), rtol=1e-3)
    table = transformer.sinusoids(50, 8)
    position = np.arange(50)
    np.testing.assert_allclose(table[:, 0], np.sin(position), atol=1e-5)
    np.testing.assert_allclose(table[:, 7], np.cos(position * 10_000 ** (-6 / 8)), atol=1e-5)


@pytest.mark.parametrize("positions", ["sinusoidal", "learned", "rotary"])
def test_steps_with_a_cache_equal_the_whole_causal_sequence(positions, monkeypatch):
    """Over blocks of four keys of which the last is part empty, with black pixels, which are padding, at the start and
    in the middle. The contract has texts."""
    monkeypatch.setattr(attention, "KEYS_AT_ONCE", 4)
    layer = {"positions": positions, "qkv_dim": 8}
    model = make(DataShape(11, 3, 1, False), layer=layer, bidirectional=False, pooling="mean", embedding=256)
    pixels = jnp.asarray([[0, 7, 3, 0, 0, 9, 255, 1, 2, 0, 8], [5, *range(200, 210)]], jnp.uint8)
    graph, state = nnx.split(model)

    @partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def both_ways(pixels):
        model = nnx.merge(graph, state)
        _, logits = jax.lax.scan(model.step, model.initial_state(2), pixels.T)
        return logits[-1], model(pixels, jnp.full(2, 11), train=False, key=None)

    np.testing.assert_allclose(*both_ways(pixels), rtol=1e-4, atol=1e-5)


def test_pooling_first_reads_the_first_byte_of_each_document():
    model = make(DataShape(12, 2, 2, True), pooling="first")
    inputs = jax.random.randint(jax.random.key(0), (3, 2, 12), 1, 5).astype(jnp.uint8)
    documents = jnp.concatenate([inputs[:, 0], inputs[:, 1]])
    features = model.sequence_features(documents, jnp.full(6, 12, jnp.int32), train=False, key=None)
    assert features.shape[0] == 12
    logits = model(inputs, jnp.full((3, 2), 12, jnp.int32), train=False, key=None)
    np.testing.assert_array_equal(logits, model.head(features[0]))


@pytest.mark.parametrize(
    ("changes", "shape", "count"),
    [
        ({}, DataShape(12, 3, 1, True), 2 * 402 + 8 * 5 + 8 + 16 + (8 * 10 + 10) + (10 * 3 + 3)),
        ({"pooling": "first"}, DataShape(12, 3, 1, True), 2 * 402 + 8 * 5 + 16 + (8 * 10 + 10) + (10 * 3 + 3)),
        (
            {"layer": {"positions": "learned"}, "pooling": "mean"},
            DataShape(12, 2, 2, True),
            2 * 402 + 8 * 5 + 12 * 8 + 16 + (16 * 10 + 10) + (10 * 5 + 5) + (5 * 2 + 2),
        ),
    ],
)
def test_parameter_counts(changes, shape, count):
    """A block: two norms, four projections without bias, an MLP with biases: 32 + 4·48 + 178 = 402."""
    assert count_parameters(abstract(shape, n_layers=2, **changes)) == count


@pytest.mark.parametrize(
    "changes", [{"norm": "batch"}, {"prenorm": False}, {"bidirectional": False}, {"pooling": "last"}]
)
def test_settings_it_has_no_form_of_are_refused(changes):
    with pytest.raises(UserError, match=f"{next(iter(changes))} "):
        abstract(**changes)

"""Self-pretraining: what is hidden, what is predicted, what is carried over, and that runs after it stand apart."""

import contextlib
import os
import re
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lra_bench.data.manifest import load_manifest
from lra_bench.errors import Interrupted, UserError
from lra_bench.models import attention, transformer
from lra_bench.models.classifier import InputMask
from lra_bench.models.layers import DataShape
from lra_bench.models.network import build
from lra_bench.models.pretraining import Predictor, hidden_positions, next_inputs, position_losses
from lra_bench.records.proof import contradictions
from lra_bench.records.schema import Pretrained, PretrainingPoint
from lra_bench.report.accuracy import accuracy_table
from lra_bench.report.seeds import cell_statistics
from lra_bench.report.select import Loaded, row_key, select_records
from lra_bench.runs.plan import PlannedRun
from lra_bench.runs.pretraining import RATIOS, pretraining_for
from lra_bench.runs.run import make_run
from lra_bench.sweeps.cells import standing_of
from lra_bench.training import train
from lra_bench.training.epoch import DispatchSize
from lra_bench.training.pretraining import carried_over, mean_over, refuse_microbatch
from lra_bench.training.state import TrainState
from tests.made_records import honest_record, train_record
from tests.recipes import s5_recipe

SMALL = {"n_layers": 1, "d_model": 8, "batch_size": 40, "epochs": 1.5, "warmup_epochs": 0.5, "decay_epochs": 1.5}
STAGE = {"pretrain_epochs": 1.5, "pretrain_warmup_epochs": 0.1, "mask_ratio": 0.3}
ATTENTION = {"heads": 2, "qkv_dim": 8, "mlp_dim": 8, "attention_dropout": 0.0, "positions": "rotary"}


def small_run(data, seed=0, pretrain="masked", model="s4", **changes):
    return make_run(load_manifest(data).data_info, model, seed, {**SMALL, **changes}, "float32", pretrain=pretrain)


def rotary_transformer(shape, **changes):
    made = s5_recipe(norm="layer", d_model=8, pooling="mean", **changes).model_copy(update={"layer": ATTENTION})
    return build("transformer", made, shape, rngs=nnx.Rngs(0))


def documents(seed=0, largest=5):
    inputs = np.random.default_rng(seed).integers(1, largest, (3, 12)).astype(np.uint8)
    return jnp.asarray(inputs), jnp.asarray([12, 7, 1])


def test_positions_are_hidden_by_chance_and_padding_never():
    lengths = jnp.asarray([1000, 400])
    hidden = np.asarray(hidden_positions(jax.random.key(0), 0.15, lengths, 1000))
    assert hidden.shape == (1000, 2)
    assert not hidden[400:, 1].any()
    assert hidden[:, 0].mean() == pytest.approx(0.15, abs=0.04)
    assert hidden[:400, 1].mean() == pytest.approx(0.15, abs=0.06)
    np.testing.assert_array_equal(hidden, hidden_positions(jax.random.key(0), 0.15, lengths, 1000))
    assert (hidden != hidden_positions(jax.random.key(1), 0.15, lengths, 1000)).any()


def test_the_next_input_is_predicted_and_padding_never():
    inputs, lengths = documents()
    targets, wanted = (np.asarray(each).T for each in next_inputs(inputs.T, lengths))
    assert [list(row[there]) for row, there in zip(targets, wanted, strict=True)] == [
        list(np.asarray(row)[1:length]) for row, length in zip(inputs, np.asarray(lengths), strict=True)
    ]


def test_losses_are_those_of_their_formulas():
    rng = np.random.default_rng(0)
    scores, targets = rng.normal(size=(6, 2, 5)).astype(np.float32), rng.integers(0, 5, (6, 2)).astype(np.uint8)
    powers = np.exp(scores.astype(float))
    expected = -np.log(np.take_along_axis(powers, targets[..., None].astype(int), -1)[..., 0] / powers.sum(-1))
    wanted = rng.random((6, 2)) < 0.5

    @jax.jit
    def all_of(scores, targets, wanted):
        found = position_losses(scores, targets, None)
        distances = position_losses(scores[..., :1], targets, (127.5, 2.0))
        return found, distances, mean_over(found, wanted), mean_over(found, wanted & False)

    found, distances, mean, nothing = all_of(scores, targets, wanted)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(distances, np.abs(scores[..., 0] - (targets - 127.5) / 2.0), rtol=1e-5)
    assert float(mean) == pytest.approx(expected[wanted].mean())
    assert float(nothing) == 0.0


def test_causal_attention_is_that_of_the_lower_triangle_and_padding_looks_back_only():
    """Of more than one group of queries, forward and in the gradient, with a document that is all padding."""
    L, (q, k, v, dy) = 300, jax.random.normal(jax.random.key(0), (4, 300, 2, 1, 4))
    real = jnp.arange(L)[:, None] < jnp.asarray([250, 0])[None]

    def plain(q, k, v):
        scores = jnp.einsum("qbhd,kbhd->bhqk", q, k) / 2.0
        scores = jnp.where((real[:, None] & real).transpose(2, 0, 1)[:, None], scores, attention.MASKED)
        weights = jax.nn.softmax(jnp.where(jnp.tril(jnp.ones((L, L), bool)), scores, -jnp.inf))
        return jnp.einsum("bhqk,kbhd->qbhd", weights, v)

    def group(q, k, v):
        return attention._by_group(q, k, v, real, 0.0, None, True)

    @jax.jit
    def all_of(q, k, v):
        forms = [(form(q, k, v), *jax.vjp(form, q, k, v)[1](dy)) for form in (plain, group)]
        return *forms, attention._by_query(q, k, v, real, 0.0, None, True)

    expected, found, by_query = all_of(q, k, v)
    np.testing.assert_allclose(by_query, expected[0], rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-5)


def test_rotary_products_depend_on_the_difference_of_steps_only():
    q, k = np.random.default_rng(0).normal(size=(2, 1, 1, 1, 6)).astype(np.float32).repeat(20, axis=1)
    table = transformer.rotation(20, 6)
    turned_q, turned_k = (np.asarray(transformer.rotated(jnp.asarray(each), table))[:, 0, 0] for each in (q, k))
    for distance in (0, 3, -7):
        along = np.diagonal(turned_q @ turned_k.T, distance)
        np.testing.assert_allclose(along, np.full_like(along, along[0]), rtol=1e-4, atol=1e-5)
    pairs = q[:, 0, 0, :3] + 1j * q[:, 0, 0, 3:]
    turned = pairs * np.exp(1j * np.arange(20)[:, None] * 10_000.0 ** (-np.arange(0, 6, 2) / 6))
    np.testing.assert_allclose(turned_q, np.concatenate([turned.real, turned.imag], -1), rtol=1e-4, atol=1e-5)


def test_nothing_of_a_hidden_input_is_seen():
    """Also not whether a hidden pixel is black, which the transformer else takes for padding."""
    inputs, lengths = documents()

    @jax.jit
    def features(inputs):
        made = rotary_transformer(DataShape(12, 3, 1, False), bidirectional=True)
        mask = InputMask(hidden_positions(jax.random.key(1), 0.5, jnp.full(3, 12), 12), jnp.ones(8))
        return (
            made.sequence_features(inputs, lengths, train=False, key=None, mask=mask),
            made.sequence_features(inputs, lengths, train=False, key=None),
            mask.masked,
        )

    first, without, masked = features(inputs)
    others = np.where(np.asarray(masked).T, 0, inputs).astype(np.uint8)
    np.testing.assert_array_equal(features(others)[0], first)
    assert np.abs(first - without).max() > 0.1


def test_a_unidirectional_transformer_sees_no_later_input():
    inputs, lengths = documents()
    changed = np.asarray(inputs).copy()
    changed[:, 6:] = 4

    @jax.jit
    def features(inputs):
        made = rotary_transformer(DataShape(12, 3, 1, True), bidirectional=False)
        return made.sequence_features(inputs, lengths, train=False, key=None)

    first, second = np.asarray(features(inputs)), np.asarray(features(changed))
    np.testing.assert_array_equal(first[:6], second[:6])
    assert np.abs(first[6:, 0] - second[6:, 0]).max() > 1e-3


def test_encoder_blocks_and_statistics_are_carried_over_bit_for_bit_and_the_head_is_not():
    made, shape = s5_recipe(embedding=5), DataShape(12, 3, 2, True)
    stage = pretraining_for("listops", "s4", made, "masked", {})
    pairs, lengths = jnp.stack([documents()[0], documents(1)[0]], axis=1), jnp.full((3, 2), 9)

    @jax.jit
    def both():
        own, others = (build("s5", made, shape, rngs=nnx.Rngs(seed)) for seed in (0, 1))
        predictor = Predictor(others, made, stage, rngs=nnx.Rngs(2))
        key = jax.random.key(0)
        losses, wanted = predictor(pairs, lengths, key, train=True, key=key)  # changes the statistics
        assert losses.shape == wanted.shape == (12, 6)
        return nnx.state(own, nnx.Param, nnx.BatchStat), nnx.state(predictor, nnx.Param, nnx.BatchStat)

    (own, own_stats), (params, stats) = both()
    state = TrainState(own, own_stats, None, None, None, None)
    new = carried_over(state, params, stats)
    assert jax.tree.structure(new) == jax.tree.structure(state)
    for ours, theirs in ((new.params, params["network"]), (new.stats, stats["network"])):
        for path, value in nnx.to_flat_state(theirs):
            np.testing.assert_array_equal(dict(nnx.to_flat_state(ours))[path][...], value[...])
    for path, value in nnx.to_flat_state(state.params["head"]):
        assert dict(nnx.to_flat_state(new.params["head"]))[path] is value
    assert np.abs(new.stats["blocks"][0]["norm"]["mean"][...]).max() > 0


def test_the_settings_are_the_papers_and_change_the_digest(data):
    run, plain = small_run(data), small_run(data, pretrain=None)
    assert run.pretraining.mask_ratio == RATIOS["listops"] == 0.1
    assert not run.is_published_recipe
    assert "pretraining" not in plain.model_dump(exclude_none=True)
    digests = {small_run(data, **changes).digest for changes in ({}, {"mask_ratio": 0.2}, {"pretrain_epochs": 3})}
    causal = small_run(data, pretrain="causal", bidirectional=False)
    assert len({*digests, plain.digest, causal.digest}) == 5
    assert "--pretrain causal" in causal.command
    assert causal.pretraining.mask_ratio is None
    changed = small_run(data, mask_ratio=0.2)
    assert changed.overrides == {**run.overrides, "mask_ratio": 0.2}
    assert "--set mask_ratio=0.2" in changed.command
    rates = {
        (model, task): pretraining_for(task, model, s5_recipe(), "masked", {})
        for model in ("s4", "transformer")
        for task in RATIOS
    }
    assert rates["transformer", "image"].pretrain_lr == 1e-3
    assert rates["s4", "pathx"].pretrain_lr == 5e-4
    assert {task for (_, task), each in rates.items() if each.pretrain_loss == "l1"} == {"image"}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"pretrain": "causal", "bidirectional": True}, "--set bidirectional=false, or --pretrain masked"),
        ({"pretrain": "causal", "bidirectional": True, "pooling": "cls"}, "bidirectional=false --set pooling=mean"),
        ({"pretrain": None, "mask_ratio": 0.2}, "mask_ratio is a setting of pretraining: type --pretrain masked"),
        (
            {"pretrain": "causal", "bidirectional": False, "mask_ratio": 0.2},
            "mask_ratio is a setting of --pretrain mask",
        ),
        ({"mask_ratio": 1.5}, "mask_ratio must be less than 1.0, got 1.5"),
        ({"pretrain_loss": "l1"}, "pretrain_loss must be cross-entropy on listops"),
        ({"model": "s5"}, "--pretrain is for the models s4 and transformer of its paper, got s5"),
        ({"mask_rate": 0.2}, "Did you mean 'mask_ratio'"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(data, asked, said):
    with pytest.raises(UserError, match=said):
        small_run(data, **asked)


def test_parts_of_a_batch_are_refused(data):
    refuse_microbatch(small_run(data, pretrain=None), 4)
    with pytest.raises(UserError, match="--microbatch does not go with --pretrain"):
        refuse_microbatch(small_run(data), 4)


def pretraining_of(model="s4", objective="masked", **changes):
    return pretraining_for("listops", model, s5_recipe(), objective, changes)


def test_runs_after_pretraining_have_rows_of_their_own(unproved):
    plain = train_record("s4", test=0.6)
    found = [
        train_record(
            "s4", test=0.9, seed=1, digest="b" * 12, published_recipe=False, pretraining=pretraining_of(objective=name)
        )
        for name in ("masked", "causal")
    ]
    found[1] = found[1].model_copy(update={"digest": "c" * 12})
    chosen = select_records([Loaded(str(number), record) for number, record in enumerate([plain, *found])])
    assert {key.section: len(chosen.rows(key.section)) for key, _ in chosen.cells} == {"published": 1, "pretrained": 2}
    table = accuracy_table(chosen, cell_statistics(chosen))
    block = next(block for block in table.blocks if "pretrained" in block.title)
    assert [row[0].text for row in block.rows] == ["S4 [causal pretraining]", "S4 [masked pretraining]"]
    tiny = found[0].model_copy(update={"data": found[0].data.model_copy(update={"size": "tiny"})})
    assert row_key(tiny).settings == "data tiny; masked pretraining"


def test_a_record_that_hides_or_changes_its_pretraining_is_found_out():
    honest = honest_record("s4")
    assert not contradictions(honest)
    other = honest.model_copy(update={"pretraining": pretraining_of(mask_ratio=0.9)})
    found = " ".join(contradictions(other))
    for said in ("its digest is", "its pretraining is not that of s4 on listops", "of which it says nothing"):
        assert said in found


def test_a_pretraining_that_cuts_its_curve_or_its_best_epoch_is_found_out():
    honest = honest_record("s4")
    per_epoch = honest.data.counts["train"] // honest.recipe.batch_size
    curve = [PretrainingPoint(epoch=n, step=n * per_epoch, train_loss=1.0, val_loss=1 / n) for n in (1, 2)]
    done = Pretrained(steps=2 * per_epoch, seconds=1.0, best_epoch=2, best_val_loss=0.5, curve=curve)

    def found(**changes):
        update = {"pretraining": pretraining_of(pretrain_epochs=2), "pretrained": done.model_copy(update=changes)}
        return " ".join(contradictions(honest.model_copy(update=update)))

    assert "of its pretraining" not in found()
    for changes in ({"curve": curve[:1]}, {"curve": []}, {"curve": [curve[1]]}, {"steps": per_epoch}):
        assert f"the curve of its pretraining is not one of {2 * per_epoch} steps" in found(**changes)
    assert "the best epoch of its pretraining is not that of least validation loss, 2" in found(best_epoch=1)


def numbers(record):
    fields = record.model_dump(mode="json", exclude={"throughput", "provenance", "system"})
    del fields["pretrained"]["seconds"]
    return fields


class Killed(BaseException):
    """A kill: nothing of training runs after it."""


def end_at(patch, step, end):
    """End the process as `end` does while this step of the session is being taken."""
    take, taken = DispatchSize.took, [0]

    def took(self, seconds, n):
        take(self, seconds, n)
        taken[0] += n
        if taken[0] == step:
            end()

    patch.setattr(DispatchSize, "took", took)


def kill():
    raise Killed


@pytest.mark.slow
def test_interrupted_in_either_stage_equals_uninterrupted(data, tmp_path, monkeypatch):
    """Stopped by a signal in pretraining, and killed there after the save of an epoch."""
    monkeypatch.setenv("LRA_BENCH_HOME", str(tmp_path / "whole"))
    run = small_run(data, **STAGE)
    whole = train.train(run, data, tmp_path / "results-whole")
    assert [point.step for point in whole.pretrained.curve] == [50, 75]
    assert whole.pretrained.curve[1].val_loss < whole.pretrained.curve[0].val_loss < np.log(20)
    assert whole.pretrained.steps == 75
    assert not contradictions(whole)

    monkeypatch.setenv("LRA_BENCH_HOME", str(tmp_path / "resumed"))
    monkeypatch.setattr("lra_bench.training.epoch.DISPATCH_SECONDS", 0.0)
    ends = [
        (20, lambda: os.kill(os.getpid(), signal.SIGTERM)),
        (40, kill),
    ]
    for number, (step, end) in enumerate(ends):
        with monkeypatch.context() as patch:
            end_at(patch, step, end)
            with pytest.raises((Interrupted, Killed)):
                train.train(run, data, tmp_path / "results-resumed")
        if number == 0:
            standing = standing_of(PlannedRun(run, data))
            assert (standing.state, standing.step) == ("stopped", 0)
            assert re.fullmatch(r"pretraining step \d+ of 75", standing.why)
    with contextlib.suppress(FileNotFoundError):
        assert not list((tmp_path / "results-resumed").iterdir())
    resumed = train.train(run, data, tmp_path / "results-resumed")
    assert numbers(resumed) == numbers(whole)

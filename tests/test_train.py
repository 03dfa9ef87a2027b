"""Training: resumed equals uninterrupted, bit for bit; the best checkpoint is the one tested; divergence is told, not
hidden."""

import contextlib
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from orbax.checkpoint import Checkpointer

from lra_bench.commands import doctor
from lra_bench.commands.evaluate import evaluate
from lra_bench.data.manifest import load_manifest
from lra_bench.data.packed import PackedSplit
from lra_bench.errors import Interrupted, UserError, WorkError
from lra_bench.records.agreement import disagreements
from lra_bench.records.files import load_record
from lra_bench.registry import task_module
from lra_bench.runs.checksums import damage_of
from lra_bench.runs.run import load_run, make_run, write_settings
from lra_bench.runs.saved_steps import saved_steps
from lra_bench.spec import HealthMark
from lra_bench.training import estimate, saving, tracking, train
from lra_bench.training import setup as training_setup
from lra_bench.training.checkpoint import Checkpoints
from lra_bench.training.epoch import DispatchSize
from lra_bench.training.input_pipeline import ResidentPipeline
from lra_bench.training.setup import set_up
from lra_bench.training.state import Examples, epoch_order, stream_key

SMALL = {"n_layers": 1, "d_model": 8, "batch_size": 40, "epochs": 2.5, "warmup_epochs": 0.5, "decay_epochs": 2.5}


def small_run(data, seed=0, **changes):
    return make_run(load_manifest(data).data_info, "s5", seed, {**SMALL, **changes}, "float32")


def numbers(record):
    """The record without what a clock or a second session changes."""
    fields = record.model_dump(mode="json", exclude={"throughput", "provenance", "system"})
    return json.dumps(fields, sort_keys=True)


def final_state(run, data):
    setup, state = set_up(run, data)
    del setup
    restored, history = Checkpoints(run.folder / "checkpoints").restore_last(state)
    return [np.asarray(leaf) for leaf in jax.tree.leaves(restored)], history


@pytest.mark.parametrize("stops", [[1], pytest.param([30, 40, 31], marks=pytest.mark.slow)])
def test_resumed_run_equals_uninterrupted(data, tmp_path, monkeypatch, stops):
    """Stopped after so many steps, inside an epoch, the same command ends in the same state, metrics and record."""
    monkeypatch.setenv("LRA_BENCH_HOME", str(tmp_path / "whole"))
    run = small_run(data)
    whole = train.train(run, data, tmp_path / "results-whole")
    whole_state, _ = final_state(run, data)
    whole_metrics = (run.folder / "metrics.jsonl").read_text()

    monkeypatch.setenv("LRA_BENCH_HOME", str(tmp_path / "resumed"))
    monkeypatch.setattr("lra_bench.training.epoch.DISPATCH_SECONDS", 0.0)
    told = []
    monkeypatch.setitem(tracking.OPEN, "wandb", lambda *_: tracking.Tracker(lambda *v: told.append(v), list, 0))
    for at in stops:
        with monkeypatch.context() as patch:
            stop_at_step(patch, at)
            with pytest.raises(Interrupted) as caught:
                train.train(run, data, tmp_path / "results-resumed")
            assert caught.value.signum == signal.SIGTERM
            assert "The same command continues: lra-bench train" in str(caught.value)
            assert not (tmp_path / "results-resumed").exists()
    resumed = train.train(run, data, tmp_path / "results-resumed", trackers=["wandb"])
    assert told == [(tracking.values_of(point), point.step) for point in resumed.curve]
    resumed_state, _ = final_state(run, data)
    assert numbers(resumed) == numbers(whole)
    assert (run.folder / "metrics.jsonl").read_text() == whole_metrics
    for ours, theirs in zip(resumed_state, whole_state, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_a_damaged_state_is_left_and_the_run_ends_as_if_it_were_not(data, tmp_path, monkeypatch, capfd):
    """The state before is taken, with one sentence, and the numbers of the run are the same."""
    monkeypatch.setenv("LRA_BENCH_HOME", str(tmp_path / "whole"))
    run = small_run(data)
    whole = train.train(run, data, tmp_path / "results-whole")
    monkeypatch.setenv("LRA_BENCH_HOME", str(tmp_path / "damaged"))
    monkeypatch.setattr("lra_bench.training.epoch.DISPATCH_SECONDS", 0.0)
    with monkeypatch.context() as patch:
        stop_at_step(patch, 70)
        with pytest.raises(Interrupted):
            train.train(run, data, tmp_path / "results")
    last = run.folder / "checkpoints/last"
    assert saved_steps(last) == [50, 70]
    for file in (last / "70/state/d").iterdir():
        file.write_bytes(file.read_bytes()[:-1] + b"?")
    monkeypatch.setattr("lra_bench.training.epoch.DISPATCH_SECONDS", 2.0)
    record = train.train(run, data, tmp_path / "results")
    assert "Going on from step 50, saved before." in capfd.readouterr().err
    assert numbers(record) == numbers(whole)


@pytest.mark.slow
def test_speed_is_that_of_one_kind_of_device(data, tmp_path, monkeypatch):
    """A run that went on elsewhere has the clocks of the last place only: their sum over both means nothing."""
    monkeypatch.setattr("lra_bench.training.epoch.DISPATCH_SECONDS", 0.0)
    with monkeypatch.context() as patch:
        stop_at_step(patch, 60)
        with pytest.raises(Interrupted):
            train.train(small_run(data), data, tmp_path)
    monkeypatch.setattr("lra_bench.training.epoch.DISPATCH_SECONDS", 2.0)
    with monkeypatch.context() as patch:
        patch.setattr(train, "devices_of", lambda *_: "8 x another")
        record = train.train(small_run(data), data, tmp_path)
    assert record.curve[-1].step == 125
    assert record.throughput.steps == 125 - 60
    history = Checkpoints(small_run(data).folder / "checkpoints").history()
    assert (history.devices, history.timed_steps) == ("8 x another", 65)
    assert history.on("8 x another", 1.0) is history
    assert history.on("1 x it", 3.0).model_dump(include={"timed_steps", "train_seconds", "compile_seconds"}) == {
        "timed_steps": 0,
        "train_seconds": 0.0,
        "compile_seconds": 3.0,
    }


def test_a_finished_run_that_was_damaged_is_not_delivered(data, tmp_path):
    """A bit of its record or its settings: refused wherever it is read. The same command mends settings, and what its
    record is proved by elsewhere; without its record the run is tested again."""
    run, rng = small_run(data, epochs=0.5), random.Random(0)
    record = train.train(run, data, tmp_path / "a")
    for name in ("result.json", "run.json", "SHA256SUMS"):
        content = (run.folder / name).read_bytes()
        for _ in range(20):
            damaged = bytearray(content)
            bit = rng.randrange(8 * len(content))
            damaged[bit // 8] ^= 1 << bit % 8
            (run.folder / name).write_bytes(damaged)
            if damage_of(run.folder, ["run.json", "result.json"]) is None:
                assert name == "SHA256SUMS"  # the line of the bits per test example, which `compare` reads
                continue
            with pytest.raises(UserError, match=f"{run.digest}-s0 is damaged: "):
                evaluate(run.name)
            with contextlib.suppress(UserError):
                assert train.train(run, data, tmp_path / "b") == record
                assert name != "result.json"
            mended = damage_of(run.folder, ["run.json", "result.json"]) is None
            assert not mended or name == "SHA256SUMS" or (run.folder / name).read_bytes() == content
            assert mended == (tmp_path / "b").exists()
            assert mended or name != "run.json"
            shutil.rmtree(tmp_path / "b", ignore_errors=True)
        (run.folder / name).write_bytes(content)
    (run.folder / "result.json").unlink()
    assert numbers(train.train(run, data, tmp_path / "b")) == numbers(record)


def test_settings_of_another_run_are_refused(data):
    run = small_run(data)
    write_settings(run)
    assert load_run(run.folder) == run
    (run.folder / "SHA256SUMS").unlink()
    with pytest.raises(UserError, match="SHA256SUMS is missing"):
        load_run(run.folder)
    (run.folder / "run.json").write_text(run.model_dump_json())  # as an earlier version left it
    assert doctor._runs() == ("ok", "1 on this machine, 1 of an earlier lra-bench, without checksums", "")
    assert load_run(run.folder) == run
    for field, value in (("seed", 3), ("precision", "tf32"), ("recipe", small_run(data, lr=0.3).recipe)):
        (run.folder / "run.json").write_text(run.model_copy(update={field: value}).model_dump_json())
        with pytest.raises(UserError, match="holds the settings of another run"):
            load_run(run.folder)


@pytest.mark.slow
def test_a_run_begun_plain_goes_on_rematerialized(data, tmp_path, monkeypatch):
    """How memory is saved is no part of a run: the same mathematics, so the same curve but for roundings."""
    monkeypatch.setenv("LRA_BENCH_HOME", str(tmp_path / "whole"))
    whole = train.train(small_run(data, epochs=1.0), data, tmp_path / "results-whole")
    monkeypatch.setenv("LRA_BENCH_HOME", str(tmp_path / "resumed"))
    monkeypatch.setattr("lra_bench.training.epoch.DISPATCH_SECONDS", 0.0)
    with monkeypatch.context() as patch:
        stop_at_step(patch, 20)
        with pytest.raises(Interrupted):
            train.train(small_run(data, epochs=1.0), data, tmp_path / "results")
    again = train.train(small_run(data, epochs=1.0), data, tmp_path / "results", remat=True)
    assert (whole.throughput.remat, again.throughput.remat) == (False, True)
    assert (again.digest, again.published_recipe) == (whole.digest, whole.published_recipe)
    for ours, theirs in zip(again.curve, whole.curve, strict=True):
        assert ours.train_loss == pytest.approx(theirs.train_loss, rel=1e-4)
        assert ours.val_loss == pytest.approx(theirs.val_loss, rel=1e-3)


def stop_at_step(patch, at):
    """A SIGTERM that arrives while step `at` is being taken."""
    take = DispatchSize.took
    taken = {"steps": None}

    def took(self, seconds, n):
        take(self, seconds, n)
        taken["steps"] = (taken["steps"] or 0) + n
        if taken["steps"] == at:
            os.kill(os.getpid(), signal.SIGTERM)

    patch.setattr(DispatchSize, "took", took)


def test_finished_run_returns_at_once_and_delivers_elsewhere(data, tmp_path, monkeypatch):
    run = small_run(data, epochs=0.1)
    first = train.train(run, data, tmp_path / "a")

    def never(*_):
        raise AssertionError("a finished run must not be set up again")

    monkeypatch.setattr(train, "set_up", never)
    assert train.train(run, data, tmp_path / "b") == first
    path = f"listops/s5/{run.digest}-s0.json"
    assert load_record(tmp_path / "a" / path) == load_record(tmp_path / "b" / path) == first


def test_reported_accuracy_is_of_the_best_epochs_checkpoint(data, tmp_path, monkeypatch):
    """The best epoch's parameters, restored from disk, score exactly what the record says on both splits."""
    run = small_run(data, epochs=4.0, lr=0.05)
    record = train.train(run, data, tmp_path / "results")
    setup, state = set_up(run, data)
    checkpoints = Checkpoints(run.folder / "checkpoints")
    history = checkpoints.history()
    params, stats = checkpoints.restore_best(history.best_step, state)
    assert setup.evaluate(params, stats, "val")[1] == record.accuracy.best_val
    score = setup.evaluate(params, stats, "test")
    assert (score.loss, score.accuracy) == (record.accuracy.test_loss, record.accuracy.test)
    kept = np.load(run.folder / "test_correct.npy")
    np.testing.assert_array_equal(np.unpackbits(kept, count=len(score.correct)).astype(bool), score.correct)
    values = [point.val_accuracy for point in record.curve]
    assert record.accuracy.best_val == max(values)
    assert record.accuracy.best_epoch == record.curve[values.index(max(values))].epoch == history.best_epoch
    labels = np.asarray(setup.data["test"].labels)
    assert record.accuracy.majority == np.bincount(labels).max() / len(labels)


def test_evaluation_counts_every_example_once(data, tmp_path):
    """A batch size that does not divide the split gives the accuracy of a plain loop."""
    setup, state = set_up(small_run(data, batch_size=33), data)
    test = setup.data["test"]
    score = jax.jit(setup.network.apply_eval)
    ones = [Examples(*(column[i : i + 1] for column in test.examples)) for i in range(40)]
    logits = [score(state.params, state.stats, one)[0] for one in ones]
    few = PackedSplit(*(np.asarray(column)[:40] for column in test.examples))
    setup.data["test"] = ResidentPipeline(few, stream_key(0, 1), setup.mesh)
    correct = np.argmax(np.stack(logits), axis=-1) == np.asarray(few.labels)
    score = setup.evaluate(state.params, state.stats, "test")
    assert score.accuracy == correct.mean()
    np.testing.assert_array_equal(score.correct, correct)


@pytest.mark.slow
def test_seeds_differ(data, tmp_path):
    """That a seed repeats is what a resumed run is held to."""
    losses = [
        train.train(small_run(data, seed, epochs=0.5), data, tmp_path / "results").curve[-1].train_loss
        for seed in (0, 1)
    ]
    assert losses[0] != losses[1]


def test_epochs_visit_every_example_once_in_a_new_order():
    key = stream_key(0, 1)
    first, second = (np.asarray(epoch_order(key, epoch, 100)) for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(100))
    assert (first != second).any()


def test_divergence_is_recorded_and_said(data, tmp_path, monkeypatch):
    run = small_run(data, lr=1e30, ssm_lr=1e30, warmup_epochs=0.0)
    for _ in range(2):
        said = r"the loss or the gradient of step \d+ was not finite; Re Λ is free.*--set clip_eigs=true forbids"
        with pytest.raises(WorkError, match=said):
            train.train(run, data, tmp_path / "results")
    record = load_record(tmp_path / f"results/listops/s5/{run.digest}-s0.json")
    assert record.status == "diverged"
    assert record.accuracy.test is None
    with pytest.raises(WorkError) as told:
        train.train(run, data, tmp_path / "results")
    assert "No checkpoint had been saved. The record is in" in str(told.value)
    assert not (run.folder / "checkpoints").exists()
    with pytest.raises(UserError, match="diverged before its first evaluation, so there is no checkpoint to score"):
        evaluate(run.name)


def overflow_in_epoch(monkeypatch, epoch):
    """Make the validation loss of this epoch no number, and return the splits that are scored."""
    evaluate_split, scored = training_setup.TrainingSetup.evaluate, []

    def overflows(setup, params, stats, split):
        scored.append(split)
        score = evaluate_split(setup, params, stats, split)
        return score._replace(loss=float("nan")) if len(scored) == epoch else score

    monkeypatch.setattr(training_setup.TrainingSetup, "evaluate", overflows)
    return scored


def test_validation_that_is_not_finite_is_divergence_and_keeps_the_last_good_checkpoint(data, tmp_path, monkeypatch):
    """Training losses can all be finite while the running statistics, or a longer example, are beyond float32."""
    run = small_run(data, epochs=2.0)
    scored = overflow_in_epoch(monkeypatch, 2)
    said = r"the validation loss after step 100 was not finite.* The last good checkpoint is in .*/checkpoints\."
    with pytest.raises(WorkError, match=said):
        train.train(run, data, tmp_path / "results")
    assert scored == ["val", "val"]
    record = load_record(tmp_path / f"results/listops/s5/{run.digest}-s0.json")
    assert record.status == "diverged"
    assert [point.step for point in record.curve] == [50]
    assert [int(folder.name) for folder in (run.folder / "checkpoints/last").iterdir()] == [50]


def test_a_run_that_diverges_before_its_save_is_due_keeps_its_best_checkpoint(data, tmp_path, monkeypatch):
    monkeypatch.setattr(saving.Saver, "due_after_epoch", False)
    run = small_run(data, epochs=3.0)
    overflow_in_epoch(monkeypatch, 3)
    with pytest.raises(WorkError, match="the validation loss after step 150 was not finite"):
        train.train(run, data, tmp_path / "results")
    record = load_record(tmp_path / f"results/listops/s5/{run.digest}-s0.json")
    best = max(record.curve, key=lambda point: point.val_accuracy)
    assert saved_steps(run.folder / "checkpoints/best") == [best.step]
    assert damage_of(run.folder / "checkpoints/best" / str(best.step)) is None


def test_an_earlier_run_tells_what_one_like_it_takes_here_only(data, tmp_path, monkeypatch):
    run = small_run(data)
    assert estimate.earlier_estimate(run, False, None) is None
    record = train.train(run, data, tmp_path / "results")
    assert estimate.earlier_estimate(run.model_copy(update={"seed": 1}), False, None).parameters == record.parameters
    assert estimate.earlier_estimate(run, True, None) is None, "it kept all activations"
    assert estimate.earlier_estimate(run, False, 10) is None, "it had its batch in one piece"
    another = record.system.model_copy(update={"device_kind": "another"})
    monkeypatch.setattr(estimate, "describe_system", lambda precision: another)
    assert estimate.earlier_estimate(run, False, None) is None, "it was on another device"


def test_a_run_below_a_health_mark_is_stopped_and_recorded_as_failed(data, tmp_path):
    run = small_run(data, epochs=3.0)
    healthy, missed = HealthMark(epoch=1, accuracy=0.1), HealthMark(epoch=2, accuracy=99)
    said = r"stopped: the best validation accuracy after epoch 2 is \d+\.\d+%, below 99 % at epoch 2\..* rm listops/"
    for _ in range(2):
        with pytest.raises(WorkError, match=said):
            train.train(run, data, tmp_path / "results", health=[healthy, missed])
    record = load_record(tmp_path / f"results/listops/s5/{run.digest}-s0.json")
    assert (record.status, record.accuracy.test, len(record.curve)) == ("stopped", None, 2)
    assert list(disagreements(record)) == []
    assert saved_steps(run.folder / "checkpoints" / "best")


def test_marks_are_for_recipes_that_are_above_them(data):
    assert small_run(data).health == task_module("listops").TASK.health != ()
    assert make_run(small_run(data).data, "transformer", 0, {}, "float32").health == ()


def test_two_processes_do_not_train_the_same_run(data, tmp_path):
    """The second is told at once; another seed is free; the lock goes with whoever held it."""
    run = small_run(data, epochs=0.1)
    with train.only_process_of(run):
        with pytest.raises(WorkError, match=f"another process is training {run.name}"):
            train.train(run, data, tmp_path)
        assert not list(run.folder.glob("checkpoints"))
        train.train(small_run(data, seed=1, epochs=0.1), data, tmp_path)
    assert train.train(run, data, tmp_path).status == "completed"


@pytest.mark.parametrize("moment", ["while compiling", "while testing"])
def test_a_signal_outside_the_steps_is_not_lost(data, tmp_path, monkeypatch, moment):
    """Ctrl-C before the first step or in the last test must not let the next run of a plan begin."""
    run = small_run(data, epochs=0.1)

    def interrupted(function):
        def call(*arguments):
            os.kill(os.getpid(), signal.SIGINT)
            return function(*arguments)

        return call

    with monkeypatch.context() as patch:
        if moment == "while compiling":
            patch.setattr(train, "set_up", interrupted(train.set_up))
        else:
            patch.setattr(train, "make_record", interrupted(train.make_record))
        with pytest.raises(Interrupted) as caught:
            train.train(run, data, tmp_path)
    assert caught.value.signum == signal.SIGINT
    finished = (run.folder / "result.json").exists()
    assert finished == (moment == "while testing")
    assert ("its record is written" if finished else "nothing was trained yet") in str(caught.value)
    assert train.train(run, data, tmp_path).status == "completed"


def test_too_little_memory_on_the_device_is_one_sentence(data, tmp_path, monkeypatch):
    def exhausted(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes.")

    monkeypatch.setattr(train, "set_up", exhausted)
    with pytest.raises(WorkError, match=r"too little memory for .*--data-on host.*--set batch_size=20"):
        train.train(small_run(data), data, tmp_path)


def test_too_little_memory_for_the_initial_values_is_one_sentence(data, tmp_path, monkeypatch):
    def exhausted(*_):
        raise MemoryError("Unable to allocate 32.0 GiB for an array with shape (65536, 65536)")

    monkeypatch.setattr(train, "set_up", exhausted)
    with pytest.raises(WorkError, match="this machine has too little memory for the initial values of"):
        train.train(small_run(data), data, tmp_path)


@pytest.mark.slow
def test_a_full_disk_at_a_checkpoint_is_one_sentence_and_the_run_goes_on(data, tmp_path, monkeypatch):
    run, save, saves = small_run(data, epochs=2.0), Checkpointer.save, []

    def fills_up(writer, *arguments, **options):
        saves.append(writer)
        if len(saves) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return save(writer, *arguments, **options)

    monkeypatch.setattr(Checkpointer, "save", fills_up)
    with pytest.raises(WorkError, match=r"step 100 could not be written to .*: the disk is full\. The one before it"):
        train.train(run, data, tmp_path)
    assert [int(folder.name) for folder in (run.folder / "checkpoints/last").iterdir()] == [50]
    record = train.train(run, data, tmp_path)
    assert [point.step for point in record.curve] == [50, 100]


def test_a_damaged_checkpoint_is_one_sentence(data, tmp_path, monkeypatch):
    monkeypatch.setattr("lra_bench.training.epoch.DISPATCH_SECONDS", 0.0)
    run = small_run(data)
    with monkeypatch.context() as patch:
        stop_at_step(patch, 20)
        with pytest.raises(Interrupted):
            train.train(run, data, tmp_path)
    for file in (run.folder / "checkpoints/last/20/state").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(WorkError, match=r"the checkpoint in .*last cannot be read"):
        train.train(run, data, tmp_path)


def test_batch_larger_than_the_data_is_a_users_mistake(data):
    with pytest.raises(UserError, match="batch_size must not exceed the 2000 training examples of listops, got 5000"):
        set_up(small_run(data, batch_size=5000), data)


def test_a_run_that_is_refused_leaves_no_folder(data, tmp_path):
    run = small_run(data, batch_size=5000)
    with pytest.raises(UserError, match="batch_size must not exceed"):
        train.train(run, data, tmp_path)
    assert not run.folder.exists()


def test_digest_depends_on_what_changes_numbers_only(data):
    run = small_run(data)
    assert run.digest == small_run(data, seed=5).digest
    text = run.model_copy(update={"recipe": run.recipe.model_copy(update={"notes": "more", "source": "other"})})
    assert text.digest == run.digest
    assert small_run(data, lr=0.1).digest != run.digest
    assert run.model_copy(update={"precision": "tf32"}).digest != run.digest
    other = run.data.model_copy(update={"fingerprint": "0"})
    assert run.model_copy(update={"data": other}).digest != run.digest


DRIVER = """
import os, random, signal, sys, threading, time
mode, seed = sys.argv[1], int(sys.argv[2])
sys.argv = ["lra-bench", "train", "--model", "s5", "--task", "listops", "--size", "tiny", *sys.argv[3:]]
rng = random.Random(seed)
if mode == "any-moment":
    delay = rng.uniform(0.5, 8.0)
    threading.Thread(target=lambda: (time.sleep(delay), os.kill(os.getpid(), signal.SIGKILL)), daemon=True).start()
if mode == "in-checkpoint":
    import lra_bench.training.checkpoint as checkpoint
    import lra_bench.training.saving as saving
    saving.SHARE = 1e9  # every epoch is saved, however short
    left, inside = rng.randrange(5, 400), [False]
    def counted(save):
        def saving(*a):
            inside[0] = True
            save(*a)
            inside[0] = False
        return saving
    for name in ("save_last", "save_best"):
        setattr(checkpoint.Checkpoints, name, counted(getattr(checkpoint.Checkpoints, name)))
    def hook(event, _):
        global left
        if inside[0] and event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.listdir",
        "os.scandir"):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
from lra_bench.cli import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "kills"), [("any-moment", 6), ("in-checkpoint", 2)])
def test_killed_again_and_again_ends_as_if_left_alone(data, tmp_path, mode, kills):
    """kill -9 at random moments, in training and inside checkpoint writes: the same command then gives the same
    record. (Every write of a save is in test_checkpoint.py.)"""
    driver = tmp_path / "driver.py"
    driver.write_text(DRIVER)
    settings = [f"--set={key}={value}" for key, value in {**SMALL, "epochs": 150.0, "decay_epochs": 150.0}.items()]
    homes = {}
    for name in ("alone", "killed"):
        homes[name] = tmp_path / name
        (homes[name] / "data").parent.mkdir(parents=True)
        (homes[name] / "data").symlink_to(data.parent.parent)

    def start(name, mode, seed):
        command = [
            sys.executable,
            str(driver),
            mode,
            str(seed),
            *settings,
            "--results-dir",
            str(tmp_path / f"results-{name}"),
        ]
        environment = {**os.environ, "LRA_BENCH_HOME": str(homes[name])}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)

    assert start("alone", "none", 0).returncode == 0
    rng, killed = random.Random(0), 0
    while killed < kills:
        done = start("killed", mode, rng.randrange(10**6))
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        killed += 1
    assert killed == kills
    assert start("killed", "none", 0).returncode == 0
    records = [next((tmp_path / f"results-{name}").glob("listops/s5/*.json")) for name in homes]
    assert numbers(load_record(records[0])) == numbers(load_record(records[1]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, 130),  # SIGTERM's is in test_hosts
        (signal.SIGUSR1, 128 + signal.SIGUSR1),
    ],
)
def test_signals_save_and_give_their_exit_code(data, tmp_path, number, code):
    home = tmp_path / "home"
    home.mkdir()
    (home / "data").symlink_to(data.parent.parent)
    settings = [f"--set={key}={value}" for key, value in {**SMALL, "epochs": 500.0, "decay_epochs": 500.0}.items()]
    command = [sys.executable, "-m", "lra_bench", "train", "--model", "s5", "--task", "listops", "--size", "tiny"]
    command += [*settings, "--results-dir", str(tmp_path / "results")]
    environment = {**os.environ, "LRA_BENCH_HOME": str(home)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if "epoch 2:" in line:
                break
        process.send_signal(number)
        errors = process.stderr.read()
        assert process.wait(timeout=60) == code
    assert "all is saved. The same command continues: lra-bench train --model s5" in errors
    assert "Traceback" not in errors
    assert list(home.glob("runs/listops/s5/*/checkpoints/last/*"))

"""Checkpoints: nothing is restored that was not saved, whatever bit flips, whatever file is lost, whenever the process
is killed."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lra_bench.errors import WorkError
from lra_bench.plain_text import plain
from lra_bench.records.schema import CurvePoint
from lra_bench.runs.checksums import HISTORY, SUMS, damage_of, without_promise
from lra_bench.runs.saved_steps import saved_steps
from lra_bench.training.checkpoint import Checkpoints
from lra_bench.training.history import History
from lra_bench.training.state import Totals, TrainState


def state_at(step):
    """A small training state that is another one after each step."""
    values = jnp.arange(64, dtype=jnp.float32) * 1.7 + step
    params = nnx.State({"kernel": nnx.Param(values), "bias": nnx.Param(jnp.float32(step).reshape(1))})
    stats = nnx.State({"mean": nnx.BatchStat(values[:3] / 7)})
    return TrainState(params, stats, {"mu": values**2}, jnp.int32(step), Totals.zero(), jnp.int32(-1))


def history_at(step, accuracies):
    """The history of a run with epochs of ten steps and these validation accuracies."""
    history = History(devices="1 x test", train_seconds=step / 3, timed_steps=step)
    for epoch, accuracy in enumerate(accuracies, 1):
        point = CurvePoint(
            epoch=epoch, step=10 * epoch, train_loss=1 / epoch, train_accuracy=0.5, val_loss=0.7, val_accuracy=accuracy
        )
        history = history.after_epoch(point)
    return history


LIKE = state_at(0)

KILLS = 25
"""The number of moments, evenly spread over the writes of a save, at which a process is killed."""


def train_until(folder, accuracies):
    """Save as the training loop does: at the end of each epoch the best before the last."""
    checkpoints = Checkpoints(folder)
    for epoch in range(1, len(accuracies) + 1):
        step, history = 10 * epoch, history_at(10 * epoch, accuracies[:epoch])
        if history.last_is_best:
            checkpoints.save_best(step, state_at(step), history)
        checkpoints.save_last(step, state_at(step), history)
    return checkpoints


def assert_same(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def flip_a_bit(path, rng):
    content = bytearray(path.read_bytes())
    bit = rng.randrange(8 * len(content))
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def test_a_flipped_bit_in_any_file_is_never_restored(tmp_path, capfd):
    """Every file, a random bit of each: the newest state, or the one before it with a word, but nothing else."""
    accuracies = [0.5, 0.7, 0.6]
    checkpoints, rng, tried = train_until(tmp_path, accuracies), random.Random(0), 0
    for path in files_of(tmp_path):
        before = path.read_bytes()
        flip_a_bit(path, rng)
        tried += 1
        capfd.readouterr()
        state, history = checkpoints.restore_last(LIKE)
        step = int(state.step)
        assert_same(state, state_at(step))
        assert history == history_at(step, accuracies[: step // 10])
        damage = damage_of(tmp_path / "last" / "30")
        assert step == (20 if damage else 30)
        told = f"is damaged (step 30: {damage}). Going on from step 20, saved before."
        assert (plain(told) in capfd.readouterr().err) == (damage is not None)  # a name in SHA256SUMS may be what flips
        best = checkpoints.restore_best(20, LIKE)
        assert_same(best, (state_at(20).params, state_at(20).stats))
        path.write_bytes(before)
    assert tried >= 40
    assert int(checkpoints.restore_last(LIKE)[0].step) == 30


@pytest.mark.parametrize("damage", ["lost", "empty", "cut short", "one line less", "added"])
def test_files_lost_cut_or_added_are_noticed(tmp_path, damage):
    checkpoints = train_until(tmp_path, [0.5, 0.7])
    step = tmp_path / "last" / "20"
    for path in files_of(step):
        kept = path.read_bytes()
        if damage == "lost":
            path.unlink()
        elif damage == "one line less":
            (step / SUMS).write_text("".join((step / SUMS).read_text().splitlines(keepends=True)[1:]))
        elif damage == "added":
            path.with_name("another").write_bytes(b"")
        else:
            path.write_bytes(kept[: len(kept) // 2 if damage == "cut short" else 0])
        assert int(checkpoints.restore_last(LIKE)[0].step) == 10
        path.with_name("another").unlink(missing_ok=True)
        path.write_bytes(kept)
        if damage == "one line less":
            break


def test_the_state_before_is_kept_and_the_best_that_either_names(tmp_path):
    checkpoints = train_until(tmp_path, [0.5, 0.4])
    assert (saved_steps(tmp_path / "last"), saved_steps(tmp_path / "best")) == ([10, 20], [10])
    better = history_at(30, [0.5, 0.4, 0.6])
    checkpoints.save_best(30, state_at(30), better)
    assert saved_steps(tmp_path / "best") == [10, 30]
    checkpoints.save_last(30, state_at(30), better)
    assert (saved_steps(tmp_path / "last"), saved_steps(tmp_path / "best")) == ([20, 30], [10, 30])
    checkpoints.save_last(35, state_at(35), better)
    assert (saved_steps(tmp_path / "last"), saved_steps(tmp_path / "best")) == ([30, 35], [30])
    assert [path.name for path in (tmp_path / "last").iterdir() if not path.name.isdecimal()] == []


def test_after_a_fall_back_the_same_steps_are_saved_again(tmp_path):
    """A damaged step is replaced, and what a good state named as best is still there."""
    checkpoints, rng = train_until(tmp_path, [0.5, 0.7]), random.Random(0)
    flip_a_bit(tmp_path / "last/20/progress/metadata", rng)
    flip_a_bit(tmp_path / "best/20/progress/metadata", rng)
    state, history = checkpoints.restore_last(LIKE)
    assert (int(state.step), history.best_step) == (10, 10)
    assert_same(checkpoints.restore_best(10, LIKE), (state_at(10).params, state_at(10).stats))
    checkpoints.save_last(15, state_at(15), history)
    assert saved_steps(tmp_path / "last") == [10, 15]
    again = history_at(20, [0.5, 0.8])
    checkpoints.save_best(20, state_at(20), again)
    checkpoints.save_last(20, state_at(20), again)
    assert damage_of(tmp_path / "best/20") is damage_of(tmp_path / "last/20") is None
    assert checkpoints.restore_last(LIKE)[1] == again


def test_best_is_the_step_that_the_history_names(tmp_path):
    """Killed between the save of the best and that of the last state: the higher step is of an epoch to be repeated."""
    checkpoints = train_until(tmp_path, [0.5])
    checkpoints.save_best(20, state_at(20), history_at(20, [0.5, 0.7]))
    _, history = checkpoints.restore_last(LIKE)
    assert history.best_step == 10
    assert_same(checkpoints.restore_best(history.best_step, LIKE), (state_at(10).params, state_at(10).stats))
    assert checkpoints.history() == history


@pytest.mark.parametrize(
    "damage", [lambda folder: shutil.rmtree(folder), lambda folder: (folder / SUMS).write_text("")]
)
def test_a_best_that_cannot_be_read_comes_from_the_last_state_or_is_told(tmp_path, capfd, damage):
    checkpoints = train_until(tmp_path / "a", [0.5, 0.7])
    damage(tmp_path / "a/best/20")
    assert_same(checkpoints.restore_best(20, LIKE), (state_at(20).params, state_at(20).stats))
    assert "The last state is of the same step, and is used instead." in capfd.readouterr().err
    state, history = checkpoints.restore_last(LIKE)
    checkpoints.mend_best(history, state)
    checkpoints.save_last(30, state_at(30), history)
    checkpoints.save_last(40, state_at(40), history)
    assert_same(checkpoints.restore_best(20, LIKE), (state_at(20).params, state_at(20).stats))

    checkpoints = train_until(tmp_path / "b", [0.5, 0.4, 0.3])
    damage(tmp_path / "b/best/10")
    with pytest.raises(WorkError, match=r"best/10, cannot be read .* anew, type lra-bench rm \w+, then its"):
        checkpoints.restore_best(10, LIKE)
    checkpoints.mend_best(checkpoints.history(), LIKE)
    assert "a later epoch may be better and take its place" in capfd.readouterr().err


def test_every_state_damaged_is_one_sentence(tmp_path):
    checkpoints, rng = train_until(tmp_path, [0.5, 0.7]), random.Random(0)
    for step in (10, 20):
        flip_a_bit(tmp_path / f"last/{step}/progress/metadata", rng)
    with pytest.raises(
        WorkError, match=r"last cannot be read \(step 20: .*; step 10: .*\)\. .* lra-bench rm .*, then the same\.$"
    ):
        checkpoints.restore_last(LIKE)
    assert Checkpoints(tmp_path / "nothing").restore_last(LIKE) is None
    assert not (tmp_path / "nothing").exists()


def test_a_checkpoint_of_an_earlier_version_is_read_with_a_word(tmp_path, capfd):
    checkpoints = train_until(tmp_path, [0.5])
    (tmp_path / "last/10" / SUMS).unlink()
    history = tmp_path / "last/10" / HISTORY
    history.write_text(json.dumps(without_promise(json.loads(history.read_text()))))
    assert_same(checkpoints.restore_last(LIKE)[0], state_at(10))
    assert "without checksums, and is read unchecked" in capfd.readouterr().err


KILLED_AT = """
import os, signal, sys
import flax.nnx, jax, orbax.checkpoint, pytest
import lra_bench.training.checkpoint, lra_bench.training.state

def save(folder, left):
    from tests.test_checkpoint import Checkpoints, Path, history_at, state_at
    checkpoints, history = Checkpoints(Path(folder)), history_at(20, [0.5, 0.7])
    EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir")
    def hook(event, arguments):
        nonlocal left
        if event in EVENTS and not (event == "open" and str(arguments[1]) in "rb"):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
    checkpoints.save_best(20, state_at(20), history)
    checkpoints.save_last(20, state_at(20), history)
    print(left, flush=True)

for folder, write in zip(sys.argv[1::2], map(int, sys.argv[2::2])):
    if not (child := os.fork()):
        save(folder, write)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if (code := os.waitstatus_to_exitcode(status)) != 0:
        print("killed" if code == -signal.SIGKILL else "failed", flush=True)
"""


def saves_killed_at(writes):
    """Save step 20 in each folder, in a process killed at so many writes. Returns how many there were, None if killed.

    All are children of one process, which has imported JAX but not yet started it, since a start takes seconds.
    """
    words = [str(word) for pair in writes.items() for word in pair]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLED_AT, *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=True)
    said = done.stdout.split()
    assert len(said) == len(writes), done.stderr
    assert "failed" not in said, done.stderr
    return [None if left == "killed" else write - int(left) for left, write in zip(said, writes.values(), strict=True)]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_any_write_of_a_save_nothing_is_lost(tmp_path):
    """The state before or the new one, whole, with the best that it names; then the same save goes through."""
    start = tmp_path / "start"
    train_until(start, [0.5])
    shutil.copytree(start, tmp_path / "whole")
    (writes,) = saves_killed_at({tmp_path / "whole": 10**6})
    assert writes > 40
    killed = {tmp_path / f"killed{write}": write for write in range(1, writes + 1, writes // KILLS)}
    for folder in killed:
        shutil.copytree(start, folder)
    assert saves_killed_at(killed) == [None] * len(killed)
    for folder in killed:
        checkpoints = Checkpoints(folder)
        state, history = checkpoints.restore_last(LIKE)
        step = int(state.step)
        assert step in (10, 20)
        assert_same(state, state_at(step))
        assert history == history_at(step, [0.5, 0.7][: step // 10])
        assert_same(checkpoints.restore_best(history.best_step, LIKE), (state_at(step).params, state_at(step).stats))
        checkpoints.save_best(20, state_at(20), history_at(20, [0.5, 0.7]))
        checkpoints.save_last(20, state_at(20), history_at(20, [0.5, 0.7]))
        assert_same(checkpoints.restore_last(LIKE)[0], state_at(20))
        assert saved_steps(folder / "last") == [10, 20]

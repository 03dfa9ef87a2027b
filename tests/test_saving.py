"""When a run is saved, and that what its history names is saved before it."""

from types import SimpleNamespace

import jax.numpy as jnp
import pytest

from lra_bench.training import saving
from lra_bench.training.saving import SAVE_SECONDS, Saver
from lra_bench.training.state import Totals, TrainState


class Clock:
    now = 1000.0


class FakeCheckpoints:
    """It writes down what is saved; each save takes `seconds`."""

    def __init__(self, seconds):
        self.seconds, self.saved = seconds, []

    def save_last(self, step, state, history):
        self.saved.append(("last", step, float(state.params)))
        Clock.now += self.seconds

    def save_best(self, step, state, history):
        self.saved.append(("best", step, float(state.params)))
        Clock.now += self.seconds


def state_at(step):
    zero = jnp.zeros((), jnp.int32)
    return TrainState(jnp.asarray(float(step)), jnp.zeros(()), None, jnp.asarray(step), Totals.zero(), zero)


@pytest.fixture
def saver(monkeypatch):
    Clock.now = 1000.0
    monkeypatch.setattr(saving, "time", SimpleNamespace(monotonic=lambda: Clock.now))
    return Saver(FakeCheckpoints(0.25))


@pytest.mark.parametrize(("epoch", "share"), [(5.0, 0.02), (0.5, 0.02), (3600.0, 0.0002)])
def test_saves_take_their_share_of_the_time_and_no_more(saver, epoch, share):
    began, saves = Clock.now, 0
    for step in range(1, 401):
        Clock.now += epoch
        saver.keep_best(step, state_at(step))
        if saver.due_after_epoch:
            saver.save(step, state_at(step), None)
            saves += 1
    taken = 0.5 * saves / (Clock.now - began)
    assert taken <= share
    assert saves == 400 or taken > 0.9 * share


def test_best_parameters_are_saved_before_the_state_whose_history_names_them_and_once(saver):
    saver.keep_best(10, state_at(10))
    saver.keep_best(20, state_at(20))
    saver.save(30, state_at(30), None)
    saver.save(40, state_at(40), None)
    saver.keep_best(50, state_at(50))
    saver.save(50, state_at(50), None)
    assert saver._checkpoints.saved == [
        ("best", 20, 20.0), ("last", 30, 30.0), ("last", 40, 40.0), ("best", 50, 50.0), ("last", 50, 50.0),
    ]  # fmt: skip


def test_what_could_not_be_saved_is_tried_again(saver, monkeypatch):
    def full(*_):
        raise OSError("no space")

    saver.keep_best(10, state_at(10))
    with monkeypatch.context() as patch:
        patch.setattr(saver._checkpoints, "save_last", full)
        with pytest.raises(OSError, match="no space"):
            saver.save(10, state_at(10), None)
    saver.save(20, state_at(20), None)
    assert [what[:2] for what in saver._checkpoints.saved] == [("best", 10), ("best", 10), ("last", 20)]


def test_a_long_epoch_is_saved_within(saver):
    Clock.now += SAVE_SECONDS - 1
    assert not saver.due_in_epoch
    Clock.now += 2
    assert saver.due_in_epoch


def test_kept_parameters_survive_the_state_that_training_consumes(saver):
    state = state_at(10)
    saver.keep_best(10, state)
    state.params.delete()
    saver.save(20, state_at(20), None)
    assert saver._checkpoints.saved[0] == ("best", 10, 10.0)

"""Experiment trackers get what metrics.jsonl gets, once, and never decide about a run."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from lra_bench.bench.synthetic import synthetic_run
from lra_bench.commands.train import train
from lra_bench.errors import UserError
from lra_bench.records.schema import CurvePoint
from lra_bench.training import tracking
from lra_bench.training.tracking import Tracking


def point(step):
    return CurvePoint(
        epoch=step / 10, step=step, train_loss=2.0, train_accuracy=0.25, val_loss=3.0, val_accuracy=step / 100
    )


@pytest.fixture
def run():
    found, _ = synthetic_run("s5", "listops", 64, {}, "float32")
    found.folder.mkdir(parents=True)
    return found


@pytest.fixture
def scalars(monkeypatch):
    """What a stand-in of tensorboardX was told: the first step that is dropped, and (step, name, value)."""
    told = []

    class SummaryWriter:
        def __init__(self, folder, purge_step):
            told.append(("from", purge_step))
            Path(folder).mkdir(exist_ok=True)

        def add_scalar(self, name, value, step):
            told.append((step, name, value))

        def flush(self):
            pass

        def close(self):
            told.append("closed")

    module = ModuleType("tensorboardX")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "tensorboardX", module)
    return told


def test_tensorboard_goes_on_where_the_run_goes_on(run, scalars):
    with Tracking(run, ["tensorboard"]) as log:
        log.update([])
        log.update([point(10)])
        log.update([point(10), point(20)])
    assert scalars[:2] == [("from", 1), (10, "epoch", 1.0)]
    assert (10, "train/accuracy", 0.25) in scalars
    assert [entry[0] for entry in scalars if "val/accuracy" in entry] == [10, 20]
    assert scalars.pop() == "closed"

    scalars.clear()
    with Tracking(run, ["tensorboard"]) as log:  # the last checkpoint was at step 10, so 20 is repeated
        log.update([point(10)])
        log.update([point(10), point(20)])
    assert scalars[0] == ("from", 1)
    assert [entry[0] for entry in scalars if "val/loss" in entry] == [10, 20]


def test_a_log_that_begins_later_or_misses_a_session_has_the_whole_curve(run, scalars):
    for curve in ([point(10), point(20)], [point(10), point(20), point(30), point(40)]):
        scalars.clear()
        with Tracking(run, ["tensorboard"]) as log:
            log.update(curve)
        assert [entry[0] for entry in scalars if "val/loss" in entry] == [each.step for each in curve]


def test_wandb_continues_the_log_of_the_run_and_sends_no_step_twice(run, monkeypatch):
    sent, asked = [], {}

    def init(**options):
        asked.update(options)
        return SimpleNamespace(step=sent[-1] + 1 if sent else 0, finish=lambda: None,
                               log=lambda values, step: sent.append(step))  # fmt: skip

    module = ModuleType("wandb")
    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    for curves in ([[], [point(10)], [point(10), point(20)]], [[point(10)], [point(10), point(20), point(30)]]):
        with Tracking(run, ["wandb"]) as log:
            for curve in curves:
                log.update(curve)
    assert sent == [10, 20, 30]
    assert (asked["resume"], asked["name"], asked["config"]["seed"]) == ("allow", run.name, 0)
    assert asked["id"] == run.name.replace("/", "-")


def test_a_tracker_that_fails_is_left_out_and_one_that_cannot_begin_is_said(run, monkeypatch, capsys):
    def fails(*_):
        raise OSError("no route to host\nand more")

    monkeypatch.setitem(tracking.OPEN, "wandb", lambda run: tracking.Tracker(fails, fails, 0))
    with Tracking(run, ["wandb"]) as log:
        log.update([point(10)])
        log.update([point(10), point(20)])
    assert capsys.readouterr().err.count("--wandb failed, and the run goes on without it: no route to host.") == 1
    monkeypatch.setitem(tracking.OPEN, "wandb", fails)
    with (
        Tracking(run, ["wandb"]) as log,
        pytest.raises(UserError, match=r"--wandb cannot write: no route to host\. Lea"),
    ):
        log.update([])


def test_a_missing_package_is_one_sentence_before_anything_begins(monkeypatch):
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^--wandb needs wandb\. Type: pip install wandb\.$"):
        train(["s5"], task=["listops"], wandb=True)
    with pytest.raises(UserError, match=r"^--tensorboard needs tensorboardX\. Type: pip install tensorboardX\.$"):
        train(["s5"], task=["listops"], tensorboard=True)

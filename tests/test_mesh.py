"""Two devices train as one does: the same examples in the same order, statistics over the whole batch."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from lra_bench.data.manifest import load_manifest
from lra_bench.data.prepare import prepare
from lra_bench.errors import UserError
from lra_bench.records.schema import Record
from lra_bench.runs.run import make_run
from lra_bench.training import mesh, train
from lra_bench.training.checkpoint import Checkpoints

SMALL = {"n_layers": 1, "d_model": 8, "batch_size": 40, "epochs": 0.5, "decay_epochs": 1.0, "dropout": 0.1}

TWO_DEVICES = """
import sys
from pathlib import Path
import jax
from lra_bench.errors import UserError
from lra_bench.training.mesh import data_mesh
from lra_bench.training.train import train
from tests.test_mesh import small_run
assert jax.device_count() == 2
try:
    data_mesh(33)
except UserError as error:
    print(error, file=sys.stderr)
print(train(small_run(Path(sys.argv[1])), Path(sys.argv[1]), Path(sys.argv[2])).model_dump_json())
"""


def small_run(data):
    return make_run(load_manifest(data).data_info, "s5", 0, SMALL, "float32")


@pytest.mark.slow
def test_two_devices_give_the_result_of_one(tmp_path, monkeypatch):
    """Sums are in another order, so to rounding; what was saved by two is read back by one."""
    data = prepare("listops", size="tiny", jobs=1)
    flags = "--xla_force_host_platform_device_count=2"
    environment = {**os.environ, "LRA_BENCH_HOME": str(tmp_path / "two"), "XLA_FLAGS": flags}
    command = [sys.executable, "-c", TWO_DEVICES, str(data), str(tmp_path / "results")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "batch_size 33 cannot be shared out over 2 devices" in done.stderr
    two = Record.model_validate(json.loads(done.stdout))
    assert two.system.devices == 2

    run = small_run(data)
    one = train.train(run, data, tmp_path / "one")
    assert (one.digest, one.system.devices) == (two.digest, 1)
    (ours,), (theirs,) = one.curve, two.curve
    assert ours.step == theirs.step == 25
    np.testing.assert_allclose(theirs.train_loss, ours.train_loss, rtol=1e-5)
    np.testing.assert_allclose(theirs.val_loss, ours.val_loss, rtol=1e-4)

    _, fresh = train.set_up(run, data)
    mine = Checkpoints(run.folder / "checkpoints").restore_last(fresh)
    monkeypatch.setenv("LRA_BENCH_HOME", str(tmp_path / "two"))
    others = Checkpoints(run.folder / "checkpoints").restore_last(fresh)
    kept = [np.unpackbits(np.load(place), count=500) for place in tmp_path.glob("*/runs/*/*/*/test_correct.npy")]
    assert len(kept) == 2
    assert (kept[0] == kept[1]).mean() > 0.99, "in the order of the split, but for ties that round otherwise"
    leaves = [jax.tree.leaves((saved[0].params, saved[0].stats)) for saved in (mine, others)]
    start = jax.tree.leaves((fresh.params, fresh.stats))
    for a, b, before in zip(*leaves, start, strict=True):
        moved = np.abs(np.asarray(a) - np.asarray(before)).max()
        assert moved > 0
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-3 * moved)


def test_one_device_takes_any_batch():
    assert mesh.data_mesh(33).size == 1


def test_a_batch_that_cannot_be_shared_out_is_a_users_mistake(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    with pytest.raises(UserError, match="batch_size 50 cannot be shared out over 8 devices"):
        mesh.data_mesh(50)

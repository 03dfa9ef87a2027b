"""Examples that stream from disk give the same run, bit for bit, as examples that are on the device."""

import json
import os
import signal

import jax
import numpy as np
import pytest

from lra_bench.data.manifest import load_manifest
from lra_bench.data.packed import PackedSplit, open_split
from lra_bench.errors import Interrupted
from lra_bench.machine.mesh import data_mesh
from lra_bench.runs.run import make_run
from lra_bench.training import input_pipeline, state, train
from lra_bench.training.epoch import DispatchSize
from lra_bench.training.input_pipeline import ResidentPipeline, StreamedPipeline, fits_on_device, make_pipelines

SMALL = {"n_layers": 1, "d_model": 8, "batch_size": 40, "epochs": 1.5, "warmup_epochs": 0.5, "decay_epochs": 1.5}
ROW = 8


@pytest.fixture
def split():
    """22 examples, each a row of ROW bytes that names it."""
    inputs = np.repeat(np.arange(22, dtype=np.uint8)[:, None], ROW, axis=1)
    return PackedSplit(inputs, np.arange(22, dtype=np.int32), np.arange(22, dtype=np.int32))


def both(split, monkeypatch, batch_size, buffer_batches):
    monkeypatch.setattr(input_pipeline, "BUFFER_BYTES", buffer_batches * batch_size * ROW)
    mesh, key = data_mesh(), state.stream_key(3, 1)
    return ResidentPipeline(split, key, mesh), StreamedPipeline(split, key, mesh, batch_size)


def batches(source, epoch, count, batch_size, ask=1000):
    """The batches 0 … count − 1 of an epoch, as their labels, asking for `ask` at once."""
    seen = []
    while len(seen) < count:
        taken, n = source.take(epoch, len(seen), min(ask, count - len(seen)))
        assert n == int(taken.n) >= 1
        first = int(taken.first)
        rows = np.asarray(taken.order)[first * batch_size : (first + n) * batch_size]
        chosen = [np.asarray(column)[rows] for column in taken.examples]
        assert (chosen[0] == chosen[2][:, None]).all()
        assert (chosen[1] == chosen[2]).all()
        seen += chosen[2].reshape(n, batch_size).tolist()
    return seen


@pytest.mark.parametrize(("batch_size", "buffer_batches"), [(4, 1), (4, 2), (5, 3), (4, 50), (22, 1), (20, 1)])
@pytest.mark.parametrize("ask", [1, 3, 1000])
def test_streamed_batches_are_the_residents_in_every_epoch(split, monkeypatch, batch_size, buffer_batches, ask):
    resident, streamed = both(split, monkeypatch, batch_size, buffer_batches)
    count = 22 // batch_size
    for epoch in (0, 1, 2):
        expected = batches(resident, epoch, count, batch_size)
        assert batches(streamed, epoch, count, batch_size, ask) == expected
        assert len({label for batch in expected for label in batch}) == count * batch_size


def test_streaming_can_start_anywhere(split, monkeypatch):
    """A resumed run asks for the middle of an epoch first, then goes on; another may go back."""
    resident, streamed = both(split, monkeypatch, 4, 2)
    for epoch, first in [(7, 3), (7, 4), (8, 0), (2, 1), (7, 3)]:
        (theirs, a), (ours, b) = (source.take(epoch, first, 1) for source in (resident, streamed))
        assert a == b == 1
        rows = [np.asarray(t.order)[int(t.first) * 4 : int(t.first) * 4 + 4] for t in (theirs, ours)]
        np.testing.assert_array_equal(
            np.asarray(theirs.examples.labels)[rows[0]], np.asarray(ours.examples.labels)[rows[1]]
        )


@pytest.mark.parametrize("buffer_batches", [1, 2, 3, 100])
def test_in_order_gives_every_example_once(split, monkeypatch, buffer_batches):
    _, streamed = both(split, monkeypatch, 4, buffer_batches)
    buffers = list(streamed.in_order())
    assert [int(rows.n) for rows, _ in buffers] == [count for _, count in buffers]
    labels = [np.asarray(rows.examples.labels)[:count].tolist() for rows, count in buffers]
    assert [label for buffer in labels for label in buffer] == list(range(22))
    assert len({rows.examples.labels.shape for rows, _ in buffers}) == 1
    assert all(count % 4 == 0 for _, count in buffers[:-1])


def test_next_buffer_is_gathered_while_this_one_is_used(split, monkeypatch):
    gathered = []
    read = input_pipeline.rows_of
    monkeypatch.setattr(
        input_pipeline, "rows_of", lambda split, rows: gathered.append(sorted(rows)) or read(split, rows)
    )
    _, streamed = both(split, monkeypatch, 4, 2)
    streamed.take(0, 0, 1)
    streamed._coming[1].result()
    assert len(gathered) == 2
    streamed.take(0, 1, 1)
    assert len(gathered) == 2
    streamed.take(0, 2, 1)
    streamed._coming[1].result()
    assert len(gathered) == 3


def test_auto_streams_what_does_not_fit(split, monkeypatch):
    mesh, key = data_mesh(), state.stream_key(0, 1)
    size = sum(column.nbytes for column in split)

    class Device:
        def __init__(self, free):
            self.free = free

        def memory_stats(self):
            return {"bytes_limit": 1000 + self.free, "bytes_in_use": 1000}

    for free, fits in [(2 * size, True), (2 * size - 1, False)]:
        with monkeypatch.context() as patch:
            patch.setattr(jax, "local_devices", lambda free=free: [Device(10**9), Device(free)])
            assert fits_on_device([split]) == fits
            made = make_pipelines({"train": split}, key, mesh, 4, "auto")
        assert isinstance(made["train"], ResidentPipeline if fits else StreamedPipeline)
    assert isinstance(make_pipelines({"train": split}, key, mesh, 4, "host")["train"], StreamedPipeline)


def story(record):
    """The record without what a clock or a second session changes."""
    return json.dumps(record.model_dump(mode="json", exclude={"throughput", "provenance", "system"}), sort_keys=True)


@pytest.mark.slow
def test_streamed_run_equals_resident_run_bit_for_bit_also_resumed(data, tmp_path, monkeypatch):
    run = make_run(load_manifest(data).data_info, "s5", 0, SMALL, "float32")
    row_bytes = open_split(data, "train").inputs[0].nbytes
    monkeypatch.setattr(input_pipeline, "BUFFER_BYTES", 3 * 40 * row_bytes)
    found = {}
    for placement in ("device", "host"):
        monkeypatch.setenv("LRA_BENCH_HOME", str(tmp_path / placement))
        found[placement] = story(train.train(run, data, tmp_path / f"results-{placement}", placement=placement))
    assert found["host"] == found["device"]
    kept = [path.read_bytes() for path in tmp_path.glob("*/runs/*/*/*/test_correct.npy")]
    assert len(kept) == 2
    assert kept[0] == kept[1]

    monkeypatch.setenv("LRA_BENCH_HOME", str(tmp_path / "resumed"))
    monkeypatch.setattr("lra_bench.training.epoch.DISPATCH_SECONDS", 0.0)
    took, steps_taken = DispatchSize.took, []

    def stop_at_fifth(pace, seconds, n):
        took(pace, seconds, n)
        steps_taken.append(n)
        if sum(steps_taken) == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(DispatchSize, "took", stop_at_fifth)
    with pytest.raises(Interrupted):
        train.train(run, data, tmp_path / "results-resumed", placement="host")
    assert story(train.train(run, data, tmp_path / "results-resumed", placement="host")) == found["device"]

"""A run trained in chunks on machines that keep nothing ends like one that stayed; a bad bundle is refused."""

import contextlib
import io
import json
import tarfile
import time

import pytest

from lra_bench import OutOfTime, UserError, carry, train
from lra_bench.data.manifest import load_manifest
from lra_bench.data.prepare import prepare
from lra_bench.run import load_run, make_run

SMALL = {"n_layers": 1, "d_model": 8, "batch_size": 40, "epochs": 3.0, "warmup_epochs": 0.5, "decay_epochs": 3.0}


def small_run(data):
    return make_run(load_manifest(data).data_info, "s5", 0, SMALL, "float32")


def numbers(record):
    return json.dumps(record.model_dump(mode="json", exclude={"throughput", "provenance", "system"}), sort_keys=True)


def test_chunks_on_fresh_machines_equal_one_run(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "cache_folder", lambda: tmp_path / "compiled")
    monkeypatch.setattr(train, "DISPATCH_SECONDS", 0.0)
    data = prepare("listops", size="tiny", jobs=1)
    whole = train.train(small_run(data), data, tmp_path / "whole")

    taken, bundle = [], tmp_path / "bundle"
    count = train.Pace.took
    monkeypatch.setattr(train.Pace, "took", lambda self, seconds, n: (taken.append(n), count(self, seconds, n)))
    monkeypatch.setattr(train.Stop, "wanted", property(lambda _: sum(taken) >= 55))
    chunks, record = 0, None
    while record is None:
        monkeypatch.setenv("LRA_BENCH_HOME", str(tmp_path / f"machine{chunks}"))
        taken.clear()
        if chunks:
            (carried,) = carry.carry_in(bundle)
            assert load_run(carried) == small_run(data)
        with contextlib.suppress(OutOfTime):
            record = train.train(small_run(data), data, tmp_path / "chunked")
        parts = carry.carry_out(bundle, part_bytes=2_000)
        assert len(parts) > 1
        assert all(part.stat().st_size <= 2_000 for part in parts)
        chunks += 1
    assert chunks == 3
    assert numbers(record) == numbers(whole)


def test_time_limit_saves_and_says_how_to_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "cache_folder", lambda: tmp_path / "compiled")
    data = prepare("listops", size="tiny", jobs=1)
    with pytest.raises(OutOfTime, match=r"all is saved\. The same command continues: lra-bench train --model s5"):
        train.train(small_run(data), data, tmp_path / "results", time.monotonic())
    assert list((small_run(data).folder / "checkpoints" / "last").iterdir())


def test_finished_runs_travel_without_their_resume_state_and_are_not_overwritten(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "cache_folder", lambda: tmp_path / "compiled")
    data = prepare("listops", size="tiny", jobs=1)
    run = make_run(load_manifest(data).data_info, "s5", 0, {**SMALL, "epochs": 0.1}, "float32")
    train.train(run, data, tmp_path / "results")
    carry.carry_out(tmp_path / "bundle", [run.name])
    monkeypatch.setenv("LRA_BENCH_HOME", str(tmp_path / "other"))
    carry.carry_in(tmp_path / "bundle")
    assert sorted(path.name for path in (run.folder / "checkpoints").iterdir()) == ["best"]
    (run.folder / "result.json").write_text("mine")
    assert carry.carry_in(tmp_path / "bundle") == []
    assert (run.folder / "result.json").read_text() == "mine"


def bundle_of(folder, member, content=b"x"):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as archive:
        member.size = len(content) if member.isfile() else 0
        archive.addfile(member, io.BytesIO(content))
    folder.mkdir()
    (folder / "runs.tar.xz.000").write_bytes(packed.getvalue())


@pytest.mark.parametrize("name", ["../../../evil", "/listops/s5/x/run.json", "listops/s5/x/other.py", "run.json"])
def test_only_files_of_runs_are_unpacked(tmp_path, name):
    bundle_of(tmp_path / "bundle", tarfile.TarInfo(name))
    with pytest.raises(UserError, match="is no file of a run"):
        carry.carry_in(tmp_path / "bundle")
    assert not (tmp_path / "home").exists()


def test_links_are_refused(tmp_path):
    link = tarfile.TarInfo("listops/s5/x/run.json")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    bundle_of(tmp_path / "bundle", link)
    with pytest.raises(UserError, match="is no file of a run"):
        carry.carry_in(tmp_path / "bundle")


def test_missing_and_damaged_parts_are_said(tmp_path):
    with pytest.raises(UserError, match="does not hold"):
        carry.carry_in(tmp_path)
    with pytest.raises(UserError, match="there is no run to carry out"):
        carry.carry_out(tmp_path / "bundle")
    bundle_of(tmp_path / "cut", tarfile.TarInfo("listops/s5/x/run.json"), b"y" * 5000)
    part = tmp_path / "cut" / "runs.tar.xz.000"
    part.write_bytes(part.read_bytes()[:-40])
    with pytest.raises(UserError, match="damaged"):
        carry.carry_in(tmp_path / "cut")

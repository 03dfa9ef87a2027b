"""A run trained in chunks on machines that keep nothing ends like one that stayed; a bad file is refused."""

import contextlib
import io
import json
import shutil
import tarfile
import time

import pytest

from lra_bench.commands.import_ import import_
from lra_bench.data.manifest import load_manifest
from lra_bench.data.prepare import prepare
from lra_bench.errors import OutOfTime, UserError
from lra_bench.records.finished import load_correct, load_finished
from lra_bench.runs.run import load_run, make_run
from lra_bench.runs.saved_steps import saved_steps
from lra_bench.runs.transfer import export_runs, import_runs
from lra_bench.training import train
from lra_bench.training.epoch import DispatchSize

SMALL = {"n_layers": 1, "d_model": 8, "batch_size": 40, "epochs": 3.0, "warmup_epochs": 0.5, "decay_epochs": 3.0}


def small_run(data):
    return make_run(load_manifest(data).data_info, "s5", 0, SMALL, "float32")


def numbers(record):
    return json.dumps(record.model_dump(mode="json", exclude={"throughput", "provenance", "system"}), sort_keys=True)


@pytest.mark.slow
def test_chunks_on_fresh_machines_equal_one_run(tmp_path, monkeypatch):
    monkeypatch.setattr("lra_bench.training.epoch.DISPATCH_SECONDS", 0.0)
    data = prepare("listops", size="tiny", jobs=1)
    whole = train.train(small_run(data), data, tmp_path / "whole")

    taken, file = [], tmp_path / "runs.tar.xz"
    count = DispatchSize.took
    monkeypatch.setattr(DispatchSize, "took", lambda self, seconds, n: (taken.append(n), count(self, seconds, n)))
    monkeypatch.setattr(train.StopRequest, "wanted", property(lambda _: sum(taken) >= 55))
    chunks, record = 0, None
    while record is None:
        monkeypatch.setenv("LRA_BENCH_HOME", str(tmp_path / f"machine{chunks}"))
        taken.clear()
        if chunks:
            (imported,) = import_runs(file)
            assert load_run(imported) == small_run(data)
        with contextlib.suppress(OutOfTime):
            record = train.train(small_run(data), data, tmp_path / "chunked")
        assert export_runs(file) == [small_run(data).folder]
        chunks += 1
    assert chunks == 3
    assert numbers(record) == numbers(whole)


@pytest.mark.slow
def test_time_limit_saves_and_says_how_to_go_on(tmp_path):
    data = prepare("listops", size="tiny", jobs=1)
    with pytest.raises(OutOfTime, match=r"all is saved\. The same command continues: lra-bench train --model s5"):
        train.train(small_run(data), data, tmp_path / "results", time.monotonic())
    last = small_run(data).folder / "checkpoints" / "last"
    (newest,) = saved_steps(last)
    shutil.copytree(last / str(newest), last / str(newest - 1))  # the state before, which training keeps
    export_runs(tmp_path / "runs.tar.xz")
    with tarfile.open(tmp_path / "runs.tar.xz") as packed:
        names = [name for name in packed.getnames() if "/checkpoints/last/" in name]
    assert names
    assert all(f"/checkpoints/last/{newest}/" in name for name in names), "the newest whole state is enough"


@pytest.mark.slow
def test_finished_runs_travel_without_their_resume_state_and_are_not_overwritten(tmp_path, monkeypatch, capsys):
    data = prepare("listops", size="tiny", jobs=1)
    run = make_run(load_manifest(data).data_info, "s5", 0, {**SMALL, "epochs": 0.1}, "float32")
    train.train(run, data, tmp_path / "results")
    export_runs(tmp_path / "runs.tar.xz", [run.name])
    monkeypatch.setenv("LRA_BENCH_HOME", str(tmp_path / "other"))
    import_runs(tmp_path / "runs.tar.xz")
    assert sorted(path.name for path in (run.folder / "checkpoints").iterdir()) == ["best"]
    assert load_correct(run.folder, load_finished(run.folder)).size == 500
    (run.folder / "metrics.jsonl").write_text("mine")
    import_(tmp_path / "runs.tar.xz")
    assert "Nothing new" in capsys.readouterr().err
    assert (run.folder / "metrics.jsonl").read_text() == "mine"


def file_of(path, member, content=b"x"):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as archive:
        member.size = len(content) if member.isfile() else 0
        archive.addfile(member, io.BytesIO(content))
    path.write_bytes(packed.getvalue())
    return path


@pytest.mark.parametrize(
    "name", ["../../../evil", "/listops/s5/x/run.json", "/tmp/s5/checkpoints/x", "listops/s5/x/other.py", "run.json"]
)
def test_only_files_of_runs_are_unpacked(tmp_path, name):
    file = file_of(tmp_path / "runs.tar.xz", tarfile.TarInfo(name))
    with pytest.raises(UserError, match="is no file of a run"):
        import_runs(file)
    assert not (tmp_path / "home").exists()


def test_links_are_refused(tmp_path):
    link = tarfile.TarInfo("listops/s5/x/run.json")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    file = file_of(tmp_path / "runs.tar.xz", link)
    with pytest.raises(UserError, match="is no file of a run"):
        import_runs(file)


def test_missing_and_damaged_files_are_said(tmp_path):
    with pytest.raises(UserError, match="is no file"):
        import_runs(tmp_path / "runs.tar.xz")
    with pytest.raises(UserError, match="there is no run to export"):
        export_runs(tmp_path / "runs.tar.xz")
    cut = file_of(tmp_path / "cut.tar.xz", tarfile.TarInfo("listops/s5/x/run.json"), b"y" * 5000)
    cut.write_bytes(cut.read_bytes()[:-40])
    text = tmp_path / "text.tar.xz"
    text.write_text("no archive")
    for file in (cut, text):
        with pytest.raises(UserError, match="is damaged or no file of"):
            import_runs(file)

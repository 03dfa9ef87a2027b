"""Import and export killed at every change of the disk, refused archives, and runs that change while they are read."""

import io
import itertools
import json
import lzma
import shutil
import signal
import subprocess
import sys
import tarfile
import threading

import pytest

from lra_bench.errors import UserError, WorkError
from lra_bench.paths import runs_folder
from lra_bench.records.curves import best_step
from lra_bench.records.files import record_text
from lra_bench.runs import transfer
from lra_bench.runs.checksums import checksums_of, files_below, write_checksums
from lra_bench.runs.locking import aside_of, run_locked
from lra_bench.runs.run import all_runs, load_run
from lra_bench.runs.transfer import export_runs, import_runs
from tests.made_records import honest_record, honest_run

FINISHED, UNFINISHED = honest_record("s5", "listops", 0), honest_record("s4", "image", 1, 0.88)
BEST = best_step(FINISHED.curve, FINISHED.accuracy.best_epoch)


def made_run(record, step, finished=False):
    """The folder of a run with checkpoints at `step`, as training leaves it."""
    folder = honest_run(record).folder
    shutil.rmtree(folder, ignore_errors=True)
    for kind in ("best",) if finished else ("best", "last"):
        for name in ("state/d/array", "state/_METADATA", "progress/metadata"):
            path = folder / "checkpoints" / kind / str(step) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"{kind} {step} {name}".encode() * 500)
    (folder / "run.json").write_text(honest_run(record).model_dump_json())
    (folder / "metrics.jsonl").write_text("{}\n" * step)
    if finished:
        (folder / "result.json").write_text(record_text(record))
    return folder


def content(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def packed(tmp_path, monkeypatch):
    """A file with a finished and an unfinished run, and what it holds by the runs' names."""
    monkeypatch.setenv("LRA_BENCH_HOME", str(tmp_path / "elsewhere"))
    folders = [made_run(FINISHED, BEST, finished=True), made_run(UNFINISHED, 200)]
    export_runs(tmp_path / "runs.tar.xz")
    held = {folder.relative_to(runs_folder()).as_posix(): content(folder) for folder in folders}
    monkeypatch.setenv("LRA_BENCH_HOME", str(tmp_path / "home"))
    return tmp_path / "runs.tar.xz", held


KILL = """
import os, signal, sys
from lra_bench.runs.transfer import export_runs, import_runs
what, file, k = sys.argv[1], sys.argv[2], int(sys.argv[3])
changes = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "os.utime", "os.truncate"}
seen = 0
def hook(event, details):
    global seen
    writes = event == "open" and isinstance(details[2], int) and details[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if writes or event in changes:
        seen += 1
        if seen == k:
            os.kill(os.getpid(), signal.SIGKILL)
from pathlib import Path
for k in range(k, int(sys.argv[4]), int(sys.argv[6])):
    child = os.fork()
    if not child:
        os.environ["LRA_BENCH_HOME"] = f"{sys.argv[5]}/{k}"
        sys.addaudithook(hook)
        (import_runs if what == "import" else export_runs)(Path(file))
        os._exit(0)
    print(k, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.parametrize(("here", "first", "every"), [("nothing", 1, 4), ("behind", 2, 3)])
def test_an_import_killed_at_any_change_loses_no_run(tmp_path, packed, monkeypatch, here, first, every):
    """Every fourth or third change: it takes a while. Where there is nothing here, there are about 80 changes."""
    file, held = packed
    most = 150
    old = {}
    for k in range(first, most, every):
        monkeypatch.setenv("LRA_BENCH_HOME", str(tmp_path / "killed" / str(k)))
        if here == "behind":
            for record in (FINISHED, UNFINISHED):
                folder = made_run(record, 100)
                old[folder.relative_to(runs_folder()).as_posix()] = content(folder)
    words = [
        sys.executable,
        "-c",
        KILL,
        "import",
        str(file),
        str(first),
        str(most),
        str(tmp_path / "killed"),
        str(every),
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    ended = dict(map(int, line.split()) for line in done.stdout.splitlines())
    kills = [k for k, code in ended.items() if code == -signal.SIGKILL]
    assert len(kills) > 15
    assert set(ended.values()) == {-signal.SIGKILL, 0}, "there are more changes than this test kills at"
    for k in kills:
        monkeypatch.setenv("LRA_BENCH_HOME", str(tmp_path / "killed" / str(k)))
        visible = {folder.relative_to(runs_folder()).as_posix(): content(folder) for folder in all_runs()}
        assert old.keys() <= visible.keys()
        for name, found in visible.items():
            assert found in (held[name], old.get(name)), f"half of {name} after change {k}"
        import_runs(file)
        assert {folder.relative_to(runs_folder()).as_posix(): content(folder) for folder in all_runs()} == held
        assert not list(runs_folder().glob("*/*/.*aside*"))
        assert not (runs_folder() / ".import").exists()


def test_an_export_killed_at_any_change_keeps_the_file_before_it(tmp_path, packed):
    file, _ = packed
    with tarfile.open(file) as archive:
        before = archive.getnames()
    words = [sys.executable, "-c", KILL, "export", str(file), "1", "10", str(tmp_path / "killed"), "1"]
    for k in range(1, 10):
        shutil.copytree(tmp_path / "elsewhere", tmp_path / "killed" / str(k))
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "-9" in done.stdout
    with tarfile.open(file) as archive:
        assert archive.getnames() == before


def test_the_further_run_is_kept_and_a_finished_one_without_its_checkpoint_is_mended(packed, capsys):
    file, held = packed
    further, finished = made_run(UNFINISHED, 201), made_run(FINISHED, BEST, finished=True)
    shutil.rmtree(finished / "checkpoints")
    before = content(further)
    assert import_runs(file) == [finished]
    assert content(further) == before
    assert content(finished) == held[finished.relative_to(runs_folder()).as_posix()]
    assert "came to step 201 here, and to 200 in the file" in capsys.readouterr().err


def test_a_damaged_best_is_mended_by_an_import_and_never_brought_by_one(packed, capsys):
    file, held = packed
    finished = made_run(FINISHED, BEST, finished=True)
    step = finished / "checkpoints/best" / str(BEST)
    write_checksums(step, checksums_of(step, files_below(step)))
    (step / "state/d/array").write_bytes(b"another")
    with pytest.raises(
        UserError, match=r"\(state/d/array has another SHA-256 .*\), and no other is whole.*lra-bench rm"
    ):
        export_runs(file.with_name("b.txz"), [finished.name])
    with pytest.raises(UserError, match="there is no run to export"):
        export_runs(file.with_name("b.txz"))
    assert finished in import_runs(file)
    assert content(finished) == held[finished.relative_to(runs_folder()).as_posix()]
    assert not import_runs(file)
    files = {
        name: data for name, data in held[finished.relative_to(runs_folder()).as_posix()].items() if "best" not in name
    }
    shutil.rmtree(runs_folder())
    name = finished.relative_to(runs_folder()).as_posix()
    broken = packed_of(file.with_name("c.txz"), [(f"{name}/{path}", data) for path, data in files.items()])
    capsys.readouterr()
    assert not import_runs(broken)
    assert f"the best checkpoint, of step {BEST}, cannot be restored (it is missing)" in capsys.readouterr().err


def test_where_the_best_is_lost_the_last_state_travels_instead(tmp_path, monkeypatch, capsys):
    finished = made_run(FINISHED, BEST, finished=True)
    (finished / "checkpoints/best").rename(finished / "checkpoints/last")
    before = content(finished)
    export_runs(tmp_path / "a.txz", [finished.name])
    assert "cannot be restored (it is missing). Its last states are packed instead." in capsys.readouterr().err
    monkeypatch.setenv("LRA_BENCH_HOME", str(tmp_path / "there"))
    (imported,) = import_runs(tmp_path / "a.txz")
    assert content(imported) == before


def test_an_unfinished_run_of_damaged_states_is_not_imported(tmp_path, monkeypatch, capsys):
    folder = made_run(UNFINISHED, 200)
    step = folder / "checkpoints/last/200"
    write_checksums(step, dict.fromkeys(files_below(step), "0" * 64))
    export_runs(tmp_path / "a.txz")
    monkeypatch.setenv("LRA_BENCH_HOME", str(tmp_path / "there"))
    assert not import_runs(tmp_path / "a.txz")
    assert "none of its checkpoints is as it was saved" in capsys.readouterr().err


def test_a_run_in_training_is_left_and_the_others_come(packed, capsys):
    file, held = packed
    training = made_run(UNFINISHED, 100)
    before = content(training)
    with run_locked(training, lambda: None):
        (imported,) = import_runs(file)
    assert imported == honest_run(FINISHED).folder
    assert content(training) == before
    assert "another process trains it here" in capsys.readouterr().err
    assert import_runs(file) == [training]
    assert content(training) == held[training.relative_to(runs_folder()).as_posix()]


def test_what_a_killed_import_moved_aside_comes_back_with_the_next_command(packed):
    folder = made_run(UNFINISHED, 100)
    before = content(folder)
    folder.rename(aside_of(folder))
    assert all_runs() == [folder]
    assert content(folder) == before
    folder.rename(aside_of(folder))
    with run_locked(folder, lambda: None):
        assert content(folder) == before


def test_a_run_in_training_is_packed_as_it_was_at_one_moment(tmp_path, monkeypatch):
    """A process that replaces checkpoints as Orbax does, while the run is packed again and again."""
    folder = made_run(UNFINISHED, 1)
    stop = threading.Event()

    def replace():
        step = 1
        while not stop.wait(0.005):
            last = folder / "checkpoints" / "last"
            shutil.copytree(last / str(step), last / f"{step + 1}.orbax-checkpoint-tmp-0")
            for path in (last / f"{step + 1}.orbax-checkpoint-tmp-0").rglob("*"):
                if path.is_file():
                    path.write_bytes(f"last {step + 1} {path.name}".encode() * 500)
            (last / f"{step + 1}.orbax-checkpoint-tmp-0").rename(last / str(step + 1))
            shutil.rmtree(last / str(step))
            step += 1
            stop.wait(0.05)

    monkeypatch.setattr(transfer, "PAUSE", 0.01)
    thread = threading.Thread(target=replace)
    thread.start()
    try:
        for _ in range(20):
            files = transfer.momentary(folder)
            last = {name: value for name, value in files.items() if "/last/" in name}
            steps = {name.split("/")[2] for name in last}
            step = max(steps, key=int)
            assert sum(name.split("/")[2] == step for name in last) == 3
            assert not [name for name in files if "tmp" in name]
    finally:
        stop.set()
        thread.join()


def test_a_run_that_never_holds_still_is_said(monkeypatch):
    folder, times = made_run(UNFINISHED, 1), itertools.count()
    monkeypatch.setattr(transfer, "PAUSE", 0.0)
    monkeypatch.setattr(transfer, "_listing", lambda folder: {("run.json", 1): next(times)})
    with pytest.raises(WorkError, match="changes faster than it can be read"):
        transfer.momentary(folder)


@pytest.mark.parametrize("name", ["runs.zip", "runs", "runs.tar", "runs.tar.gz", "runs.xz"])
def test_only_its_own_ending_is_written(tmp_path, name):
    made_run(UNFINISHED, 1)
    with pytest.raises(UserError, match=r"name it \.tar\.xz or \.txz"):
        export_runs(tmp_path / name)
    assert not (tmp_path / name).exists()


def test_a_run_outside_of_the_runs_folder_is_packed_under_its_own_name(tmp_path):
    folder = made_run(UNFINISHED, 1)
    elsewhere = tmp_path / "backup" / "mine"
    shutil.copytree(folder, elsewhere)
    export_runs(tmp_path / "runs.txz", [str(elsewhere)])
    with tarfile.open(tmp_path / "runs.txz") as archive:
        assert all(name.startswith(load_run(folder).name) for name in archive.getnames())
        assert {member.uname for member in archive.getmembers()} == {""}


def packed_of(path, members, compress=lzma.compress):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    path.write_bytes(compress(out.getvalue()))
    return path


NAME = honest_run(UNFINISHED).name
HOSTILE = {
    "too large": [(f"{NAME}/run.json", b"{}"), (f"{NAME}/checkpoints/last/1/zeros", bytes(200 << 20))],
    "a file twice": [(f"{NAME}/run.json", b"{}")] * 2,
    "hidden": [(".import/s5/x/run.json", b"{}")],
    "a long name": [(f"{NAME}/checkpoints/{'x' * 250}", b"")],
    "escape codes": [(f"{NAME}/checkpoints/\x1b[31m", b"")],
    "below a file": [(f"{NAME}/run.json/x", b"")],
    "up": [(f"{NAME}/checkpoints/../../../../../x", b"")],
    "backslash": [(f"{NAME}/checkpoints/..\\x", b"")],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_are_refused_whole(tmp_path, name):
    file = packed_of(tmp_path / "x.tar.xz", HOSTILE[name])
    with pytest.raises(UserError) as caught:
        import_runs(file)
    assert "\n" not in str(caught.value)
    assert not runs_folder().exists()


def test_a_file_with_something_behind_its_end_is_damaged(tmp_path, packed):
    file, _ = packed
    file.write_bytes(file.read_bytes() + b"more")
    with pytest.raises(UserError, match="is damaged"):
        import_runs(file)


def test_a_packed_run_that_cannot_be_used_is_left_and_the_others_come(tmp_path, packed, capsys):
    _, held = packed
    members = [(f"{name}/{path}", data) for name, files in held.items() for path, data in files.items()]
    forged = json.dumps({**json.loads(record_text(FINISHED)), "seed": 3}).encode()
    changed = [(name, forged if name.endswith("result.json") else data) for name, data in members]
    (imported,) = import_runs(packed_of(tmp_path / "forged.tar.xz", changed))
    assert imported == honest_run(UNFINISHED).folder
    assert "its files are of another run" in capsys.readouterr().err

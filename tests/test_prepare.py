"""`prepare`: the same bytes whatever the jobs, kills and rivals; sources in order; what is written can be read."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from lra_bench import registry
from lra_bench.data import build, manifest, packed, sources
from lra_bench.data.download import Fetched, sha256_of, size_of
from lra_bench.data.manifest import FILE, load_manifest
from lra_bench.data.packed import ARRAYS, open_split, relative_path
from lra_bench.data.prepare import prepare
from lra_bench.datasource import Layout, Origin, PlacedRows, RemoteFile, Rows, counts_for
from lra_bench.errors import UserError, WorkError
from lra_bench.paths import data_folder
from lra_bench.spec import SPLITS, Task
from lra_bench.tasks import listops
from tests.manifests import rewrite_manifest

COUNTS = {"train": 60, "val": 10, "test": 10}


def rows_of(seed, start, stop, modulus=2**30):
    """Example i: four bytes of (i + seed) mod `modulus`, as true length 3 or 4."""
    numbers = (np.arange(start, stop) + seed) % modulus
    inputs = numbers.astype("<u4").view(np.uint8).reshape(-1, 4).copy()
    lengths = np.full(stop - start, 4, np.int32)
    return Rows(inputs, lengths, (numbers % 3).astype(np.int32))


@dataclass(frozen=True)
class FakeGenerator:
    layout: Layout
    distinct: bool = False
    chunk: int = 7
    seconds_per_example: float = 1e-6
    modulus: int = 2**30

    @property
    def parameters(self):
        return {"modulus": self.modulus}

    def generate(self, seed, start, stop):
        return rows_of(seed, start, stop, self.modulus)


@dataclass(frozen=True)
class FakeReading:
    layout: Layout
    total: int
    parameters: dict

    def batches(self):
        pieces = np.array_split(np.arange(self.total), 9)
        for indices in [np.concatenate([pieces[i], pieces[8 - i]]) for i in range(4)] + [pieces[4]]:
            yield PlacedRows(indices, Rows(*(column[indices] for column in rows_of(5, 0, self.layout.total))))


class FakeData:
    """A task in a few lines: its file's content does not matter, its presence does."""

    def __init__(self, origins=(), generator=True, modulus=2**30, distinct=False, missing=0):
        self.origins, self.has_generator, self.modulus = origins, generator, modulus
        self.distinct, self.missing = distinct, missing

    def layout(self, request):
        return Layout(counts_for(request.size, COUNTS, COUNTS), 1, 4, 3, None)

    def locate(self, path):
        return sorted(path.iterdir()) if path.is_dir() else [path]

    def read(self, path, request):
        layout = self.layout(request)
        return FakeReading(layout, layout.total - self.missing, {"read": "yes"})

    def generator(self, request):
        if not self.has_generator:
            return None
        return FakeGenerator(self.layout(request), self.distinct, modulus=self.modulus)

    def problems(self, layout, rows, source):
        return []

    def decode(self, layout, inputs, lengths):
        return inputs[:lengths].tobytes().hex()


@pytest.fixture
def fake(monkeypatch):
    """Adds a task named fake; returns a function that sets its DATA."""
    task = listops.TASK.model_dump() | {"name": "fake", "title": "Fake", "length": 4, "classes": 3, "splits": COUNTS}
    module = SimpleNamespace(TASK=Task.model_validate(task), DATA=FakeData())
    monkeypatch.setitem(sys.modules, "lra_bench.tasks.fake", module)
    names = (*registry.every_task_name(), "fake")
    monkeypatch.setattr(registry, "every_task_name", lambda: names)
    monkeypatch.setattr(manifest, "every_task_name", lambda: names)

    def configure(**options):
        module.DATA = FakeData(**options)

    return configure


def arrays(folder):
    return {(split, array): (folder / relative_path(split, array)).read_bytes() for split in SPLITS for array in ARRAYS}


def everything(folder):
    return arrays(folder) | {FILE: (folder / FILE).read_bytes()}


def leftovers(task):
    return [path.name for path in (data_folder() / task).iterdir() if path.name.endswith(".partial")]


def forget(folder):
    shutil.rmtree(folder)


def test_same_bytes_for_any_jobs_and_a_second_call_makes_nothing(capfd, monkeypatch):
    monkeypatch.setattr(build, "ALONE_SECONDS", 0.0)
    one = prepare("listops", size=2100, jobs=1)
    first = everything(one)
    written = (one / FILE).stat().st_mtime_ns
    assert prepare("listops", size=2100, jobs=2) == one
    assert (one / FILE).stat().st_mtime_ns == written
    assert "already prepared" in capfd.readouterr().err
    forget(one)
    assert everything(prepare("listops", size=2100, jobs=2)) == first
    assert prepare("listops", size=2100, seed=1) != one
    assert leftovers("listops") == []


def test_manifest_says_what_it_is():
    folder = prepare("listops", size="tiny", seed=3)
    manifest = load_manifest(folder)
    assert folder == data_folder() / "listops" / "s4-generated-tiny-3"
    assert (manifest.source, manifest.size, manifest.seed, manifest.protocol) == ("generated", "tiny", 3, "s4")
    assert manifest.counts == {split: len(open_split(folder, split).labels) for split in SPLITS}
    assert len(manifest.vocabulary) == 18
    assert len(manifest.packed) == 9
    labels = open_split(folder, "test").labels
    assert manifest.majority["test"] == np.bincount(labels).max() / len(labels)
    assert "tiny" in json.loads((folder / "dataset_info.json").read_text())["description"]


def test_fingerprint_follows_the_examples_alone(fake):
    prints = {}
    for name, options, arguments in (
        ("generated", {}, {"seed": 5}),
        ("other seed", {}, {"seed": 6}),
        ("read", {"generator": False}, {"source_path": __file__}),
        ("lra", {}, {"seed": 5, "protocol": "lra"}),
    ):
        fake(**options)
        prints[name] = load_manifest(prepare("fake", **arguments)).fingerprint
    assert prints["generated"] == prints["read"], "the same arrays from another source"
    assert len(set(prints.values())) == 3


def test_dataset_is_readable_without_lra_bench_and_equals_the_arrays():
    """In a process of its own that imports TFDS and NumPy only, and neither TensorFlow nor lra-bench."""
    folder = prepare("listops", size=300)
    program = """
import sys, numpy as np, tensorflow_datasets as tfds
builder = tfds.builder_from_directory(sys.argv[1])
for split in ("train", "val", "test"):
    examples = builder.as_data_source(split=split)
    arrays = {name: np.load(f"{sys.argv[1]}/packed/{split}/{name}.npy") for name in ("inputs", "lengths", "labels")}
    assert len(examples) == len(arrays["labels"]) == builder.info.splits[split].num_examples
    for i in range(len(examples)):
        assert examples[i]["inputs"].dtype == np.uint8
        assert (examples[i]["inputs"] == arrays["inputs"][i]).all()
        assert examples[i]["length"] == arrays["lengths"][i] and examples[i]["label"] == arrays["labels"][i]
assert not {"tensorflow", "torch", "lra_bench"} & set(sys.modules)
print(builder.name, builder.version, builder.info.features["inputs"].shape, builder.info.citation[:8])
"""
    done = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["lra_listops", "1.0.0", "(2048,)", "Nangia", "a"]


def test_verify_passes_and_finds_what_was_changed(capfd):
    folder = prepare("listops", size=200, verify=True)
    assert "majority class" in capfd.readouterr().err
    before = (folder / FILE).read_text()
    rewrite_manifest(folder, majority=dict.fromkeys(SPLITS, 0.5))
    with pytest.raises(UserError, match="majority class has"):
        prepare("listops", size=200, verify=True)
    (folder / FILE).write_text(before)
    path = folder / relative_path("train", "inputs")
    data = bytearray(path.read_bytes())
    data[-1] = 3  # beyond the last row's length
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"another SHA-256.*fingerprint.*inputs go on after their length"):
        prepare("listops", size=200, verify=True)


def test_verify_makes_no_other_set_than_the_one_that_is_there():
    prepare("listops", size=40, tfds=False)
    with pytest.raises(
        UserError, match=r"What is can be verified: lra-bench prepare listops --protocol s4 --size 40 --v"
    ):
        prepare("listops", verify=True)
    prepare("listops", size=40, verify=True)


def test_a_journal_that_is_no_json_is_begun_anew(tmp_path):
    (tmp_path / build.JOURNAL).write_text("[" * 100_000 + "\n")
    assert build._read_lines(tmp_path / build.JOURNAL) == []


@pytest.mark.parametrize("damage", ["missing", "cut short", "other examples"])
def test_verify_reads_the_dataset(fake, damage):
    fake()
    folder = prepare("fake")
    record = next(folder.glob("lra_fake-test.array_record*"))
    if damage == "missing":
        (folder / "dataset_info.json").unlink()
    elif damage == "cut short":
        record.write_bytes(record.read_bytes()[: record.stat().st_size // 2])
    else:
        record.write_bytes(next(folder.glob("lra_fake-val.array_record*")).read_bytes())
    with pytest.raises(UserError, match=r"test: .*TFDS dataset (cannot be read|differs)"):
        prepare("fake", verify=True)


def test_a_home_that_cannot_be_written(fake, monkeypatch, tmp_path):
    fake()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LRA_BENCH_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(WorkError, match="cannot be used: Not a directory"):
        prepare("fake")


def test_verify_finds_a_repeat(fake):
    fake(modulus=50)
    folder = prepare("fake")
    assert prepare("fake", verify=True) == folder
    rewrite_manifest(folder, distinct=True)
    with pytest.raises(UserError, match="occurs twice"):
        prepare("fake", verify=True)


def test_repeats_give_way_to_the_next_examples(fake):
    fake(modulus=85, distinct=True)
    folder = prepare("fake", seed=0)
    every = np.concatenate([np.asarray(open_split(folder, split).inputs) for split in SPLITS])
    assert len(np.unique(every, axis=0)) == 80
    fake(modulus=60, distinct=True)
    with pytest.raises(WorkError, match="fewer than 80 different examples"):
        prepare("fake", seed=1)


def test_repeats_are_replaced_in_order(fake, monkeypatch):
    """Examples 0 … 79 of numbers mod 81, the last 30 of them repeats: they become 80, then whatever is new."""
    fake(distinct=True)  # its 80 examples are expected to take no time, so nothing is pickled
    order = [*range(50), *range(30), *range(80, 2000)]
    monkeypatch.setattr(
        FakeGenerator,
        "generate",
        lambda self, seed, start, stop: Rows(*(column[order[start:stop]] for column in rows_of(0, 0, 2000))),
    )
    folder = prepare("fake")
    every = np.concatenate([np.asarray(open_split(folder, split).inputs) for split in SPLITS])
    np.testing.assert_array_equal(every, rows_of(0, 0, 110).inputs[[*range(50), *range(80, 110)]])


class _Killed(BaseException):
    """Stands for kill -9 between two writes: nothing may catch it and tidy up."""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a kill leaves files open
@pytest.mark.parametrize(("generator", "distinct"), [(False, False), (True, False), (True, True)])
def test_killed_at_every_write_in_turn_ends_in_the_same_bytes(fake, monkeypatch, generator, distinct):
    """Fails at the n-th sync or row write for every n until a run comes through; rows are torn in half on the way."""
    fake(generator=generator, modulus=85, distinct=distinct)
    monkeypatch.setattr(build, "SYNC_SECONDS", 0.0)
    monkeypatch.setattr("lra_bench.data.prepare.write_dataset", lambda *arguments: None)
    arguments = {"source_path": None if generator else __file__, "jobs": 1}
    expected = everything(prepare("fake", **arguments))
    real_write = os.pwrite
    monkeypatch.setattr(packed.os, "fsync", lambda file: None)  # a killed process loses nothing the system has
    for nth in range(1, 400):
        forget(prepare("fake", **arguments))
        left = nth

        def countdown():
            nonlocal left
            left -= 1
            return left == 0

        def write(file, data, at):
            if countdown():
                real_write(file, data[: len(data) // 2], at)
                raise _Killed
            return real_write(file, data, at)

        def sync(file):
            if countdown():
                raise _Killed

        with monkeypatch.context() as patch:
            patch.setattr(packed.os, "pwrite", write)
            patch.setattr(packed.os, "fsync", sync)
            try:
                prepare("fake", **arguments)
            except _Killed:
                pass
            else:
                break
        assert everything(prepare("fake", **arguments)) == expected, f"killed at write {nth}"
        assert leftovers("fake") == []
    assert nth > 20


def test_rows_on_disk_are_not_made_again(fake, monkeypatch):
    fake()
    monkeypatch.setattr(build, "SYNC_SECONDS", 0.0)
    made = []
    real = FakeGenerator.generate

    def generate(self, seed, start, stop):
        made.append(start)
        if len(made) == 6:
            raise _Killed
        return real(self, seed, start, stop)

    monkeypatch.setattr(FakeGenerator, "generate", generate)
    with pytest.raises(_Killed):
        prepare("fake", jobs=1)
    prepare("fake", jobs=1)
    assert made == [0, 7, 14, 21, 28, 35, *range(35, 80, 7)]


def test_another_plan_does_not_continue_what_was_begun(fake, monkeypatch):
    fake(modulus=70)
    with monkeypatch.context() as patch:
        patch.setattr("lra_bench.data.prepare.write_dataset", lambda *arguments: (_ for _ in ()).throw(_Killed()))
        with pytest.raises(_Killed):
            prepare("fake")
    fake()
    folder = prepare("fake")
    np.testing.assert_array_equal(open_split(folder, "train").inputs, rows_of(0, 0, 60).inputs)


def test_full_disk(fake, monkeypatch):
    fake()

    def full(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(packed.os, "pwrite", full)
        with pytest.raises(WorkError, match=r"the disk is full at .*"):
            prepare("fake")
    with monkeypatch.context() as patch:
        patch.setattr("lra_bench.data.prepare.shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
        with pytest.raises(WorkError, match=r"fake needs 0\.02 GB more .* 0\.00 GB free"):
            prepare("fake")
    assert not (data_folder() / "fake" / "s4-generated-full-0").exists()
    np.testing.assert_array_equal(open_split(prepare("fake"), "val").inputs, rows_of(0, 60, 70).inputs)


ORIGINS = tuple(
    Origin(kind, name, (RemoteFile(f"http://127.0.0.1:1/{name}", name),), "a test")
    for kind, name in (("official", "first.gz"), ("mirror", "second.gz"))
)


@pytest.fixture
def server(monkeypatch, tmp_path):
    """Stands in for downloads: `server["first.gz"]` is the bytes, or what to raise."""
    content = {}

    def fetch(file, folder):
        answer = content.get(file.name, WorkError(f"{file.url} answered 403 Forbidden."))
        if isinstance(answer, Exception):
            raise answer
        path = tmp_path / file.name
        path.write_bytes(answer)
        return Fetched(path, file.url, len(answer), "0" * 64)

    monkeypatch.setattr(sources, "fetch", fetch)
    return content


def test_sources_are_tried_in_order_and_recorded(fake, server, capfd):
    fake(origins=ORIGINS)
    generated = prepare("fake")
    assert generated.name == "s4-generated-full-0"
    told = capfd.readouterr().err.splitlines()
    assert told[0] == "fake: from first.gz (a test)"
    assert "403" in told[1]
    assert "Next: second.gz" in told[1]
    assert "Next: lra-bench's own generator" in told[3]
    server["second.gz"] = b"x"
    assert prepare("fake") == generated, "what is prepared is kept"
    mirror = prepare("fake", source="mirror")
    manifest = load_manifest(mirror)
    assert (mirror.name, manifest.source, manifest.seed) == ("s4-mirror-full", "mirror", None)
    assert manifest.raw[0].url == "http://127.0.0.1:1/second.gz"
    assert manifest.parameters == {"read": "yes"}
    server["first.gz"] = b"x"
    assert prepare("fake", source="official").name == "s4-official-full"


def test_nothing_left_to_try(fake, server):
    fake(origins=ORIGINS, generator=False)
    with pytest.raises(WorkError, match=r"first\.gz answered 403.*second\.gz answered 403.*prepare fake --from PATH"):
        prepare("fake")
    with pytest.raises(UserError, match="cannot be had from --source generated"):
        prepare("fake", source="generated")


def test_small_sizes_are_generated_rather_than_fetched(fake, server):
    fake(origins=ORIGINS)
    server["first.gz"] = b"x"
    assert prepare("fake", size=20).name == "s4-generated-20-0"
    fake(origins=ORIGINS, generator=False)
    assert prepare("fake", size=30).name == "s4-official-30"


def test_own_copy(fake, tmp_path):
    fake(origins=ORIGINS)
    path = tmp_path / "mine.tar"
    with pytest.raises(UserError, match=r"mine\.tar does not exist"):
        prepare("fake", source_path=path)
    path.write_bytes(b"one")
    folder = prepare("fake", source_path=path)
    manifest = load_manifest(folder)
    assert manifest.source == "user"
    assert [(raw.name, raw.bytes, raw.url) for raw in manifest.raw] == [("mine.tar", 3, None)]
    assert prepare("fake", source_path=path) == folder
    path.write_bytes(b"another")
    assert prepare("fake", source_path=path) != folder, "another file is another set"


def test_own_copy_of_the_published_file_counts_as_published(fake, tmp_path):
    digest = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"  # of b"one"
    fake(origins=(Origin("official", "published", (RemoteFile("http://127.0.0.1:1/x", "x", 3, digest),), "a test"),))
    for content, source in ((b"one", "official"), (b"two", "user")):
        (tmp_path / "x").write_bytes(content)
        assert load_manifest(prepare("fake", source_path=tmp_path / "x")).source == source


def test_a_reading_must_give_every_example(fake):
    fake(generator=False, missing=3)
    with pytest.raises(UserError, match="77 examples were found where 80 are expected"):
        prepare("fake", source_path=__file__)


def test_validation_that_is_the_test_split(fake, monkeypatch):
    counts = {"train": 60, "val": 10, "test": 10}
    layout = Layout(counts, 1, 4, 3, None, validation_is_test=True)

    class Reading(FakeReading):
        def batches(self):
            rows = rows_of(0, 0, 80)
            indices = np.r_[0:60, 70:80]
            yield PlacedRows(indices, Rows(*(column[indices] for column in rows)))

    fake(generator=False)
    monkeypatch.setattr(FakeData, "read", lambda self, path, request: Reading(layout, 70, {}))
    folder = prepare("fake", source_path=__file__, verify=True)
    assert load_manifest(folder).data_info.validation_is_test
    for column, expected in zip(open_split(folder, "val"), rows_of(0, 70, 80), strict=True):
        np.testing.assert_array_equal(column, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "listop"}, "unknown task 'listop'. Did you mean 'listops'"),
        ({"protocol": "s5"}, "unknown protocol 's5'.*Legal: s4, lra"),
        ({"size": "small"}, "--size takes full, tiny"),
        ({"seed": -1}, "--seed takes"),
        ({"jobs": 0}, "--jobs takes"),
        ({"val_fraction": 0.9}, "--val-fraction takes"),
        ({"source": "moon"}, "unknown source 'moon'"),
        ({"source_path": ".", "source": "mirror"}, "leave --source out"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(UserError, match=message):
        prepare(**({"task": "listops", "size": "tiny"} | arguments))


def test_a_new_version_of_the_task_does_not_pass_off_the_old_one(fake, monkeypatch):
    fake()
    folder = prepare("fake")
    rewrite_manifest(folder, version="0.9.0")
    with pytest.raises(UserError, match=r"version 0\.9\.0 of fake; this lra-bench makes version 1\.0\.0"):
        prepare("fake")


def test_dry_run_makes_nothing(capfd):
    folder = prepare("listops", dry_run=True)
    told = capfd.readouterr().err
    assert re.search(r"listops: up to 4\d\d\.\d MB", told)
    assert re.search(r"from lra_release\.gz .*: about \d+ s after the download", told)
    assert re.search(r"else lra-bench's own generator, seed 0: about \d+ s$", told, re.MULTILINE)
    assert not folder.exists()
    assert not data_folder().exists()
    done = prepare("listops", size=30)
    assert prepare("listops", size=30, dry_run=True) == done
    assert "already prepared" in capfd.readouterr().err


PROGRAM = """
import sys
from lra_bench.data import build, prepare
build.ALONE_SECONDS = 0.0
print(prepare.prepare("listops", size=sys.argv[1], jobs=2))
"""


def start(size, home=None):
    environment = os.environ | ({"LRA_BENCH_HOME": str(home)} if home else {})
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(size)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_processes_prepare_once():
    both = [start(3000), start(3000)]
    answers = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], answers
    assert answers[0][0] == answers[1][0]
    told = "".join(error for _, error in answers)
    assert told.count("listops: prepared 3,000 examples") == 1


def kill_at_random_moments(size, times, tmp_path):
    """Kill -9 at moments spread over the duration of a whole run; workers must go too; then the same bytes."""
    began = time.monotonic()
    process = start(size, tmp_path / "calm")
    calm, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    duration = time.monotonic() - began
    rng = random.Random(0)
    workers = []
    for attempt in range(times):
        process = start(size)
        time.sleep(duration * (attempt + rng.random()) / times)
        workers += psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.send_signal(signal.SIGKILL)
        process.communicate()
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not alive, "workers outlived their parent"
    process = start(size)
    folder, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    return Path(calm.strip()), Path(folder.strip())


def assert_same(calm, folder):
    assert everything(folder) == everything(calm)
    prepare("listops", size=load_manifest(folder).size, verify=True)
    assert leftovers("listops") == []


def test_ctrl_c_ends_at_once_and_takes_the_workers_along():
    process = start(60_000)
    journal = data_folder() / "listops" / ".s4-generated-60000-0.partial" / build.JOURNAL
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (journal.exists() and "chunks" in journal.read_text()):
        time.sleep(0.05)
    workers = psutil.Process(process.pid).children(recursive=True)
    assert len(workers) >= 2
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=20)
    assert process.returncode != 0, error
    assert error.rstrip().endswith("KeyboardInterrupt")
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not alive


@dataclass(frozen=True)
class LargeGenerator:
    """Its workers are nearly always sending: a chunk takes no time to make and does not fit into a pipe."""

    seconds_per_example: float = 1.0

    def generate(self, seed, start, stop):
        return Rows(np.zeros((stop - start, 10_000_000), np.uint8), *np.zeros((2, stop - start), np.int32))


INTERRUPTED_WHILE_SENDING = """
import contextlib
from lra_bench.data import build
from tests.test_prepare import LargeGenerator
for stops_after in (1, 2, 3):
    with contextlib.closing(build._generated(LargeGenerator(), 0, {i: (i, i + 1) for i in range(20)}, 2)) as chunks:
        for _ in range(stops_after):
            next(chunks)
"""


def test_a_script_without_a_main_guard_is_told_so(tmp_path):
    """Its workers would execute it again, and wait for the lock that their own parent holds."""
    script = tmp_path / "script.py"
    script.write_text(
        "from lra_bench.data import build\nbuild.ALONE_SECONDS = 0.0\n"
        "import lra_bench\nlra_bench.prepare('listops', size=3000, jobs=2, source='generated', tfds=False)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert 'put its call below `if __name__ == "__main__":`' in done.stderr


def test_workers_that_send_do_not_hold_up_an_interrupt():
    """A worker that exits in the middle of a message would leave the parent waiting for its end."""
    process = subprocess.Popen([sys.executable, "-c", INTERRUPTED_WHILE_SENDING])
    try:
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.wait()


def test_a_set_without_its_tfds_dataset_says_so(capsys):
    for tfds in (False, True):
        folder = prepare("listops", size="tiny", jobs=1, tfds=tfds)
    assert f"without its TFDS dataset. To have it, remove {folder}" in capsys.readouterr().err


def test_too_little_memory_for_the_tfds_dataset_is_said_before_it_is_written(monkeypatch):
    memory = psutil.virtual_memory()._replace(available=1000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    with pytest.raises(WorkError, match=r"the TFDS dataset of listops takes .* type the same with --no-tfds"):
        prepare("listops", size="tiny", jobs=1)
    assert not list(prepare("listops", size="tiny", jobs=1, tfds=False).glob(".tfds"))


def test_a_link_where_a_set_belongs_is_refused(tmp_path):
    place = data_folder() / "listops" / "s4-generated-tiny-0"
    place.parent.mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    place.symlink_to(tmp_path / "empty")
    with pytest.raises(UserError, match="is a link to a folder without prepared data"):
        prepare("listops", size="tiny", jobs=1)


def test_files_in_linked_folders_identify_a_copy(tmp_path):
    (tmp_path / "copy").mkdir()
    (tmp_path / "scratch").mkdir()
    (tmp_path / "copy" / "train").symlink_to(tmp_path / "scratch")
    (tmp_path / "scratch" / "again").symlink_to(tmp_path / "copy")  # each real folder once
    seen = set()
    for content in ("one", "three"):
        (tmp_path / "scratch" / "1_9.txt").write_text(content)
        seen.add((size_of(tmp_path / "copy"), sha256_of(tmp_path / "copy")))
    assert {size for size, _ in seen} == {3, 5}
    assert len({digest for _, digest in seen}) == 2


@pytest.mark.slow
def test_killed_five_times_at_random_moments(tmp_path):
    assert_same(*kill_at_random_moments(15_000, 5, tmp_path))


@pytest.mark.slow
def test_full_listops_is_distinct():
    """Verify evaluates every expression."""
    folder = prepare("listops", source="generated", jobs=2, tfds=False)
    prepare("listops", source="generated", verify=True)
    rows = np.concatenate([np.asarray(open_split(folder, split).inputs) for split in SPLITS])
    assert len({row.tobytes() for row in rows}) == 100_000, "no tree occurs twice, so none is shared between splits"

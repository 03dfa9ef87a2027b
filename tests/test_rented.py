"""The kit for rented accelerators: carried data is the same to the byte; stretches run from it, in a chain."""

import importlib.metadata
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from lra_bench.data.manifest import load_manifest
from lra_bench.data.packed import describe
from lra_bench.data.prepare import prepare
from lra_bench.data.verify import verify
from lra_bench.errors import UserError, WorkError
from lra_bench.machine.system import git_state

RENTED = Path(__file__).parent.parent / "benchmarks" / "rented"


@pytest.fixture
def kit(monkeypatch):
    """The kit's two modules, `carried` and `pack`."""
    monkeypatch.syspath_prepend(str(RENTED))
    import carried
    import pack

    return carried, pack


@pytest.mark.parametrize("task", ["listops", "text", "image", "retrieval", "scifar", "noisycifar"])
def test_carried_data_is_the_same_to_the_byte(kit, tmp_path, monkeypatch, task):
    carried, _ = kit
    folder = prepare(task, size="tiny", jobs=1)
    carried.pack(folder, tmp_path / "data.tar")
    monkeypatch.setenv("LRA_BENCH_HOME", str(tmp_path / "there"))
    unpacked = carried.unpack(tmp_path / "data.tar")
    assert unpacked == tmp_path / "there" / "data" / task / folder.name
    assert describe(unpacked) == describe(folder)
    there, here = (load_manifest(each).model_dump(exclude={"manifest_sha256"}) for each in (unpacked, folder))
    assert there == here | {"tfds": False}
    assert any("agree" in line for line in verify(unpacked))
    assert carried.unpack(tmp_path / "data.tar") == unpacked  # once more does nothing


def test_damaged_data_is_refused(kit, tmp_path, monkeypatch):
    carried, _ = kit
    monkeypatch.setattr(carried, "differences", lambda pixels: pixels)
    carried.pack(prepare("image", size="tiny", jobs=1), tmp_path / "data.tar")
    monkeypatch.setenv("LRA_BENCH_HOME", str(tmp_path / "there"))
    with pytest.raises(WorkError, match="do not have the hashes"):
        carried.unpack(tmp_path / "data.tar")


def test_mistakes_say_what_to_type(kit, tmp_path, monkeypatch):
    _, pack = kit
    command = ["pack.py", str(tmp_path / "kit"), "--model", "s5", "--task", "text"]
    monkeypatch.setattr(sys, "argv", [*command, "--state", str(tmp_path)])
    with pytest.raises(UserError, match=r"has no runs\.tar\.xz\.000"):
        pack.main()
    (tmp_path / "train.options").write_text("--model s5 --task text\n")
    (tmp_path / "runs.tar.xz.000").write_bytes(b"cut")
    with pytest.raises(UserError, match=r"the files runs\.tar\.xz\.\* in .* are not whole"):
        pack.main()
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(UserError, match="Type: lra-bench prepare text"):
        pack.main()
    for words in ([], ["out", "8"], ["8"]):
        done = subprocess.run(["bash", str(RENTED / "stretch.sh"), *words], capture_output=True, text=True)
        assert done.returncode == 2
        assert "type: bash KIT/stretch.sh MINUTES OUT" in done.stderr


def test_a_kit_has_the_full_set_unless_another_is_asked_for(kit, tmp_path, monkeypatch):
    """The tiny set that the quickstart leaves is no reason to train on it for rented time."""
    _, pack = kit
    monkeypatch.setattr(pack, "wheels", lambda *_: None)
    prepare("listops", size="tiny", jobs=1)
    command = ["pack.py", "KIT", "--model", "s5", "--task", "listops"]
    for size, more in (("full", []), ("tiny", ["--size", "tiny"])):
        command[1] = str(tmp_path / size)
        monkeypatch.setattr(sys, "argv", [*command, *more])
        pack.main()
        assert f"--size {size}" in (tmp_path / size / "prepare.options").read_text()
        assert f"--data s4-generated-{size}-0" in (tmp_path / size / "train.options").read_text()


def test_what_the_kit_carries_is_what_such_a_machine_lacks(kit):
    """That is what lra-bench needs there and JAX, Flax, Optax, Orbax, Numba and Pillow do not bring."""
    _, pack = kit

    def with_their_needs(names):
        found, new = set(), {canonicalize_name(name) for name in names}
        while new:
            found |= new
            needs = [Requirement(line) for name in new for line in importlib.metadata.requires(name) or []]
            needs = [need for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
            new = {canonicalize_name(need.name) for need in needs} - found
        return found

    not_used_there = {"tensorflow-datasets", "array-record", "importlib-resources", "pyarrow"}
    own = [line for line in importlib.metadata.requires("lra-bench") if "extra ==" not in line]
    own = {canonicalize_name(Requirement(line).name) for line in own}
    brought = with_their_needs(["jax", "flax", "optax", "orbax-checkpoint", "numba", "pillow"])
    assert set(pack.LACKING) == with_their_needs(own - not_used_there) - brought


@pytest.mark.slow
def test_two_stretches_from_the_kit_alone(kit, tmp_path, monkeypatch):
    """The other packages come from this environment, since tests have no network."""
    _, pack = kit

    def own_wheel(folder, python, more):
        options = ["--quiet", "--no-deps", "--no-build-isolation", "-w", str(folder)]
        subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(pack.ROOT)], check=True)

    monkeypatch.setattr(pack, "wheels", own_wheel)
    small = ["--set", "n_layers=1", "--set", "d_model=8", "--set", "epochs=3"]

    def pack_kit(number, *more):
        folder = tmp_path / f"kit{number}"
        argv = ["pack.py", str(folder), "--model", "s5", "--task", "listops", "--size", "tiny", *more]
        monkeypatch.setattr(sys, "argv", argv)
        pack.main()
        return folder

    def stretch(number, minutes, *more):
        folder, out = pack_kit(number, *more), tmp_path / f"out{number}"
        home = {"LRA_BENCH_HOME": str(tmp_path / f"home{number}"), "PYTHON": sys.executable, "JAX_PLATFORMS": "cpu"}
        command = ["bash", str(folder / "stretch.sh"), str(minutes), str(out)]
        done = subprocess.run(command, env={**os.environ, **home}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return out, (out / "stages.txt").read_text(), done.stderr

    first, stages, _ = stretch(1, 0.01, "--", *small)
    left = ["cache.tar.xz.000", "runs.tar.xz.000", "stages.txt", "train.options"]
    assert sorted(file.name for file in first.iterdir()) == left
    with tarfile.open(first / "runs.tar.xz.000") as runs:
        saved = {tuple(name.split("/")[:6]) for name in runs.getnames() if "/checkpoints/last/" in name}
    ((*run, _, _, step),) = saved
    with pytest.raises(UserError, match=r"out1 is of another run\. Its stretch trained with"):
        pack_kit(2, "--state", str(first), "--", *small, "--seed", "1")
    cache = first / "cache.tar.xz.000"
    cache.write_bytes(cache.read_bytes()[: cache.stat().st_size // 2])
    second, stages, told = stretch(3, 5, "--state", str(first), "--", *small)
    for stage in (
        "compiled programs of the last stretch are damaged",
        "state unpacked",
        "first training steps are done",
    ):
        assert stage in stages
    assert int(step) > 0
    assert str(Path(tmp_path, "home3", "runs", *run)) in told, "the import says where the run now is"
    with tarfile.open(second / "results.tar") as results:
        (name,) = [name for name in results.getnames() if name.endswith("-s0.json")]
        provenance = json.load(results.extractfile(name))["provenance"]
    commit, edited = git_state()
    assert (provenance["git_commit"], provenance["git_dirty"]) == (commit, edited)

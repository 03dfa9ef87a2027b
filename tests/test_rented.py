"""The kit for rented accelerators: carried data is the same to the byte; stretches run from it, in a chain."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from lra_bench.data.manifest import load_manifest
from lra_bench.data.packed import describe
from lra_bench.data.prepare import prepare
from lra_bench.data.verify import verify
from lra_bench.errors import UserError, WorkError

RENTED = Path(__file__).parent.parent / "benchmarks" / "rented"


@pytest.fixture
def kit(monkeypatch):
    """The kit's two modules, `carried` and `pack`."""
    monkeypatch.syspath_prepend(str(RENTED))
    import carried
    import pack

    return carried, pack


@pytest.mark.parametrize("task", ["listops", "text", "image", "retrieval"])
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
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(UserError, match="Type: lra-bench prepare text"):
        pack.main()
    done = subprocess.run(["bash", str(RENTED / "stretch.sh")], capture_output=True, text=True)
    assert done.returncode == 2
    assert "type: bash KIT/stretch.sh MINUTES OUT" in done.stderr


@pytest.mark.slow
def test_two_stretches_from_the_kit_alone(kit, tmp_path, monkeypatch):
    """The other packages come from this environment, since tests have no network."""
    _, pack = kit

    def own_wheel(folder, python, more):
        options = ["--quiet", "--no-deps", "--no-build-isolation", "-w", str(folder)]
        subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(pack.ROOT)], check=True)

    monkeypatch.setattr(pack, "wheels", own_wheel)
    small = ["--set", "n_layers=1", "--set", "d_model=8", "--set", "epochs=3"]

    def stretch(number, minutes, *state):
        folder, out = tmp_path / f"kit{number}", tmp_path / f"out{number}"
        argv = ["pack.py", str(folder), "--model", "s5", "--task", "listops", "--size", "tiny", *state, "--", *small]
        monkeypatch.setattr(sys, "argv", argv)
        pack.main()
        home = {"LRA_BENCH_HOME": str(tmp_path / f"home{number}"), "PYTHON": sys.executable, "JAX_PLATFORMS": "cpu"}
        command = ["bash", str(folder / "stretch.sh"), str(minutes), str(out)]
        done = subprocess.run(command, env={**os.environ, **home}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "training over" in (out / "stages.txt").read_text()
        return out

    first = stretch(1, 0.01)
    assert sorted(file.name for file in first.iterdir()) == ["cache.tar.xz.000", "runs.tar.xz.000", "stages.txt"]
    second = stretch(2, 5, "--state", str(first))
    with tarfile.open(second / "results.tar") as results:
        assert any(name.endswith("-s0.json") for name in results.getnames())

"""`doctor`: each finding follows from the machine, and says what to type."""

import importlib.metadata
import os

import jax

from lra_bench.commands import doctor
from lra_bench.data.prepare import prepare
from lra_bench.paths import home


class Gpu:
    platform, device_kind = "gpu", "NVIDIA H200"


def test_devices_are_counted_and_named(monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda: [Gpu(), Gpu()])
    assert doctor._devices() == ("ok", "2 × NVIDIA H200 (gpu)", "")


def test_a_driver_that_jax_does_not_use_is_a_problem(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda _: None)
    assert doctor._devices().level == "note"
    monkeypatch.setattr(doctor.shutil, "which", lambda name: f"/usr/bin/{name}")
    finding = doctor._devices()
    assert finding.level == "problem"
    assert "pip install -e '.[cuda13]'" in finding.advice


def test_no_device_at_all_is_told_not_raised(monkeypatch):
    def broken():
        raise RuntimeError("Unable to initialize backend 'cuda'")

    monkeypatch.setattr(jax, "devices", broken)
    finding = doctor._devices()
    assert finding.level == "problem"
    assert "Unable to initialize backend" in finding.what
    assert finding.advice


def test_a_small_disk_is_noted_and_a_large_one_is_fine(monkeypatch):
    usage = doctor.shutil.disk_usage("/")
    for free, expected in ((doctor.SPACE_NEEDED - 1, "note"), (doctor.SPACE_NEEDED, "ok")):
        monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _, free=free: usage._replace(free=free))
        assert doctor._disk().level == expected
        assert f"{free / 2**30:.0f} GiB free at {home()}" in doctor._disk().what


def test_a_home_that_cannot_be_written_is_a_problem(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for place in ("file", "file/below"):
        monkeypatch.setenv("LRA_BENCH_HOME", str(tmp_path / place))
        assert doctor._disk().level == "problem"
        assert "LRA_BENCH_HOME" in doctor._disk().advice
    if os.geteuid():
        (tmp_path / "closed").mkdir(mode=0o500)
        monkeypatch.setenv("LRA_BENCH_HOME", str(tmp_path / "closed"))
        assert doctor._disk().level == "problem"


def test_prepared_sets_are_listed_with_their_source():
    assert doctor._data().level == "note"
    prepare("listops", size="tiny", jobs=1)
    assert doctor._data() == ("ok", "prepared: listops (s4, generated, tiny)", "")


def test_a_missing_package_does_not_end_it(monkeypatch):
    """A machine that prepared data was brought to needs no TFDS."""
    version = importlib.metadata.version

    def lacks_tfds(name):
        if name == "tensorflow-datasets":
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", lacks_tfds)
    assert "tensorflow-datasets" not in doctor.examine()["packages"]


def test_facts_are_of_this_machine_and_name_nobody(capsys):
    facts = doctor.examine()
    assert facts["packages"]["jax"] == jax.__version__
    assert f"{os.cpu_count()} cores" in facts["cpu"]
    doctor.doctor()
    printed = capsys.readouterr().out
    assert f"jax {jax.__version__}" in printed
    assert "[note] data: no task is prepared → lra-bench prepare listops" in printed
    assert os.uname().nodename not in printed

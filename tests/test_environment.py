"""The environment changes no number of a run: what could is pinned, unused and said, or refused in one sentence."""

import asyncio
import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from pathlib import Path

import filelock
import jax
import numpy as np
import pytest

from lra_bench.data import certificates
from lra_bench.data.manifest import load_manifest
from lra_bench.errors import STOPPING, Interrupted, UserError, WorkError
from lra_bench.machine import environment
from lra_bench.paths import locked
from lra_bench.runs.run import make_run
from lra_bench.training import train
from lra_bench.training.state import stream_key
from lra_bench.training.stopping import StopRequest

SMALL = {"n_layers": 1, "d_model": 8, "d_state": 8, "blocks": 1, "batch_size": 100}
SHORT = {"epochs": 0.5, "warmup_epochs": 0.0, "decay_epochs": 0.5}


def small_run(data, **changes):
    return make_run(load_manifest(data).data_info, "s5", 0, {**SMALL, **SHORT, **changes}, "float32")


def run_command(data, tmp_path, words, **variables):
    """`lra-bench WORDS` in a process of its own with these variables and the prepared data; its outcome and home."""
    home = Path(tempfile.mkdtemp(dir=tmp_path))
    (home / "data").symlink_to(data.parent.parent)
    environment = {**os.environ, "LRA_BENCH_HOME": str(home), "JAX_PLATFORMS": "cpu", **variables}
    command = [sys.executable, "-m", "lra_bench", *words]
    done = subprocess.run(
        command, env=environment, cwd=home, capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    return done, home


def train_command():
    return ["train", "--model", "s5", "--task", "listops", *(f"--set={k}={v}" for k, v in {**SMALL, **SHORT}.items())]


def numbers(home):
    (path,) = home.glob("results/listops/s5/*.json")
    record = json.loads(path.read_text())
    return record["digest"], record["curve"], record["accuracy"]


VARIABLES = {
    "JAX_DEFAULT_PRNG_IMPL": "rbg",
    "JAX_RANDOM_SEED_OFFSET": "7",
    "JAX_ENABLE_X64": "1",
    "JAX_NUMPY_DTYPE_PROMOTION": "strict",
    "JAX_NUMPY_RANK_PROMOTION": "raise",
    "JAX_DEFAULT_MATMUL_PRECISION": "bfloat16",
    "JAX_DISABLE_JIT": "1",
    "JAX_TRANSFER_GUARD": "disallow",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_bogus=1",
}


ALONE = ("JAX_RANDOM_SEED_OFFSET", "XLA_FLAGS")
"""One that JAX reads and one that XLA reads. Others could hide either; these two do not hide each other."""


@pytest.fixture(scope="module")
def plain(data, tmp_path_factory):
    """The numbers of a run without any of the variables."""
    done, home = run_command(data, tmp_path_factory.mktemp("plain"), train_command())
    assert done.returncode == 0, done.stderr
    assert "Not used" not in done.stderr
    return numbers(home)


@pytest.mark.slow
def test_variables_that_would_change_numbers_are_not_used_and_said(data, tmp_path, plain):
    """All at once, and one that JAX could not even read: the same numbers as without."""
    done, home = run_command(data, tmp_path, train_command(), **VARIABLES, JAX_CHECK_TRACER_LEAKS="maybe")
    assert done.returncode == 0, done.stderr
    assert numbers(home) == plain
    said = next(line for line in done.stderr.splitlines() if line.startswith("Not used, so that numbers depend"))
    assert all(name in said for name in VARIABLES)


@pytest.mark.slow
def test_no_variable_alone_changes_numbers(data, tmp_path, plain):
    """Neither of these two hides the other."""
    done, home = run_command(data, tmp_path, train_command(), **{name: VARIABLES[name] for name in ALONE})
    assert done.returncode == 0, done.stderr
    assert numbers(home) == plain


SETTINGS = [("jax_default_prng_impl", "rbg"), ("jax_enable_x64", True), ("jax_numpy_rank_promotion", "raise")]


@pytest.mark.parametrize(("name", "value"), SETTINGS)
def test_settings_of_the_process_are_pinned(name, value, capsys):
    before = np.asarray(jax.random.key_data(stream_key(3, 1)))
    was = getattr(jax.config, name)
    try:
        jax.config.update(name, value)
        environment.start_jax()
        assert getattr(jax.config, name) == environment.PINNED[name]
        assert np.array_equal(jax.random.key_data(stream_key(3, 1)), before)
    finally:
        jax.config.update(name, was)
    assert f"{name}={value}" in capsys.readouterr().err
    environment.start_jax()
    assert capsys.readouterr().err == ""


def test_the_stream_of_a_seed_is_threefrys_whatever_the_default():
    expected = np.asarray(jax.random.key_data(stream_key(0, 0)))
    with jax.default_prng_impl("rbg"):
        assert np.array_equal(jax.random.key_data(stream_key(0, 0)), expected)


def test_flags_that_xla_may_have_read_are_refused(monkeypatch):
    """Here JAX was imported before; nothing that it was started with can be taken back."""
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true --xla_force_host_platform_device_count=2")
    with pytest.raises(UserError, match=r"^XLA_FLAGS=--xla_cpu_enable_fast_math=true may change the numbers"):
        environment.start_jax()
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2 --xla_dump_to=x")
    environment.start_jax()


def test_the_flag_that_jax_itself_adds_on_a_tpu_is_no_users_flag(monkeypatch):
    """JAX sets it when it is imported, and lra-bench starts JAX several times in a process."""
    monkeypatch.setenv("LIBTPU_INIT_ARGS", f" {environment.JAXS_TPU_FLAG}")
    environment.start_jax()
    monkeypatch.setenv("LIBTPU_INIT_ARGS", f"--xla_tpu_x=1 {environment.JAXS_TPU_FLAG}")
    with pytest.raises(UserError, match=r"^LIBTPU_INIT_ARGS=--xla_tpu_x=1 may change the numbers"):
        environment.start_jax()


@pytest.mark.parametrize("platform", ["cuda", "bogus"])
def test_a_missing_platform_is_one_sentence(data, tmp_path, platform):
    done, _ = run_command(data, tmp_path, train_command(), JAX_PLATFORMS=platform)
    assert done.returncode == 2
    assert f"JAX finds no device for JAX_PLATFORMS={platform}: " in done.stderr
    assert "Traceback" not in done.stderr


def test_doctor_says_that_a_platform_is_missing(data, tmp_path):
    done, _ = run_command(data, tmp_path, ["doctor"], JAX_PLATFORMS="bogus")
    assert done.returncode == 1
    assert "[problem] devices: JAX finds no device for JAX_PLATFORMS=bogus" in done.stdout
    assert "→ Install the extra for your accelerator" in done.stdout
    assert "Traceback" not in done.stderr


ENCODINGS = [
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "cp1252"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
]


@pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
def test_an_output_that_is_not_utf8_gets_other_characters(data, tmp_path, encoding):
    for words in (["ls", "recipes"], ["show", "s5-ptd/image"]):
        done, _ = run_command(data, tmp_path, words, **encoding)
        assert done.returncode == 0, done.stderr
        assert done.stdout.isascii() or encoding.get("PYTHONIOENCODING") == "cp1252"


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_certificates_that_are_none_are_one_sentence(tmp_path, monkeypatch, variable):
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    certificates.check_certificates("https://example.org/a")
    (tmp_path / "text.pem").write_text("no certificate")
    for path, why in [(tmp_path / "none.pem", "No such file"), (tmp_path / "text.pem", "it holds no certificate")]:
        monkeypatch.setenv(variable, str(path))
        with pytest.raises(WorkError, match=f"{variable} names {path}, which cannot be used .{why}"):
            certificates.check_certificates("https://example.org/a")
        certificates.check_certificates("http://example.org/a")


def test_dead_certificates_lead_to_the_next_source(data, tmp_path):
    """Where the next one is a generator, the task is prepared without any connection."""
    words = ["prepare", "image", "--source", "mirror"]
    done, _ = run_command(data, tmp_path, words, REQUESTS_CA_BUNDLE="/nowhere.pem")
    assert done.returncode == 1
    assert done.stderr.count("REQUESTS_CA_BUNDLE names /nowhere.pem") == 1
    assert "next try" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO])
def test_a_file_system_without_locks_is_one_sentence(tmp_path, monkeypatch, number):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    with (
        pytest.raises(WorkError, match=r"its file system has no locks\. Set LRA_BENCH_HOME"),
        locked(tmp_path / "a", lambda: None),
    ):
        pytest.fail("it is not locked")


def test_a_weaker_lock_is_not_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(
        filelock.FileLock, "acquire", lambda *_, **__: warnings.warn("flock not supported", UserWarning, stacklevel=2)
    )
    with pytest.raises(WorkError, match="flock not supported"), locked(tmp_path / "a", lambda: None):
        pytest.fail("it is not locked")


@pytest.mark.parametrize("number", STOPPING, ids=lambda number: number.name)
def test_every_signal_of_a_scheduler_is_a_request_to_stop(data, number):
    """Once: the second acts as before. What was there before comes back."""
    received = []
    before = signal.signal(number, lambda *_: received.append(number))
    try:
        with StopRequest(None) as stop:
            os.kill(os.getpid(), number)
            assert stop.received == number
            assert stop.wanted
            assert received == []
            with pytest.raises(Interrupted) as caught:
                stop.raise_if_wanted(small_run(data))
            assert caught.value.signum == number
            os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
        assert received == [number, number]
        signal.signal(number, signal.SIG_IGN)
        with StopRequest(None) as stop:
            os.kill(os.getpid(), number)
            assert not stop.wanted, "an ignored signal, as under nohup, stays ignored"
    finally:
        signal.signal(number, before)


SIGNAL_IN_THE_GARBAGE_COLLECTOR = """
import gc, os, signal, time
from lra_bench.cli import _watch_signals

def strike(phase, info):
    gc.callbacks.remove(strike)
    os.kill(os.getpid(), signal.SIGTERM)

_watch_signals()
gc.callbacks.append(strike)
gc.collect()
time.sleep(20)
"""


def test_a_signal_while_garbage_is_collected_is_not_lost():
    """Python ignores what is raised there, and JAX has such a callback."""
    command = [sys.executable, "-c", SIGNAL_IN_THE_GARBAGE_COLLECTOR]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_training_in_another_thread_and_inside_an_event_loop_is_the_same(data, tmp_path, monkeypatch):
    records = {}

    def train_in(name):
        records[name] = train.train(small_run(data), data, tmp_path / name)

    async def inside_a_loop():
        train_in("loop")

    for name in ("main", "thread", "loop"):
        monkeypatch.setenv("LRA_BENCH_HOME", str(tmp_path / f"home-{name}"))
        if name == "thread":
            thread = threading.Thread(target=train_in, args=[name])
            thread.start()
            thread.join()
        elif name == "loop":
            asyncio.run(inside_a_loop())
        else:
            train_in(name)
    curves = [(record.curve, record.accuracy) for record in records.values()]
    assert len(curves) == 3
    assert curves[0] == curves[1] == curves[2]

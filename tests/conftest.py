"""Shapes of arrays are checked in every test, no test sees another's leftovers, and files of tests share fixtures."""

import atexit
import contextlib
import os
import shutil
import signal
import tempfile

import jaxtyping
import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")

# A program is compiled once for all tests of a process of pytest and for what they start. Not for all processes: JAX
# writes the files of its cache in place, so one could read what another is writing.
_compiled = tempfile.mkdtemp(prefix="lra-bench-compiled-")
atexit.register(shutil.rmtree, _compiled, ignore_errors=True)
os.environ["JAX_COMPILATION_CACHE_DIR"] = _compiled
# The programs of small networks compile in less than the second from which JAX keeps them.
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"

# Every call of these packages has its arguments and its value held to the types and shapes of its signature. That must
# be arranged before any of their modules is imported.
jaxtyping.install_import_hook(["lra_bench.ssm", "lra_bench.models"], "beartype.beartype")

# A shell starts what it puts into the background (`pytest &`, nohup, some CI runners) with Ctrl-C ignored, and what is
# started from here would inherit that: a test that interrupts it would wait in vain.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    """Each test has its own LRA_BENCH_HOME, so no test reads a user's data or another test's leftovers."""
    monkeypatch.setenv("LRA_BENCH_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The folder of tiny ListOps, made once for the tests of a file."""
    from lra_bench.data.prepare import prepare

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LRA_BENCH_HOME", str(tmp_path_factory.mktemp("home")))
        return prepare("listops", size="tiny", jobs=1)


@pytest.fixture(scope="session")
def made_up():
    """A context in which records prove nothing, for tests of what becomes of made-up ones (`tests/made_records.py`)."""

    @contextlib.contextmanager
    def patched():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("lra_bench.records.files.contradictions", lambda record: [])
            patch.setattr("lra_bench.report.select.copies", lambda found: {})
            yield

    return patched


@pytest.fixture
def unproved(made_up):
    """Records prove nothing in this test."""
    with made_up():
        yield

"""Strict JAX in every test; nothing of one test is seen by another."""

import os
import signal

import jaxtyping
import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")

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

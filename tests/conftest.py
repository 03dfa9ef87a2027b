"""Strict JAX in every test; nothing of one test is seen by another."""

import os

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    """Each test has its own LRA_BENCH_HOME, so no test reads a user's data or another test's leftovers."""
    monkeypatch.setenv("LRA_BENCH_HOME", str(tmp_path / "home"))

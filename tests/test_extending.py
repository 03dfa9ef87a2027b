"""A model is two files and a task is one: those that docs/ shows are put into a copy of the package and found there."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def files_of(page):
    """Path → content of every file that a page of docs/ shows in full, by the heading before it."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return dict(re.findall(r"^## [^\n]*`([\w/]+\.py)`\n.*?```python\n(.*?)```", text, re.S | re.M))


@pytest.fixture
def lra_bench(tmp_path):
    """Runs `lra-bench WORDS` from a copy of the package with the files of both pages; gives its output."""
    copy = tmp_path / "copy" / "lra_bench"
    shutil.copytree(ROOT / "lra_bench", copy, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "tasks", copy / "tasks", ignore=shutil.ignore_patterns("__pycache__"))
    added = {**files_of("add_a_model.md"), **files_of("add_a_task.md")}
    assert set(added) == {"lra_bench/recipes/ema.py", "lra_bench/models/ema.py", "tasks/parity.py"}
    for name, content in added.items():
        (copy / name.removeprefix("lra_bench/")).write_text(content, encoding="utf-8")

    def run(*words):
        command = [sys.executable, "-P", "-m", "lra_bench", *words]
        environment = {**os.environ, "PYTHONPATH": str(copy.parent)}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_the_files_of_the_pages_are_found_by_their_names(lra_bench):
    assert "ema" in [row["model"] for row in json.loads(lra_bench("ls", "models", "--json"))]
    (task,) = (row for row in json.loads(lra_bench("ls", "tasks", "--json")) if row["task"] == "parity")
    assert task["length"] == "32"
    assert json.loads(lra_bench("show", "ema/listops", "--json"))["layer"]["slowest"] == 1000.0
    assert lra_bench("prepare", "parity", "--size", "tiny", "--verify").strip().endswith("parity/s4-generated-tiny-0")


@pytest.mark.slow
def test_the_model_of_the_page_trains_on_the_task_of_the_page(lra_bench):
    small = [f"--set={pair}" for pair in ("n_layers=1", "d_model=8", "batch_size=50", "epochs=1.0", "decay_epochs=1.0")]
    lra_bench("prepare", "parity", "--size", "tiny", "--jobs", "1")
    trained = lra_bench("train", "--model", "ema", "--task", "parity", *small, "--set=warmup_epochs=0")
    assert "parity EMA seed 0: test accuracy" in trained
    assert "EMA" in lra_bench("report", "--no-pictures")

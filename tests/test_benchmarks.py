"""Each script of `benchmarks/` runs, at its smallest, in a process of its own as a user starts it."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "options", "printed"),
    [
        ("train_step.py", ["--task", "pathfinder", "--batch", "1", "--rounds", "1"], "| pathfinder | 1 |"),
        ("recurrence.py", ["--lengths", "64", "--rounds", "1"], "| 64 | 1 | 128 | 128 |"),
        ("kernels.py", ["--length", "64", "--channels", "8", "--states", "4", "--rounds", "1"], "S4D kernel, H=8 N=4"),
        ("full_size_steps.py", ["--model", "s5", "--task", "listops"], "| s5 | listops | 188,490 |"),
        ("ptd_error.py", ["--states", "8"], "| 8 | 0.3 | 3.7 | 9.0 % | 0.15 | 0.39 | 0.11 | 4.8 |"),
        ("pathfinder_statistics.py", ["--help"], "usage:"),
        ("scan_forms_on_tpu.py", ["--help"], "usage:"),
    ],
)
def test_script_runs(script, options, printed):
    command = [sys.executable, str(BENCHMARKS / script), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert printed in done.stdout
